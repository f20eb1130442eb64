"""Measure what an addition to a histogram costs, and what merging loses.

    python bench/histograms.py

Held beside ours are DDSketch as its package means it, its store and mapping alone, a
plain dict of the same buckets, and HdrHistogram where it is installed (`pip install
hdrhistogram`; it is no dependency). CPU time, best of three.
"""

import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from random import Random
from typing import Any

from ddsketch import DDSketch
from ddsketch.mapping import LogarithmicMapping
from ddsketch.store import DenseStore

from loadstone.buckets import GROWTH, LogHistogram, bucket_of
from loadstone.traffic.quantiles import nearest_rank

N = 100_000
_MAPPING = LogarithmicMapping.from_gamma_offset(GROWTH, 0.0)


def ours(values: Iterable[float]) -> LogHistogram:
    """Fill the house's own."""
    histogram = LogHistogram()
    for value in values:
        histogram.add(value)
    return histogram


def sketch(values: Iterable[float]) -> DDSketch:
    """Fill DDSketch's."""
    histogram = DDSketch(0.01)
    for value in values:
        histogram.add(value)
    return histogram


def store(values: Iterable[float]) -> DenseStore:
    """Fill its store by its mapping, without sums and extremes."""
    counts = DenseStore()
    for value in values:
        counts.add(_MAPPING.key(value))
    return counts


def plain(values: Iterable[float]) -> dict[int, int]:
    """Fill a dict of our buckets."""
    counts: dict[int, int] = {}
    for value in values:
        index = bucket_of(value)
        counts[index] = counts.get(index, 0) + 1
    return counts


def hdr(values: Iterable[float]) -> Any:
    """Fill HdrHistogram's: microseconds up to an hour, to two digits."""
    from hdrh.histogram import HdrHistogram  # noqa: PLC0415 - no dependency

    histogram = HdrHistogram(1, 3_600_000_000, 2)
    for value in values:
        histogram.record_value(int(value * 1e6))
    return histogram


def cost_us(fill: Callable[[list[float]], object], values: list[float]) -> float:
    """Return microseconds of CPU per addition."""
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        fill(values)
        best = min(best, time.process_time() - began)
    return best / len(values) * 1e6


def main() -> None:
    """Print the table."""
    rng = Random(1)
    values = [rng.lognormvariate(-2.0, 1.2) for _ in range(N)]
    fills: list[Callable[[list[float]], object]] = [ours, sketch, store, plain]
    if find_spec("hdrh"):
        fills.append(hdr)
    print(f"{N:,} latencies\nfill      us/add")
    for fill in fills:
        print(f"{fill.__name__:8s}  {cost_us(fill, values):6.3f}")
    whole, merged = ours(values), LogHistogram()
    for part in range(4):
        merged.merge(ours(values[part::4]).pairs())
    print(f"four parts merged are the whole: {merged.pairs() == whole.pairs()}")
    ordered = sorted(values)
    for q in (0.5, 0.9, 0.99, 0.999):
        exact, said = nearest_rank(ordered, q) or 0.0, whole.quantile(q) or 0.0
        print(f"p{q * 100:g} is off by {said / exact - 1:+.2%}")


if __name__ == "__main__":
    main()
