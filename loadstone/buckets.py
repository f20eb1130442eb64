"""Counts in buckets: the two histograms of the house, both cheap to fill and to merge.

`BucketArray` has fixed upper bounds, as Prometheus wants them; a `TracedArray` also
keeps an example of each bucket. `LogHistogram` has buckets of constant relative width,
for percentiles of a stated error without choosing bounds.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from math import ceil, exp, log
from typing import Final, NamedTuple

GROWTH: Final = 1.02
"""Ratio of neighbouring `LogHistogram` bounds: a value is known to within 1 %."""
_PER_E: Final = 1.0 / log(GROWTH)
_LEAST: Final = 1e-9


class BucketArray:
    """A histogram over fixed upper bounds (`le`), the last one being +Inf.

    `counts[i]` holds the values in `(bounds[i-1], bounds[i]]`; they are not cumulative.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def __repr__(self) -> str:
        return f"<BucketArray n={self.count} sum={self.total:g} le={self.bounds[-1]:g}>"

    @property
    def count(self) -> int:
        """How many values were added."""
        return sum(self.counts)

    def add(self, value: float, weight: int = 1) -> None:
        """Count `value` `weight` times."""
        self.counts[bisect_left(self.bounds, value)] += weight
        self.total += value * weight

    def quantile(self, q: float) -> float | None:
        """Return the bound below which the nearest-rank `q` quantile lies.

        What lies beyond all bounds is given as the last one, as Prometheus does; None
        when empty.
        """
        rank = max(1, ceil(q * self.count))
        for bound, count in zip(self.bounds, self.counts, strict=False):
            rank -= count
            if rank <= 0:
                return bound
        return self.bounds[-1] if self.count else None

    def merge(self, counts: Sequence[int], total: float) -> None:
        """Add another's counts and sum; raises `ValueError` if the shapes differ."""
        if len(counts) != len(self.counts):
            raise ValueError(
                f"cannot merge {len(counts)} buckets into {len(self.counts)}"
            )
        self.counts = [a + b for a, b in zip(self.counts, counts, strict=True)]
        self.total += total


class Exemplar(NamedTuple):
    """One value of a bucket and the trace it belongs to."""

    trace_id: str
    value: float
    at: float
    """Seconds since the epoch."""


class TracedArray(BucketArray):
    """A `BucketArray` that keeps the newest exemplar of each bucket."""

    __slots__ = ("exemplars",)

    def __init__(self, bounds: Sequence[float]) -> None:
        super().__init__(bounds)
        self.exemplars: dict[int, Exemplar] = {}
        """By index of the bucket."""

    def trace(self, exemplar: Exemplar) -> None:
        """Remember a value that was added as its bucket's example."""
        self.exemplars[bisect_left(self.bounds, exemplar.value)] = exemplar


def bucket_of(value: float) -> int:
    """Return the index of a value's 2 %-wide bucket; zero and below share one."""
    return ceil(log(max(value, _LEAST)) * _PER_E)


def bucket_value(index: int) -> float:
    """Return the value that stands for a bucket: the geometric middle of its bounds."""
    return exp((index - 0.5) / _PER_E)


class LogHistogram:
    """A sparse histogram with buckets 2 % wide: percentiles are right to within 1 %."""

    __slots__ = ("counts", "total")

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()) -> None:
        self.counts: dict[int, int] = {}
        self.total = 0.0
        self.merge(pairs)

    def __repr__(self) -> str:
        return f"<LogHistogram n={self.count} in {len(self.counts)} buckets>"

    @property
    def count(self) -> int:
        """How many values were added."""
        return sum(self.counts.values())

    def add(self, value: float, weight: int = 1) -> None:
        """Count `value` `weight` times."""
        index = bucket_of(value)
        self.counts[index] = self.counts.get(index, 0) + weight
        self.total += value * weight

    def merge(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Add `(bucket, count)` pairs, as `pairs()` gives them."""
        for index, count in pairs:
            self.counts[index] = self.counts.get(index, 0) + count
            self.total += bucket_value(index) * count

    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Return `(bucket, count)` in rising order of value."""
        return tuple(sorted(self.counts.items()))

    def quantile(self, q: float) -> float | None:
        """Return the nearest-rank `q` quantile (0 < q <= 1), or None when empty."""
        rank = max(1, ceil(q * self.count))
        for index, count in self.pairs():
            rank -= count
            if rank <= 0:
                return bucket_value(index)
        return None
