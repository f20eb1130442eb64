"""The engine as a queue: work-conserving, fair, and right where theory is exact."""

from collections import Counter
from math import sqrt
from random import Random
from statistics import fmean, stdev

import pytest

from loadstone.engine.core import Engine
from loadstone.engine.policy import POLICIES
from loadstone.engine.sequence import Sequence, State
from loadstone.physics.limits import EngineLimits
from loadstone.physics.steplaw import StepLaw
from loadstone.traffic.arrivals import Arrivals

FLAT = StepLaw(
    weights_ms=1000.0, gemm_us_per_token=0.0, kv_ns_per_token=0.0, pair_ns=0.0
)
LAW = StepLaw(
    weights_ms=10.0, gemm_us_per_token=100.0, kv_ns_per_token=1000.0, pair_ns=10.0
)
every_policy = pytest.mark.parametrize("policy", POLICIES)


def one_by_one(
    rate: float, seconds: float, services: tuple[int, ...], seed: int
) -> list[float]:
    """Return the waits of a batch of one that serves for any of `services` seconds."""
    limits = EngineLimits(
        max_num_seqs=1, max_num_batched_tokens=64, kv_blocks=64, block_size=16,
        max_model_len=64,
    )  # fmt: skip
    engine = Engine(limits, FLAT, Random(1))
    rng = Random(seed + 1000)
    queued = [
        Sequence(str(i), 8, rng.choice(services))
        for i in range(int(2 * rate * seconds))
    ]
    told = [
        engine.submit(sequence, at)
        for sequence, at in zip(
            queued,
            Arrivals.parse("poisson").times(rate, seconds, Random(seed)),
            strict=False,
        )
    ]
    while engine.due is not None:
        engine.step()
    return [
        sequence.last_s - at - sequence.output_tokens
        for sequence, at in zip(queued, told, strict=False)
        if sequence.last_s is not None
    ]


@pytest.mark.parametrize(
    ("services", "load"), [((4,), 0.5), ((4,), 0.8), ((1, 7), 0.5), ((1, 1, 10), 0.6)]
)
def test_batch_of_one_waits_as_in_m_g_1(services: tuple[int, ...], load: float) -> None:
    """Pollaczek and Khinchine: mean wait is rate E[S^2] / (2 (1 - rho)).

    A step that runs is not interrupted, but one always ends when a service does, so
    nothing is lost at the boundaries. Forty seeds; within three standard errors.
    """
    rate = load / fmean(services)
    means = [fmean(one_by_one(rate, 8000.0, services, seed)) for seed in range(40)]
    exact = rate * fmean(s * s for s in services) / (2 * (1 - load))
    error = stdev(means) / sqrt(len(means))
    assert error < 0.06 * exact
    assert abs(fmean(means) - exact) < 3 * error


def overload(policy: str, seed: int, blocks: int) -> tuple[Engine, list[Sequence]]:
    """Submit 300 requests at least twice as fast as they can be served."""
    rng = Random(seed)
    limits = EngineLimits(
        max_num_seqs=8, max_num_batched_tokens=32, kv_blocks=blocks, block_size=4,
        max_model_len=40,
    )  # fmt: skip
    engine = Engine(limits, LAW, Random(1), policy=policy)
    queued, now = [], 0.0
    for i in range(300):
        prompt, declared = rng.randint(1, 20), rng.randint(1, 20)
        queued.append(
            Sequence(
                str(i), prompt, rng.randint(1, declared), max_output_tokens=declared
            )
        )
        engine.submit(queued[-1], now)
        now += rng.expovariate(250.0)
    return engine, queued


@every_policy
@pytest.mark.parametrize("blocks", [10, 12, 80])
def test_overload_neither_starves_nor_stalls(policy: str, blocks: int) -> None:
    """Twice saturation and a pool of a few blocks: all end, first tokens in order.

    Every step gives or prefills something, and none is recomputed without end: the
    oldest one in the batch is never preempted by a younger one.
    """
    engine, queued = overload(policy, 5, blocks)
    steps, preempted = [], Counter[Sequence]()
    while engine.due is not None:
        step = engine.step()
        if step is None:
            continue
        steps.append(step)
        assert step.decoding + step.prefill_tokens > 0
        preempted.update(step.preempted)
        assert queued[0] not in preempted
    assert engine._start > 2 * queued[-1].arrived_s
    assert {s.state for s in queued} == {State.FINISHED}
    firsts = [s.first_s for s in queued if s.first_s is not None]
    assert firsts == sorted(firsts)
    assert engine.generated_tokens == sum(s.output_tokens for s in queued)
    assert (engine.preemptions > 0) == (POLICIES[policy].grows and blocks < 80)


@every_policy
def test_work_conserving(policy: str) -> None:
    """While one waits, a step is short of a place, of budget or of blocks.

    The next in line would be admitted if a place, a block's worth of budget and room
    for the longest request there can be were free.
    """
    engine, _ = overload(policy, 6, 40)
    held_back = 0
    while engine.due is not None:
        engine.step()
        step = engine._planned
        if step is None or not engine.waiting or step.preempted:
            continue
        # What is stamped within the step has not been seen by it.
        inbox = sum(event == engine._arrive for _, event, _ in engine._inbox)
        if engine.waiting == inbox:
            continue
        held_back += 1
        assert (
            engine.running == engine.limits.max_num_seqs
            or step.decoding + step.prefill_tokens > 32 - 4
            or step.free_blocks < 40 // 4
        )
    assert held_back > 50
