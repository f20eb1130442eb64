"""Which text a scraper gets: the classic one, or OpenMetrics with exemplars.

In OpenMetrics, names with a colon survive only under `escaping=allow-utf-8`: without it
a scraper is owed names of letters, digits and `_`, and prometheus_client writes `vllm_`
for `vllm:` (prometheus/client_python#1177), so that existing vLLM dashboards find
nothing. Prometheus 3.x allows it; 2.x and everybody else get the classic format, where
colons have always been legal.
"""

from enum import Enum
from typing import Final

_OPENMETRICS_TYPE: Final = "application/openmetrics-text"
_VERSION: Final = "1.0.0"
_ESCAPING: Final = "allow-utf-8"


class Format(Enum):
    """An exposition format, by its content type."""

    CLASSIC = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = (
        f"{_OPENMETRICS_TYPE}; version={_VERSION}; charset=utf-8; escaping={_ESCAPING}"
    )


def choose_format(accept: str) -> Format:
    """Choose by an `Accept` header: classic, unless OpenMetrics may keep its colons."""
    return (
        Format.OPENMETRICS
        if any(_keeps_colons(media_range) for media_range in accept.split(","))
        else Format.CLASSIC
    )


def _keeps_colons(media_range: str) -> bool:
    kind, *parameters = (part.strip().lower() for part in media_range.split(";"))
    given = {
        name.strip(): value.strip().strip('"')
        for name, _, value in (parameter.partition("=") for parameter in parameters)
    }
    refused = given.get("q", "1").strip("0.") == ""  # q=0, q=0.000
    return (
        kind == _OPENMETRICS_TYPE
        and given.get("version", _VERSION) == _VERSION
        and given.get("escaping") == _ESCAPING
        and not refused
    )
