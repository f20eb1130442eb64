"""What a field of a request may hold: one rule checks it and describes it.

A rule is a predicate, its words for an error message, and its JSON Schema for the API's
description, so that what the server says of itself is what it does.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .openai_error import ApiError

Schema = Mapping[str, Any]
MOST: Final = 1 << 53
"""The largest integer that a double holds, and so the largest that JSON can carry."""
_SHOWN: Final = 60
"""Characters of an offending value that an error repeats."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`expected` says what a value should be, for people; `schema` says it in JSON."""

    expected: str
    schema: Schema
    holds: Callable[[Any], bool]
    item: "Rule | None" = None
    """That of an array's items."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The fields of one kind of request.

    `rules` has what is valid; `off` the fields that would change the answer in a way
    that is not emulated, with the values that leave them off: anything else is refused,
    because a silent no would make a measurement a lie. Other fields are let through, as
    vLLM does. Null is as good as absent everywhere.
    """

    rules: Mapping[str, Rule]
    required: tuple[str, ...] = ()
    off: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def check(self, payload: Mapping[str, object], where: str = "") -> None:
        """Check every field; raises `ApiError` for the first at fault."""
        for name in self.required:
            if payload.get(name) is None:
                raise missing(where + name)
        for name, value in payload.items():
            if value is None:
                continue
            rule = self.rules.get(name)
            if rule is not None and not rule.holds(value):
                raise _broken(rule, where + name, value)
            off = self.off.get(name)
            if off is not None and not among(value, off):
                raise ApiError.not_modelled(where + name)

    def schema(self) -> dict[str, Any]:
        """Describe the request as JSON Schema."""
        fields = {name: _or_null(rule.schema) for name, rule in self.rules.items()}
        for name, off in self.off.items():
            fields[name] = {"enum": [None, *off]}
        for name in self.required:
            fields[name] = dict(self.rules[name].schema)
        return {
            "type": "object",
            "properties": fields,
            "required": list(self.required),
        }


def whole(low: int, high: int = MOST) -> Rule:
    """Take integers from `low` to `high`."""
    most = f" and at most {high}" if high < MOST else ""
    return Rule(
        f"an integer of at least {low}{most}",
        {"type": "integer", "minimum": low, "maximum": high},
        # A bool is an int to Python and to nobody else.
        lambda value: (
            isinstance(value, int)
            and not isinstance(value, bool)
            and low <= value <= high
        ),
    )


def number(low: float, high: float) -> Rule:
    """Take numbers from `low` to `high`."""
    return Rule(
        f"a number between {low:g} and {high:g}",
        {"type": "number", "minimum": low, "maximum": high},
        lambda value: (
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and low <= value <= high
        ),
    )


def one_of(*values: str) -> Rule:
    """Take one of some words."""
    return Rule(
        f"one of {', '.join(values)}",
        {"type": "string", "enum": list(values)},
        lambda value: isinstance(value, str) and value in values,
    )


def either(*rules: Rule) -> Rule:
    """Take what any of the rules takes."""
    return Rule(
        " or ".join(rule.expected for rule in rules),
        {"anyOf": [rule.schema for rule in rules]},
        lambda value: any(rule.holds(value) for rule in rules),
    )


def many(item: Rule, words: str, *, least: int = 0, most: int | None = None) -> Rule:
    """Take arrays of `least` to `most` items that each obey a rule."""
    schema: dict[str, Any] = {"type": "array", "items": item.schema, "minItems": least}
    if most is not None:
        schema["maxItems"] = most
    return Rule(
        words,
        schema,
        lambda value: (
            isinstance(value, list)
            and least <= len(value)
            and (most is None or len(value) <= most)
            and all(map(item.holds, value))
        ),
        item,
    )


def _is(kind: type, name: str, schema: Schema) -> Rule:
    return Rule(name, schema, lambda value: isinstance(value, kind))


BOOL: Final = _is(bool, "a boolean", {"type": "boolean"})
TEXT: Final = _is(str, "a string", {"type": "string"})
OBJECT: Final = _is(dict, "an object", {"type": "object"})


def missing(param: str) -> ApiError:
    """Return the error for a field that has to be there."""
    return ApiError(
        f"Missing required parameter: '{param}'.",
        param=param,
        code="missing_required_parameter",
    )


def invalid(param: str, expected: str, value: object) -> ApiError:
    """Return the error for a value that breaks its rule: field, rule and value."""
    return ApiError(
        f"Invalid value for '{param}': expected {expected}, got {_shown(value)}.",
        param=param,
        code="invalid_value",
    )


def _broken(rule: Rule, param: str, value: object) -> ApiError:
    """Return the error for a value that breaks a rule, down to the item at fault."""
    if rule.item is not None and isinstance(value, list):
        for i, item in enumerate(value):
            if not rule.item.holds(item):
                return _broken(rule.item, f"{param}[{i}]", item)
    return invalid(param, rule.expected, value)


def among(value: object, off: tuple[Any, ...]) -> bool:
    """Say whether a value is one of `off`."""
    # 1 == True and 0 == False in Python; in JSON they are different values.
    return any(
        value == x and isinstance(value, bool) == isinstance(x, bool) for x in off
    )


def _or_null(schema: Schema) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _shown(value: object) -> str:
    if isinstance(value, list):
        return "an array"
    if isinstance(value, dict):
        return "an object"
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
