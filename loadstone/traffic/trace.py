"""Recorded arrivals and lengths: the Azure LLM inference trace format.

`TIMESTAMP,ContextTokens,GeneratedTokens`, as Azure published its 2023 conversation and
code traces (github.com/Azure/AzurePublicDataset). Timestamps have seven decimals there,
one more than Python keeps, so the fraction is read apart.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import Final

from ..errors import UsageError
from ..units import Seconds, Tokens

COLUMNS: Final = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One recorded request: seconds since the first one, and its lengths in tokens."""

    at_s: Seconds
    input_tokens: Tokens
    output_tokens: Tokens


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
