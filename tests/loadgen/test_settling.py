"""What came of a plan: by rows and by totals the same, and nothing left out."""

from collections import Counter
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.settling import Settled, by_rows, by_totals
from loadgen.stats import ClientStats
from loadstone.traffic.accounts import UNSURE_S, Fate, Pulse
from loadstone.traffic.record import Outcome, RequestRecord
from loadstone.traffic.request import Request

N = 40
PLAN = [Request(i, i / 10, 1, 1, "chat" if i % 3 else "rag") for i in range(N)]
SENT = st.lists(st.booleans(), min_size=N, max_size=N)


def rows(sent: list[bool], heard_s: float = inf) -> list[RequestRecord]:
    """Return rows of what was sent; rank 1 was heard of until then."""
    return [
        RequestRecord(
            id=request.id,
            scenario=request.scenario,
            intended_s=request.intended_s,
            sent_s=request.intended_s,
            end_s=request.intended_s + 0.01,
            outcome=Outcome.OK,
            worker=request.index % 2,
        )
        for request, was in zip(PLAN, sent, strict=True)
        if was and not (request.index % 2 and request.intended_s > heard_s)
    ]


def parts(of: list[RequestRecord]) -> dict[int, ClientStats]:
    """Return each rank's totals as its session has them when it handed in."""
    found = {rank: ClientStats() for rank in (0, 1)}
    for row in of:
        found[row.worker].add(row)
    for request in PLAN:
        stats = found[request.index % 2]
        stats.slice_of(request.scenario, "default", "generate").scheduled += 1
    for stats in found.values():
        for part in stats.slices.values():
            part.dropped = part.scheduled - part.sent
    return found


def settled_by_rows(of: list[RequestRecord], second: Pulse) -> Settled:
    """Settle two ranks, the first of which ended well."""
    return by_rows(
        PLAN,
        of,
        [Pulse(0, inf, closed=True), second],
        ranks=(0, 1),
        workers=2,
        arrivals_s=inf,
    )


def counts(settled: Settled) -> dict[tuple[str, ...], tuple[int, int, int]]:
    """Return what was scheduled, sent and dropped of each slice."""
    return {
        tuple(name): (part.scheduled, part.sent, part.dropped)
        for name, part in settled.stats.slices.items()
    }


@given(SENT)
def test_totals_of_who_handed_in_are_those_of_their_rows(sent: list[bool]) -> None:
    """By slice and by rank."""
    seen = rows(sent)
    exact = settled_by_rows(seen, Pulse(1, inf, closed=True))
    totals = by_totals(PLAN, parts(seen), {0: inf, 1: inf})
    assert counts(totals) == counts(exact)
    # A counter that has a zero is equal to one that has none.
    assert totals.fates == exact.fates
    assert exact.stats.latencies() == totals.stats.latencies()


@given(SENT, st.floats(0, 5))
def test_a_lost_rank_s_plan_is_accounted_for_once(
    sent: list[bool], heard_s: float
) -> None:
    """Whichever way it is counted: recorded, unknown and dropped are the whole plan."""
    seen = rows(sent, heard_s)
    lost = parts(seen)
    exact = settled_by_rows(seen, Pulse(1, heard_s))
    totals = by_totals(PLAN, lost, {0: inf, 1: heard_s + UNSURE_S})
    for settled in (exact, totals):
        for rank in (0, 1):
            assert settled.fates[rank].total() == N / 2
        assert settled.count(Fate.RECORDED) == len(seen)
        assert settled.fates[0][Fate.UNKNOWN] == 0
        whole = settled.stats.whole()
        assert whole.scheduled == N
        assert whole.dropped == settled.count(Fate.DROPPED)
    assert totals.fates == exact.fates


def test_a_rank_that_never_reported_sent_nothing_that_is_known() -> None:
    """Its plan is unknown as far as it may have lived, and dropped from there on."""
    totals = by_totals(PLAN, {}, {0: 2.0, 1: -inf})
    assert totals.fates[0] == Counter({Fate.UNKNOWN: 11, Fate.DROPPED: 9})
    assert totals.fates[1] == Counter({Fate.DROPPED: 20})


@pytest.mark.parametrize("stopped_s", [0.95, inf])
def test_what_was_not_due_when_it_was_stopped_is_no_miss(stopped_s: float) -> None:
    """A run that is stopped after a second planned ten requests, and no more."""
    of = rows([True] * 5 + [False] * (N - 5))
    pulses = [Pulse(rank, inf, closed=True) for rank in (0, 1)]
    settled = by_rows(
        PLAN, of, pulses, ranks=(0, 1), workers=2, arrivals_s=inf, stopped_s=stopped_s
    )
    planned = 10 if stopped_s < inf else N
    whole = settled.stats.whole()
    assert (whole.scheduled, whole.sent, whole.dropped) == (planned, 5, planned - 5)


def test_a_worker_s_own_folder_is_settled_by_its_share() -> None:
    """The others' requests are not its to miss."""
    of = [row for row in rows([True] * N) if row.worker == 1]
    closed = [Pulse(1, inf, closed=True)]
    alone = by_rows(PLAN, of, closed, ranks=[1], workers=2, arrivals_s=inf)
    assert alone.fates == {1: Counter({Fate.RECORDED: N // 2})}
    assert alone.stats.whole().dropped == 0
