"""When a sequence was first scheduled, how often it was preempted, what was busy."""

from random import Random

import pytest

from loadstone.engine.core import Engine
from loadstone.engine.sequence import Sequence
from loadstone.physics.limits import EngineLimits
from loadstone.physics.steplaw import StepLaw

STEP_S = 0.01
LAW = StepLaw(weights_ms=10.0, gemm_us_per_token=0.0, kv_ns_per_token=0.0, pair_ns=0.0)


def engine_of(**limits: int) -> Engine:
    """Make an engine whose steps take 10 ms."""
    usual = {
        "max_num_seqs": 8,
        "max_num_batched_tokens": 64,
        "kv_blocks": 100,
        "block_size": 4,
        "max_model_len": 300,
    }
    return Engine(EngineLimits(**(usual | limits)), LAW, Random(0))


def run(engine: Engine) -> None:
    """Complete everything."""
    while engine.due is not None:
        engine.step()


def test_first_scheduled_is_the_start_of_the_first_step() -> None:
    """An idle engine starts at the arrival; a busy one at its next step."""
    engine = engine_of()
    first, second = Sequence("a", 8, 5), Sequence("b", 8, 5)
    engine.submit(first, 1.0)
    engine.submit(second, 1.013)
    run(engine)
    assert first.scheduled_s == 1.0
    assert second.scheduled_s == pytest.approx(1.02)
    assert second.first_s == pytest.approx(1.03)


def test_a_long_prefill_was_scheduled_with_its_first_chunk() -> None:
    """200 tokens at 64 a step: four steps from scheduled to first token."""
    engine = engine_of()
    sequence = Sequence("a", 200, 2)
    engine.submit(sequence, 0.0)
    run(engine)
    assert sequence.scheduled_s == 0.0
    assert sequence.first_s == pytest.approx(4 * STEP_S)


def test_who_waits_for_a_place_is_scheduled_when_it_is_free() -> None:
    """And who was never scheduled has no such stamp."""
    engine = engine_of(max_num_seqs=1)
    first, second, gone = (Sequence(name, 8, 5) for name in "abc")
    for sequence in (first, second, gone):
        engine.submit(sequence, 0.0)
    engine.cancel(gone, 0.0)
    run(engine)
    assert second.scheduled_s == pytest.approx(5 * STEP_S)
    assert gone.scheduled_s is None


def test_preemption_counts_and_keeps_the_first_stamp() -> None:
    """Blocks for one and a half: the second comes and goes, but queued only once."""
    engine = engine_of(kv_blocks=12, max_model_len=48)
    pair = [Sequence(name, 8, 30) for name in "ab"]
    for sequence in pair:
        engine.submit(sequence, 0.0)
    run(engine)
    assert engine.preemptions > 0
    assert [sequence.preemptions for sequence in pair] == [0, engine.preemptions]
    assert [sequence.scheduled_s for sequence in pair] == [0.0, 0.0]


def test_busy_time_and_work_by_hand() -> None:
    """Five steps for 8 prompt tokens and 5 outputs; a pause; and one step more."""
    engine = engine_of()
    engine.submit(Sequence("a", 8, 5), 1.0)
    engine.submit(Sequence("b", 8, 1), 2.0)
    run(engine)
    assert engine.steps == 6
    assert engine.computed_tokens == 8 + 4 + 8
    # By the k-th decode step the context is the prompt and k tokens.
    assert engine.context_read == sum(8 + k for k in range(1, 5))
    assert engine.busy_s(1.5) == pytest.approx(6 * STEP_S)
    assert engine.busy_s(9.0) == pytest.approx(6 * STEP_S)
