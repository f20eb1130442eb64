"""TOML that people write: what is wrong in it is told with its line."""

import re
import tomllib
from typing import Any

from .errors import UsageError


def parse(text: str, name: str) -> dict[str, Any]:
    """Parse TOML; raises `UsageError` naming the file and what is wrong."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as wrong:
        raise UsageError(f"{name} is not TOML: {wrong}") from None


def line_of(text: str, key: str, table: str = "", number: int = 0) -> int:
    """Return the line of a key, or of its table's header if the key is not there.

    `table` is the name in `[table]`, or in the `number`-th `[[table]]` from 0; without
    one the key is at the top.
    """
    header = re.compile(r"^\s*\[\[?\s*([^\]]*?)\s*\]")
    own = re.compile(rf"""^\[?["']?{re.escape(table)}["']?$""")
    entry = re.compile(rf"""^\s*["']?{re.escape(key)}["']?\s*[=.]""")
    at, seen = 1, 0 if not table else -1
    inside = not table
    for line_number, line in enumerate(text.splitlines(), 1):
        found = header.match(line)
        if found:
            mine = bool(table) and own.match(found[1]) is not None
            seen += mine
            inside = mine and seen == number
            at = line_number if inside else at
            if not table and found[1] == key:
                return line_number
        elif inside and key and entry.match(line):
            return line_number
    return at


def at_line(wrong: UsageError, name: str, line: int) -> UsageError:
    """Return an error with the place it was found at."""
    return UsageError(f"{name}, line {line}: {wrong.message}", hint=wrong.hint)
