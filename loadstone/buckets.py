"""Counts in buckets: the two histograms of the house, both cheap to fill and to merge.

`BucketArray` has fixed upper bounds, as Prometheus wants them; a `TracedArray` also
keeps an example of each bucket. `LogHistogram` has buckets of constant relative width,
for percentiles of a stated error without choosing bounds.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import ceil, log
from typing import Final, NamedTuple

from ddsketch.mapping import LogarithmicMapping

GROWTH: Final = 1.02
"""Ratio of neighbouring `LogHistogram` bounds: a value is known to within 1 %."""
_MAPPING: Final = LogarithmicMapping.from_gamma_offset(GROWTH, 0.0)
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
    """Return the index of a value's 2 %-wide bucket; zero and below share one.

    It is `DDSketch`'s logarithmic mapping, in one expression: once per token is often.
    """
    return ceil(log(max(value, _LEAST)) * _PER_E)


@lru_cache(1 << 12)
def bucket_value(index: int) -> float:
    """Return the value that stands for a bucket: none in it is further off than 1 %."""
    value: float = _MAPPING.value(index)
    return value


class LogHistogram:
    """A histogram with buckets 2 % wide: percentiles are right to within 1 %.

    It is a DDSketch (Masson, Rim and Lee, VLDB 2019) whose buckets are never collapsed,
    so merging is exact: parts that are merged have the counts of one that saw all. A
    quantile is a nearest rank, as everywhere here; `DDSketch.get_quantile_value` takes
    the one below. The counts are a dict, since the library's store takes eight times as
    long to add to, and a request adds to seven.
    """

    __slots__ = ("_counts", "total")

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()) -> None:
        self._counts: dict[int, int] = {}
        self.total = 0.0
        """Sum of the values; of those that were merged, as their buckets tell."""
        self.merge(pairs)

    def __repr__(self) -> str:
        return f"<LogHistogram n={self.count} in {len(self._counts)} buckets>"

    @property
    def count(self) -> int:
        """How many values were added."""
        return sum(self._counts.values())

    def add(self, value: float, weight: int = 1) -> None:
        """Count `value` `weight` times."""
        bucket = ceil(log(max(value, _LEAST)) * _PER_E)  # as `bucket_of` has it
        self._counts[bucket] = self._counts.get(bucket, 0) + weight
        self.total += value * weight

    def merge(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Add `(bucket, count)` pairs, as `pairs()` gives them."""
        counts = self._counts
        for bucket, count in pairs:
            counts[bucket] = counts.get(bucket, 0) + count
            self.total += bucket_value(bucket) * count

    def absorb(self, other: "LogHistogram") -> None:
        """Add another one; its sum stays exact, where that of pairs does not."""
        exact = self.total + other.total
        self.merge(other._counts.items())  # noqa: SLF001 - of its own kind
        self.total = exact

    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Return `(bucket, count)` in rising order of value."""
        return tuple(sorted(pair for pair in self._counts.items() if pair[1]))

    def quantile(self, q: float) -> float | None:
        """Return the nearest-rank `q` quantile (0 < q <= 1), or None when empty."""
        rank = max(1, ceil(q * self.count))
        for bucket, count in self.pairs():
            rank -= count
            if rank <= 0:
                return bucket_value(bucket)
        return None
