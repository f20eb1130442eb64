"""JSON values that a JSON Schema asks for, made up from a seeded `random.Random`.

Structured output and tool arguments must be valid to the client that sent the schema.
What a schema can say and this module cannot honour is refused by name, never ignored.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from math import ceil, floor, isfinite
from random import Random
from typing import Any, Final

from .openai_error import ApiError
from .rules import MOST
from .tokens import ring_text

MAX_PARTS: Final = 10_000
"""Values in one made-up value; a schema that asks for more is refused."""
MAX_WORK: Final = 1_000_000
"""Characters written and entries of schemas looked at, for one made-up value: a body of
a few kilobytes can ask for gigabytes, and whoever makes them up holds the event loop.
"""
_PART_WORK: Final = MAX_WORK // MAX_PARTS
MAX_STRING: Final = 100_000
_DEPTH: Final = 8
"""From here down only what is required is made, and the first simple alternative."""
_REFUSED: Final = (
    "not", "if", "pattern", "patternProperties", "propertyNames", "contains",
    "dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties",
    "unevaluatedItems", "$dynamicRef", "$recursiveRef",
)  # fmt: skip
_FORMATS: Final[Mapping[str, Callable[[Random], str]]] = {
    "date-time": lambda rng: f"{_date(rng)}T{_time(rng)}Z",
    "date": lambda rng: f"{_date(rng)}",
    "time": lambda rng: f"{_time(rng)}Z",
    "duration": lambda rng: f"PT{rng.randint(1, 59)}M",
    "email": lambda rng: f"{_word(rng)}@example.com",
    "idn-email": lambda rng: f"{_word(rng)}@example.com",
    "hostname": lambda rng: f"{_word(rng)}.example.com",
    "idn-hostname": lambda rng: f"{_word(rng)}.example.com",
    "uri": lambda rng: f"https://example.com/{_word(rng)}",
    "iri": lambda rng: f"https://example.com/{_word(rng)}",
    "uri-reference": lambda rng: f"/{_word(rng)}",
    "url": lambda rng: f"https://example.com/{_word(rng)}",
    "uuid": lambda rng: _uuid(f"{rng.getrandbits(128):032x}"),
    "ipv4": lambda rng: f"192.0.2.{rng.randint(1, 254)}",
    "ipv6": lambda rng: f"2001:db8::{rng.randint(1, 65535):x}",
}
_TYPES: Final = ("string", "integer", "number", "boolean", "null", "object", "array")


def sample(schema: object, rng: Random, *, where: str) -> str:
    """Return a JSON text that is valid under `schema`.

    Raises `ApiError` naming the place below `where` for a schema that is malformed,
    that nothing can satisfy, or that says what is not modelled.
    """
    try:
        value = _Sampler(schema, rng).make(schema, where, 0)
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    except RecursionError:
        raise _bad(where, "it is nested too deeply") from None


class _Sampler:
    """One made-up value: its root schema, its random numbers, its work left."""

    def __init__(self, root: object, rng: Random) -> None:
        self._root = root
        self._rng = rng
        self._left = MAX_WORK
        self._keywords: dict[str, Callable[[Any, str, int], Any]] = {
            "$ref": self._reference,
            "const": lambda schema, where, _depth: self._given(schema["const"], where),
            "enum": lambda schema, where, _depth: self._given(
                self._pick(_list(schema["enum"], f"{where}.enum", least=1)), where
            ),
            "allOf": self._all,
            "anyOf": partial(self._alternative, "anyOf"),
            "oneOf": partial(self._alternative, "oneOf"),
        }
        """Keywords that decide before the type does, in order of precedence."""

    def __repr__(self) -> str:
        return f"<_Sampler with {self._left} left>"

    def make(self, schema: object, where: str, depth: int) -> Any:
        """Return a value for one schema."""
        self._spend(_PART_WORK + _weight(schema), where)
        if depth > 64:
            raise _bad(where, "it asks for a value that is nested too deeply")
        if schema is True or schema == {}:
            return _word(self._rng)
        if not isinstance(schema, dict):
            raise _bad(where, "expected a schema: an object, or true")
        for name in _REFUSED:
            if name in schema:
                raise ApiError.not_modelled(f"{where}.{name}")
        for name, make in self._keywords.items():
            if name in schema:
                return make(schema, where, depth)
        return self._typed(schema, where, depth)

    def _spend(self, work: int, where: str) -> None:
        self._left -= work
        if self._left < 0:
            raise _bad(where, "it asks for a value that is too large to make up")

    def _given(self, value: Any, where: str) -> Any:
        self._spend(len(json.dumps(value)), where)
        return value

    def _joined(self, schemas: list[object], where: str) -> dict[str, Any]:
        # Each schema is joined to a copy of those before it.
        self._spend(len(schemas) * sum(map(_weight, schemas)), where)
        return _merged(schemas, where)

    def _reference(self, schema: Any, where: str, depth: int) -> Any:
        target = self._resolve(schema["$ref"], where)
        joined = self._joined([target, _without(schema, "$ref")], where)
        return self.make(joined, where, depth + 1)

    def _all(self, schema: Any, where: str, depth: int) -> Any:
        parts = _list(schema["allOf"], f"{where}.allOf")
        resolved = [self._resolved(part, where) for part in parts]
        joined = self._joined([*resolved, _without(schema, "allOf")], where)
        return self.make(joined, where, depth + 1)

    def _alternative(self, name: str, schema: Any, where: str, depth: int) -> Any:
        options = _list(schema[name], f"{where}.{name}", least=1)
        simple = [o for o in options if not _nests(o)]
        if depth >= _DEPTH and simple:
            options = simple
        chosen = self._resolved(self._pick(options), where)
        return self.make(
            self._joined([_without(schema, name), chosen], where),
            f"{where}.{name}",
            depth + 1,
        )

    def _typed(self, schema: Any, where: str, depth: int) -> Any:
        kind = schema.get("type", _implied(schema))
        if isinstance(kind, list):
            kinds = [k for k in kind if k != "null"] or ["null"]
            kind = "null" if depth >= _DEPTH and "null" in kind else self._pick(kinds)
        if not isinstance(kind, str) or kind not in _TYPES:
            raise _bad(f"{where}.type", f"expected one of {', '.join(_TYPES)}")
        match kind:
            case "object":
                return self._object(schema, where, depth)
            case "array":
                return self._array(schema, where, depth)
            case "string":
                return self._string(schema, where)
            case "integer" | "number":
                return self._number(schema, where, whole=kind == "integer")
            case "boolean":
                return bool(self._rng.getrandbits(1))
        return None

    def _object(self, schema: Any, where: str, depth: int) -> dict[str, Any]:
        fields = schema.get("properties", {})
        required = _names(_list(schema.get("required", []), f"{where}.required"), where)
        if not isinstance(fields, dict):
            raise _bad(f"{where}.properties", "expected an object")
        most = _size(schema, "maxProperties", MAX_PARTS, where)
        made: dict[str, Any] = {}
        for name in required:
            inner = fields.get(name, schema.get("additionalProperties", True))
            made[name] = self.make(inner, f"{where}.properties.{name}", depth + 1)
        for name, inner in fields.items():
            wanted = depth < _DEPTH and len(made) < most and inner is not False
            if name not in made and wanted and self._rng.random() < 0.5:
                made[name] = self.make(inner, f"{where}.properties.{name}", depth + 1)
        least = _size(schema, "minProperties", 0, where)
        extra = schema.get("additionalProperties", True)
        for name in fields:
            if len(made) < least and name not in made:
                inner = fields[name]
                made[name] = self.make(inner, f"{where}.properties.{name}", depth + 1)
        while len(made) < least and extra is not False:
            name = f"{_word(self._rng)}_{len(made)}"
            made[name] = self.make(extra, f"{where}.additionalProperties", depth + 1)
        if not least <= len(made) <= most:
            raise _bad(where, "no object has so few or so many properties")
        self._spend(sum(map(len, made)), where)
        return {name: made[name] for name in [*fields, *made] if name in made}

    def _array(self, schema: Any, where: str, depth: int) -> list[Any]:
        first = _list(schema.get("prefixItems", []), f"{where}.prefixItems")
        inner = schema.get("items", True)
        least = _size(schema, "minItems", 0, where)
        usual = max(least, len(first), 0 if depth >= _DEPTH else 1)
        most = _size(schema, "maxItems", max(usual, usual + 2), where)
        if least > most:
            raise _bad(where, "minItems is above maxItems")
        n = least if depth >= _DEPTH else self._rng.randint(min(usual, most), most)
        n = min(n, max(usual, least) + 2)
        if inner is False:
            n = min(n, len(first))
        made = [self.make(s, f"{where}.prefixItems", depth + 1) for s in first[:n]]
        unique = schema.get("uniqueItems") is True
        seen = set(map(_key, made)) if unique else set()
        tries = 0
        while len(made) < n:
            value = self.make(inner, f"{where}.items", depth + 1)
            if unique:
                key = _key(value)
                if key in seen:
                    tries += 1
                    if tries > 50:
                        break
                    continue
                seen.add(key)
            made.append(value)
        if len(made) < least:
            raise _bad(where, "there are not so many items to choose from")
        return made

    def _string(self, schema: Any, where: str) -> str:
        least = _size(schema, "minLength", 0, where)
        most = _size(schema, "maxLength", MAX_STRING, where)
        if least > most or least > MAX_STRING:
            raise _bad(where, "no string is so long, or minLength is above maxLength")
        self._spend(least, where)
        named = schema.get("format")
        if isinstance(named, str) and named in _FORMATS:
            text = _FORMATS[named](self._rng)
            if not least <= len(text) <= most:
                raise _bad(where, f"no {named} has such a length")
            return text
        words = ring_text(self._rng.getrandbits(13), self._rng.randint(1, 6))
        while sum(map(len, words)) < least + 1:
            words += ring_text(self._rng.getrandbits(13), 64)
        text = "".join(words)[1:]
        return text[:most] if least <= 24 else text[:least]

    def _number(self, schema: Any, where: str, *, whole: bool) -> float:
        low, high = _bounds(schema, where, whole=whole)
        step = schema.get("multipleOf")
        if step is not None:
            step = _finite(step, f"{where}.multipleOf")
            if step <= 0:
                raise _bad(f"{where}.multipleOf", "expected a number above 0")
            if whole and step != int(step):
                raise ApiError.not_modelled(f"{where}.multipleOf")
        elif whole:
            step = 1
        if step is None:
            return round(self._rng.uniform(low, high), 3) if high - low > 1 else low
        first, last = ceil(low / step), floor(high / step)
        if first > last:
            raise _bad(where, "no number lies between its bounds")
        value = self._rng.randint(first, min(last, first + 1000)) * step
        return int(value) if whole else value

    def _pick(self, options: list[Any]) -> Any:
        return options[self._rng.randrange(len(options))]

    def _resolved(self, schema: object, where: str) -> object:
        for _ in range(_DEPTH):
            if not (isinstance(schema, dict) and set(schema) == {"$ref"}):
                return schema
            schema = self._resolve(schema["$ref"], where)
        raise _bad(where, "its $ref leads round in a circle")

    def _resolve(self, ref: object, where: str) -> object:
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise _bad(f"{where}.$ref", "only references into the schema itself")
        self._spend(len(ref), where)
        found = self._root
        for step in ref.split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or key not in found:
                raise _bad(f"{where}.$ref", f"there is no {ref[:60]!r}")
            found = found[key]
        return found


def _merged(schemas: list[object], where: str) -> dict[str, Any]:
    """Join schemas that must all hold; those that disagree on a keyword are refused."""
    joined: dict[str, Any] = {}
    for schema in schemas:
        if schema is True:
            continue
        if not isinstance(schema, dict):
            raise _bad(where, "expected a schema: an object, or true")
        for key, value in schema.items():
            old = joined.get(key, value)
            if (
                key == "properties"
                and isinstance(old, dict)
                and isinstance(value, dict)
            ):
                joined[key] = old | value
            elif (
                key == "required" and isinstance(old, list) and isinstance(value, list)
            ):
                joined[key] = list(dict.fromkeys(_names([*old, *value], where)))
            elif old == value or key in ("title", "description", "default"):
                joined[key] = old
            else:
                raise ApiError.not_modelled(
                    f"{where}.{key}", "two schemas differ on it"
                )
    return joined


def _without(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != name}


def _implied(schema: Mapping[str, Any]) -> str:
    for kind, keys in (
        ("object", ("properties", "required", "additionalProperties")),
        ("array", ("items", "prefixItems", "minItems")),
        ("number", ("minimum", "maximum", "exclusiveMinimum", "multipleOf")),
    ):
        if any(key in schema for key in keys):
            return kind
    return "string"


def _nests(schema: object) -> bool:
    return isinstance(schema, dict) and (
        "$ref" in schema or schema.get("type") in ("object", "array")
    )


def _bounds(schema: Any, where: str, *, whole: bool) -> tuple[float, float]:
    def bound(name: str) -> float | None:
        value = schema.get(name)
        if value is None or isinstance(value, bool):  # draft 4's exclusive flags
            return None
        return _finite(value, f"{where}.{name}")

    gap = 1 if whole else 1e-3
    lows = [bound("minimum"), _plus(bound("exclusiveMinimum"), gap)]
    highs = [bound("maximum"), _plus(bound("exclusiveMaximum"), -gap)]
    low = max((x for x in lows if x is not None), default=None)
    high = min((x for x in highs if x is not None), default=None)
    if low is None:
        low = 0 if high is None or high >= 0 else high - 100
    if high is None:
        high = low + 100
    if low > high:
        raise _bad(where, "no number lies between its bounds")
    return low, high


def _plus(value: float | None, gap: float) -> float | None:
    return None if value is None else value + gap


def _finite(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _bad(where, "expected a number")
    if not -MOST <= value <= MOST or not isfinite(value):
        raise _bad(where, f"expected a number up to {MOST}")
    return value


def _size(schema: Mapping[str, Any], name: str, usual: int, where: str) -> int:
    value = schema.get(name, usual)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise _bad(f"{where}.{name}", "expected a whole number from 0")
    if value > MAX_STRING and name.startswith("min"):
        raise _bad(f"{where}.{name}", "it asks for a value too large to make up")
    return int(min(value, MAX_STRING))


def _list(value: object, where: str, *, least: int = 0) -> list[Any]:
    if not isinstance(value, list) or len(value) < least:
        raise _bad(where, "expected an array" + (" that is not empty" if least else ""))
    return value


def _names(value: list[Any], where: str) -> list[str]:
    if not all(isinstance(name, str) for name in value):
        raise _bad(f"{where}.required", "expected strings")
    return value


def _key(value: object) -> str:
    """Return what equal values share."""
    return json.dumps(value, sort_keys=True)


def _weight(schema: object) -> int:
    """Return how many keywords a schema has, and entries in them."""
    if not isinstance(schema, dict):
        return 1
    return len(schema) + sum(
        len(value) for value in schema.values() if isinstance(value, (dict, list))
    )


def _word(rng: Random) -> str:
    word = ring_text(rng.getrandbits(13), 1)[0].strip()
    return word if word.isascii() else "word"


def _date(rng: Random) -> str:
    return f"2026-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"


def _time(rng: Random) -> str:
    return f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}:{rng.randint(0, 59):02d}"


def _uuid(digits: str) -> str:
    cuts = (digits[:8], digits[8:12], "4" + digits[13:16], "a" + digits[17:20])
    return "-".join((*cuts, digits[20:]))


def _bad(where: str, what: str) -> ApiError:
    where = where if len(where) <= 200 else where[:200] + "..."
    return ApiError(
        f"Invalid schema '{where}': {what}.", param=where, code="invalid_schema"
    )
