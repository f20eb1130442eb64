"""Which variables switch telemetry on, and what is refused."""

import pytest

from loadstone.errors import UsageError
from loadstone.telemetry.otel.settings import DEFAULT_RATIO, Settings, read_settings

ALL = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
METRICS = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
ON = {ALL: "http://localhost:4318"}


def read(**more: str) -> Settings:
    """Read settings with an endpoint and some more."""
    settings = read_settings(ON | more)
    assert settings is not None
    return settings


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {ALL: ""},
        ON | {"OTEL_SDK_DISABLED": "True"},
        ON | {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
        {TRACES: "http://x", "OTEL_TRACES_EXPORTER": "console"},
        {"OTEL_TRACES_SAMPLER": "always_on", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
)
def test_off_unless_an_endpoint_says_so(environ: dict[str, str]) -> None:
    """And then nothing else is looked at, right or wrong."""
    assert read_settings(environ) is None


@pytest.mark.parametrize(
    ("environ", "signals"),
    [
        (ON, {"traces", "metrics"}),
        (ON | {"OTEL_SDK_DISABLED": "false"}, {"traces", "metrics"}),
        ({TRACES: "http://x"}, {"traces"}),
        ({METRICS: "http://x"}, {"metrics"}),
        (ON | {"OTEL_METRICS_EXPORTER": "none"}, {"traces"}),
        (ON | {"OTEL_TRACES_EXPORTER": "none"}, {"metrics"}),
        (ON | {"OTEL_TRACES_EXPORTER": "console, OTLP"}, {"traces", "metrics"}),
    ],
)
def test_each_signal_has_its_own_switch(
    environ: dict[str, str], signals: set[str]
) -> None:
    """By endpoint and by exporter, as the standard has it."""
    settings = read_settings(environ)
    assert settings is not None
    assert settings.signals == signals


def test_defaults() -> None:
    """One in a hundred, new names, ten seconds, the caller's decision first."""
    assert read() == Settings(signals=frozenset(("traces", "metrics")))
    assert (read().ratio, read().interval_s, read().convention) == (0.01, 10.0, "0.1.0")


@pytest.mark.parametrize(
    ("sampler", "argument", "ratio", "follows"),
    [
        ("", "", DEFAULT_RATIO, True),
        ("", "0.25", 0.25, True),
        ("always_on", "0.5", 1.0, False),
        ("always_off", "", 0.0, False),
        ("traceidratio", "0.5", 0.5, False),
        ("traceidratio", "", 1.0, False),
        ("parentbased_always_on", "", 1.0, True),
        ("parentbased_always_off", "", 0.0, True),
        ("ParentBased_TraceIdRatio", " 0.125 ", 0.125, True),
    ],
)
def test_samplers_are_the_standards(
    sampler: str, argument: str, ratio: float, *, follows: bool
) -> None:
    """Their names, their arguments, and the ratio of 1 where one is not given."""
    settings = read(OTEL_TRACES_SAMPLER=sampler, OTEL_TRACES_SAMPLER_ARG=argument)
    assert (settings.ratio, settings.follows_parent) == (ratio, follows)


def test_nothing_is_sampled_where_no_spans_go_out() -> None:
    """A server is not told to record what has no client side."""
    settings = read(OTEL_TRACES_EXPORTER="none", OTEL_TRACES_SAMPLER="always_on")
    assert settings.sampled == 0.0
    assert read(OTEL_TRACES_SAMPLER="always_on").sampled == 1.0


def test_the_interval_is_in_milliseconds_and_has_a_floor() -> None:
    """As the standard has it; 0 would be a loop that does nothing else."""
    assert read(OTEL_METRIC_EXPORT_INTERVAL="2500").interval_s == 2.5
    assert read(OTEL_METRIC_EXPORT_INTERVAL="0").interval_s == 0.1


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "grpc.*http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "GRPC", "grpc.*http/protobuf"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json", "http/json"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote", "OTEL_TRACES_SAMPLER=jaeger_remote"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5", "OTEL_TRACES_SAMPLER_ARG=1.5.*0 to 1"),
        ("OTEL_TRACES_SAMPLER_ARG", "nan", "must be a number"),
        ("OTEL_TRACES_SAMPLER_ARG", "half", "must be a number"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "-1", "0 or more"),
        ("LOADSTONE_GENAI_SEMCONV", "1.36", "LOADSTONE_GENAI_SEMCONV=1.36"),
        (
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta",
            "TEMPORALITY_PREFERENCE=delta.*cumulative",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(name: str, value: str, says: str) -> None:
    """In words that name the variable, and a hint at what would do."""
    with pytest.raises(UsageError, match=says) as refused:
        read(**{name: value})
    assert refused.value.hint or "number" in refused.value.message


def test_the_protocol_of_a_signal_that_is_off_does_not_matter() -> None:
    """Metrics by another exporter may well speak gRPC."""
    environ = {TRACES: "http://x", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc"}
    assert read_settings(environ) is not None


def test_the_older_convention() -> None:
    """Names of v1.41 can be had."""
    assert read(LOADSTONE_GENAI_SEMCONV="1.41").convention == "1.41"
