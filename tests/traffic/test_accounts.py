"""Every planned request is in one state, however its process ended."""

from collections import Counter
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.traffic.accounts import UNSURE_S, Fate, Pulse, account
from loadstone.traffic.request import Request
from loadstone.traffic.share import Share, owners


def schedule(n: int) -> list[Request]:
    """Return a request each half second."""
    return [Request(i, i / 2, 10, 10) for i in range(n)]


@given(st.integers(0, 50), st.integers(1, 7))
def test_shares_are_the_whole_without_overlap(n: int, workers: int) -> None:
    """Each request has one owner, and no share is larger by more than one."""
    requests = schedule(n)
    shares = [Share(rank, workers).of(requests) for rank in range(workers)]
    assert sorted(r.index for share in shares for r in share) == list(range(n))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    for rank, share in enumerate(shares):
        assert set(owners(share, workers)) <= {rank}


@given(
    st.integers(0, 40),
    st.integers(1, 4),
    st.sets(st.integers(0, 39)),
    st.lists(st.tuples(st.floats(-3, 30), st.booleans()), max_size=4),
)
def test_every_request_has_one_account(
    n: int, workers: int, rows: set[int], lives: list[tuple[float, bool]]
) -> None:
    """In plan order; what has a row is recorded, whatever its process said."""
    requests = schedule(n)
    recorded = {f"{i:06d}": 0.0 for i in rows}
    pulses = [Pulse(rank, *life) for rank, life in enumerate(lives)]
    accounts = list(account(requests, recorded, pulses, workers=workers))
    assert [a.request for a in accounts] == requests
    for a in accounts:
        assert (a.fate is Fate.RECORDED) == (a.request.id in recorded)
    closed = {p.rank for p in pulses if p.closed}
    assert not any(a.fate is Fate.UNKNOWN and a.rank in closed for a in accounts)


def test_a_killed_process_leaves_what_was_due_unknown() -> None:
    """Last heard of at 3 s, so what was due by 5 s may have been sent; no later one."""
    requests = schedule(20)
    recorded = {r.id: 0.0 for r in requests[:4]}
    killed = [Pulse(0, 3.0)]
    fates = [a.fate for a in account(requests, recorded, killed, workers=1)]
    last = int((3.0 + UNSURE_S) * 2)
    assert requests[last].intended_s == 3.0 + UNSURE_S
    assert fates[:4] == [Fate.RECORDED] * 4
    assert set(fates[4 : last + 1]) == {Fate.UNKNOWN}
    assert set(fates[last + 1 :]) == {Fate.DROPPED}


def test_a_closed_share_leaves_nothing_unknown() -> None:
    """What the process did not send when it ended, it never sent."""
    requests = schedule(6)
    pulses = [Pulse(0, inf, closed=True), Pulse(1, 1.0)]
    counts: dict[int, Counter[Fate]] = {0: Counter(), 1: Counter()}
    for _, rank, fate in account(requests, {"000000"}, pulses, workers=2):
        counts[rank][fate] += 1
    assert counts[0] == {Fate.RECORDED: 1, Fate.DROPPED: 2}
    assert counts[1] == {Fate.UNKNOWN: 3}


def test_a_rank_that_never_gave_a_sign_sent_nothing() -> None:
    """It had not begun."""
    fates = {a.fate for a in account(schedule(4), {}, [], workers=1)}
    assert fates == {Fate.DROPPED}


@pytest.mark.parametrize(
    "content", [{}, {"rank": "x", "at_s": 1.0, "closed": False}, {"rank": 0}]
)
def test_what_is_no_pulse_is_refused(content: dict[str, object]) -> None:
    """A file that is damaged is not taken for a sign of life."""
    with pytest.raises((KeyError, ValueError)):
        Pulse.from_json(content)
