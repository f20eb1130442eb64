"""What a summary has beside what the report has a place for: shown as it is.

Parts of loadstone write blocks of their own into `summary.json`; none of it is hidden
because nobody drew it yet.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

_PLACED: Final = frozenset({
    "run", "scenario", "model", "host", "plan_hash", "complete", "requests", "tokens",
    "throughput", "makespan_s", "ttft_s", "ttft_intended_s", "ttfo_s", "tpot_s",
    "icl_s", "e2e_s", "response_time_s", "send_lag_s", "errors",
    "errors_between_s", "slo", "goodput", "slices", "cost",
})  # fmt: skip
"""Keys that the page says elsewhere, whole."""
_MOST: Final = 60
"""Lines of one block at most."""


def details(summary: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield each other block: its key, and its values with the paths to them."""
    for key, block in summary.items():
        if key in _PLACED:
            continue
        lines = [(path.lstrip("."), text) for path, text in _flat("", block)]
        if len(lines) > _MOST:
            left = len(lines) - _MOST
            lines = [*lines[:_MOST], ("", f"and {left:,} more, in summary.json")]
        if lines:
            yield key, lines


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{path}.{key}", inner)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        if any(isinstance(inner, Mapping | list) for inner in value):
            for i, inner in enumerate(value):
                yield from _flat(f"{path}[{i}]", inner)
        elif value:
            yield path, "; ".join(map(_text, value))
    elif value is not None:
        yield path, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        return f"{value:,.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
