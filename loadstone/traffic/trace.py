"""Recorded arrivals and lengths, in the formats of Azure and of Mooncake.

Azure: `TIMESTAMP,ContextTokens,GeneratedTokens`, as it published its 2023 conversation
and code traces (github.com/Azure/AzurePublicDataset). Timestamps have seven decimals
there, one more than Python keeps, so the fraction is read apart.

Mooncake: a JSON object a line, as published with the FAST 2025 paper
(github.com/kvcache-ai/Mooncake): `timestamp` in ms, `input_length`, `output_length`,
and `hash_ids`, one for each begun block of 512 prompt tokens. Of our own, a line may
have a `priority` (an integer, the lower the sooner).
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from operator import attrgetter, itemgetter
from typing import Any, Final

from ..errors import UsageError
from ..units import MS, Seconds, Tokens
from .request import Prefix

COLUMNS: Final = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One recorded request: seconds since the first one, and its lengths in tokens."""

    at_s: Seconds
    input_tokens: Tokens
    output_tokens: Tokens
    priority: int = 0
    prefix: Prefix | None = None


def read_trace(lines: Sequence[str], *, name: str) -> list[TraceRow]:
    """Read a trace in either format, told apart by its first character."""
    first = next((line for line in lines if line.strip()), "")
    jsonl = first.lstrip("\ufeff \t").startswith("{")
    return (read_mooncake_jsonl if jsonl else read_azure_csv)(lines, name=name)


def read_azure_csv(lines: Iterable[str], *, name: str) -> list[TraceRow]:
    """Read a trace, in order of time. `name` is what errors call it.

    Raises `UsageError` naming the line when a header, a timestamp or a count is not
    what the format says; nothing is skipped silently.
    """
    reader = csv.reader(lines)
    try:
        _check_header(next(reader, []), name)
        # By time alone: what is due at the same instant stays in the file's order.
        rows = sorted(_rows(reader, name), key=itemgetter(0))
    except csv.Error as wrong:
        raise UsageError(f"{name}: line {reader.line_num}: {wrong}") from None
    if not rows:
        raise UsageError(f"{name}: the trace has a header and no rows")
    first = rows[0][0]
    return [TraceRow(at - first, n_in, n_out) for at, n_in, n_out in rows]


MOONCAKE_BLOCK: Final[Tokens] = 512
"""Prompt tokens that one of Mooncake's ids stands for."""
_LINE: Final = (
    '{"timestamp": 0, "input_length": 600, "output_length": 44, "hash_ids": [0, 1]}'
)


def read_mooncake_jsonl(lines: Iterable[str], *, name: str) -> list[TraceRow]:
    """Read a trace, in order of time; raises `UsageError` naming the line."""
    rows: list[TraceRow] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(_mooncake_row(json.loads(line.lstrip("\ufeff"))))
        except (ValueError, RecursionError) as wrong:
            what = "is not JSON" if isinstance(wrong, json.JSONDecodeError) else wrong
            raise UsageError(
                f"{name}: line {number}: {what}", hint=f"a line is such as {_LINE}"
            ) from None
    if not rows:
        raise UsageError(f"{name}: the trace has no rows")
    rows.sort(key=attrgetter("at_s"))
    first = rows[0].at_s
    return [replace(row, at_s=row.at_s - first) for row in rows]


def _mooncake_row(row: Any) -> TraceRow:
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - the file's fault
    unknown = set(row) - {*_NEEDED, "hash_ids", "priority"}
    missing = set(_NEEDED) - set(row)
    if unknown or missing:
        raise ValueError(
            f"unknown field {min(unknown)!r}"
            if unknown
            else f"no field {min(missing)!r}"
        )
    for field, (is_right, what) in _CHECKS.items():
        if field in row and not is_right(row[field]):
            raise ValueError(f"{field} {row[field]!r:.60} is not {what}")
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


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_time(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) < _LIMIT


def _is_count(value: Any) -> bool:
    return _whole(value) and 1 <= value < _LIMIT


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(_whole(i) and 0 <= i < _LIMIT for i in value)


def _is_priority(value: Any) -> bool:
    return _whole(value) and abs(value) < _LIMIT


_LIMIT: Final = 1 << 53
"""Numbers below it are exact in any JSON reader, and 512 times as much in 64 bits."""
_NEEDED: Final = ("timestamp", "input_length", "output_length")
_CHECKS: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "timestamp": (_is_time, "a time in milliseconds"),
    "input_length": (_is_count, "a count of tokens, at least 1"),
    "output_length": (_is_count, "a count of tokens, at least 1"),
    "hash_ids": (_are_ids, "a list of block ids"),
    "priority": (_is_priority, "an integer"),
}


def _check_header(cells: list[str], name: str) -> None:
    header = tuple(cell.strip().lstrip("\ufeff") for cell in cells)
    if header != COLUMNS:
        raise UsageError(
            f"{name}: line 1: expected the columns {','.join(COLUMNS)}, found"
            f" {','.join(header)[:80] or 'an empty line'}",
            hint="this reads the Azure LLM inference trace format",
        )


def _rows(reader: Iterator[list[str]], name: str) -> Iterator[tuple[float, int, int]]:
    for number, cells in enumerate(reader, start=2):
        if not cells:
            continue
        try:
            yield _row(cells)
        except ValueError as wrong:
            raise UsageError(
                f"{name}: line {number}: {wrong}",
                hint=f"a row is {','.join(COLUMNS)}, such as"
                " 2023-11-16 18:15:46.6805900,374,44",
            ) from None


def _row(cells: list[str]) -> tuple[float, int, int]:
    if len(cells) != len(COLUMNS):
        raise ValueError(f"{len(cells)} columns, not {len(COLUMNS)}")
    stamp, n_in, n_out = cells
    return _seconds(stamp), _count(n_in), _count(n_out)


def _seconds(text: str) -> float:
    head, dot, fraction = text.strip().partition(".")
    digits = fraction.rstrip("Z")
    zone = ""
    for sign in "+-":
        digits, found, offset = digits.partition(sign)
        zone = zone or (found + offset)
    try:
        instant = datetime.fromisoformat(head + zone)
    except ValueError:
        instant = None
    if instant is None or (dot and not digits.isdecimal()):
        raise ValueError(f"{text!r} is not a timestamp")
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return instant.timestamp() + float(f"0.{digits or 0}")


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a count of tokens") from None
    if value < 1:
        raise ValueError(f"a request needs at least one token, not {value}")
    return value
