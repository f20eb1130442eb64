"""Made-up JSON is valid under the schema that asked for it, or that is refused."""

import json
from random import Random
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.wire.by_schema import sample
from loadstone.wire.openai_error import ApiError

NODE: Any = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["value", "next"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}


def made(schema: Any, seed: int = 0) -> Any:
    """Make a value up."""
    return json.loads(sample(schema, Random(seed), where="s"))


def bounded(kind: str, low: int, span: int, **more: Any) -> dict[str, Any]:
    """Return a schema of numbers."""
    return {"type": kind, "minimum": low, "maximum": low + span} | more


LEAVES = st.one_of(
    st.sampled_from(
        [
            True,
            {},
            {"type": "boolean"},
            {"type": "null"},
            {"const": {"a": [1, None]}},
            {"enum": ["é", 2, None, [1]]},
            {"type": ["string", "null"]},
        ]
    ),
    st.sampled_from(
        [
            "date-time",
            "date",
            "time",
            "email",
            "uri",
            "uuid",
            "ipv4",
            "ipv6",
            "hostname",
        ]
    ).map(lambda name: {"type": "string", "format": name}),
    st.tuples(st.integers(0, 200), st.integers(0, 200)).map(
        lambda n: {"type": "string", "minLength": n[0], "maxLength": sum(n)}
    ),
    st.builds(
        bounded, st.just("integer"), st.integers(-(10**9), 10**9), st.integers(0, 10**6)
    ),
    st.builds(bounded, st.just("number"), st.integers(-100, 100), st.integers(0, 5)),
    st.builds(
        lambda low, step: bounded("integer", low, step, multipleOf=step),
        st.integers(-1000, 1000),
        st.integers(1, 50),
    ),
    st.integers(-5, 5).map(lambda low: {"type": "integer", "exclusiveMinimum": low}),
    st.integers(-5, 5).map(lambda top: {"type": "number", "exclusiveMaximum": top}),
)


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return schemas of objects whose fields come from `inner`."""
    fields = st.dictionaries(st.text(min_size=1, max_size=4), inner, max_size=4)
    return st.tuples(fields, st.booleans(), st.booleans()).map(
        lambda x: {
            "type": "object",
            "properties": x[0],
            "required": list(x[0])[::2] if x[1] else list(x[0]),
            "additionalProperties": x[2],
        }
    )


def arrays(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return schemas of arrays whose items come from `inner`."""
    return st.tuples(inner, st.integers(0, 3), st.integers(0, 3)).map(
        lambda x: {
            "type": "array", "items": x[0], "minItems": x[1], "maxItems": x[1] + x[2]
        }
    )  # fmt: skip


SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        objects(inner),
        arrays(inner),
        st.lists(inner, min_size=1, max_size=3).map(lambda x: {"anyOf": x}),
        objects(inner).map(lambda x: {"allOf": [x, {"description": "d"}]}),
    ),
    max_leaves=12,
)


@given(SCHEMAS, st.integers())
def test_what_is_made_is_valid(schema: Any, seed: int) -> None:
    """A validator says so, formats included; and the same seed makes the same."""
    value = made(schema, seed)
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(schema, format_checker=checker).validate(value)
    assert made(schema, seed) == value


@pytest.mark.parametrize("seed", range(20))
def test_recursion_ends(seed: int) -> None:
    """A schema that refers to itself gives a finite value."""
    jsonschema.validate(made(NODE, seed), NODE)


@pytest.mark.parametrize(
    ("schema", "param"),
    [
        ({"type": "string", "pattern": "^a+$"}, "s.pattern"),
        ({"not": {}}, "s.not"),
        ({"type": "object", "properties": {"a": {"if": {}}}, "required": ["a"]},
         "s.properties.a.if"),
        ({"allOf": [{"minimum": 1}, {"minimum": 2}]}, "s.minimum"),
    ],
)  # fmt: skip
def test_what_is_not_modelled_is_refused_by_name(schema: Any, param: str) -> None:
    """A value that ignores half of its schema would fail at the client."""
    with pytest.raises(ApiError) as caught:
        made(schema)
    assert (caught.value.code, caught.value.param) == ("not_modelled", param)


@pytest.mark.parametrize(
    "schema",
    [
        5, None, "string", [], {"type": "text"}, {"type": 5}, {"enum": []},
        {"minimum": 2, "maximum": 1}, {"type": "integer", "minimum": 1e400},
        {"type": "integer", "minimum": "1"}, {"minLength": 1e9, "type": "string"},
        {"type": "string", "minLength": 3, "maxLength": 2}, {"$ref": "#/nowhere"},
        {"$ref": "https://example.com/s"}, {"$ref": "#"}, {"$ref": 5},
        {"type": "array", "minItems": 10**9}, {"type": "array", "minItems": -1},
        {"type": "array", "minItems": 5, "maxItems": 1},
        {"type": "array", "minItems": 3, "uniqueItems": True, "items": {"enum": [1]}},
        {"type": "object", "required": [1]}, {"type": "object", "required": "a"},
        {"type": "object", "properties": []}, {"anyOf": 5}, {"anyOf": []},
        {"type": "integer", "minimum": 1, "maximum": 2, "multipleOf": 5},
        {"type": "number", "multipleOf": 0}, {"type": "object", "minProperties": 2,
        "additionalProperties": False},
        {"type": "array", "minItems": 200, "items": {"type": "array", "minItems": 200}},
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_the_clients_fault(schema: Any) -> None:
    """Malformed, unsatisfiable or absurdly large: a 4xx, and soon."""
    with pytest.raises(ApiError) as caught:
        made(schema)
    assert caught.value.status == 400


def test_nesting_has_a_limit() -> None:
    """A schema as deep as JSON allows is refused, not a crash."""
    schema: Any = {"type": "integer"}
    for _ in range(400):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    with pytest.raises(ApiError):
        made(schema)


MANY: Any = {"type": "array", "minItems": 9000}


@pytest.mark.parametrize(
    "schema",
    [
        MANY | {"items": {"const": "x" * 1000}},
        MANY | {"items": {"enum": ["x" * 1000]}},
        MANY | {"items": {"type": "string", "minLength": 1000}},
        MANY | {"items": {"properties": {f"p{i}": False for i in range(1000)}}},
        MANY | {"items": {"$ref": "#/$defs/" + "n" * 1000}, "$defs": {"n" * 1000: {}}},
        {"required": [f"{i}" + "n" * 1000 for i in range(2000)]},
        {"allOf": [{"properties": {f"p{i}": {}, f"q{i}": {}}} for i in range(900)]},
    ],
)  # fmt: skip
def test_what_costs_much_more_than_it_says_is_refused(schema: Any) -> None:
    """A few kilobytes must not become gigabytes, nor hold the event loop."""
    with pytest.raises(ApiError, match="too large"):
        made(schema)


def test_a_long_text_is_made_once_but_not_twice_too_often() -> None:
    """Ten texts of the greatest length are too many, nine are not."""
    texts = {"type": "array", "items": {"type": "string", "minLength": 100_000}}
    assert len(made(texts | {"minItems": 9, "maxItems": 9})) == 9
    with pytest.raises(ApiError, match="too large"):
        made(texts | {"minItems": 10, "maxItems": 10})


def test_many_different_items_are_made() -> None:
    """Whether an item is new is looked up, not compared with all before it."""
    items = {"type": "integer", "maximum": 1 << 50}
    kinds = {"anyOf": [items | {"minimum": 1000 * i} for i in range(1000)]}
    found = made(
        {"type": "array", "items": kinds, "minItems": 200, "uniqueItems": True}
    )
    assert len(set(found)) == len(found) >= 200


def test_a_constant_nested_too_deeply_to_write_is_refused() -> None:
    """It was just shallow enough to be read."""
    deep: Any = []
    for _ in range(100_000):  # Python 3.13 writes ten thousand
        deep = [deep]
    with pytest.raises(ApiError, match="deeply"):
        sample({"const": deep}, Random(0), where="s")
