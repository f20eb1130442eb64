"""One colour per meaning, on every panel of every dashboard.

The names are Grafana's, which suit its light and its dark theme.
"""

from collections.abc import Iterator
from typing import Final

from loadstone.traffic.record import Outcome
from loadstone.traffic.verdict import Verdict

_QUANTILES: Final = {
    "p50": "green",
    "p90": "yellow",
    "p95": "orange",
    "p99": "red",
    "max": "dark-red",
    "mean": "purple",
}
_FAMILIES: Final = {
    "quantile": {
        "0.5": _QUANTILES["p50"], "0.99": _QUANTILES["p99"], "1": _QUANTILES["max"],
    },
    "outcome": {
        Outcome.OK.value: "green",
        Outcome.FAILED.value: "red",
        Outcome.THROTTLED.value: "orange",
        Outcome.CANCELLED.value: "purple",
        Outcome.INCOMPLETE.value: "yellow",
    },
    "verdict": {
        Verdict.OK.value: "green",
        Verdict.CLIENT_LIMITED.value: "red",
        Verdict.RATE_NOT_DELIVERED.value: "orange",
        Verdict.TOO_FEW_SAMPLES.value: "yellow",
    },
    "finished_reason": {
        "stop": "green", "length": "blue", "abort": "orange", "error": "red",
        "repetition": "yellow",
    },
    "status": {"2xx": "green", "4xx": "orange", "5xx": "red"},
}  # fmt: skip
"""Colours of a label's values, by the label."""
_NAMED: Final = _QUANTILES | {
    "input": "purple",
    "output": "blue",
    "asked": "text",
    "sent": "blue",
    "ended": "green",
    "running": "blue",
    "waiting": "orange",
    "queue": "orange",
    "prefill": "purple",
    "decode": "blue",
    "min": "light-blue",
    "GPUs": "green",
    "rest of the rack": "purple",
}
"""Colours of series with a name of their own."""
_SIDES: Final = {"client": "", "server": "dark-", "from due": "", "from send": "dark-"}
"""The same quantile seen from two sides has two shades of its colour."""


def colours_of(legend: str) -> Iterator[tuple[str, str]]:
    """Yield the names that a legend's series may have, each with its colour."""
    if legend in _NAMED:
        yield legend, _NAMED[legend]
    elif legend.startswith("{{"):
        yield from _FAMILIES.get(legend.strip("{}"), {}).items()
    else:
        side, _, quantile = legend.rpartition(" ")
        if side in _SIDES and quantile in _QUANTILES:
            yield legend, _SIDES[side] + _QUANTILES[quantile]
