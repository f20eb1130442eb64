"""The master's book on the workers of one run: who has which share, and who is left.

Pure bookkeeping, kept by client id. A share is given once, at the start, and never
again: a worker that is lost leaves a hole that is stated, since to send its requests
later would be another schedule, and to send them twice would count them twice.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final

from loadstone.traffic.accounts import Fate
from loadstone.units import Seconds

from .clocks import Offset


class State(StrEnum):
    """Where a worker stands with its share."""

    AT_WORK = "at_work"
    HANDED_IN = "handed_in"
    """Its share ended and its totals are here."""
    LOST = "lost"


class Rows(StrEnum):
    """Where a worker's rows are, as far as the master knows."""

    SHARED = "shared"
    """It wrote them into the run's own folder."""
    COLLECTED = "collected"
    """It sent them to the master at the end."""
    ELSEWHERE = "elsewhere"
    """On its own disk."""


@dataclass(slots=True)
class Worker:
    """One worker that has a share."""

    rank: int
    client_id: str
    clock: Offset | None = None
    """Its clock minus the master's; None if it did not answer in time."""
    state: State = State.AT_WORK
    heard_s: Seconds | None = None
    """When it was last heard of, since t0."""
    returned: bool = False
    """Whether it was lost in between."""
    rows: Rows | None = None
    """None until it said."""
    place: str = ""
    """Host and file of rows that are elsewhere."""

    @property
    def host(self) -> str:
        """Its host's name, which Locust puts before the id it draws."""
        return host_of(self.client_id)


@dataclass(frozen=True, slots=True)
class Late:
    """A worker that came when the shares were given."""

    host: str
    at_s: Seconds
    returned: bool
    """Whether a worker was lost on that host before: it may be the same again."""


def host_of(client_id: str) -> str:
    """Return the host in a client id of Locust's."""
    return client_id.rpartition("_")[0]


@dataclass(slots=True)
class Ledger:
    """The workers of one run by client id, in order of rank."""

    workers: dict[str, Worker] = field(default_factory=dict)
    late: list[Late] = field(default_factory=list)

    @classmethod
    def of(cls, clocks: Mapping[str, Offset | None]) -> "Ledger":
        """Give each client id a rank, in their order."""
        ranked = enumerate(clocks.items())
        return cls({name: Worker(rank, name, clock) for rank, (name, clock) in ranked})

    @property
    def waited_for(self) -> set[str]:
        """Who is still at work."""
        return {w.client_id for w in self._in(State.AT_WORK)}

    @property
    def lost(self) -> list[Worker]:
        """Who is lost, by rank."""
        return self._in(State.LOST)

    @property
    def reported(self) -> int:
        """How many handed in."""
        return len(self._in(State.HANDED_IN))

    def _in(self, state: State) -> list[Worker]:
        return [w for w in self.workers.values() if w.state is state]

    def heard(self, client_id: str, at_s: Seconds) -> None:
        """Note a sign of life of a worker that has a share."""
        if (worker := self.workers.get(client_id)) is not None:
            worker.heard_s = at_s

    def hand_in(self, client_id: str) -> bool:
        """Note that a share has ended; False if it is not one, or had ended before."""
        worker = self.workers.get(client_id)
        if worker is None or worker.state is State.HANDED_IN:
            return False
        worker.returned |= worker.state is State.LOST
        worker.state = State.HANDED_IN
        return True

    def look(self, there: Iterable[str]) -> tuple[list[Worker], list[Worker]]:
        """Compare with who is there; return who is newly lost, and who is back."""
        present = set(there)
        gone = [w for w in self._in(State.AT_WORK) if w.client_id not in present]
        back = [w for w in self.lost if w.client_id in present]
        for worker in gone:
            worker.state = State.LOST
        for worker in back:
            worker.state, worker.returned = State.AT_WORK, True
        return gone, back

    def connect(self, client_id: str, at_s: Seconds) -> Late | None:
        """Note a worker that connects now; None if it has a share."""
        if client_id in self.workers:
            return None
        host = host_of(client_id)
        newcomer = Late(host, at_s, any(w.host == host for w in self.lost))
        self.late.append(newcomer)
        return newcomer

    def summary(self, shares: Mapping[int, Counter[Fate]]) -> dict[str, Any]:
        """Return the `distributed` block; `shares` has each rank's planned requests.

        They are empty under a closed loop, whose users ask when they are ready.
        """
        whole = sum(sum(share.values()) for share in shares.values())
        return {
            "expected": len(self.workers),
            "reported": self.reported,
            "workers": [
                _line(w, shares.get(w.rank, Counter()), whole)
                for w in self.workers.values()
            ],
            "lost": [
                {"rank": w.rank, "host": w.host, "heard_s": w.heard_s}
                | {"share": _share(shares.get(w.rank, Counter()), whole)}
                for w in self.lost
            ],
            "late": [asdict(newcomer) for newcomer in self.late],
        }


_FATES: Final = tuple(Fate)


def _line(worker: Worker, share: Counter[Fate], whole: int) -> dict[str, Any]:
    clock = worker.clock
    return {
        "rank": worker.rank,
        "host": worker.host,
        "state": worker.state.value,
        "returned": worker.returned,
        "heard_s": worker.heard_s,
        "share": _share(share, whole),
        "planned": sum(share.values()) if whole else None,
        **{fate.value: share[fate] if whole else None for fate in _FATES},
        "clock_offset_s": clock and clock.offset_s,
        "clock_uncertainty_s": clock and clock.uncertainty_s,
        "rows": worker.rows and worker.rows.value,
        **({"place": worker.place} if worker.place else {}),
    }


def _share(share: Counter[Fate], whole: int) -> float | None:
    """Return a share's part of the planned requests; None without a schedule."""
    return sum(share.values()) / whole if whole else None
