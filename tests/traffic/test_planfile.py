"""Plans as files: what is wrong is named with its line, and editors know it before."""

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest

from loadstone.catalog.plans import load_plan, plan_names, plan_text
from loadstone.catalog.workloads import load_lengths
from loadstone.cli.load_options import PLAN_OPTIONS
from loadstone.cli.plan import schema_text
from loadstone.errors import UsageError
from loadstone.traffic.classes import FIELDS, TrafficClass
from loadstone.traffic.planfile import PlanFile, read_plan

SCHEMA = Path(__file__).parents[2] / "docs" / "plan.schema.json"
GOOD = """text = "mine"

[options]
rate = 2
duration = "10s"

[[class]]
name = "a"
tenant = "gold"
input = [10, 20]
output = "mlperf-llama2-70b-output"

[[class]]
name = "b"
input = 7
turns = [1, 3]
think = "2s"

[[tenant]]
name = "gold"
key_env = "GOLD"

[[slo]]
metric = "ttft_s"
stat = "p99"
max_s = 0.5
"""


def read(text: str) -> PlanFile:
    """Read a plan called p.toml."""
    return read_plan(text, path="p.toml", name="p", options=PLAN_OPTIONS)


def test_a_plan_by_hand() -> None:
    """All of its parts."""
    plan = read(GOOD)
    assert (plan.name, plan.text) == ("p", "mine")
    assert plan.options == {"rate": "2", "duration": "10s"}
    one, two = plan.classes
    assert (one.input, one.output, one.tenant) == (
        (10, 20), "mlperf-llama2-70b-output", "gold",
    )  # fmt: skip
    assert (two.input, two.turns, two.think_s) == ((7, 7), (1, 3), 2.0)
    assert [(t.name, t.key_env) for t in plan.tenants] == [("gold", "GOLD")]
    assert [(s.metric, s.max_s) for s in plan.slos] == [("ttft_s", 0.5)]


@pytest.mark.parametrize(
    ("old", "new", "line", "why", "hint"),
    [
        ("rate = 2", "raet = 2", 4, "no option 'raet'", "mean rate?"),
        ("turns =", "turn =", 16, "a class has no 'turn'", "mean turns?"),
        ("[[tenant]]", "[[tenants]]", 19, "a plan has no 'tenants'", "mean tenant?"),
        ('[[class]]\nname = "b"', "[[class]]", 13, "a class needs name", ""),
        ("input = 7", "input = 0", 15, "input: 0 is not a length", ""),
        ("input = 7", "input = [9, 7]", 15, "input: [9, 7] is not a length", ""),
        ("[1, 3]", '"many"', 16, "turns: 'many' is not a number, or two", ""),
        ('"2s"', '"soon"', 17, "think: 'soon' is not a duration", "30s"),
        ('"gold"\ninput', '"golf"\ninput', 9, "no [[tenant]] is called", "mean gold?"),
        ('name = "b"', 'name = "a"', 14, "two [[class]] called 'a'", ""),
        ("key_env = ", "key = ", 21, "a tenant has no 'key'", ""),
        ("rate = 2", "rate = [2]", 4, "rate: [2] is no value of an option", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(
    old: str, new: str, line: int, why: str, hint: str
) -> None:
    """And with what was probably meant."""
    assert old in GOOD
    with pytest.raises(UsageError) as caught:
        read(GOOD.replace(old, new, 1))
    assert caught.value.message.startswith(f"p.toml, line {line}: ")
    assert why in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rate = ", "is not TOML"),
        ("", r"it has no \[\[class\]\]"),
        ("class = 3", r"write \[\[class\]\], with two brackets"),
        ("options = 3\n" + GOOD.replace("[options]", "[plan]"), "options is a table"),
    ],
)
def test_what_is_no_plan_is_refused(text: str, why: str) -> None:
    """With the file's name."""
    with pytest.raises(UsageError, match=rf"^p\.toml.*{why}"):
        read(text)


def test_classes_are_written_as_they_are_read() -> None:
    """So that a run's folder has all that it takes to run it again."""
    for name in plan_names():
        for each in load_plan(name).classes:
            assert TrafficClass.from_toml(each.to_toml()) == each


@pytest.mark.parametrize("name", plan_names())
def test_every_built_in_plan_is_a_valid_file(name: str) -> None:
    """By our reader and by the schema; its tables of lengths are there."""
    plan = read(plan_text(name))
    assert plan.text
    for each in plan.classes:
        for spec in (each.input, each.output, each.system, each.context):
            if isinstance(spec, str):
                assert load_lengths(spec).mean > 0
    schema = json.loads(SCHEMA.read_text())
    jsonschema.validate(tomllib.loads(plan_text(name)), schema)


def test_the_committed_schema_is_the_present_one() -> None:
    """`loadstone plan schema > docs/plan.schema.json` writes it anew."""
    assert SCHEMA.read_text() == schema_text()


@pytest.mark.parametrize(
    ("old", "new"),
    [("turns =", "turn ="), ("input = 7", "input = 0"), ("rate = 2", "raet = 2"),
     ("stat =", "start ="), ("[[tenant]]", "[[tenants]]")],
)  # fmt: skip
def test_the_schema_refuses_what_the_reader_refuses(old: str, new: str) -> None:
    """And takes what it takes."""
    schema = json.loads(SCHEMA.read_text())
    jsonschema.validate(tomllib.loads(GOOD), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(GOOD.replace(old, new, 1)), schema)


def test_every_field_of_a_class_can_be_set() -> None:
    """The table of keys and the values it makes are of the same names."""
    fields = set(TrafficClass.__dataclass_fields__)
    assert {each.into or each.name for each in FIELDS} == fields
