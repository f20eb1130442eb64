"""Which percentiles there are, and what a percentile is: nearest rank."""

from collections.abc import Sequence
from math import ceil
from typing import Final

QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


def nearest_rank(ordered: Sequence[float], q: float) -> float | None:
    """Return sorted values' `q` quantile (0 < q <= 1): the ceil(q n)-th smallest."""
    return ordered[max(1, ceil(q * len(ordered))) - 1] if ordered else None
