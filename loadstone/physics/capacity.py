"""About how many requests a second an engine can keep up with: a place to start from.

A steady state: `B` sequences decode, so `B / O` end, and as many begin, in each step of
an engine that gives answers of `O` tokens; their prompts of `I` tokens are prefilled in
the same step. No spread of lengths, no queue: the simulation has those.
"""

from ..units import Seconds, Tokens
from .limits import EngineLimits
from .steplaw import StepLaw


def capacity(
    law: StepLaw,
    limits: EngineLimits,
    *,
    prompt: float,
    answer: float,
    longest_step_s: Seconds,
) -> float:
    """Return requests/s of one engine with steps of at most `longest_step_s`.

    `prompt` and `answer` are mean lengths in tokens. The batch is bounded by
    `max_num_seqs`, the token budget and the KV cache.
    """
    context = prompt + answer / 2
    cache: Tokens = limits.kv_blocks * limits.block_size
    largest = max(
        1.0,
        min(
            limits.max_num_seqs,
            limits.max_num_batched_tokens / (1 + prompt / answer),
            cache / context,
        ),
    )

    def step(batch: float) -> Seconds:
        begun = batch / answer
        pairs = begun * prompt * prompt / 2
        return law.seconds(
            round(batch), round(begun * prompt), round(batch * context), pairs
        )

    low, high = 1.0, largest
    if step(high) > longest_step_s:
        while high - low > 0.5:
            middle = (low + high) / 2
            if step(middle) > longest_step_s:
                high = middle
            else:
                low = middle
        largest = low
    return largest / answer / step(largest)
