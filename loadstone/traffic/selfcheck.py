"""The selfcheck's ramp: which loads to try, and what their rows say of the client.

Each step is a run against a server of known truth. There are two ramps, one almost only
of events (long answers, with a few short ones among them as probes), one almost only of
requests (short answers).
"""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil, inf, sqrt
from random import Random
from typing import Any, Final, Self

from ..units import MS, Seconds, Tokens
from .arrivals import poisson
from .machine import (
    EVENTS,
    MAX_TPOT_ERROR,
    MAX_TTFT_ERROR_S,
    REQUESTS,
    Bracket,
    Load,
    loads_of,
)
from .record import RequestRecord
from .summary import Stats, describe
from .trace import TraceRow
from .verdict import VITALS

PROBES_PER_S: Final = 50.0
"""Short answers among the long ones: each is a sample of both errors."""
SHORT: Final[Tokens] = 4
"""Of an answer: its TPOT is the hardest to read right."""
PROMPT: Final[Tokens] = 16
_SHORTEST_STEP_S: Final[Seconds] = 0.019
"""No step of the mock's default machine is shorter, so a long answer lasts a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long a selfcheck takes over what."""

    warmup_s: Seconds
    """In which the long answers begin; what is sent in it is not measured."""
    measured_s: Seconds
    precision: float
    """The factor between the load that is held and the next that is not."""
    budget_s: Seconds
    """When this is over, nothing more is tried."""

    @property
    def step_s(self) -> Seconds:
        """How long requests arrive in a step."""
        return self.warmup_s + self.measured_s


THOROUGH: Final = Pace(warmup_s=1.0, measured_s=3.0, precision=1.25, budget_s=80.0)
QUICK: Final = Pace(warmup_s=0.5, measured_s=1.5, precision=2.0, budget_s=30.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What a ramp raises: streams of events, or requests per second; and its bounds."""

    limit: str
    unit: str
    low: float
    start: float
    high: float
    until: float
    """The share of the budget at which the ramp ends; the next has what is left."""


AXES: Final = (
    Axis(limit=EVENTS, unit="streams", low=10, start=100, high=6400, until=0.6),
    Axis(limit=REQUESTS, unit="requests/s", low=5, start=50, high=3200, until=1.0),
)


def arrivals(axis: Axis, asked: float, pace: Pace, rng: Random) -> list[TraceRow]:
    """Return the requests of a step, in order of time."""
    if axis.limit == REQUESTS:
        return list(_short(asked, 0.0, pace.step_s, rng))
    streams, tokens = round(asked), ceil(pace.step_s / _SHORTEST_STEP_S)
    return [
        *(
            TraceRow(i / streams * pace.warmup_s, PROMPT, tokens)
            for i in range(streams)
        ),
        *_short(PROBES_PER_S, pace.warmup_s, pace.step_s, rng),
    ]


def _short(
    rate: float, begin: Seconds, end: Seconds, rng: Random
) -> Iterator[TraceRow]:
    for point in poisson(rng):
        if (at := begin + point / rate) >= end:
            return
        yield TraceRow(at, PROMPT, SHORT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A load that was tried, and how far the client's readings were off the truth."""

    axis: Axis
    asked: float
    load: Load
    ttft_error_s: Stats
    tpot_error: Stats
    unanswered: int
    """Requests that failed, were refused, or never ended."""
    vitals: Mapping[str, float]
    """The client's shares of the time, by the names in `verdict.VITALS`."""
    mock_lag_p99_s: Seconds | None
    """How late the server of known truth was itself."""

    @classmethod
    def of(
        cls, axis: Axis, asked: float, rows: Sequence[RequestRecord],
        instrument: Mapping[str, Any],
    ) -> Self:  # fmt: skip
        """Measure a step by its rows and by its summary's `instrument`."""
        read = [row for row in rows if row.ok and not row.warmup]
        ttft = (abs(e) for row in read if (e := row.ttft_error_s) is not None)
        tpot = (abs(e) for row in read if (e := row.tpot_error) is not None)
        return cls(
            axis=axis,
            asked=asked,
            load=next(iter(loads_of(rows)), Load(0.0, 0.0)),
            ttft_error_s=describe(ttft),
            tpot_error=describe(tpot),
            unanswered=sum(not row.ok for row in rows),
            vitals={name: instrument[name] for name in VITALS if name in instrument},
            mock_lag_p99_s=instrument["mock_lag_s"]["p99"],
        )

    @property
    def faults(self) -> list[str]:
        """Why the load is beyond the machine; empty where it was read right."""
        ttft, tpot = self.ttft_error_s["p99"], self.tpot_error["p99"]
        found = []
        if ttft is None or tpot is None:
            found.append("nothing was read")
        if ttft is not None and ttft > MAX_TTFT_ERROR_S:
            found.append(f"TTFT off by {ttft / MS:.1f} ms")
        if tpot is not None and tpot > MAX_TPOT_ERROR:
            found.append(f"TPOT off by {tpot:.1%}")
        if self.unanswered:
            found.append(f"{self.unanswered} requests not answered")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        values = asdict(self)
        axis = values.pop("axis")
        return {"limit": axis["limit"], **values, "faults": self.faults}


Ramp = Generator[float, bool, None]
"""Yields a load to try and is sent whether it was held."""


def ramp(start: float, *, low: float, high: float, precision: float) -> Ramp:
    """Go up from `start` in fours while a load is held, or down; then close in.

    Ends when what is held and what is not are `precision` apart, as a factor, or at
    `low` or `high`. A load that was not held is tried once more, because a stall that
    is not the load's may fall on any one step.
    """
    held, missed, load = 0.0, inf, start
    while True:
        if (yield load) or (yield load):
            held = load
        else:
            missed = load
        if held == high or missed == low or missed <= held * precision:
            return
        if missed == inf:
            load = min(4 * held, high)
        elif held == 0.0:
            load = max(missed / 4, low)
        else:
            load = sqrt(held * missed)


def bracket(axis: Axis, steps: Iterable[Step]) -> Bracket:
    """Return what a ramp found, in the rates that were measured.

    A load is held if any of its steps was. Nothing is known where nothing was tried.
    """
    rates: dict[float, float] = {}
    held: set[float] = set()
    for step in steps:
        if step.axis == axis and step.asked not in held:
            rates[step.asked] = asdict(step.load)[axis.limit]
            if not step.faults:
                held.add(step.asked)
    best = max(held, default=0.0)
    above = min((asked for asked in rates if asked > best), default=None)
    if above is None:
        return Bracket(rates.get(best), None)
    # Beyond its limit a client may deliver less than at it.
    return Bracket(rates.get(best), max(rates[above], rates.get(best, 0.0)))
