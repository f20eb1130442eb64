"""Who gets which format, by the `Accept` headers that scrapers really send."""

import pytest

from loadstone.telemetry.negotiation import Format, choose_format

PROMETHEUS_2_42 = (
    "application/openmetrics-text;version=1.0.0,"
    "application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_2_53 = (
    "application/openmetrics-text;version=1.0.0;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3_5 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3_5_NATIVE = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;"
    "encoding=delimited;q=0.6,"
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
"""Recorded from Debian's 2.42.0, 2.53.3 and 3.5.3; the last with native histograms."""
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,"
    "image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
)


@pytest.mark.parametrize(
    "accept",
    [
        PROMETHEUS_2_42,
        PROMETHEUS_2_53,
        FIREFOX,
        CHROME,
        "*/*",
        "",
        "application/openmetrics-text",
        "application/openmetrics-text;version=1.0.0",
        "application/openmetrics-text;version=1.0.0;escaping=underscores",
        "application/openmetrics-text;version=1.0.0;escaping=values",
        "application/openmetrics-text;version=0.0.1;escaping=allow-utf-8",
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0",
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.000",
        "text/plain;version=1.0.0;escaping=allow-utf-8",
        ";;,=,escaping=allow-utf-8",
    ],
)
def test_classic_is_for_everybody(accept: str) -> None:
    """Also for those who accept OpenMetrics but not names with a colon."""
    assert choose_format(accept) is Format.CLASSIC


@pytest.mark.parametrize(
    "accept",
    [
        PROMETHEUS_3_5,
        PROMETHEUS_3_5_NATIVE,
        "application/openmetrics-text;escaping=allow-utf-8",
        " Application/OpenMetrics-Text ; version = 1.0.0 ; escaping = allow-utf-8 ",
        'application/openmetrics-text; version="1.0.0"; escaping="allow-utf-8"; q=1',
    ],
)
def test_openmetrics_is_for_those_who_keep_colons(accept: str) -> None:
    """Whatever else they would take, and however they write it."""
    assert choose_format(accept) is Format.OPENMETRICS


def test_content_types_say_what_is_sent() -> None:
    """With the escaping, without which Prometheus 3 would refuse a colon."""
    assert Format.CLASSIC.value == "text/plain; version=0.0.4; charset=utf-8"
    assert Format.OPENMETRICS.value == (
        "application/openmetrics-text; version=1.0.0; charset=utf-8;"
        " escaping=allow-utf-8"
    )
