"""A TOML file of rows, `[[fault]]` after `[[fault]]`: each is read by one function."""

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from ..errors import UsageError

Row = TypeVar("Row")


def read_rows(
    path: Path, name: str, read: Callable[[Mapping[str, object]], Row]
) -> list[Row]:
    """Return what `read` makes of each row called `name`.

    Raises `UsageError`, with the line: for a file that cannot be read or has anything
    else in it, and for a row that `read` refuses. Where that error has a `key`, the
    line is that key's.
    """
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as failed:
        raise UsageError(f"cannot read {path}: {failed}") from None
    except tomllib.TOMLDecodeError as failed:
        raise UsageError(f"{path} is not TOML: {failed}") from None
    rows = table.pop(name, [])
    whole = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    if table or not whole:
        raise UsageError(
            f"{path}: there is {', '.join(table) or name} in it",
            hint=f"it may have [[{name}]] tables and nothing else",
        )
    made = []
    for number, row in enumerate(rows):
        try:
            made.append(read(row))
        except UsageError as bad:
            line = _line(text, name, number, getattr(bad, "key", ""))
            raise UsageError(
                f"{path}, line {line}: {bad.message}", hint=bad.hint
            ) from None
    return made


def _line(text: str, name: str, number: int, key: str) -> int:
    """Return the line of a row's key, or of its header if the key is not there."""
    header = re.compile(rf"^\s*\[\[\s*{re.escape(name)}\s*\]\]")
    entry = re.compile(rf"""^\s*["']?{re.escape(key)}["']?\s*=""")
    at, seen = 1, -1
    for line_number, line in enumerate(text.splitlines(), 1):
        if header.match(line):
            seen += 1
            at = line_number if seen == number else at
        elif seen == number and key and entry.match(line):
            return line_number
    return at
