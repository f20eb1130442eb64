"""Recorded traffic: arrivals, lengths and shared prefixes, whatever the format.

The format is told by the first line that is not blank:

* a JSON object with `hash_ids` or `input_length`: Mooncake's trace (`trace_jsonl`),
* a JSON object with `intended_s`: the rows of a run of our own (`trace_jsonl`),
* anything else: a CSV with a header, such as Azure's traces (`trace_csv`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from operator import attrgetter
from random import Random
from typing import Final, NamedTuple, TypeAlias

from ..errors import UsageError
from ..units import Seconds, Tokens
from .request import Prefix

SHOWN: Final = 5
"""Bad rows that are kept word by word; all are counted."""


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One recorded request: seconds since the first one, and its lengths in tokens."""

    at_s: Seconds
    input_tokens: Tokens
    output_tokens: Tokens
    priority: int = 0
    prefix: Prefix | None = None
    tenant: str = "default"
    slice: str = ""


class BadRow(NamedTuple):
    """A line that is no row, and why not."""

    line: int
    why: str
    hint: str = ""

    def __str__(self) -> str:
        return f"line {self.line}: {self.why}"


Read: TypeAlias = Iterator[TraceRow | BadRow]


@dataclass(slots=True)
class Trace:
    """Rows in order of time, from 0 on, and what of the file was left out."""

    rows: list[TraceRow]
    skipped: int = 0
    shown: list[str] = field(default_factory=list)
    """The first few of the lines that were skipped, with the reason."""


def read_trace(lines: Sequence[str], *, name: str, skip_bad: bool = False) -> Trace:
    """Read a trace; `name` is what errors call it.

    Raises `UsageError` naming the line that is wrong, unless `skip_bad`: then it is
    left out and counted. What is due at the same instant stays in the file's order.
    """
    from .trace_csv import read_csv  # noqa: PLC0415 - they make our rows
    from .trace_jsonl import read_jsonl  # noqa: PLC0415 - likewise

    first = next((line for line in lines if line.strip()), "")
    opening = first.lstrip("\ufeff \t")[:1]
    if opening == "[":
        raise UsageError(
            f"{name}: line 1: one JSON array, not one object in each line",
            hint="`jq -c .[]` writes lines; prompts without arrivals, such as"
            " ShareGPT's, belong to a class of a plan, as its `prompts`",
        )
    jsonl = opening == "{"
    rows, bad = [], []
    for row in (read_jsonl if jsonl else read_csv)(lines, name):
        if isinstance(row, TraceRow):
            rows.append(row)
        elif skip_bad:
            bad.append(str(row))
        else:
            raise UsageError(f"{name}: {row}", hint=row.hint)
    if not rows:
        raise UsageError(f"{name}: the trace has no rows")
    rows.sort(key=attrgetter("at_s"))
    return Trace(_from_zero(rows), len(bad), bad[:SHOWN])


def cut(
    rows: Iterable[TraceRow], since: Seconds = 0.0, until: Seconds = inf
) -> list[TraceRow]:
    """Return what was recorded from `since` on and before `until`, from time 0 on."""
    return [
        replace(row, at_s=row.at_s - since) for row in rows if since <= row.at_s < until
    ]


def sample(rows: Sequence[TraceRow], share: float, seed: int) -> list[TraceRow]:
    """Return about that share of the rows, each chosen for itself."""
    rng = Random(f"{seed}/trace")
    return [row for row in rows if rng.random() < share]


def _from_zero(rows: list[TraceRow]) -> list[TraceRow]:
    first = rows[0].at_s
    return [replace(row, at_s=row.at_s - first) for row in rows]
