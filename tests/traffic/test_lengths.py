"""Length tables: the quantile function by hand, its mean, and tables that are none."""

from random import Random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.errors import CatalogError
from loadstone.traffic.lengths import Lengths

TABLE = Lengths((0.0, 0.5, 0.9, 1.0), (10, 20, 100, 100))


@pytest.mark.parametrize(
    ("level", "tokens"),
    [
        (0.0, 10),
        (0.25, 15),
        (0.5, 20),
        (0.6, 40),
        (0.7, 60),
        (0.9, 100),
        (0.95, 100),
        (1.0, 100),
    ],
)
def test_quantiles_by_hand(level: float, tokens: int) -> None:
    """Exact at the levels, a straight line between them."""
    assert TABLE.at(level) == tokens


def test_mean_by_hand() -> None:
    """0.5 x 15 + 0.4 x 60 + 0.1 x 100."""
    assert TABLE.mean == pytest.approx(41.5)


def test_draws_follow_the_table() -> None:
    """Their mean is the table's, a half is below the median, and the seed decides."""
    rng = Random(1)
    drawn = [TABLE.draw(rng) for _ in range(20_000)]
    assert fmean(drawn) == pytest.approx(41.5, rel=0.02)
    assert fmean(n < 20 for n in drawn) == pytest.approx(0.475, abs=0.02)
    assert (min(drawn), max(drawn)) == (10, 100)
    again = Random(1)
    assert drawn[:50] == [TABLE.draw(again) for _ in range(50)]


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_quantiles_never_fall(a: float, b: float) -> None:
    """And stay between the ends."""
    low, high = sorted((a, b))
    assert 10 <= TABLE.at(low) <= TABLE.at(high) <= 100


@pytest.mark.parametrize(
    ("levels", "tokens"),
    [
        ((), ()),
        ((0.0,), (5,)),
        ((0.0, 0.9), (1, 2)),
        ((0.1, 1.0), (1, 2)),
        ((0.0, 0.5, 0.5, 1.0), (1, 2, 3, 4)),
        ((0.0, 0.6, 0.5, 1.0), (1, 2, 3, 4)),
        ((0.0, 0.5, 1.0), (1, 3, 2)),
        ((0.0, 1.0), (0, 2)),
        ((0.0, 1.0), (1, 2, 3)),
        ((0.0, 0.5, 1.0), (1, 2)),
        ((0.0, 1.0), ()),
    ],
)
def test_tables_that_are_no_distribution_are_refused(
    levels: tuple[float, ...], tokens: tuple[int, ...]
) -> None:
    """Levels rise from 0 to 1, lengths never fall and are at least one token."""
    with pytest.raises(CatalogError, match="length table"):
        Lengths(levels, tokens)


def test_one_length_is_a_distribution() -> None:
    """All requests alike, of the least length there is."""
    table = Lengths((0.0, 1.0), (1, 1))
    assert (table.mean, table.draw(Random(0))) == (1.0, 1)
