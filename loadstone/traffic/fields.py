"""Tables that a user writes: which keys there are, what each may be, and its schema.

One description reads a TOML table, refuses what is not in it with the key that was
probably meant, and makes the JSON schema by which an editor does the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from math import inf
from typing import Any, Final

from ..errors import UsageError
from ..units import is_number, is_whole, parse_duration

Schema = dict[str, Any]


class KeyedError(UsageError):
    """Wrong input, at a key of a table; empty where it is the table as a whole."""

    def __init__(self, message: str, *, key: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.key = key


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value may be; `read` raises `ValueError` or `UsageError` otherwise."""

    what: str
    read: Callable[[Any], Any]
    schema: Schema = field(hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A key of a table."""

    name: str
    kind: Kind
    text: str
    needed: bool = False
    into: str = ""
    """What it sets, where that has another name."""

    def value_of(self, given: object) -> Any:
        """Read a value; raises `KeyedError`."""
        try:
            return self.kind.read(given)
        except (ValueError, TypeError):
            said, hint = f"{given!r:.80} is not {self.kind.what}", ""
        except UsageError as wrong:
            said, hint = wrong.message, wrong.hint
        raise KeyedError(f"{self.name}: {said}", key=self.name, hint=hint)


def meant(name: str, known: list[str]) -> str:
    """Say which of the known names was probably meant, or else all of them."""
    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there is: {', '.join(known)}"


def read_table(
    fields: tuple[Field, ...], given: Mapping[str, object], what: str
) -> dict[str, Any]:
    """Return what a table sets; raises `KeyedError` for what it cannot have."""
    by_name = {each.name: each for each in fields}
    for name in given:
        if name not in by_name:
            raise KeyedError(
                f"{what} has no {name!r}", key=name, hint=meant(name, list(by_name))
            )
    for each in fields:
        if each.needed and each.name not in given:
            raise KeyedError(f"{what} needs {each.name}: {each.text}", key="")
    return {
        by_name[name].into or name: by_name[name].value_of(value)
        for name, value in given.items()
    }


def schema_of(fields: tuple[Field, ...], text: str) -> Schema:
    """Return the JSON schema of a table of these keys."""
    return {
        "type": "object",
        "description": text,
        "properties": {
            each.name: {"description": each.text, **each.kind.schema} for each in fields
        },
        "required": [each.name for each in fields if each.needed],
        "additionalProperties": False,
    }


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(value)
    return value


def _number(value: object, least: float) -> float:
    if not is_number(value) or not least <= value < inf:
        raise ValueError(value)
    return float(value)


def whole(least: int) -> Kind:
    """Return the kind of a whole number, at least so much."""

    def read(value: object) -> int:
        if not is_whole(value) or value < least:
            raise ValueError(value)
        return value

    return Kind(
        f"a whole number of at least {least}",
        read,
        {"type": "integer", "minimum": least},
    )


def one_of(*choices: str) -> Kind:
    """Return the kind of one of these texts."""

    def read(value: object) -> str:
        if value not in choices:
            raise UsageError(f"no {value!r:.60}", hint=meant(str(value), [*choices]))
        return str(value)

    return Kind(f"one of {', '.join(choices)}", read, {"enum": list(choices)})


def checked(kind: Kind, check: Callable[[Any], object]) -> Kind:
    """Return a kind whose value `check` can read; it is kept as it was written."""

    def read(value: object) -> Any:
        found = kind.read(value)
        check(found)
        return found

    return Kind(kind.what, read, kind.schema)


def _duration(value: object) -> float:
    return parse_duration(value) if isinstance(value, str) else _number(value, 0.0)


TEXT: Final = Kind("a text", _text, {"type": "string", "minLength": 1})
POSITIVE: Final = Kind(
    "a number above 0",
    lambda v: _number(v, 1e-9),
    {"type": "number", "exclusiveMinimum": 0},
)
DURATION: Final = Kind(
    "a time such as 2s, 500ms or 1m",
    _duration,
    {"oneOf": [{"type": "string"}, {"type": "number", "minimum": 0}]},
)
