"""What came of a run's plan, once it is over: totals, and an account of each request.

By rows where they are at hand, since they are the truth; else by the totals that the
workers reported.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import NamedTuple

from loadstone.traffic.accounts import Fate, Pulse, account
from loadstone.traffic.record import RequestRecord
from loadstone.traffic.request import Request
from loadstone.traffic.share import owners
from loadstone.units import Seconds

from .stats import ClientStats, Slice

Fates = dict[int, Counter[Fate]]
"""What became of the planned requests of each rank."""


class Settled(NamedTuple):
    """Final totals, and what became of the planned requests."""

    stats: ClientStats
    fates: Fates

    def count(self, fate: Fate) -> int:
        """Return how many planned requests have this fate, over all ranks."""
        return sum(counts[fate] for counts in self.fates.values())


def by_rows(
    requests: Sequence[Request],
    rows: Iterable[RequestRecord],
    pulses: Iterable[Pulse],
    *,
    ranks: Iterable[int],
    workers: int,
    arrivals_s: Seconds,
    stopped_s: Seconds = inf,
) -> Settled:
    """Count the rows, and what was due by `stopped_s` and has none.

    `ranks` are those whose shares the rows are of, `arrivals_s` is when arrivals end.
    """
    stats, fates = ClientStats(), {rank: Counter[Fate]() for rank in ranks}
    ended: dict[str, Seconds] = {}
    planned = {request.id for request in requests}
    for row in rows:
        stats.add(row)
        ended[row.id] = row.end_s
        if planned and row.id not in planned:  # what a flow asked besides
            stats.slice_of(row.scenario, row.tenant, row.stage).scheduled += 1
    for request, rank, fate in account(
        requests, ended, pulses, workers=workers, until=arrivals_s
    ):
        late = request.intended_s > stopped_s and fate is not Fate.RECORDED
        if late or rank not in fates:
            continue
        fates[rank][fate] += 1
        if fate is not Fate.UNDUE:
            part = stats.slice_of(request.scenario, request.tenant, request.stage)
            part.scheduled += 1
            part.dropped += fate is Fate.DROPPED
    return Settled(stats, fates)


def by_totals(
    requests: Sequence[Request],
    parts: Mapping[int, ClientStats],
    lives: Mapping[int, Seconds],
    *,
    stopped_s: Seconds = inf,
) -> Settled:
    """Sum the last totals of each rank, as far as it reported any.

    `lives` is up to when each rank may have sent, infinity for one that handed in: that
    one knows best what was due and what it dropped. Of a rank that is lost the plan
    tells how much was due, but not which requests ended: later turns of conversations,
    whose times nobody knows, are left out.
    """
    stats, fates = ClientStats(), {rank: Counter[Fate]() for rank in lives}
    for part in parts.values():
        stats.merge(part.snapshot())
    for whole in stats.slices.values():
        whole.scheduled = whole.dropped = whole.in_flight = 0
    planned, due = Counter[tuple[int, Slice]](), Counter[tuple[int, Slice]]()
    for request, rank in zip(requests, owners(requests, len(lives)), strict=True):
        if request.turn == 0 and request.intended_s <= stopped_s:
            key = rank, Slice(request.scenario, request.tenant, request.stage)
            planned[key] += 1
            due[key] += request.intended_s <= lives[rank]
    names = {(rank, name) for rank, part in parts.items() for name in part.slices}
    for rank, name in sorted(names | set(planned)):
        mine = parts[rank].slices.get(name) if rank in parts else None
        recorded = sum(mine.outcomes.values()) if mine else 0
        if lives[rank] == inf:
            unknown, dropped = 0, mine.dropped if mine else planned[rank, name]
        else:
            unknown = max(0, due[rank, name] - recorded)
            dropped = max(0, planned[rank, name] - recorded - unknown)
        fates[rank].update(
            {Fate.RECORDED: recorded, Fate.UNKNOWN: unknown, Fate.DROPPED: dropped}
        )
        whole = stats.slice_of(*name)
        whole.scheduled += recorded + unknown + dropped
        whole.dropped += dropped
    return Settled(stats, fates)
