"""Classes of traffic: what is drawn has the shape and lengths that were asked for."""

from itertools import pairwise
from random import Random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.catalog.workloads import load_lengths
from loadstone.errors import UsageError
from loadstone.traffic.classes import TrafficClass
from loadstone.traffic.journey import Journey
from loadstone.traffic.mix import Draw, Mix
from loadstone.traffic.plan import Plan, journeys, plan_hash, schedule
from loadstone.traffic.prompt import written
from loadstone.traffic.prompts import OwnPrompt, OwnTurn


def drawer(**shape: object) -> Draw:
    """Return what draws a class of that shape."""
    given = {"name": "c", "input": (20, 90), "output": (5, 40)} | shape
    return Draw(TrafficClass(**given), load_lengths, seed=3)


def drawn(n: int = 50, **shape: object) -> list[Journey]:
    """Draw journeys of that shape."""
    rng, draw = Random(1), drawer(**shape)
    return [draw.journey(rng, float(i), i) for i in range(n)]


@given(st.integers(1, 6), st.integers(0, 3), st.integers(0, 2**32))
def test_prompts_are_as_long_as_what_they_say(
    turns: int, branches: int, seed: int
) -> None:
    """Whatever the shape: the sum of the messages is the input, history included."""
    draw = drawer(
        turns=(1, turns), system=(10, 50), context=(5, 300),
        branches=(branches, branches) if branches else None,
        branch_input=(5, 50), branch_output=(5, 50),
    )  # fmt: skip
    journey = draw.journey(Random(seed), 0.0, 7)
    for request in journey:
        assert sum(m.tokens for m in request.messages) == request.input_tokens
        assert request.input_tokens + request.output_tokens <= draw.longest
    assert [r.part for r in journey] == list(range(len(journey)))


def test_history_grows_by_question_and_answer() -> None:
    """Each turn begins with all of the one before it, then what was answered."""
    for journey in drawn(turns=(3, 3), system=(30, 30), think_s=2.0):
        for before, after in pairwise(journey):
            said = len(before.messages)
            assert after.messages[:said] == before.messages
            answer, question = after.messages[said:]
            assert (answer.role, question.role) == ("assistant", "user")
            assert answer.tokens == before.output_tokens + 1
        assert [r.turn for r in journey] == [0, 1, 2]
        assert journey[0].think_s == 0.0 < journey[1].think_s


def test_system_prompts_are_shared_and_nothing_else() -> None:
    """Of three there are three; what users say is theirs alone."""
    found = drawn(system=(30, 60), system_prompts=3)
    systems = {journey[0].messages[0] for journey in found}
    assert len(systems) == 3
    said = [m.spans[0].name for (r,) in found for m in r.messages[1:]]
    assert len(said) == len(set(said))


def test_branches_are_side_by_side_between_the_turns() -> None:
    """And what they bring stands in the next turn's prompt."""
    for journey in drawn(
        turns=(3, 3), branches=(1, 4), branch_input=(9, 9), branch_output=(7, 7),
        branch_s=1.0,
    ):  # fmt: skip
        stages = [(r.turn, r.stage) for r in journey]
        assert {s for t, s in stages if t % 2 == 0} == {"generate"}
        assert {s for t, s in stages if t % 2} == {"tool"}
        assert stages[-1] == (4, "generate")
        for turn in (1, 3):
            calls = [r for r in journey if r.turn == turn]
            assert 1 <= len(calls) <= 4
            assert len({r.think_s for r in calls}) == 1
            (after,) = (r for r in journey if r.turn == turn + 1)
            brought = [m.tokens for m in after.messages[-1 - len(calls) : -1]]
            assert brought == [r.output_tokens + 1 for r in calls]


def test_a_conversation_ends_before_it_is_too_long() -> None:
    """Its first turn is asked in any case: the survey refuses what no engine takes."""
    found = drawn(turns=(9, 9), max_context=300)
    assert all(r.input_tokens + r.output_tokens <= 300 for j in found for r in j)
    assert {len(j) for j in found} > {3}
    assert all(len(j) >= 1 for j in drawn(turns=(2, 2), max_context=1))


def test_lengths_are_within_two_per_cent_of_what_was_asked() -> None:
    """Over ten thousand arrivals, prompts and answers alike."""
    draw = drawer(
        input="azure-2023-conversation-input", output="azure-2023-conversation-output"
    )
    rng = Random(0)
    found = [draw.journey(rng, 0.0, i)[0] for i in range(10_000)]
    for field, name in (("input_tokens", "input"), ("output_tokens", "output")):
        table = load_lengths(f"azure-2023-conversation-{name}")
        mean = fmean(getattr(r, field) for r in found)
        assert mean == pytest.approx(table.mean, rel=0.02)
        ordered = sorted(getattr(r, field) for r in found)
        assert ordered[5000] == pytest.approx(table.at(0.5), rel=0.02)


def test_shares_follow_the_weights_and_own_courses_their_profiles() -> None:
    """Three to one; and a class that comes in the second half only does so."""
    one = TrafficClass(name="a", input=(5, 5), output=(5, 5), weight=3.0)
    two = TrafficClass(name="b", input=(5, 5), output=(5, 5), profile="steps:0,1")
    plan = Plan(rate=100.0, duration_s=40.0, classes=(one, two))
    mix = Mix(tuple(Draw(c, load_lengths, seed=0) for c in plan.classes))
    requests = schedule(plan, mix)
    due = [r.intended_s for r in requests]
    assert due == sorted(due)
    early = [r for r in requests if r.intended_s < 20.0]
    late = [r for r in requests if r.intended_s >= 20.0]
    assert {r.scenario for r in early} == {"a"}
    assert len(early) == pytest.approx(1500, rel=0.1)
    assert sum(r.scenario == "b" for r in late) == pytest.approx(500, rel=0.15)
    with pytest.raises(UsageError, match="profile of a class is for an open loop"):
        Plan(users=5, classes=(one, two))


def test_the_hash_sees_what_is_said_and_how_it_depends() -> None:
    """Turns, pauses, and texts by their names; not who serves it."""
    shape = {"name": "c", "input": (20, 90), "output": (5, 9), "turns": (2, 2)}
    plan = Plan(rate=5.0, duration_s=5.0)

    def digest(**more: object) -> str:
        of = TrafficClass(**(shape | more))
        draw = Draw(of, load_lengths, seed=0)
        return plan_hash(plan, schedule(plan, Mix((draw,))))

    found = [digest(), digest(think_s=1.0), digest(turns=(3, 3)), digest(system=(9, 9))]
    assert len(set(found)) == 4
    assert digest() == found[0]


def test_workers_of_a_closed_loop_number_their_own_arrivals() -> None:
    """Without a number twice, and without end."""
    plan = Plan(users=2)
    mix = Mix((drawer(turns=(1, 3)),))
    numbers: list[str] = []
    for rank in range(3):
        drawing = journeys(plan, mix, rank, 3)
        numbers += [r.id for _ in range(20) for r in next(drawing)]
    assert len(numbers) == len(set(numbers))


def test_own_prompts_bring_their_text_their_answers_and_their_slices() -> None:
    """A known answer stands in the history; an unknown one is drawn."""
    hi, bye = written("user", "hi", 2), written("user", "bye", 2)
    hello = written("assistant", "hello", 2)
    own = OwnPrompt((OwnTurn((hi,), 2, hello), OwnTurn((bye,))), "greeting")
    of = TrafficClass(name="c", input=(1, 1), output=(17, 17))
    first, second = Draw(of, load_lengths, seed=0, prompts=[own]).journey(
        Random(0), 0.0, 0
    )
    assert (first.messages, first.output_tokens) == ((hi,), 2)
    assert (second.messages, second.output_tokens) == ((hi, hello, bye), 17)
    assert {first.slice, second.slice} == {"greeting"}
