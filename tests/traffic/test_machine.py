"""What a machine can measure: loads by hand, shares, and what a run is told."""

import json
from dataclasses import replace
from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.traffic.machine import (
    EVENTS,
    LIMITS,
    REQUESTS,
    Bracket,
    Load,
    Machine,
    Profile,
    Standing,
    loads_of,
)
from loadstone.traffic.record import Outcome, RequestRecord

HERE = Machine(cpu="Xeon", cores=2, system="Linux", python="3.11.7", loadstone="0.1")
PROFILE = Profile(
    HERE,
    "2026-01-31T12:00:00+00:00",
    {EVENTS: Bracket(10_000.0, 12_000.0), REQUESTS: Bracket(200.0, 250.0)},
)
rates = st.floats(0.0, 1e6)


def row(at: float, worker: int = 0, events: int = 50) -> RequestRecord:
    """Return an answer that took a second for its events."""
    return RequestRecord(
        id=f"{worker}/{at}", scenario="chat", intended_s=at, sent_s=at, first_s=at,
        last_s=at + 1.0, end_s=at + 1.0, outcome=Outcome.OK, output_tokens=events,
        events=events, worker=worker,
    )  # fmt: skip


def test_loads_by_hand() -> None:
    """20 requests a second for 30 s, each with 50 events over a second."""
    (load,) = loads_of(row(i / 20) for i in range(600))
    assert load.requests_per_s == pytest.approx(20, rel=0.01)
    assert load.events_per_s == pytest.approx(1000, rel=0.02)


def test_each_worker_has_its_own_load() -> None:
    """And one that only sends has no events."""
    rows = [row(i / 20, worker=i % 2) for i in range(600)]
    rows += [row(i / 5, worker=2).but(first_s=None) for i in range(150)]
    first, second, third = loads_of(rows)
    assert first.requests_per_s == pytest.approx(10, rel=0.02)
    assert second.events_per_s == pytest.approx(500, rel=0.03)
    assert third == Load(0.0, third.requests_per_s)
    assert third.requests_per_s == pytest.approx(5, rel=0.02)


def test_no_rate_is_of_less_than_a_second() -> None:
    """One request, or many at once, are not a million per second."""
    assert loads_of([row(0.0)]) == [Load(50.0, 1.0)]
    (burst,) = loads_of([row(0.0)] * 30)
    assert burst.requests_per_s == 30.0
    assert loads_of([]) == []


def test_shares_add_up() -> None:
    """Half of each limit is the whole; a limit that was not found limits nothing."""
    assert PROFILE.share(Load(5_000.0, 100.0)) == 1.0
    assert PROFILE.share(Load(0.0, 0.0)) == 0.0
    unfound = replace(
        PROFILE, limits={EVENTS: Bracket(10.0, None), REQUESTS: Bracket(None, None)}
    )
    assert unfound.share(Load(1e9, 1e9)) == 0.0


@given(rates, rates, rates, rates)
def test_more_load_is_never_less_of_a_share(
    events: float, requests: float, more: float, others: float
) -> None:
    """The share grows with either."""
    least = PROFILE.share(Load(events, requests))
    assert least >= 0.0
    assert PROFILE.share(Load(events + more, requests + others)) >= least


@given(
    st.lists(
        st.tuples(st.floats(1e-3, 1e9), st.none() | st.floats(1e-3, 1e9)),
        min_size=2, max_size=2,
    )
)  # fmt: skip
def test_a_profile_is_read_back_from_json(
    ends: list[tuple[float, float | None]],
) -> None:
    """Whole, through text; evidence beside it does no harm."""
    limits = {name: Bracket(*end) for name, end in zip(LIMITS, ends, strict=True)}
    profile = replace(PROFILE, limits=limits)
    text = json.dumps({**profile.to_json(), "steps": [1, 2]})
    assert Profile.from_json(json.loads(text)) == profile


@pytest.mark.parametrize(
    "wrong",
    [
        {"limits": {EVENTS: {"held": 1.0, "missed": 2.0}}},
        {"limits": {name: {"held": 0.0, "missed": 2.0} for name in LIMITS}},
        {"limits": {name: {"held": None, "missed": 2.0} for name in LIMITS}},
        {"limits": {name: {"held": 1.0} for name in LIMITS}},
        {"limits": {name: {"held": "many", "missed": 2.0} for name in LIMITS}},
        {"machine": {"cpu": "Xeon"}},
        {"machine": None},
    ],
)
def test_what_is_no_profile_is_not_read(wrong: dict[str, object]) -> None:
    """A limit is missing, 0, half, text; a machine is half or none."""
    with pytest.raises((KeyError, TypeError, ValueError)):
        Profile.from_json({**PROFILE.to_json(), **wrong})


def test_a_machine_differs_by_each_of_its_facts() -> None:
    """Named with both values."""
    assert HERE.differences(HERE) == []
    for name, other in (
        ("cpu", "EPYC"), ("cores", 4), ("system", "Darwin"), ("python", "3.12.1"),
        ("loadstone", "0.2"),
    ):  # fmt: skip
        told = HERE.differences(replace(HERE, **{name: other}))
        assert told == [f"{name} {getattr(HERE, name)}, here {other}"]


def test_a_run_at_the_limit_is_within_it_and_above_it_is_not() -> None:
    """The reason has the load, the limits and the file."""
    standing = Standing("/state/selfcheck.json", PROFILE)
    told, reason = standing.judge([Load(5_000.0, 100.0)])
    assert (told["share"], reason) == (1.0, None)
    assert told["profile"] == "/state/selfcheck.json"
    assert told["limits"][EVENTS] == {"held": 10_000.0, "missed": 12_000.0}
    told, reason = standing.judge([Load(18_000.0, 40.0)])
    assert isclose(told["share"], 2.0)
    assert reason is not None
    for words in (
        "18,000 events/s and 40.0 requests/s",
        "2.0 times",
        "10,000 events/s or 200 requests/s",
        "/state/selfcheck.json",
    ):
        assert words in reason


def test_of_several_workers_the_busiest_is_judged() -> None:
    """Two within the limit do not make one beyond it, and one beyond it is found."""
    standing = Standing("p", PROFILE)
    within = Load(8_000.0, 20.0)
    assert standing.judge([within, within])[1] is None
    told, reason = standing.judge([within, Load(11_000.0, 0.0)])
    assert told["load"] == {EVENTS: 11_000.0, REQUESTS: 0.0}
    assert reason is not None
    assert standing.judge([])[1] is None


def test_without_a_profile_nothing_is_judged_and_that_is_said() -> None:
    """However large the load."""
    told, reason = Standing("p", None, "no profile").judge([Load(1e9, 1e9)])
    assert told == {"profile": None, "absent": "no profile"}
    assert reason is None
