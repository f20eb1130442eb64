"""The selfcheck's ramp: it finds a limit that was planted, in spite of a stall."""

from collections.abc import Callable
from math import inf
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadstone.traffic.machine import EVENTS, MAX_TPOT_ERROR, MAX_TTFT_ERROR_S, REQUESTS
from loadstone.traffic.record import Outcome, RequestRecord, TokensSource, Truth
from loadstone.traffic.selfcheck import (
    AXES,
    PROBES_PER_S,
    QUICK,
    SHORT,
    THOROUGH,
    Axis,
    Step,
    arrivals,
    bracket,
    ramp,
)

LOW, START, HIGH = 10.0, 100.0, 6400.0
EVENTS_AXIS, REQUESTS_AXIS = AXES


def climb(
    holds: Callable[[int, float], bool], precision: float = 1.25
) -> list[tuple[float, bool]]:
    """Drive a ramp; `holds` is asked with the turn and the load."""
    climbing = ramp(START, low=LOW, high=HIGH, precision=precision)
    seen: list[tuple[float, bool]] = []
    load = next(climbing)
    while True:
        seen.append((load, holds(len(seen), load)))
        try:
            load = climbing.send(seen[-1][1])
        except StopIteration:
            return seen


def found(seen: list[tuple[float, bool]]) -> tuple[float, float]:
    """Return the most that was held and the least above it that was not."""
    held = max((load for load, ok in seen if ok), default=0.0)
    return held, min((load for load, ok in seen if load > held), default=inf)


@given(st.floats(1.0, 10_000.0), st.sampled_from([1.25, 2.0]))
def test_a_planted_limit_is_bracketed(limit: float, precision: float) -> None:
    """Held below, missed above, within the precision; at the ends, what was tried."""
    seen = climb(lambda _, load: load <= limit, precision)
    held, missed = found(seen)
    assert held <= limit < missed
    if limit < LOW:
        assert (held, missed) == (0.0, LOW)
    elif limit >= HIGH:
        assert (held, missed) == (HIGH, inf)
    else:
        assert missed <= held * precision * (1 + 1e-9)
    assert len(seen) <= 20
    assert all(LOW <= load <= HIGH for load, _ in seen)


@given(st.floats(1.0, 10_000.0), st.integers(0, 12))
def test_one_stall_does_not_move_the_limit(limit: float, turn: int) -> None:
    """A step that missed by chance is tried again; only twice in a row is the load."""
    undisturbed = found(climb(lambda _, load: load <= limit))
    stalled = climb(lambda at, load: load <= limit and at != turn)
    assert found(stalled) == undisturbed


@given(st.floats(1.0, 10_000.0), st.floats(1.0, 10_000.0))
def test_a_faster_machine_never_has_a_lower_limit(one: float, other: float) -> None:
    """What is found rises with what there is, to within the precision."""
    slow, fast = sorted((one, other))
    slower, faster = (
        found(climb(lambda _, load, most=most: load <= most)) for most in (slow, fast)
    )
    assert slower[0] <= faster[0] * 1.25


# ---------------------------------------------------------------- arrivals


def test_a_step_of_events_is_long_answers_and_a_few_probes() -> None:
    """The long ones begin in the warm-up and last the step; probes come after it."""
    rows = arrivals(EVENTS_AXIS, 40, THOROUGH, Random(1))
    long = [row for row in rows if row.output_tokens > SHORT]
    short = [row for row in rows if row.output_tokens == SHORT]
    assert len(long) == 40
    assert max(row.at_s for row in long) < THOROUGH.warmup_s
    assert all(row.output_tokens * 0.019 >= THOROUGH.step_s for row in long)
    assert min(row.at_s for row in short) >= THOROUGH.warmup_s
    assert max(row.at_s for row in short) < THOROUGH.step_s
    expected = PROBES_PER_S * THOROUGH.measured_s
    assert abs(len(short) - expected) < 5 * expected**0.5
    assert [row.at_s for row in rows] == sorted(row.at_s for row in rows)


@pytest.mark.parametrize("pace", [QUICK, THOROUGH])
def test_a_step_of_requests_is_short_answers_alone(pace: object) -> None:
    """At the rate that was asked for, the same for the same generator."""
    rows = arrivals(REQUESTS_AXIS, 200, pace, Random(7))
    assert {row.output_tokens for row in rows} == {SHORT}
    expected = 200 * pace.step_s
    assert abs(len(rows) - expected) < 5 * expected**0.5
    assert rows == arrivals(REQUESTS_AXIS, 200, pace, Random(7))


# ---------------------------------------------------------------- steps


def row(
    at: float, *, ttft_error: float = 0.0, tpot_error: float = 0.0, warmup: bool = False
) -> RequestRecord:
    """Return an answer of four tokens in 60 ms, read with those errors."""
    first = at + 0.05 + ttft_error
    return RequestRecord(
        id=f"{at}", scenario="chat", intended_s=at, sent_s=at, first_s=first,
        last_s=first + 0.06 * (1 + tpot_error), end_s=at + 1, outcome=Outcome.OK,
        output_tokens=4, first_event_tokens=1, events=4,
        tokens_source=TokensSource.USAGE, warmup=warmup,
        truth=Truth(1e9 + at, 1e9 + at + 0.05, 1e9 + at + 0.05, 1e9 + at + 0.11, 0),
    )  # fmt: skip


INSTRUMENT = {"mock_lag_s": {"p99": 0.001}, "cpu_share": 0.5, "gc_share": 0.0}


def step(
    rows: list[RequestRecord], axis: Axis = EVENTS_AXIS, asked: float = 100
) -> Step:
    """Measure rows."""
    return Step.of(axis, asked, rows, INSTRUMENT)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("name", "limit", "says"),
    [
        ("ttft_error", MAX_TTFT_ERROR_S, "TTFT off by 2.1 ms"),
        ("tpot_error", MAX_TPOT_ERROR, "TPOT off by 5.2%"),
    ],
)
def test_a_step_is_right_up_to_its_bounds(
    name: str, limit: float, says: str, sign: int
) -> None:
    """Both sides, early or late; one bad answer in a hundred is above the p99."""
    for share, faults in ((0.97, []), (1.04, [says])):
        rows = [row(i * 0.01, **{name: sign * limit * share}) for i in range(100)]
        assert step(rows).faults == faults
    rows = [row(i * 0.01) for i in range(200)]
    rows[0] = row(0.0, **{name: sign * limit * 10})
    assert step(rows).faults == []


def test_what_was_sent_in_the_warmup_is_not_measured_but_is_load() -> None:
    """Its errors are left out; its events count."""
    rows = [row(i * 0.01, ttft_error=0.1, warmup=True) for i in range(100)]
    rows += [row(1 + i * 0.01) for i in range(100)]
    seen = step(rows)
    assert seen.faults == []
    assert seen.ttft_error_s["n"] == 100
    assert seen.load.requests_per_s == pytest.approx(100, rel=0.05)
    assert seen.load.events_per_s == pytest.approx(400, rel=0.1)
    assert seen.vitals == {"cpu_share": 0.5, "gc_share": 0.0}


def test_a_request_without_an_answer_is_a_fault() -> None:
    """And so is a step of which nothing was read at all."""
    lost = RequestRecord(
        id="x", scenario="chat", intended_s=0, sent_s=0, end_s=1, outcome=Outcome.FAILED
    )
    assert step([*(row(i * 0.01) for i in range(100)), lost]).faults == [
        "1 requests not answered"
    ]
    assert step([]).faults == ["nothing was read"]


# ---------------------------------------------------------------- brackets


def tried(asked: float, *, right: bool, axis: Axis = REQUESTS_AXIS) -> Step:
    """Return a step at that many requests/s."""
    late = 0.0 if right else 0.01
    rows = [row(i / asked, ttft_error=late) for i in range(round(3 * asked))]
    return step(rows, axis, asked)


def test_a_bracket_is_in_measured_rates() -> None:
    """The highest load held and the next above it, of this ramp's own steps."""
    steps = [
        tried(50, right=True),
        tried(200, right=False),
        tried(200, right=False),
        tried(100, right=False),
        tried(100, right=True),
        tried(800, right=True, axis=EVENTS_AXIS),
    ]
    one = bracket(REQUESTS_AXIS, steps)
    assert one.held == pytest.approx(100, rel=0.02)
    assert one.missed == pytest.approx(200, rel=0.02)
    events = bracket(EVENTS_AXIS, steps)
    assert events.held == pytest.approx(3200, rel=0.1)
    assert events.missed is None


def test_a_bracket_of_nothing_says_nothing() -> None:
    """No step: both ends unknown. Nothing held: only what was missed."""
    assert bracket(REQUESTS_AXIS, []) == bracket(EVENTS_AXIS, [])
    none = bracket(REQUESTS_AXIS, [tried(50, right=False)])
    assert none.held is None
    assert none.missed == pytest.approx(50, rel=0.02)


@settings(max_examples=20)
@given(st.floats(5.0, 300.0))
def test_ramp_and_bracket_agree(limit: float) -> None:
    """What the ramp closes in on is what the steps say, in order or not."""
    steps = []
    climbing = ramp(20, low=5, high=320, precision=2.0)
    asked = next(climbing)
    while True:
        one = row(0.0, ttft_error=0.0 if asked <= limit else 0.01)
        steps.append(
            Step.of(REQUESTS_AXIS, asked, [one] * max(1, round(asked)), INSTRUMENT)
        )
        try:
            asked = climbing.send(not steps[-1].faults)
        except StopIteration:
            break
    assert bracket(REQUESTS_AXIS, steps) == bracket(REQUESTS_AXIS, steps[::-1])
    one = bracket(REQUESTS_AXIS, steps)
    assert one.held is not None
    assert one.missed is not None
    assert one.held <= limit + 0.5
    assert limit - 0.5 <= one.missed <= 2.1 * one.held


def test_a_step_says_what_it_looked_for() -> None:
    """In JSON the axis is its limit's name, and the faults are in words."""
    told = tried(50, right=False).to_json()
    assert told["limit"] == REQUESTS != EVENTS
    assert told["asked"] == 50
    assert told["faults"] == ["TTFT off by 10.0 ms"]
