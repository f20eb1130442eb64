"""Readings: what an exporter reads from the state of a run or a server, when asked.

Here prometheus_client makes the text, in the classic format 0.0.4, for the load
generator. The mock has a quicker way to the same bytes (`text`) and a second format
(`negotiation`).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from ..buckets import BucketArray
from ..vocabulary import MetricSpec

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

number: Final[Callable[[float], str]] = floatToGoString
"""Writes a number as Go does, so that `le` is the same text whoever exports it."""

Sample = tuple[tuple[str, ...], float | BucketArray]
"""Label values in the order of the spec's labels, and the value."""
Reading = tuple[MetricSpec, Iterable[Sample]]
"""A metric and its present samples."""


class _Readings(Collector):
    def __init__(self, read: Callable[[], Iterable[Reading]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        for spec, samples in self._read():
            yield _family(spec, samples)


def exposition(read: Callable[[], Iterable[Reading]]) -> Callable[[], bytes]:
    """Return a function that renders what `read` gives at that moment."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Readings(read))
    return lambda: generate_latest(registry)


def _family(spec: MetricSpec, samples: Iterable[Sample]) -> Metric:
    assert not spec.bare, "prometheus_client adds `_total` to every counter"
    if spec.kind == "histogram":
        histogram = HistogramMetricFamily(spec.name, spec.text, labels=spec.labels)
        for labels, value in samples:
            assert isinstance(value, BucketArray)
            histogram.add_metric(
                labels, buckets=_cumulative(value), sum_value=value.total
            )
        return histogram
    family = (CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily)(
        spec.name, spec.text, labels=spec.labels
    )
    for labels, value in samples:
        assert not isinstance(value, BucketArray)
        family.add_metric(labels, value)
    return family


def _cumulative(array: BucketArray) -> list[tuple[str, float]]:
    bounds = [*(number(bound) for bound in array.bounds), "+Inf"]
    running = 0
    pairs = []
    for bound, count in zip(bounds, array.counts, strict=True):
        running += count
        pairs.append((bound, float(running)))
    return pairs
