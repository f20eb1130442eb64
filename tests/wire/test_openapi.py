"""What documents say of the API is what the tables do."""

import re

import jsonschema
import pytest
from processes import REPOSITORY

from loadstone.wire import openai_fields as fields
from loadstone.wire.by_schema import _REFUSED
from loadstone.wire.openai_error import ApiError
from loadstone.wire.openapi import PATHS, ROOT_PATHS, describe
from loadstone.wire.rules import Form

FORMS = {path.path: path.form for path in (*PATHS, *ROOT_PATHS) if path.form}
DOCUMENT = (REPOSITORY / "docs" / "api.md").read_text()


def test_every_refused_field_is_documented() -> None:
    """A client's author can look it up."""
    said = set(
        re.findall(r"`([a-z_A-Z]+)`", DOCUMENT.partition("## What is refused")[2])
    )
    for path, form in FORMS.items():
        assert not set(form.off) - said, path
    assert {"pattern", "not", "if"} <= said & set(_REFUSED)


def test_every_path_is_documented() -> None:
    """Each in a cell of the table."""
    for path in FORMS:
        assert path in DOCUMENT


@pytest.mark.parametrize("path", FORMS)
def test_rules_and_their_schemas_agree(path: str) -> None:
    """A value that a rule takes is valid under its schema, and the other way round."""
    values = [
        None, True, False, 0, 1, 2, -1, 0.5, 2.5, 1 << 60, 128, 129, "", "a", "auto",
        "high", "base64", [], [1], ["a"], [["a"]], [[1]], [{}], {}, {"a": 1}, [None],
    ]  # fmt: skip
    form = FORMS[path]
    assert form is not None
    for name, rule in form.rules.items():
        for value in values:
            valid = jsonschema.Draft202012Validator(rule.schema).is_valid(value)
            assert valid == rule.holds(value), (name, value)


def test_a_form_describes_what_it_takes() -> None:
    """Required fields, rules, and what only may be off."""
    form = Form(
        required=("a",), rules={"a": fields.TOKENS}, off={"b": (False,)}
    )  # fmt: skip
    schema = jsonschema.Draft202012Validator(form.schema())
    for payload, fine in (
        ({"a": [1]}, True),
        ({"a": [1], "b": None, "c": 1}, True),
        ({"a": [1], "b": True}, False),
        ({"a": []}, False),
        ({"a": None}, False),
        ({}, False),
    ):
        assert schema.is_valid(payload) == fine
        try:
            form.check(payload)
            taken = True
        except ApiError:
            taken = False
        assert taken == fine


def test_azure_paths_want_no_model_in_the_body() -> None:
    """It is in the path."""
    paths = describe("1")["paths"]
    for path, item in paths.items():
        if "{deployment}" in path:
            content = item["post"]["requestBody"]["content"]["application/json"]
            assert "model" not in content["schema"]["required"]
