"""Closed loops on one emulated engine: what somebody would measure on it."""

from itertools import count
from random import Random

from loadstone.calibration.steady import OwnPoint
from loadstone.catalog.presets import Preset
from loadstone.engine.core import Engine
from loadstone.engine.sequence import Sequence
from loadstone.physics.steplaw import StepLaw


def measure(
    machine: Preset,
    law: StepLaw,
    *,
    concurrency: int,
    isl: int,
    osl: int,
    seed: int = 1,
) -> OwnPoint:
    """Keep `concurrency` requests in flight; return mean TPOT and TTFT.

    They are of the later half. The first answers have random lengths, so that prompts
    do not come in waves.
    """
    rng, names = Random(seed), count()
    engine = Engine(machine.limits, law, Random(seed))
    for _ in range(concurrency):
        engine.submit(Sequence(f"{next(names)}", isl, rng.randint(2, osl)), 0.0)
    sent: dict[str, float] = {}
    ended: list[Sequence] = []
    while len(ended) < max(4 * concurrency, 40):
        step = engine.step()
        for sequence in step.finished if step else ():
            assert step is not None
            follower = Sequence(f"{next(names)}", isl, osl)
            sent[follower.id] = step.end_s
            engine.submit(follower, step.end_s)
            ended.append(sequence)
    later = [s for s in ended[len(ended) // 2 :] if s.id in sent]
    tpot, ttft = 0.0, 0.0
    for sequence in later:
        assert sequence.first_s is not None
        assert sequence.last_s is not None
        tpot += (sequence.last_s - sequence.first_s) / (osl - 1) / len(later)
        ttft += (sequence.first_s - sent[sequence.id]) / len(later)
    return OwnPoint(
        isl=isl,
        osl=osl,
        concurrency=concurrency,
        tpot_ms=1e3 * tpot,
        ttft_ms=1e3 * ttft,
    )
