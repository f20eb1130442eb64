"""The quick text is prometheus_client's text."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as read_classic
from prometheus_client.registry import Collector

from loadstone.buckets import BucketArray, Exemplar, TracedArray
from loadstone.telemetry.negotiation import Format
from loadstone.telemetry.prometheus import Reading, _family
from loadstone.telemetry.text import Text
from loadstone.vocabulary import MetricSpec

COUNTER = MetricSpec("vllm:tokens", "counter", "Tokens.", ("model_name", "engine"))
GAUGE = MetricSpec("vllm:usage_perc", "gauge", "Usage.", ("engine",))
HISTOGRAM = MetricSpec(
    "vllm:steps_total", "histogram", "Steps.", ("model_name", "engine"),
    (0.001, 0.25, 1.0, 20.0, 16384.0, 1e6),
)  # fmt: skip
ENERGY = MetricSpec("GPU_ENERGY", "counter", "Energy.", ("gpu",), bare=True)
PLAIN = MetricSpec("up_gauge", "gauge", "No labels.")


class Readings(Collector):
    """Hands readings to prometheus_client."""

    def __init__(self, readings: list[Reading]) -> None:
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        """Give the families."""
        return (_family(*reading) for reading in self._readings)


def reference(readings: list[Reading], form: Format) -> bytes:
    """Render with prometheus_client."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Readings(readings))
    if form is Format.CLASSIC:
        return generate_latest(registry)
    return openmetrics.generate_latest(registry, escaping="allow-utf-8")


def filled(values: list[float], weight: int = 1) -> BucketArray:
    """Make a histogram of these values."""
    array = BucketArray(HISTOGRAM.bounds)
    for value in values:
        array.add(value, weight)
    return array


NUMBERS = st.floats(allow_nan=False) | st.integers(0, 10**18)
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
LABELS = st.tuples(WORDS, WORDS)


@given(
    counts=st.dictionaries(LABELS, NUMBERS, max_size=3),
    gauge=NUMBERS,
    arrays=st.dictionaries(
        LABELS,
        st.builds(
            filled, st.lists(st.floats(0, 1e7), max_size=5), st.integers(1, 10**7)
        ),
        max_size=3,
    ),
)
@pytest.mark.parametrize("form", list(Format))
def test_every_byte_is_prometheus_clients(
    form: Format,
    counts: dict[tuple[str, str], float],
    gauge: float,
    arrays: dict[tuple[str, str], BucketArray],
) -> None:
    """Whatever the numbers and labels; the second scrape as the first."""
    readings: list[Reading] = [
        (COUNTER, list(counts.items())),
        (GAUGE, [(("0",), gauge), (("1",), -gauge)]),
        (HISTOGRAM, list(arrays.items())),
        (PLAIN, [((), gauge)]),
    ]
    text = Text()
    expected = reference(readings, form)
    assert text.render(readings, form) == expected
    assert text.render(readings, form) == expected


def test_a_bare_counter_keeps_its_name() -> None:
    """A counter without `_total` in the classic format, unknown in OpenMetrics."""
    readings: list[Reading] = [(ENERGY, [(("0",), 1e9)])]
    classic = Text().render(readings, Format.CLASSIC).decode()
    assert classic.splitlines() == [
        "# HELP GPU_ENERGY Energy.",
        "# TYPE GPU_ENERGY counter",
        'GPU_ENERGY{gpu="0"} 1e+09',
    ]
    modern = Text().render(readings, Format.OPENMETRICS).decode()
    (family,) = read_openmetrics(modern)
    assert (family.name, family.type) == ("GPU_ENERGY", "unknown")
    assert [sample.name for sample in family.samples] == ["GPU_ENERGY"]


def test_exemplars_are_on_their_buckets_in_openmetrics_only() -> None:
    """The newest of each bucket, with its trace, value and time."""
    array = TracedArray((0.1, 1.0))
    for trace, value, at in (("a", 0.05, 1.0), ("b", 0.07, 2.0), ("c", 5.0, 3.5)):
        array.add(value)
        array.trace(Exemplar(trace, value, at))
    array.add(0.5)
    spec = MetricSpec("vllm:ttft_seconds", "histogram", "TTFT.", ("engine",))
    readings: list[Reading] = [(spec, [(("0",), array)])]
    (family,) = read_openmetrics(Text().render(readings, Format.OPENMETRICS).decode())
    found = {
        sample.labels["le"]: sample.exemplar
        and (*sample.exemplar[:2], float(sample.exemplar.timestamp))
        for sample in family.samples
        if sample.name.endswith("_bucket")
    }
    assert found == {
        "0.1": ({"trace_id": "b"}, 0.07, 2.0),
        "1.0": None,
        "+Inf": ({"trace_id": "c"}, 5.0, 3.5),
    }
    classic = Text().render(readings, Format.CLASSIC).decode()
    assert "trace_id" not in classic
    (family,) = read_classic(classic)
    assert [s.value for s in family.samples] == [2.0, 3.0, 4.0, 4.0, 5.62]
