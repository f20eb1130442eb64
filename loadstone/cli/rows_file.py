"""A TOML file of rows, `[[fault]]` after `[[fault]]`: each is read by one function."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from ..errors import UsageError
from ..toml_lines import line_of
from .toml_file import read_toml

Row = TypeVar("Row")


def read_rows(
    path: Path, name: str, read: Callable[[Mapping[str, object]], Row]
) -> list[Row]:
    """Return what `read` makes of each row called `name`.

    Raises `UsageError`, with the line: for a file that cannot be read or has anything
    else in it, and for a row that `read` refuses. Where that error has a `key`, the
    line is that key's.
    """
    text, table = read_toml(path)
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
            line = line_of(text, getattr(bad, "key", ""), name, number)
            raise UsageError(
                f"{path}, line {line}: {bad.message}", hint=bad.hint
            ) from None
    return made
