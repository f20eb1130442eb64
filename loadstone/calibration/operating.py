"""Where an engine settles under a load: batch, step, tokens/s, TPOT. A mean field.

As many prompts start as answers end: with B sequences decoding and outputs of o tokens,
B / o prompts start in a step. They come one by one, so their number is Poisson, and a
step's time is the mean over it (it matters where one prompt is many tokens: most steps
have none). The event simulation is the judge of it (docs/calibration.md).
"""

from collections.abc import Callable, Iterator
from math import exp
from typing import Final

from ..physics.steplaw import StepLaw
from ..units import Seconds
from .runs import Run
from .workloads import Lengths

_LEAST_CHUNK: Final = 64
_MANY_CHUNKS: Final = 6.0
"""So many prompts in the mean step vary little: the mean stands for all."""
_TAIL: Final = 1e-3
_ROUNDS: Final = 50


def mean_step(run: Run, law: StepLaw, batch: float) -> Seconds:
    """Return the mean step with `batch` sequences decoding on an engine."""
    return _mean_step(law, batch, run.lengths, run.budget - batch / run.ranks)


def _mean_step(law: StepLaw, batch: float, lengths: Lengths, room: float) -> Seconds:
    chunk = min(lengths.prompt, max(room, _LEAST_CHUNK))
    prefill = batch * lengths.prompts_per_output
    context = batch * lengths.context
    pairs_per_token = lengths.prompt * lengths.prompt_square / 2
    return sum(
        weight * law.seconds(batch, tokens, context, tokens * pairs_per_token)
        for weight, tokens in _prefills(prefill, chunk)
    )


def _prefills(mean: float, chunk: float) -> Iterator[tuple[float, float]]:
    """Yield the prefill tokens of a step and how often a step has them."""
    chunks = mean / chunk
    if chunks > _MANY_CHUNKS:
        yield 1.0, mean
        return
    number, weight, left = 0, exp(-chunks), 1.0
    while left - weight > _TAIL:
        yield weight, number * chunk
        left -= weight
        number += 1
        weight *= chunks / number
    yield left, number * chunk


def tokens_per_s(run: Run, law: StepLaw) -> float:
    """Return output tokens/s of one GPU with more requests waiting than fit."""
    batch = run.most_sequences
    gpus = run.layout.tensor_parallel
    if run.point.scenario == "throughput":
        return _table_tokens_per_s(run, law, batch) / gpus
    return batch / mean_step(run, law, batch) / gpus


def _table_tokens_per_s(run: Run, law: StepLaw, batch: float) -> float:
    """Return output tokens/s of an engine that answers its share of the requests.

    Lengths are fixed, so they go in waves: all prompts of a wave, then its answers.
    """
    lengths, gpus = run.lengths, run.layout.tensor_parallel
    engines = max(1, run.point.n_gpus // (gpus * run.pipeline)) * run.pipeline
    share = run.requests / engines
    budget = run.ranks * run.budget
    # A chunk attends to what is before it: pairs depend on the prompt, not on it.
    full = law.seconds(0, budget, 0, budget * lengths.prompt / 2)

    def wave(sequences: float) -> Seconds:
        prefill = sequences * lengths.prompt / budget * full
        step = law.seconds(sequences, 0, sequences * lengths.context, 0)
        return prefill + lengths.output * step

    whole, rest = divmod(share, batch)
    return share * lengths.output / (whole * wave(batch) + (wave(rest) if rest else 0))


def decode_step(run: Run, law: StepLaw) -> Seconds:
    """Return the step at the batch that a run's published figures imply.

    By Little's law of decoding: sequences = tokens/s x measured time of a token.
    """
    assert run.decode_s is not None
    engine = run.point.tokens_per_s_per_gpu * run.layout.tensor_parallel
    return mean_step(run, law, engine * run.pipeline * run.decode_s)


def tpot_at(run: Run, law: StepLaw, tokens_per_s_per_gpu: float) -> Seconds | None:
    """Return the time of an output token at a rate; None if the engine cannot keep up.

    The least batch that gives the rate: B = rate x step(B).
    """
    rate = tokens_per_s_per_gpu * run.layout.tensor_parallel
    batch = _least(lambda b: b >= rate * mean_step(run, law, b), run.most_sequences)
    return None if batch is None else mean_step(run, law, batch)


def rate_within(run: Run, law: StepLaw, tpot: Seconds) -> float:
    """Return the highest tokens/s of a GPU at which an output token takes `tpot`.

    All that fits into the engine, if even that takes no longer.
    """
    most = run.most_sequences
    batch = _least(lambda b: mean_step(run, law, b) >= tpot, most) or most
    return batch / mean_step(run, law, batch) / run.layout.tensor_parallel


def _least(enough: Callable[[float], bool], most: float) -> float | None:
    if not enough(most):
        return None
    low, high = 0.0, most
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
