"""Which percentiles there are, what one is (nearest rank), and when it is one."""

from collections.abc import Sequence
from math import ceil
from typing import Final

QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
LEAST: Final = {"p50": 2, "p90": 10, "p95": 20, "p99": 100}
"""Samples below which a percentile is not told: n (1 - q) < 1, so that by expectation
not one lies above it, and nearest rank only repeats the maximum."""


def nearest_rank(ordered: Sequence[float], q: float) -> float | None:
    """Return sorted values' `q` quantile (0 < q <= 1): the ceil(q n)-th smallest."""
    return ordered[max(1, ceil(q * len(ordered))) - 1] if ordered else None
