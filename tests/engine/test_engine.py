"""One engine: by hand, at each limit, and what its stamps decide."""

from dataclasses import dataclass
from math import inf, nextafter
from random import Random

import pytest

from loadstone.engine.core import Engine
from loadstone.engine.sequence import Sequence, State, Step
from loadstone.errors import UsageError
from loadstone.physics.limits import EngineLimits
from loadstone.physics.speculation import PLAIN, Speculation
from loadstone.physics.steplaw import StepLaw

FLAT = StepLaw(
    weights_ms=1000.0, gemm_us_per_token=0.0, kv_ns_per_token=0.0, pair_ns=0.0
)
"""Every step lasts one second, so instants can be read off."""


def make_limits(
    *,
    seqs: int = 8,
    budget: int = 64,
    blocks: int = 64,
    size: int = 4,
    longest: int = 64,
) -> EngineLimits:
    """Return limits with room to spare, but for what is given."""
    return EngineLimits(
        max_num_seqs=seqs,
        max_num_batched_tokens=budget,
        kv_blocks=blocks,
        block_size=size,
        max_model_len=longest,
    )


# ------------------------------------------------------------- by hand


@dataclass
class Told:
    """What an engine did."""

    engine: Engine
    sequences: list[Sequence]
    steps: list[Step]


def run_out(engine: Engine) -> list[Step]:
    """Run an engine until it has nothing to do and return its steps."""
    steps = []
    while engine.due is not None:
        step = engine.step()
        if step is not None:
            steps.append(step)
    return steps


def run_by_hand(limits: EngineLimits, *lengths: tuple[int, int]) -> Told:
    """Run sequences a, b, c ... of the given lengths, all at second 10."""
    engine = Engine(limits, FLAT, Random(1))
    sequences = [
        Sequence(name, *pair) for name, pair in zip("abcdef", lengths, strict=False)
    ]
    for sequence in sequences:
        engine.submit(sequence, 10.0)
    return Told(engine, sequences, run_out(engine))


def test_chunked_prefill_by_hand() -> None:
    """Five prompt tokens under a budget of four take two steps; pairs and KV add up."""
    told = run_by_hand(make_limits(seqs=4, budget=4, size=2, blocks=40), (5, 3))
    figures = [
        (s.start_s, s.decoding, s.prefill_tokens, s.context, s.pairs, s.free_blocks)
        for s in told.steps
    ]
    assert figures == [
        (10.0, 0, 4, 0, 4 * 4 / 2, 38),
        (11.0, 0, 1, 0, 1 * (4 + 0.5), 37),
        (12.0, 1, 0, 6, 0.0, 37),
        (13.0, 1, 0, 7, 0.0, 36),
    ]
    (sequence,) = told.sequences
    assert (sequence.arrived_s, sequence.first_s, sequence.last_s) == (10.0, 12.0, 14.0)


def test_answer_of_one_token_ends_with_its_prefill() -> None:
    """First and last token are the same, and no KV is left."""
    told = run_by_hand(make_limits(), (3, 1))
    (step,) = told.steps
    (sequence,) = told.sequences
    assert (step.tokens, step.started, step.finished) == (1, [sequence], [sequence])
    assert sequence.first_s == sequence.last_s == 11.0
    assert told.engine.kv_usage == 0.0


def test_preemption_by_hand() -> None:
    """The last admitted goes, to the front, and its tokens are recomputed, not lost.

    Four blocks of two tokens. `a` and `b` (3 + 4 tokens) hold two each; at their fifth
    token both need one. `b` goes and leaves two, `c` would fit and is not let in.
    """
    limits = make_limits(size=2, blocks=4, longest=8)
    told = run_by_hand(limits, (3, 4), (3, 4), (1, 1))
    a, b, c = told.sequences
    lines = [
        (s.decoding, s.prefill_tokens, s.context, s.free_blocks, s.started, s.preempted)
        for s in told.steps
    ]
    assert lines == [
        (0, 6, 0, 0, [a, b], []),
        (2, 0, 4 + 4, 0, [], []),
        (1, 0, 5, 1, [], [b]),  # two freed, one taken by a
        (1, 0, 6, 1, [], []),  # b needs three blocks, and c waits behind it
        (0, 5 + 1, 0, 0, [b, c], []),
        (1, 0, 6, 1, [], []),
    ]
    assert told.engine.preemptions == 1
    assert (a.last_s, b.first_s, b.last_s, c.last_s) == (14.0, 11.0, 16.0, 15.0)


def test_preempted_go_to_the_front_in_their_old_order() -> None:
    """Two preempted in one step come back as they came, before those who never ran."""
    limits = make_limits(size=2, blocks=4, longest=8)
    told = run_by_hand(limits, (2, 3), (2, 3), (2, 3), (2, 1), (1, 1))
    a, b, c, d, _ = told.sequences
    assert told.steps[0].started == [a, b, c, d]
    assert told.steps[1].preempted == [c]
    assert [s.id for step in told.steps[1:] for s in step.started] == ["c", "e"]
    limits = make_limits(size=2, blocks=3, longest=6)
    told = run_by_hand(limits, (2, 4), (2, 3), (2, 3), (1, 1))
    a, b, c, d = told.sequences
    assert told.steps[1].preempted == [c, b]
    assert [s.id for step in told.steps[1:] for s in step.started] == ["b", "c", "d"]
    assert (a.last_s, b.last_s, d.first_s) == (14.0, 16.0, 17.0)


def test_partial_prefill_is_the_first_to_go() -> None:
    """A prompt half read goes when it or another finds no block, and is read again.

    Four blocks of two tokens. `b` first lacks a block for its own second chunk; then
    `a` needs one for its fifth token.
    """
    limits = make_limits(seqs=2, budget=4, size=2, blocks=4, longest=8)
    told = run_by_hand(limits, (2, 4), (6, 1))
    a, b = told.sequences
    lines = [
        (s.decoding, s.prefill_tokens, s.free_blocks, s.started, s.preempted)
        for s in told.steps
    ]
    assert lines == [
        (0, 2 + 2, 2, [a], []),
        (1, 0, 2, [], [b]),  # its 3 tokens need 2 blocks, a has just taken one of 2
        (1, 3, 0, [], []),
        (1, 0, 1, [], [b]),  # two freed, one taken by a
        (0, 4, 2, [], []),
        (0, 2, 1, [b], []),
    ]
    assert (a.last_s, b.first_s) == (14.0, 16.0)
    assert told.engine.prompt_tokens_done == 2 + 2 + 3 + 4 + 2


# ------------------------------------------------------------- stamps


def busy_engine() -> Engine:
    """Return an engine in the step from second 10 to second 11."""
    engine = Engine(make_limits(), FLAT, Random(1))
    engine.submit(Sequence("a", 1, 3), 10.0)
    assert engine.step() is None
    assert engine.due == 11.0
    return engine


def test_idle_engine_starts_at_the_stamp_of_its_first_arrival() -> None:
    """However late `step()` is called; before that nothing is planned."""
    engine = Engine(make_limits(), FLAT, Random(1))
    assert engine.due is None
    engine.submit(Sequence("a", 1, 1), 3.25)
    assert engine.due == 3.25
    assert engine.step() is None
    assert engine.due == 4.25
    step = engine.step()
    assert step is not None
    assert (step.start_s, step.end_s, engine.due) == (3.25, 4.25, None)


@pytest.mark.parametrize(
    ("at", "stamp"),
    [
        (9.0, nextafter(10.0, inf)),
        (10.0, nextafter(10.0, inf)),
        (nextafter(10.0, inf), nextafter(10.0, inf)),
        (10.5, 10.5),
    ],
)
def test_stamps_are_moved_past_the_start_of_the_planned_step(
    at: float, stamp: float
) -> None:
    """That start has been decided, so what comes by then is said to come after it."""
    sequence = Sequence("b", 1, 1)
    assert busy_engine().submit(sequence, at) == stamp
    assert sequence.arrived_s == stamp
    engine = busy_engine()
    assert engine.cancel(sequence, at) == stamp


def test_stamps_never_fall() -> None:
    """Order of telling is order of happening."""
    engine = busy_engine()
    assert engine.submit(Sequence("b", 1, 1), 12.5) == 12.5
    assert engine.submit(Sequence("c", 1, 1), 11.5) == 12.5
    assert engine.cancel(Sequence("d", 1, 1), 11.5) == 12.5
    assert engine.submit(Sequence("e", 1, 1), 12.75) == 12.75


@pytest.mark.parametrize(
    ("at", "first"), [(11.0, 12.0), (nextafter(11.0, inf), 13.0), (10.5, 12.0)]
)
def test_arrival_at_the_very_end_of_a_step_is_in_the_next(
    at: float, first: float
) -> None:
    """At the end is early enough; a hair later is one step too late."""
    engine = busy_engine()
    late = Sequence("b", 1, 1)
    engine.submit(late, at)
    run_out(engine)
    assert late.first_s == first


def test_only_stamps_decide_however_late_it_is_told() -> None:
    """What is stamped after a step's start is not in it, though it is known by then."""
    engine = busy_engine()
    late = Sequence("b", 1, 1)
    engine.submit(late, 11.5)
    engine.step()
    step = engine.step()
    assert step is not None
    assert (step.start_s, step.prefill_tokens) == (11.0, 0)
    step = engine.step()
    assert step is not None
    assert (step.start_s, step.started) == (12.0, [late])


@pytest.mark.parametrize(
    ("at", "tokens"), [(11.0, 1), (nextafter(11.0, inf), 2), (12.0, 2)]
)
def test_cancelled_at_a_step_start_gets_nothing_of_it(at: float, tokens: int) -> None:
    """At the start or before is early enough; a step that runs is not interrupted."""
    engine = Engine(make_limits(), FLAT, Random(1))
    sequence = Sequence("a", 1, 3)
    engine.submit(sequence, 10.0)
    engine.cancel(sequence, at)
    run_out(engine)
    assert sequence.state is State.CANCELLED
    assert sequence.generated == engine.generated_tokens == tokens
    assert engine.kv_usage == 0.0


def test_what_has_ended_is_not_cancelled() -> None:
    """A late cancellation changes nothing, and neither does a second one."""
    engine = Engine(make_limits(), FLAT, Random(1))
    done, gone = Sequence("a", 1, 1), Sequence("b", 1, 5)
    engine.submit(done, 10.0)
    engine.submit(gone, 10.0)
    for at in (11.5, 11.5, 20.0):
        engine.cancel(done, at)
        engine.cancel(gone, at)
    run_out(engine)
    assert (done.state, gone.state) == (State.FINISHED, State.CANCELLED)
    assert (engine.running, engine.waiting, engine.kv_usage) == (0, 0, 0.0)
    assert engine.generated_tokens == 1 + 2


def test_cancelled_before_it_is_admitted_takes_no_place() -> None:
    """Neither in the queue nor in the batch: the next in line goes ahead."""
    engine = Engine(make_limits(seqs=1), FLAT, Random(1))
    a, b, c = (Sequence(name, 1, 1) for name in "abc")
    for sequence in (a, b, c):
        engine.submit(sequence, 10.0)
    engine.cancel(b, 10.0)
    assert (engine.waiting, engine.waiting_output_tokens) == (3, 3)
    run_out(engine)
    assert (a.first_s, b.first_s, c.first_s) == (11.0, None, 12.0)
    assert b.state is State.CANCELLED


# ------------------------------------------------------------- what can be seen


def test_sequences_longer_than_the_limit_are_refused() -> None:
    """As many tokens as max_model_len are served; one more can never be."""
    engine = Engine(make_limits(longest=12), FLAT, Random(1))
    engine.submit(Sequence("a", 5, 7), 0.0)
    with pytest.raises(
        UsageError, match=r"5 prompt and 8 output tokens .* \(12\)"
    ) as no:
        engine.submit(Sequence("b", 5, 8), 0.0)
    assert no.value.code == "context_length_exceeded"
    assert engine.waiting == 1


@pytest.mark.parametrize(("prompt", "output"), [(0, 1), (1, 0), (-1, 5)])
def test_sequences_have_a_token_on_both_sides(prompt: int, output: int) -> None:
    """Nothing to read or nothing to write is no request."""
    with pytest.raises(ValueError, match="sequence a: needs at least one prompt"):
        Sequence("a", prompt, output)


def test_step_without_work_is_a_mistake_of_the_driver() -> None:
    """It says so instead of spinning."""
    with pytest.raises(RuntimeError, match=r"<Engine step 0 .*> has nothing to do"):
        Engine(make_limits(), FLAT, Random(1)).step()


def test_state_can_be_read_while_it_runs() -> None:
    """Batch, queue, KV and rate are those of the step it is in; the repr says them."""
    engine = Engine(make_limits(seqs=2, blocks=16, size=4), FLAT, Random(1))
    assert (engine.token_rate, engine.max_model_len) == (0.0, 64)
    for name in "abc":
        engine.submit(Sequence(name, 5, 2), 10.0)
    assert (engine.running, engine.waiting, engine.waiting_output_tokens) == (0, 3, 6)
    engine.step()
    assert (engine.running, engine.waiting, engine.waiting_output_tokens) == (2, 1, 2)
    assert engine.kv_usage == 4 / 16
    assert engine.token_rate == 2.0
    assert repr(engine) == "<Engine step 0 running=2 waiting=1 kv=25.0% due=11.0>"


def test_step_line_and_sequence_repr_tell_all() -> None:
    """A log line has each figure, floats exactly; who came, went and was put back."""
    limits = make_limits(size=2, blocks=4, longest=8)
    told = run_by_hand(limits, (3, 4), (3, 4), (1, 1))
    assert [step.line() for step in told.steps[:3]] == [
        "0 10.0 11.0 0 6 0 0 +a +b",
        "1 11.0 12.0 2 0 8 0 ",
        "2 12.0 13.0 1 0 5 1 !b",
    ]
    assert told.steps[3].line() == "3 13.0 14.0 1 0 6 1 -a"
    assert repr(told.sequences[0]) == "<Sequence a finished 3+4/4>"


# ------------------------------------------------------------- dice


def noisy_lines(seed: int, sigma: float) -> tuple[list[str], float]:
    """Return the step lines of a run under noise, and its mean step against the law."""
    law = StepLaw(
        weights_ms=20.0,
        gemm_us_per_token=0.0,
        kv_ns_per_token=0.0,
        pair_ns=0.0,
        sigma=sigma,
    )
    engine = Engine(make_limits(longest=256, blocks=256), law, Random(seed))
    for i in range(200):
        engine.submit(Sequence(str(i), 3, 1 + i % 200), 0.5 * i)
    steps = run_out(engine)
    total = sum(step.end_s - step.start_s for step in steps)
    return [step.line() for step in steps], total / (len(steps) * 0.020)


def test_same_seed_same_steps() -> None:
    """Noise comes from the seed alone; another seed gives other steps."""
    assert noisy_lines(7, 0.04) == noisy_lines(7, 0.04)
    assert noisy_lines(7, 0.04)[0] != noisy_lines(8, 0.04)[0]


def test_noise_spreads_the_steps_and_keeps_their_mean() -> None:
    """Over 3,000 steps with sigma 0.1 are within 1 % of the law on average."""
    lines, mean = noisy_lines(7, 0.1)
    assert len(lines) > 3000
    assert mean == pytest.approx(1.0, abs=0.01)
    assert noisy_lines(7, 0.0)[1] == pytest.approx(1.0, abs=1e-9)


# ------------------------------------------------------------- speculation


def test_speculation_by_hand() -> None:
    """A clock of 1.5 tokens a step moves by 1, 2, 1, 2, 1: seven tokens in five steps.

    The first comes with the prefill. Verification counts as work: three tokens in each
    step of one sequence.
    """
    engine = Engine(
        make_limits(size=2), FLAT, Random(1), speculation=Speculation(1.5, 2)
    )
    sequence = Sequence("a", 3, 7)
    engine.submit(sequence, 0.0)
    steps = run_out(engine)
    assert [(s.advance, s.tokens, s.clock) for s in steps] == [
        (1, 1, 1), (2, 2, 3), (1, 1, 4), (2, 2, 6), (1, 1, 7),
    ]  # fmt: skip
    assert [s.context for s in steps] == [0, 4, 6, 7, 9]
    # Blocks of two for the prompt and two drafts, then for what the clock adds.
    assert [64 - s.free_blocks for s in steps] == [3, 4, 4, 5, 6]
    assert engine.computed_tokens == 3 + 4 * 3
    assert (engine.generated_tokens, sequence.generated) == (7, 7)
    assert engine.kv_usage == 0.0


@pytest.mark.parametrize(
    ("output", "clipped", "last"), [(3, 0, 2.0), (2, 1, 2.0), (4, 0, 3.0), (5, 1, 4.0)]
)
def test_overshoot_is_clipped_to_what_was_asked(
    output: int, clipped: int, last: float
) -> None:
    """The second step gives two tokens, or the one that is still wanted."""
    engine = Engine(make_limits(), FLAT, Random(1), speculation=Speculation(1.5, 2))
    sequence = Sequence("a", 3, output)
    engine.submit(sequence, 0.0)
    steps = run_out(engine)
    assert sequence.last_s == last
    assert steps[-1].clipped == clipped
    assert steps[-1].tokens == steps[-1].advance - clipped
    assert sum(step.tokens for step in steps) == output
    assert steps[1].line() == f"1 1.0 2.0 1x2-{steps[1].clipped} 0 4 {62}" + (
        " -a" if last == 2.0 else " "
    )


def test_speculation_costs_gemm_work_and_saves_steps() -> None:
    """Drafts that are never right only cost; right ones cut the time of an answer."""
    law = StepLaw(
        weights_ms=10.0, gemm_us_per_token=100.0, kv_ns_per_token=0.0, pair_ns=0.0
    )
    ends = []
    for speculation in (PLAIN, Speculation(1.0, 3), Speculation(4.0, 3)):
        engine = Engine(make_limits(), law, Random(1), speculation=speculation)
        sequence = Sequence("a", 10, 41)
        engine.submit(sequence, 0.0)
        run_out(engine)
        ends.append(sequence.last_s)
    first = 0.010 + 10 * 0.0001
    assert ends == pytest.approx(
        [first + 40 * 0.0101, first + 40 * 0.0104, first + 10 * 0.0104]
    )
