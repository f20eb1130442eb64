"""Plans: what can be run, what is drawn from them, and what their hash means."""

import tomllib
from dataclasses import replace
from itertools import islice
from math import inf, nan
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from loadstone.errors import UsageError
from loadstone.traffic.classes import TrafficClass
from loadstone.traffic.lengths import Lengths
from loadstone.traffic.mix import Draw, Mix
from loadstone.traffic.plan import (
    DEFAULT_CAP,
    Plan,
    in_turn,
    journeys,
    plan_hash,
    schedule,
)
from loadstone.traffic.request import Prefix, Request
from loadstone.traffic.survey import survey, survey_of_users
from loadstone.traffic.trace import TraceRow


def mix_of(prompts: tuple[int, int], answers: tuple[int, int], **more: Any) -> Mix:
    """Return one class of those lengths, each request alone."""
    one = TrafficClass(name="chat", input=prompts, output=answers)
    return Mix((Draw(one, dict[str, Lengths]().__getitem__, seed=0, **more),))


LENGTHS = mix_of((10, 1000), (1, 300))
CLASS = LENGTHS.draws[0].of
OPEN = Plan(rate=50.0, duration_s=10.0)
TRACE = Plan(trace="t.csv", duration_s=10.0)
ROWS = [TraceRow(0.0, 5, 6), TraceRow(4.0, 7, 8), TraceRow(10.0, 9, 10)]


@pytest.mark.parametrize(
    ("plan", "loop"),
    [(OPEN, "open"), (TRACE, "trace"), (Plan(), "closed"), (Plan(users=3), "closed")],
)
def test_rate_or_trace_or_neither_says_which_loop(plan: Plan, loop: str) -> None:
    """Open loop, recorded arrivals, or users who wait."""
    assert plan.loop == loop


@pytest.mark.parametrize(
    ("setting", "least", "below"),
    [
        ("rate", 1e-9, 0.0),
        ("speedup", 1e-9, 0.0),
        ("users", 1, 0),
        ("think_s", 0.0, -0.1),
        ("duration_s", 0.001, 0.0009),
        ("drain_s", 0.0, -0.1),
        ("warmup_s", 0.0, -0.1),
        ("vms", 1, 0),
    ],
)
def test_both_sides_of_each_limit(setting: str, least: float, below: float) -> None:
    """The least that can be run, and what is refused, infinities included."""
    assert getattr(replace(OPEN, **{setting: least}), setting) == least
    for wrong in (below, inf, nan):
        with pytest.raises(UsageError, match=r"must be at least .*, not ") as caught:
            replace(OPEN, **{setting: wrong})
        assert caught.value.message.startswith(setting.removesuffix("_s"))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"arrivals": "weibull"}, "no arrival process 'weibull'"),
        ({"profile": "ramp:1"}, "rate profile 'ramp:1' cannot be read"),
        ({"trace": "t.csv"}, "give --trace or --rate, not both"),
        ({"warmup_s": 10.0}, "a warm-up of 10 s leaves nothing of 10 s"),
        ({"warmup_s": 11.0}, "a warm-up of 11 s"),
    ],
)
def test_what_cannot_be_run_is_refused(changes: dict[str, object], why: str) -> None:
    """With the setting and the value."""
    with pytest.raises(UsageError, match=why):
        replace(OPEN, **changes)


def test_warmup_may_leave_a_moment() -> None:
    """Just short of the duration."""
    assert replace(OPEN, warmup_s=9.999).warmup_s == 9.999


@pytest.mark.parametrize(
    "plan",
    [
        Plan(),
        OPEN,
        TRACE,
        Plan(
            scenario="mlperf", hosts=("http://a", "unix:/b"), model="m", rate=1.5,
            arrivals="constant", users=7, think_s=0.5, duration_s=1.0, drain_s=2.0,
            warmup_s=0.25, seed=-3, ignore_eos=False, price="p", vms=2,
        ),
    ],
)  # fmt: skip
def test_toml_gives_the_plan_back(plan: Plan) -> None:
    """Everything needed to run it again, through a file's text."""
    assert Plan.from_toml(tomllib.loads(tomli_w.dumps(plan.to_toml()))) == plan


def test_unknown_setting_of_a_plan_file_is_refused() -> None:
    """A misspelt one would be ignored otherwise."""
    with pytest.raises(UsageError, match="a plan has no setting 'durations'"):
        Plan.from_toml({"rate": 1.0, "durations": 5})


# ------------------------------------------------------------- the schedule


@given(st.floats(1.0, 200.0), st.integers(), st.sampled_from(["poisson", "constant"]))
def test_schedule_is_in_order_within_the_duration(
    rate: float, seed: int, arrivals: str
) -> None:
    """Numbered from 0, lengths within their tables, due times rising."""
    plan = Plan(rate=rate, duration_s=5.0, seed=seed, arrivals=arrivals)
    requests = schedule(plan, LENGTHS)
    assert [r.index for r in requests] == list(range(len(requests)))
    due = [r.intended_s for r in requests]
    assert due == sorted(due)
    assert 0.0 <= due[0] <= due[-1] < 5.0
    assert all(10 <= r.input_tokens <= 1000 for r in requests)
    assert all(1 <= r.output_tokens <= 300 for r in requests)


def test_same_seed_same_schedule() -> None:
    """And another seed changes both times and lengths."""
    first = schedule(OPEN, LENGTHS)
    assert first == schedule(OPEN, LENGTHS)
    other = schedule(replace(OPEN, seed=1), LENGTHS)
    assert first[0].intended_s != other[0].intended_s
    assert [r.input_tokens for r in first[:9]] != [r.input_tokens for r in other[:9]]


def test_arrivals_and_lengths_do_not_shift_each_other() -> None:
    """Request i keeps its lengths under another process, its time under others."""

    def lengths(requests: list[Request]) -> list[tuple[int, int]]:
        return [(r.input_tokens, r.output_tokens) for r in requests[:100]]

    first = schedule(OPEN, LENGTHS)
    steady = schedule(replace(OPEN, arrivals="constant", rate=20.0), LENGTHS)
    assert lengths(first) == lengths(steady)
    swapped = schedule(OPEN, mix_of((1, 300), (10, 1000)))
    assert [r.intended_s for r in first] == [r.intended_s for r in swapped]
    assert lengths(first) != lengths(swapped)


def test_each_worker_of_a_closed_loop_draws_its_own_lengths() -> None:
    """The same again for the same rank; the schedule's are those of rank 0."""

    def first(rank: int) -> list[tuple[int, int]]:
        drawn = islice(journeys(OPEN, LENGTHS, rank), 20)
        return [(r.input_tokens, r.output_tokens) for (r,) in drawn]

    assert first(1) == first(1)
    assert first(0) != first(1) != first(2)
    planned = [(r.input_tokens, r.output_tokens) for r in schedule(OPEN, LENGTHS)]
    assert first(0) == planned[:20]


@pytest.mark.parametrize(
    ("speedup", "duration", "due"),
    [
        (1.0, 10.0, [0.0, 4.0]),
        (1.0, 10.001, [0.0, 4.0, 10.0]),
        (2.0, 5.0, [0.0, 2.0]),
        (2.0, 5.001, [0.0, 2.0, 5.0]),
        (0.5, 8.001, [0.0, 8.0]),
        (1.0, 0.001, [0.0]),
    ],
)
def test_trace_is_replayed_faster_and_cut_at_the_duration(
    speedup: float, duration: float, due: list[float]
) -> None:
    """With its own lengths; what is due at the very end is not sent."""
    plan = replace(TRACE, speedup=speedup, duration_s=duration)
    requests = schedule(plan, LENGTHS, ROWS)
    assert [r.intended_s for r in requests] == due
    assert [(r.input_tokens, r.output_tokens) for r in requests] == [
        (5, 6), (7, 8), (9, 10),
    ][: len(due)]  # fmt: skip


def test_plans_without_a_request_are_refused() -> None:
    """An open loop too slow for its duration, a trace without rows, a closed loop."""
    with pytest.raises(UsageError, match=r"no request arrives within 0\.001 s"):
        schedule(Plan(rate=1e-6, duration_s=0.001), LENGTHS)
    with pytest.raises(UsageError, match="no request arrives"):
        schedule(TRACE, LENGTHS)
    with pytest.raises(UsageError, match="a closed loop has no schedule"):
        schedule(Plan(users=5), LENGTHS)


def test_request_names_sort_in_plan_order() -> None:
    """As text too."""
    assert [Request(i, 0.0, 1, 1).id for i in (0, 42)] == ["000000", "000042"]


# ------------------------------------------------------------- the hash


@pytest.mark.parametrize(
    "change",
    [
        {"hosts": ("http://x",)},
        {"model": "m"},
        {"price": "p"},
        {"vms": 3},
        {"trace": "elsewhere/t.csv"},
    ],
)
def test_hash_is_not_of_the_target(change: dict[str, object]) -> None:
    """The same load against another endpoint, at another price, from another folder."""
    requests = schedule(TRACE, LENGTHS, ROWS)
    assert plan_hash(replace(TRACE, **change), requests) == plan_hash(TRACE, requests)


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"rate": 51.0}, {"duration_s": 9.0}, {"arrivals": "constant"},
     {"users": DEFAULT_CAP - 1}, {"warmup_s": 1.0}, {"ignore_eos": False},
     {"scenario": "other"}, {"salt": "x"}, {"classes": (CLASS,)}],
)  # fmt: skip
def test_hash_is_of_the_load(change: dict[str, object]) -> None:
    """Whatever decides what is sent when."""
    changed = replace(OPEN, **change)
    assert plan_hash(changed, schedule(changed, LENGTHS)) != plan_hash(
        OPEN, schedule(OPEN, LENGTHS)
    )


@pytest.mark.parametrize(
    "change", [{"intended_s": 0.5}, {"input_tokens": 11}, {"output_tokens": 2}]
)
def test_hash_sees_a_single_request_change(change: dict[str, float]) -> None:
    """Same settings, another schedule: another trace file under the same name, say."""
    requests = schedule(OPEN, LENGTHS)
    changed = [*requests[:-1], requests[-1].but(**change)]
    assert plan_hash(OPEN, changed) != plan_hash(OPEN, requests)
    assert plan_hash(OPEN, list(requests)) == plan_hash(OPEN, requests)


# ------------------------------------------------------------- offline, declared, drawn


def test_offline_requests_are_all_due_at_once() -> None:
    """N of them, with the lengths that the seed gives any other load."""
    plan = Plan(offline=50)
    assert plan.loop == "offline"
    requests = schedule(plan, LENGTHS)
    assert {r.intended_s for r in requests} == {0.0}
    opened = schedule(OPEN, LENGTHS)[:50]
    assert [(r.input_tokens, r.output_tokens) for r in requests] == [
        (r.input_tokens, r.output_tokens) for r in opened
    ]
    for other in ({"rate": 5.0}, {"trace": "t.csv"}):
        with pytest.raises(UsageError, match="offline requests are all due at once"):
            replace(plan, **other)


@pytest.mark.parametrize("setting", ["offline", "max_tokens"])
def test_counts_are_at_least_one(setting: str) -> None:
    """Both sides of the limit."""
    assert getattr(replace(Plan(), **{setting: 1}), setting) == 1
    with pytest.raises(UsageError, match="must be at least 1, not 0"):
        replace(Plan(), **{setting: 0})


def test_declared_maximum_cuts_answers_and_is_declared() -> None:
    """A trace's too; without one a request declares what it gets."""
    plan = replace(OPEN, max_tokens=100)
    limited = mix_of((10, 1000), (1, 300), limit=100)
    cut, whole = schedule(plan, limited), schedule(OPEN, LENGTHS)
    for a, b in zip(cut, whole, strict=True):
        assert a.output_tokens == min(b.output_tokens, 100)
        assert (a.max_output_tokens, b.max_output_tokens) == (100, None)
    traced = schedule(replace(TRACE, max_tokens=7), LENGTHS, ROWS)
    assert [(r.output_tokens, r.max_output_tokens) for r in traced] == [(6, 7), (7, 7)]


def test_requests_may_be_drawn_one_by_one() -> None:
    """The first of a schedule of a year, without the rest; the same as the schedule."""
    endless = in_turn(replace(OPEN, duration_s=3e7), LENGTHS)
    assert list(islice(endless, 100)) == schedule(OPEN, LENGTHS)[:100]


def test_traces_bring_priorities_and_prefixes() -> None:
    """And the hash sees both."""
    row = TraceRow(0.0, 600, 6, 3, Prefix(512, (4, 9)))
    (request,) = schedule(TRACE, LENGTHS, [row])
    assert (request.priority, request.prefix) == (3, Prefix(512, (4, 9)))
    hashes = {
        plan_hash(TRACE, schedule(TRACE, LENGTHS, [replace(row, **change)]))
        for change in (
            {},
            {"priority": 2},
            {"prefix": None},
            {"prefix": Prefix(512, (4, 8))},
            {"prefix": Prefix(256, (4, 9))},
        )
    }
    assert len(hashes) == 5


def test_survey_sees_every_request_and_keeps_none() -> None:
    """Number, longest, what is special, and the hash of the plan."""
    rows = [*ROWS[:2], TraceRow(5.0, 600, 6, 3, Prefix(512, (4, 9)))]
    requests = schedule(TRACE, LENGTHS, rows)
    seen = survey(TRACE, iter(requests))
    assert (seen.requests, seen.longest, seen.longest_id) == (3, 606, "request 000002")
    assert (seen.prefixes, seen.priorities) == (True, True)
    assert seen.plan_hash == plan_hash(TRACE, requests)
    plain = survey(OPEN, schedule(OPEN, LENGTHS))
    assert (plain.prefixes, plain.priorities) == (False, False)
    declared = replace(OPEN, max_tokens=900)
    limited = mix_of((10, 1000), (1, 300), limit=900)
    assert survey(declared, schedule(declared, limited)).longest > 900


@pytest.mark.parametrize(("limit", "refused"), [(606, False), (605, True)])
def test_longest_request_must_fit(limit: int, *, refused: bool) -> None:
    """Both sides, with the request's name."""
    seen = survey(TRACE, [Request(0, 0.0, 5, 6), Request(1, 0.0, 600, 6)])
    if refused:
        with pytest.raises(UsageError, match="request 000001 has 606 tokens"):
            seen.refuse_beyond(limit)
    else:
        seen.refuse_beyond(limit)


def test_users_may_ask_the_longest_there_is() -> None:
    """A closed loop has no schedule to look through."""
    seen = survey_of_users(Plan(users=3), LENGTHS.pooled())
    assert (seen.requests, seen.longest) == (None, 1300)
    assert (
        survey_of_users(Plan(users=3, max_tokens=50), LENGTHS.pooled()).longest == 1050
    )
    assert seen.plan_hash == plan_hash(Plan(users=3), [])
