"""Frontier and knee: what no point beats, in whatever units."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.traffic.pareto import Point, dominates, frontier, knee

# Halves and wholes: products and scalings by powers of two are exact.
VALUES = st.integers(1, 60).map(lambda n: n / 2)
POINTS = st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=25)


@given(POINTS)
def test_the_frontier_is_what_nothing_dominates(points: list[Point]) -> None:
    """All of it, by the definition; whatever is not on it is beaten by some of it."""
    on = frontier(points)
    assert sorted(on) == [
        i for i, p in enumerate(points) if not any(dominates(q, p) for q in points)
    ]
    for i in set(range(len(points))) - set(on):
        assert any(dominates(points[j], points[i]) for j in on)
    assert [points[i][0] for i in on] == sorted(
        (points[i][0] for i in on), reverse=True
    )


@given(POINTS)
def test_the_knee_is_on_the_frontier(points: list[Point]) -> None:
    """And no point has a larger product."""
    at = knee(points)
    assert at in frontier(points)
    assert at is not None
    assert points[at][0] * points[at][1] == max(x * y for x, y in points)


@given(POINTS, st.integers(-8, 8), st.integers(-8, 8))
def test_units_move_neither(points: list[Point], x: int, y: int) -> None:
    """Tokens or kilotokens, a GPU or a rack: the same steps."""
    scaled = [(a * 2.0**x, b * 2.0**y) for a, b in points]
    assert frontier(scaled) == frontier(points)
    assert knee(scaled) == knee(points)


@given(POINTS, st.tuples(VALUES, VALUES))
def test_a_point_that_is_beaten_changes_nothing(
    points: list[Point], more: Point
) -> None:
    """Nor does a step further out move the knee, unless it is a better one."""
    best = knee(points)
    assert best is not None
    if any(dominates(p, more) for p in points):
        assert frontier([*points, more]) == frontier(points)
    if more[0] * more[1] < points[best][0] * points[best][1]:
        assert knee([*points, more]) == best


@pytest.mark.parametrize(
    ("curve", "expected"),
    [(lambda x: 10.0 - x, 5.0), (lambda x: 36.0 / (x + 2.0), 9.0)],
)
def test_knees_by_hand(curve: Callable[[float], float], expected: float) -> None:
    """Of x (10 - x) it is at 5; 36 x / (x + 2) only grows, so at the end."""
    points = [(float(x), curve(x)) for x in range(1, 10)]
    at = knee(points)
    assert at is not None
    assert points[at][0] == expected


def test_nothing_has_no_knee() -> None:
    """And no frontier; a machine that gives nothing has both."""
    assert (knee([]), frontier([])) == (None, [])
    assert knee([(0.0, 0.0), (1.0, 0.0)]) == 1
