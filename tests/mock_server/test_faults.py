"""The table of faults: what it may say, whom it strikes, and always the same ones."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.vocabulary import FAULT_KINDS
from mock_server.faults import (
    KINDS,
    PATHS,
    Facts,
    FaultError,
    FaultPlan,
    Number,
    Place,
    parse_header,
    read_fault,
    refusal,
)

ROWS: dict[str, dict[str, object]] = {
    "slow_first_token": {"delay": 1},
    "stall": {"delay": 0.5},
    "gpu_lost": {"engine": 0},
    "cold_start": {"load": 2.0},
    "power_cap": {"slowdown": 1.5},
}
"""The parameters that have no default."""


def row(kind: str, **more: object) -> dict[str, object]:
    """Give the shortest row of a kind."""
    return {"kind": kind} | ROWS.get(kind, {}) | more


def facts(number: int = 1, **more: Any) -> Facts:
    """Give a request."""
    usual = {"path": PATHS[0], "model": "llama", "tenant": "", "stream": True}
    return Facts(number, **(usual | more))


def test_the_kinds_are_those_of_the_metric() -> None:
    """Each has its label."""
    assert tuple(KINDS) == FAULT_KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_reads_back(kind: str) -> None:
    """What a fault tells of itself makes the same fault."""
    fault = read_fault(row(kind, until=99))
    assert read_fault(fault.fields()) == fault


@pytest.mark.parametrize(
    ("wrong", "key", "said"),
    [
        ({"kind": "explosion"}, "kind", "explosion"),
        ({}, "kind", "None"),
        ({"kind": "stall"}, "kind", "'delay'"),
        (row("stall", delay=-1), "delay", "-1"),
        (row("stall", delay=float("nan")), "delay", "nan"),
        (row("stall", delay=True), "delay", "True"),
        (row("stall", delay="1s"), "delay", "'1s'"),
        (row("stall", after=1.5), "after", "1.5"),
        (row("error", status=399), "status", "399"),
        (row("error", status=600), "status", "600"),
        (row("error", delay=1), "delay", "no 'delay'"),
        (row("error", probability=1.01), "probability", "1.01"),
        (row("error", until=0), "until", "0"),
        (row("error", **{"from": 5, "until": 5}), "until", "5"),
        (row("error", path="/embeddings"), "path", "/embeddings"),
        (row("error", tenant=""), "tenant", "''"),
        (row("vm_lost", requests="drop"), "requests", "'drop'"),
        (row("vm_lost", probability=0.5), "probability", "probability"),
        (row("power_cap", slowdown=0.9), "slowdown", "0.9"),
        (row("cold_start", until=1), "until", "loaded"),
    ],
)
def test_what_cannot_be_is_refused(
    wrong: dict[str, object], key: str, said: str
) -> None:
    """With the key, so that its line can be told, and the value."""
    with pytest.raises(FaultError) as caught:
        read_fault(wrong)
    assert caught.value.key == key
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (k, n)
        for k, f in KINDS.items()
        for n, p in f.fields.items()
        if isinstance(p, Number)
    ],
)
def test_both_sides_of_every_limit(kind: str, name: str) -> None:
    """The least and the most are allowed, and nothing beyond them."""
    limit = KINDS[kind].fields[name]
    assert isinstance(limit, Number)
    as_given = int if limit.whole else float
    for value in (limit.least, limit.most):
        if value < 1e9 and not (kind == "cold_start" and value == limit.most):
            given_row = row(kind, **{name: as_given(value)})
            assert read_fault(given_row).values[name] == value
    for value in (limit.least - 1, limit.most + 1):
        with pytest.raises(FaultError):
            read_fault(row(kind, **{name: value}))


@given(st.dictionaries(st.text(max_size=8) | st.sampled_from(["kind", "from", "delay"]),
                       st.none() | st.booleans() | st.floats() | st.text(max_size=5)
                       | st.sampled_from(list(KINDS))))  # fmt: skip
def test_any_row_is_read_or_refused(anything: dict[str, object]) -> None:
    """No other error, whatever it says."""
    with suppress(FaultError):
        read_fault(anything)


def test_a_header_names_a_kind_and_its_parameters() -> None:
    """With or without spaces."""
    fault = parse_header("stall; after=3;delay = 0.5")
    assert fault.fields() == {"kind": "stall", "after": 3, "delay": 0.5, "from": 0.0}


@pytest.mark.parametrize(
    "text", ["", "boom", "vm_lost", "stall;delay=x", "error;from=1", "error;tenant=a"]
)
def test_a_header_cannot_ask_for_more(text: str) -> None:
    """Nor for what is not its own: other requests, other times, machines."""
    with pytest.raises(FaultError):
        parse_header(text)


@pytest.mark.parametrize(
    ("now", "strikes"), [(9.99, False), (10.0, True), (19.99, True), (20.0, False)]
)
def test_a_fault_has_its_time(now: float, strikes: bool) -> None:
    """Counted from when it was added; the end is not in it."""
    plan = FaultPlan(0)
    plan.add(read_fault(row("error", **{"from": 5, "until": 15})), now=5.0)
    assert (plan.strike(facts(), now) is not None) == strikes


@pytest.mark.parametrize("field", ["tenant", "path", "model"])
def test_a_fault_chooses_its_requests(field: str) -> None:
    """By whose they are, where they go, what they ask for."""
    plan = FaultPlan(0)
    plan.add(read_fault(row("error", **{field: PATHS[1]})), now=0.0)
    assert plan.strike(facts(**{field: PATHS[1]}), 0.0)
    assert not plan.strike(facts(**{field: PATHS[0]}), 0.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [True, False])
def test_only_what_can_be_done_to_an_answer_strikes(kind: str, stream: bool) -> None:
    """What is for streams leaves bodies alone, machines strike no request."""
    plan = FaultPlan(0)
    plan.add(read_fault(row(kind)), now=0.0)
    form = KINDS[kind]
    expected = form.place is not Place.RACK and (stream or form.bodies)
    assert (plan.strike(facts(stream=stream), 0.0) is not None) == expected


def test_the_first_of_the_table_strikes() -> None:
    """A request has one fault at most; taken out, the next one has its turn."""
    plan = FaultPlan(0)
    first = plan.add(read_fault(row("error", status=500)), now=0.0)
    plan.add(read_fault(row("error", status=501)), now=0.0)
    assert plan.strike(facts(), 0.0) is first
    assert plan.remove(first.number) is first
    assert plan.remove(first.number) is None
    again = plan.strike(facts(), 0.0)
    assert again
    assert again.fault.values["status"] == 501


@given(st.integers(0, 2**32), st.floats(0, 1))
def test_chance_is_the_seeds(seed: int, chance: float) -> None:
    """The same requests are struck in every run, about as many as were asked for."""

    def struck() -> list[int]:
        plan = FaultPlan(seed)
        plan.add(read_fault(row("error", probability=chance)), now=0.0)
        return [i for i in range(400) if plan.strike(facts(i), 0.0)]

    hits = struck()
    assert hits == struck()
    # Five standard deviations of 400 throws, at most.
    assert abs(len(hits) - 400 * chance) <= 5 * (400 * chance * (1 - chance)) ** 0.5 + 1


def test_faults_fall_independently() -> None:
    """Two of the same chance do not strike the same requests."""
    plan = FaultPlan(3)
    for status in (500, 501):
        plan.add(read_fault(row("error", status=status, probability=0.5)), now=0.0)
    seen = [plan.strike(facts(i), 0.0) for i in range(400)]
    second = sum(1 for p in seen if p and p.number == 2)
    assert 60 <= second <= 140  # a quarter of 400, five standard deviations


@pytest.mark.parametrize(
    ("left", "told"), [(float("inf"), 7), (30.0, 30), (29.2, 30), (0.01, 1)]
)
def test_a_storm_says_when_it_is_over(left: float, told: int) -> None:
    """In whole seconds, never too early; without an end, what the table says."""
    fault = read_fault(row("throttle", retry_after=7))
    assert refusal(fault, left).retry_after_s == told
