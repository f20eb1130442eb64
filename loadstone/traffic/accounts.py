"""What became of each planned request, also where a process did not live to tell.

A process leaves its rows and, each second, a sign of life (`Pulse`). By these every
request of a schedule has one `Fate`, whether the run ended well, lost a worker or was
killed: nothing is counted twice, and nothing is left out.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from math import inf
from typing import Any, Final, NamedTuple, Self

from ..units import Seconds
from .journey import Journey, journeys_of
from .request import Request
from .share import owners

PULSE_EVERY_S: Final = 1.0
"""Between two signs of life."""
UNSURE_S: Final = 2 * PULSE_EVERY_S
"""How long after the last sign of life a request may still have been sent: the next
sign may have been late."""


class Fate(StrEnum):
    """What became of a planned request."""

    RECORDED = "recorded"
    """It has a row, so it was sent and has an outcome."""
    DROPPED = "dropped"
    """It was never sent."""
    UNKNOWN = "unknown"
    """It was due while its process may have lived, and has no row: it waited, or was in
    flight, or ended within the last second."""
    UNDUE = "undue"
    """It is of a later turn that was not due before the arrivals' end, so that nobody
    meant to send it in this run."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """A process's last sign of life: every request that ended by `at_s` has a row.

    `closed` says that the process ended its share itself, so that what has no row was
    not sent.
    """

    rank: int
    at_s: Seconds
    """Since t0."""
    closed: bool = False

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read it; raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        return cls(
            int(content["rank"]), float(content["at_s"]), bool(content["closed"])
        )


class Account(NamedTuple):
    """A planned request, the rank whose it was, and what became of it."""

    request: Request
    rank: int
    fate: Fate


def account(
    requests: Iterable[Request],
    ended: Mapping[str, Seconds],
    pulses: Iterable[Pulse],
    *,
    workers: int,
    until: Seconds = inf,
) -> Iterator[Account]:
    """Yield the account of each request of a schedule.

    `ended` are the ids that have rows, with their ends. A rank without a pulse never
    began. Turns that are due at `until` or later are undue.
    """
    alive = {p.rank: -inf if p.closed else p.at_s + UNSURE_S for p in pulses}
    for journey in journeys_of(requests):
        rank = next(owners(journey, workers))
        due: Seconds | None = journey[0].intended_s
        before: Journey = ()
        for _, turn in groupby(journey, key=lambda request: request.turn):
            together = tuple(turn)
            if before:
                due = _due_after(before, together[0].think_s, ended)
            for request in together:
                if request.id in ended:
                    fate = Fate.RECORDED
                elif before and (due is None or due >= until):
                    fate = Fate.UNDUE
                else:
                    lived = due is not None and due <= alive.get(rank, -inf)
                    fate = Fate.UNKNOWN if lived else Fate.DROPPED
                yield Account(request, rank, fate)
            before = together


def _due_after(
    before: Journey, think_s: Seconds, ended: Mapping[str, Seconds]
) -> Seconds | None:
    """Return when a turn was due; None if the one before it has not ended."""
    if not all(request.id in ended for request in before):
        return None
    return max(ended[request.id] for request in before) + think_s
