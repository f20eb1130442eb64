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
from .transfer import Written


class State(StrEnum):
    """Where a worker stands with its share."""

    AT_WORK = "at_work"
    HANDED_IN = "handed_in"
    """Its share ended and its totals are here."""
    LOST = "lost"
    REFUSED = "refused"
    """It could not carry out its order, and said why."""


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
    why: str = ""
    """What it refused its order for."""
    written: Written | None = None
    """Its rows; None until it said."""
    rows: Rows | None = None
    """Where they are now; None until that is settled."""

    @property
    def host(self) -> str:
        """Its host's name, which Locust puts before the id it draws."""
        return host_of(self.client_id)


@dataclass(frozen=True, slots=True)
class Late:
    """A worker that came when the shares were given."""

    host: str
    at_s: Seconds
    """When, since t0."""


def host_of(client_id: str) -> str:
    """Return the host in a client id of Locust's."""
    return client_id.rpartition("_")[0]


@dataclass(slots=True)
class Ledger:
    """The workers of one run by client id, in order of rank."""

    workers: dict[str, Worker] = field(default_factory=dict)
    late: dict[str, Late] = field(default_factory=dict)

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
        """Whose share was not sent to its end, by rank: lost, or refused."""
        ended = State.AT_WORK, State.HANDED_IN
        return [w for w in self.workers.values() if w.state not in ended]

    @property
    def all_rows_here(self) -> bool:
        """Whether the run's own folder has the rows of every worker."""
        return all(
            w.rows in (Rows.SHARED, Rows.COLLECTED) for w in self.workers.values()
        )

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

    def hand_in(self, client_id: str, written: Written) -> bool:
        """Note that a share has ended; False if it is not one, or had ended before."""
        worker = self.workers.get(client_id)
        if worker is None or worker.state is State.HANDED_IN:
            return False
        worker.returned |= worker.state is State.LOST
        worker.state, worker.written = State.HANDED_IN, written
        return True

    def refuse(self, client_id: str, why: str) -> Worker | None:
        """Note that a worker cannot do its share; None if it has none, or did it."""
        worker = self.workers.get(client_id)
        if worker is None or worker.state is State.HANDED_IN:
            return None
        worker.state, worker.why = State.REFUSED, why
        return worker

    def look(self, there: Iterable[str]) -> tuple[list[Worker], list[Worker]]:
        """Compare with who is there; return who is newly lost, and who is back."""
        present = set(there)
        gone = [w for w in self._in(State.AT_WORK) if w.client_id not in present]
        back = [w for w in self._in(State.LOST) if w.client_id in present]
        for worker in gone:
            worker.state = State.LOST
        for worker in back:
            worker.state, worker.returned = State.AT_WORK, True
        return gone, back

    def connect(self, client_id: str, at_s: Seconds) -> Late | None:
        """Note a worker that connects now; None if it has a share, or did so before."""
        if client_id in self.workers or client_id in self.late:
            return None
        newcomer = self.late[client_id] = Late(host_of(client_id), at_s)
        return newcomer

    def summary(self, shares: Mapping[int, Counter[Fate]]) -> dict[str, Any]:
        """Return the `distributed` block; `shares` has each rank's planned requests.

        They are empty under a closed loop, whose users ask when they are ready.
        """
        whole = sum(sum(share.values()) for share in shares.values())
        # A new process on the host of a lost worker is taken to be the same again.
        hosts = {worker.host for worker in self._in(State.LOST)}
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
                | ({"why": w.why} if w.why else {})
                for w in self.lost
            ],
            "late": [
                asdict(newcomer) | {"returned": newcomer.host in hosts}
                for newcomer in self.late.values()
            ],
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
        **_place(worker),
    }


def _place(worker: Worker) -> dict[str, str]:
    """Say where to look for rows that are on a disk of the worker's own."""
    if worker.rows is Rows.ELSEWHERE and worker.written is not None:
        return {"place": f"{worker.host}:{worker.written.path}"}
    return {}


def _share(share: Counter[Fate], whole: int) -> float | None:
    """Return a share's part of the planned requests; None without a schedule."""
    return sum(share.values()) / whole if whole else None
