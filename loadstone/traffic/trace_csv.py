"""Traces as CSV: Azure's `TIMESTAMP,ContextTokens,GeneratedTokens`, and its like.

Azure published its 2023 conversation and code traces so (github.com/Azure/
AzurePublicDataset); BurstGPT names the same columns otherwise. Columns are found by
name, in any order, and others are passed over; commas, semicolons or tabs stand between
them. A timestamp is a date with a time, whose
fraction may have any number of digits (Azure has seven, one more than Python keeps), or
a number: seconds since some instant, or milliseconds since the epoch.
"""

import csv
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from ..errors import UsageError
from ..units import MS, Seconds, Tokens
from .trace import BadRow, Read, TraceRow

COLUMNS: Final = {
    "TIMESTAMP": ("timestamp", "arrival_time", "arrived_at", "arrivaltime", "time"),
    "ContextTokens": (
        "contexttokens", "request tokens", "input_tokens", "input_length",
        "prompt_tokens", "num_prefill_tokens",
    ),
    "GeneratedTokens": (
        "generatedtokens", "response tokens", "output_tokens", "output_length",
        "completion_tokens", "num_decode_tokens",
    ),
}  # fmt: skip
"""What each column is called: by Azure, and by others."""
_EXAMPLE: Final = (
    f"a row is {','.join(COLUMNS)}, such as 2023-11-16 18:15:46.6805900,374,44"
)
_SEPARATORS: Final = ",;\t"
_MOST: Final = 1 << 53
"""Larger counts are not exact in every reader, and none is meant."""
_EPOCH_MS: Final = 1e11
"""Seconds until the year 5138; larger numbers are milliseconds."""


def read_csv(lines: Sequence[str], name: str) -> Read:
    """Yield the rows; raises `UsageError` where the header is not of this format."""
    first = next((line for line in lines if line.strip("\ufeff \t\r\n")), "")
    reader = csv.reader(
        (line.lstrip("\ufeff") for line in lines),
        delimiter=max(_SEPARATORS, key=first.count),
    )
    header: list[str] | None = None
    try:
        for cells in reader:
            if header is None:
                if not any(cells):
                    continue
                header, places = cells, _places(cells, name, reader.line_num)
                continue
            if not cells:
                continue
            try:
                yield _row(cells, places, len(header))
            except ValueError as wrong:
                yield BadRow(reader.line_num, str(wrong), _EXAMPLE)
    except csv.Error as wrong:
        raise UsageError(f"{name}: line {reader.line_num}: {wrong}") from None
    if header is None:
        raise _no_header("an empty file", name, 1)


def _places(header: list[str], name: str, line: int) -> tuple[int, int, int]:
    names = [cell.strip().casefold() for cell in header]
    found = [
        next((names.index(each) for each in known if each in names), None)
        for known in COLUMNS.values()
    ]
    at, n_in, n_out = found
    if at is None or n_in is None or n_out is None:
        raise _no_header(",".join(header)[:80], name, line)
    return at, n_in, n_out


def _no_header(found: str, name: str, line: int) -> UsageError:
    return UsageError(
        f"{name}: line {line}: expected the columns {','.join(COLUMNS)}, found"
        f" {found or 'an empty line'}",
        hint="; ".join(
            f"{column} may be {', '.join(others)}" for column, others in COLUMNS.items()
        )
        + "; prompts without arrivals belong to a class of a plan, as its `prompts`",
    )


def _row(cells: list[str], places: tuple[int, int, int], width: int) -> TraceRow:
    if len(cells) != width:
        raise ValueError(f"{len(cells)} columns, not {width}")
    stamp, n_in, n_out = (cells[place] for place in places)
    _, asked, answered = COLUMNS
    return TraceRow(_seconds(stamp), _count(n_in, asked), _count(n_out, answered))


def _seconds(text: str) -> Seconds:
    plain = text.strip()
    whole, _, decimals = plain.partition(".")
    if whole.isdecimal() and (decimals.isdecimal() or "." not in plain):
        number = float(plain)
        return number * MS if number >= _EPOCH_MS else number
    return _instant(text)


def _instant(text: str) -> Seconds:
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


def _count(text: str, column: str) -> Tokens:
    whole, _, decimals = text.partition(".")
    try:
        # Data frames write whole numbers so, once a column had a gap.
        value = int(text if decimals.strip("0 ") else whole)
    except ValueError:
        raise ValueError(f"{column} {text!r:.40} is not a count of tokens") from None
    if value < 1:
        raise ValueError(
            f"{column}: a request needs at least one token, not {value}"
            " (--skip-bad-rows true leaves such rows out, and counts them)"
        )
    if value >= _MOST:
        raise ValueError(f"{column} {text!r:.40} is more than any request has")
    return value
