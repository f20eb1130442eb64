"""The offset of another clock, and how wrong it can be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.clocks import RoundTrip, offset_of

WAYS = st.tuples(st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 60))


def trip(offset: float, there: float, back: float, asked: float) -> RoundTrip:
    """Return what we note of a message that takes so long there and back."""
    return RoundTrip(asked, asked + there + offset, asked + there + back)


def test_ways_of_equal_length_give_the_offset() -> None:
    """By hand: asked at 10.0, answered at 10.2, theirs showed 13.1 at 10.1."""
    found = offset_of([RoundTrip(10.0, 13.1, 10.2)])
    assert found == pytest.approx((3.0, 0.1))


@given(st.floats(-1e4, 1e4), st.lists(WAYS, min_size=1, max_size=8))
def test_the_offset_is_never_off_by_more_than_is_said(
    offset: float, ways: list[tuple[float, float, float]]
) -> None:
    """However lopsided the ways; and the quickest round trip is the one that counts."""
    trips = [trip(offset, *way) for way in ways]
    found = offset_of(trips)
    assert found is not None
    assert abs(found.offset_s - offset) <= found.uncertainty_s + 1e-9
    assert found.uncertainty_s == pytest.approx(min(t.took_s for t in trips) / 2)


def test_who_did_not_answer_has_no_offset() -> None:
    """Nothing is made up."""
    assert offset_of([]) is None
