"""Axes: values where they belong, ticks that are round, in order and not too many."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.report.scales import (
    Scale,
    clock,
    decades,
    linear,
    short_duration,
    short_number,
    tail,
)

POSITIVE = st.floats(1e-6, 1e9)


def holds(scale: Scale, *values: float) -> None:
    """Assert what is true of every axis, and that the values lie on it."""
    places = [scale.at(value) for value, _ in scale.ticks]
    assert all(a < b for a, b in pairwise(places))
    assert 2 <= len(places) <= 12
    assert len({text for _, text in scale.ticks}) == len(places)
    for value in values:
        assert scale.low <= value <= scale.high * (1 + 1e-9)
        assert 0 <= scale.at(value) <= 1


@given(POSITIVE)
def test_linear_axes_begin_at_nothing(highest: float) -> None:
    """And end at a round number not far above the highest value."""
    scale = linear(highest, lambda v: f"{v:.12g}")
    holds(scale, highest)
    assert scale.low == 0
    assert scale.high <= 1.5 * highest


@given(st.lists(POSITIVE, min_size=1))
def test_logarithmic_axes_hold_their_values(values: list[float]) -> None:
    """From a hundredth to a million seconds, one value or many."""
    low, high = min(values), max(values)
    if high / low < 1e9:
        holds(decades(values, lambda v: f"{v:.12g}"), low, high)


@given(st.floats(0.1, 86400 * 7))
def test_time_axes_end_where_the_run_does(end_s: float) -> None:
    """Their ticks are what a clock is read by."""
    scale = clock(end_s)
    assert (scale.low, scale.high) == (0, end_s)
    assert 1 <= len(scale.ticks) <= 9
    assert scale.ticks[0][0] == 0


def test_each_nine_takes_the_same_room() -> None:
    """90 % lies half-way to 99 %."""
    scale = tail(high=0.99)
    assert [scale.at(share) for share in (0.0, 0.9, 0.99)] == pytest.approx([0, 0.5, 1])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (2e-5, "20 µs"), (0.02, "20 ms"), (0.25, "250 ms"), (2.5, "2.5 s"),
        (90, "90 s"), (150, "2.5 min"),
    ],
)  # fmt: skip
def test_durations_of_ticks(value: float, text: str) -> None:
    """In the unit that needs no zeros."""
    assert short_duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (12.5, "12.5"), (1500, "1.5k"), (1.1e6, "1.1M"), (2e9, "2G")],
)
def test_numbers_of_ticks(value: float, text: str) -> None:
    """With a letter for thousands."""
    assert short_number(value) == text
