"""Conversations: what is due once an answer ended, live and in virtual time alike."""

from math import inf
from operator import itemgetter

from hypothesis import given
from hypothesis import strategies as st

from loadstone.traffic.accounts import Fate, Pulse, account
from loadstone.traffic.journey import Journey, Journeys, journeys_of
from loadstone.traffic.request import Request
from loadstone.traffic.share import Share
from loadstone.traffic.source import Scheduled


def conversation(index: int, due: float, *turns: int, think: float = 1.0) -> Journey:
    """Return a conversation whose turns have so many requests side by side."""
    plan = [
        (turn, think if turn else 0.0) for turn, n in enumerate(turns) for _ in range(n)
    ]
    return tuple(
        Request(index, due, 10, 5, conversation=f"{index:06d}", turn=turn,
                think_s=pause, part=part)
        for part, (turn, pause) in enumerate(plan)
    )  # fmt: skip


def test_a_turn_waits_for_all_of_the_one_before() -> None:
    """One, then two side by side, then one, each a second after the last answer."""
    journeys = Journeys(until=100.0)
    first = journeys.begin(conversation(0, 2.0, 1, 2, 1))
    assert [r.part for r in first] == [0]
    beside = journeys.ended(first[0], 5.0)
    assert [(r.part, r.intended_s) for r in beside] == [(1, 6.0), (2, 6.0)]
    assert journeys.ended(beside[1], 7.0) == ()
    (last,) = journeys.ended(beside[0], 9.5)
    assert (last.part, last.intended_s) == (3, 10.5)
    assert journeys.under_way(last)
    assert journeys.ended(last, 11.0) == ()
    assert not journeys.under_way(last)
    assert journeys.undue == 0


def test_what_is_due_after_the_end_is_never_asked_and_is_counted() -> None:
    """At the end exactly is too late, as for arrivals; a moment before is not."""
    for until, asked, undue in ((6.0, 0, 3), (6.001, 2, 0)):
        journeys = Journeys(until)
        first = journeys.begin(conversation(0, 2.0, 1, 2, 1))
        assert len(journeys.ended(first[0], 5.0)) == asked
        assert journeys.undue == undue


def test_a_request_that_stands_alone_brings_nothing_about() -> None:
    """And is a journey as soon as it is seen."""
    journeys = Journeys(until=10.0)
    one = Request(0, 1.0, 5, 5)
    assert journeys.begin((one,)) == (one,)
    assert journeys.ended(one, 2.0) == ()
    drawn = []

    def endless() -> object:
        for i in range(1_000_000):
            drawn.append(i)
            yield Request(i, float(i), 5, 5)

    assert next(journeys_of(endless())) == (Request(0, 0.0, 5, 5),)
    assert drawn == [0]


shapes = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=4), max_size=12)


@given(shapes, st.integers(1, 4))
def test_a_conversation_is_of_one_share(turns: list[list[int]], workers: int) -> None:
    """Over all ranks the shares are the whole, in order."""
    requests = [r for i, t in enumerate(turns) for r in conversation(i, float(i), *t)]
    shares = [Share(rank, workers).of(requests) for rank in range(workers)]
    assert sorted(r.id for s in shares for r in s) == [r.id for r in requests]
    owners: dict[str, set[int]] = {}
    for rank, share in enumerate(shares):
        for request in share:
            owners.setdefault(request.conversation, set()).add(rank)
    assert all(len(ranks) == 1 for ranks in owners.values())
    assert list(journeys_of(requests)) == [
        conversation(i, float(i), *t) for i, t in enumerate(turns)
    ]


@given(shapes, st.floats(0.1, 9.0), st.floats(0.0, 3.0))
def test_virtual_source_and_accounts_agree(
    turns: list[list[int]], service: float, think: float
) -> None:
    """Each request is asked once, in order of time; the rest is undue by its rows."""
    requests = [
        r for i, t in enumerate(turns)
        for r in conversation(i, float(i), *t, think=think)
    ]  # fmt: skip
    source, until = Scheduled(iter(requests), 12.0), 12.0
    ended: dict[str, float] = {}
    running: list[tuple[float, Request]] = []
    times = []
    while running or source.next_at < inf:
        if running and min(running, key=itemgetter(0))[0] < source.next_at:
            at, request = min(running, key=itemgetter(0))
            running.remove((at, request))
            ended[request.id] = at
            source.ended(request, at)
        else:
            due = source.next_at
            request = source.take()
            times.append(due)
            assert request.intended_s == due
            running.append((due + service, request))
    assert times == sorted(times)
    fates = list(
        account(requests, ended, [Pulse(0, inf, closed=True)], workers=1, until=until)
    )
    assert {a.fate for a in fates} <= {Fate.RECORDED, Fate.UNDUE}
    assert source.undue == sum(a.fate is Fate.UNDUE for a in fates)


def test_a_turn_that_was_due_and_not_sent_is_dropped() -> None:
    """By the end of the turn before it: no more is known of it than that."""
    requests = list(conversation(0, 0.0, 1, 1))
    pulse = [Pulse(0, inf, closed=True)]

    def fates(end: float) -> list[Fate]:
        told = account(requests, {"000000": end}, pulse, workers=1, until=10.0)
        return [a.fate for a in told]

    assert fates(8.9) == [Fate.RECORDED, Fate.DROPPED]
    assert fates(9.0) == [Fate.RECORDED, Fate.UNDUE]
    lost = account(requests, {"000000": 8.0}, [Pulse(0, 7.5)], workers=1, until=10.0)
    assert [a.fate for a in lost] == [Fate.RECORDED, Fate.UNKNOWN]


def test_numbers_of_a_conversation_sort_in_order() -> None:
    """Also past nine, and with what a flow asks besides."""
    ids = [Request(3, 0.0, 1, 1, part=i).id for i in range(12)]
    assert ids == sorted(ids)
    assert ids[:2] == ["000003", "000003.01"]
    assert Request(3, 0.0, 1, 1, part=1, extra=2).id == "000003.01-2"
