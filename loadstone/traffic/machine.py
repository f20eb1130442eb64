"""What a machine can measure: its selfcheck profile, and how a run's load stands to it.

The client spends its time on two things, events that it reads and requests that it
makes, and each has a limit. What both take of the one event loop adds up: a load of
half the limit of each is at its limit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from ..units import MS
from .record import RequestRecord
from .steady import Spans

MAX_TTFT_ERROR_S: Final = 0.002
"""p99 of the size of the TTFT error from which on a load is beyond the machine."""
MAX_TPOT_ERROR: Final = 0.05
"""The same of the TPOT error, as a share of the true TPOT."""
WITHIN: Final = f"{MAX_TTFT_ERROR_S / MS:g} ms of TTFT and {MAX_TPOT_ERROR:.0%} of TPOT"
EVENTS, REQUESTS = "events_per_s", "requests_per_s"
LIMITS: Final = {EVENTS: "events/s", REQUESTS: "requests/s"}
"""The two limits, and their units."""
LEAST_SPAN_S: Final = 1.0
"""No rate is told of less than a second."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one process has to do: content events to read, requests to send."""

    events_per_s: float
    requests_per_s: float

    def __str__(self) -> str:
        events, requests = self.events_per_s, self.requests_per_s
        return f"{events:,.0f} events/s and {requests:,.1f} requests/s"


def loads_of(rows: Iterable[RequestRecord]) -> list[Load]:
    """Return each worker's load: its rates without ramp and drain, as `steady` has."""
    events: dict[int, Spans] = {}
    sends: dict[int, Spans] = {}
    for row in rows:
        sends.setdefault(row.worker, Spans()).add(row.sent_s, row.sent_s, 1)
        if row.first_s is not None and row.last_s is not None:
            answers = events.setdefault(row.worker, Spans())
            answers.add(row.first_s, row.last_s, row.events)
    return [
        Load(_rate(events.get(worker, Spans())), _rate(sent))
        for worker, sent in sorted(sends.items())
    ]


def _rate(spans: Spans) -> float:
    return min(spans.rate() or 0.0, spans.total / LEAST_SPAN_S)


@dataclass(frozen=True, slots=True)
class Bracket:
    """The highest rate that was read right, and the next one that was not.

    `held` is None where even the least that was tried was too much, `missed` where the
    most that was tried was not.
    """

    held: float | None
    missed: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a profile is of; on another machine or version it says nothing."""

    cpu: str
    cores: int
    """That the process may use."""
    system: str
    python: str
    loadstone: str

    def differences(self, other: "Machine") -> list[str]:
        """Name what differs, as `cores 2, here 4`."""
        there, here = asdict(self), asdict(other)
        return [f"{k} {there[k]}, here {here[k]}" for k in there if there[k] != here[k]]


@dataclass(frozen=True, slots=True)
class Profile:
    """What a selfcheck found, and on what; `made` is its date in ISO 8601."""

    machine: Machine
    made: str
    limits: Mapping[str, Bracket]

    def limit(self, name: str) -> float | None:
        """Return the rate of `LIMITS` from which on it is too much, if it was found."""
        bracket = self.limits[name]
        return bracket.held if bracket.missed is not None else None

    def share(self, load: Load) -> float:
        """Return what part of the machine's limits a load takes; above 1 it is beyond.

        A limit that was not found limits nothing.
        """
        asked: dict[str, float] = asdict(load)
        shares = (
            asked[name] / limit
            for name in LIMITS
            if (limit := self.limit(name)) is not None
        )
        return sum(shares, 0.0)

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises `KeyError`, `TypeError` or `ValueError` for anything else.
        """
        limits = {name: Bracket(**document["limits"][name]) for name in LIMITS}
        for bracket in limits.values():
            if bracket.missed is not None and not (bracket.held or 0.0) > 0.0:
                raise ValueError("a limit is more than 0")
        return cls(Machine(**document["machine"]), str(document["made"]), limits)


@dataclass(frozen=True, slots=True)
class Standing:
    """The profile that a run is judged by, or why there is none."""

    path: str
    profile: Profile | None
    absent: str = ""

    def judge(self, loads: Iterable[Load]) -> tuple[dict[str, Any], str | None]:
        """Return what the summary tells, and why the load is beyond the machine.

        Of several processes the one with the most to do is judged. The reason is None
        where the load is within the limits, or where there is no profile.
        """
        if self.profile is None:
            return {"profile": None, "absent": self.absent}, None
        share = self.profile.share
        most = max(loads, key=share, default=Load(0.0, 0.0))
        told = {
            "profile": self.path,
            "made": self.profile.made,
            "limits": {k: asdict(v) for k, v in self.profile.limits.items()},
            "load": asdict(most),
            "share": share(most),
        }
        if share(most) <= 1.0:
            return told, None
        limits = " or ".join(
            f"{limit:,.0f} {unit}"
            for name, unit in LIMITS.items()
            if (limit := self.profile.limit(name)) is not None
        )
        return told, (
            f"{most} are {share(most):.1f} times what a process reads within {WITHIN}"
            f" on this machine: {limits}, by {self.path}"
        )
