"""Bucket arrays to OTLP metrics, read when they are exported.

The SDK's instruments record one value at a time, and a histogram cannot be observable.
So the SDK's own data classes are filled here from state that others keep, and handed to
its exporter: nothing is recorded per token, and both exporters read the same numbers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    DataT,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from ... import __version__
from ...buckets import BucketArray
from ...genai import SCOPE, Convention, OtelMetric
from .trees import Attributes

Point = tuple[Attributes, BucketArray | int]
"""Attributes, and what they add up to since the process began."""
Reading = tuple[OtelMetric, Iterable[Point]]

_CUMULATIVE = AggregationTemporality.CUMULATIVE


@dataclass(frozen=True, slots=True)
class Span:
    """The time that cumulative values are of, in nanoseconds since the epoch."""

    since: int
    now: int


def metrics_data(
    readings: Iterable[Reading],
    *,
    resource: Resource,
    convention: Convention,
    span: Span,
) -> MetricsData | None:
    """Return what there is to export under a convention's names; None for nothing."""
    named = [(spec.name(convention), spec, points) for spec, points in readings]
    metrics = [
        metric
        for name, same in groupby(sorted(named, key=_name), key=_name)
        if name and (metric := _metric(name, list(same), span)) is not None
    ]
    if not metrics:
        return None
    scope = ScopeMetrics(InstrumentationScope(SCOPE, __version__), metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], resource.schema_url)])


_Named = tuple[str, OtelMetric, Iterable[Point]]


def _name(named: _Named) -> str:
    return named[0]


def _metric(name: str, same: list[_Named], span: Span) -> Metric | None:
    """Make one metric; the older convention gives two of ours the same name."""
    _, spec, _ = same[0]
    points = [point for _, _, part in same for point in part]
    data: DataT
    if spec.kind == "counter":
        data = Sum([_number(p, span) for p in points], _CUMULATIVE, is_monotonic=True)
    else:
        data = Histogram([_histogram(p, span) for p in points], _CUMULATIVE)
    return Metric(name, spec.text, spec.unit, data) if points else None


def _number(point: Point, span: Span) -> NumberDataPoint:
    attributes, value = point
    assert not isinstance(value, BucketArray)
    return NumberDataPoint(dict(attributes), span.since, span.now, value)


def _histogram(point: Point, span: Span) -> HistogramDataPoint:
    attributes, array = point
    assert isinstance(array, BucketArray)
    counts = tuple(array.counts)
    return HistogramDataPoint(
        attributes=dict(attributes),
        start_time_unix_nano=span.since,
        time_unix_nano=span.now,
        count=sum(counts),
        sum=array.total,
        bucket_counts=counts,
        explicit_bounds=array.bounds,
        # Optional in the protocol, though not in the type: bucket arrays keep neither.
        min=None,  # type: ignore[arg-type]
        max=None,  # type: ignore[arg-type]
    )
