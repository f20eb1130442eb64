"""Traces as JSON lines: Mooncake's, and the rows of a run of our own.

Mooncake, as published with the FAST 2025 paper (github.com/kvcache-ai/Mooncake):
`timestamp` in ms, `input_length`, `output_length`, and `hash_ids`, one for each begun
block of 512 prompt tokens. Of our own, a line may have a `priority` (an integer, the
lower the sooner). Other fields are passed over.

A run's `requests.jsonl` is replayed as it was intended: at `intended_s`, with the
lengths that were asked for, by the same tenants. What its conversations said is not in
it, so each request has a prompt of its own.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from ..units import MS, Tokens, is_number, is_whole
from .request import Prefix
from .trace import BadRow, Read, TraceRow

MOONCAKE_BLOCK: Final[Tokens] = 512
"""Prompt tokens that one of Mooncake's ids stands for."""
_LINE: Final = (
    '{"timestamp": 0, "input_length": 600, "output_length": 44, "hash_ids": [0, 1]}'
)
_PROMPTS: Final = ("prompt", "messages", "conversations", "body")
"""Fields of files of prompts: vLLM's, OpenAI's, ShareGPT's, OpenAI's batches."""
_NO_ARRIVALS: Final = "prompts without arrivals are for `prompts` of a class in a plan"
_EXAMPLE: Final = f"a line is such as {_LINE}"
_OWN: Final = "intended_s"
"""Only rows of our own have it."""


def read_jsonl(lines: Iterable[str], name: str) -> Read:  # noqa: ARG001 - as all readers
    """Yield the rows."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield _row(json.loads(line.lstrip("\ufeff")))
        except (ValueError, RecursionError) as wrong:
            what = "is not JSON" if isinstance(wrong, json.JSONDecodeError) else wrong
            yield BadRow(number, str(what), _EXAMPLE)


def _row(row: Any) -> TraceRow:
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - the file's fault
    return _own(row) if _OWN in row else _mooncake(row)


def _own(row: Mapping[str, Any]) -> TraceRow:
    n_in = row.get("asked_input_tokens") or row.get("input_tokens")
    n_out = row.get("asked_output_tokens") or row.get("output_tokens") or 1
    _check({"intended_s": row[_OWN], "input_tokens": n_in, "output_tokens": n_out})
    return TraceRow(
        row[_OWN], n_in or 1, n_out, tenant=str(row.get("tenant", "default")),
        slice=str(row.get("slice", "")),
    )  # fmt: skip


def _mooncake(row: Mapping[str, Any]) -> TraceRow:
    missing = set(_NEEDED) - set(row)
    if missing:
        said = next((field for field in _PROMPTS if field in row), None)
        raise ValueError(
            f"no field {min(missing)!r}"
            + (f"; {said!r}: {_NO_ARRIVALS}" if said is not None else "")
        )
    _check(row)
    n_in, ids = row["input_length"], row.get("hash_ids", [])
    if "hash_ids" in row and len(ids) != -(-n_in // MOONCAKE_BLOCK):
        raise ValueError(
            f"{len(ids)} hash_ids for {n_in} prompt tokens; there is one for each begun"
            f" block of {MOONCAKE_BLOCK}"
        )
    if len(set(ids)) < len(ids):
        raise ValueError("hash_ids repeat: an id names a block and all before it")
    return TraceRow(
        row["timestamp"] * MS, n_in, row["output_length"], row.get("priority", 0),
        Prefix(MOONCAKE_BLOCK, tuple(ids)) if ids else None,
    )  # fmt: skip


def _check(row: Mapping[str, Any]) -> None:
    for field, (is_right, what) in _CHECKS.items():
        if field in row and not is_right(row[field]):
            raise ValueError(f"{field} {row[field]!r:.60} is not {what}")


def _is_time(value: Any) -> bool:
    return is_number(value) and abs(value) < _LIMIT


def _is_count(value: Any) -> bool:
    return is_whole(value) and 1 <= value < _LIMIT


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(
        is_whole(i) and 0 <= i < _LIMIT for i in value
    )


def _is_priority(value: Any) -> bool:
    return is_whole(value) and abs(value) < _LIMIT


_LIMIT: Final = 1 << 53
"""Numbers below it are exact in any JSON reader, and 512 times as much in 64 bits."""
_NEEDED: Final = ("timestamp", "input_length", "output_length")
_COUNT: Final = _is_count, "a count of tokens, at least 1"
_CHECKS: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "timestamp": (_is_time, "a time in milliseconds"),
    "intended_s": (_is_time, "a time in seconds"),
    "input_length": _COUNT,
    "output_length": _COUNT,
    "input_tokens": _COUNT,
    "output_tokens": _COUNT,
    "hash_ids": (_are_ids, "a list of block ids"),
    "priority": (_is_priority, "an integer"),
}
