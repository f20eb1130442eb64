"""CSV rows as dataclasses, strictly: columns are fields, and a type is a promise."""

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, fields
from math import isfinite
from typing import Any, Final, TypeVar, get_type_hints

from ..errors import CatalogError

_Row = TypeVar("_Row")


def _number(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError
    return value


_READERS: Final[dict[Any, tuple[Callable[[str], Any], str]]] = {
    str: (str, "text"),
    int: (int, "a whole number"),
    float: (_number, "a number"),
}


def read_rows(lines: Iterable[str], kind: type[_Row], name: str) -> Iterator[_Row]:
    """Read each line after the header as a `kind`, a dataclass of str, int, float.

    A field that may be None may be empty; a column may be left out where its field has
    a default. `kind` may refuse values with a `ValueError`. Raises `CatalogError`
    naming file, line and column.
    """
    rows = csv.DictReader(lines, strict=True)
    readers = {field: _reader(hint) for field, hint in get_type_hints(kind).items()}
    try:
        _check_header(rows.fieldnames, kind, name)
        for row in rows:
            where = f"{name}: line {rows.line_num}"
            if None in row or None in row.values():
                raise CatalogError(f"{where}: not as many fields as the header has")
            values = {
                column: _value(readers[column], text, f"{where}: {column}")
                for column, text in row.items()
            }
            try:
                yield kind(**values)
            except ValueError as wrong:
                raise CatalogError(f"{where}: {wrong}") from None
    except csv.Error as wrong:
        at = rows.reader.line_num
        raise CatalogError(f"{name}: line {at}: {wrong}") from None


def _reader(hint: Any) -> tuple[Callable[[str], Any], str, bool]:
    optional = type(None) in getattr(hint, "__args__", ())
    plain = next(a for a in hint.__args__ if a is not type(None)) if optional else hint
    return *_READERS[plain], optional


def _check_header(columns: Iterable[str] | None, kind: type[Any], name: str) -> None:
    given = list(columns or ())
    known = {field.name: field.default is MISSING for field in fields(kind)}
    for column in given:
        if column not in known:
            raise CatalogError(
                f"{name}: line 1: unknown column {column!r}",
                hint=f"there is: {', '.join(known)}",
            )
    missing = [
        column for column, needed in known.items() if needed and column not in given
    ]
    if missing:
        raise CatalogError(f"{name}: line 1: no column {missing[0]!r}")
    if len(set(given)) < len(given):
        raise CatalogError(f"{name}: line 1: a column is there twice")


def _value(
    reader: tuple[Callable[[str], Any], str, bool], text: str, where: str
) -> Any:
    read, kind, optional = reader
    if optional and not text:
        return None
    try:
        return read(text)
    except ValueError:
        raise CatalogError(f"{where} {text!r} is not {kind}") from None
