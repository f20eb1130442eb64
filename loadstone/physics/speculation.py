"""Speculative decoding as an acceptance length, the same for every sequence.

A drafter proposes `draft_tokens` for each decoding sequence and the model verifies them
in one step: 1 + `draft_tokens` tokens per sequence go through the GEMMs. Of these the
sequence keeps `accepted` on average: the drafts that were right and the model's own
token after them (the mean acceptance length, as vLLM and TensorRT-LLM report it).

All decoding sequences advance together, by whole tokens: after `n` steps of an engine
its token clock is at floor(accepted * n), and in each step every sequence is given what
the clock moved. With no drafts the clock is the number of steps.

Not modelled: the spread of the acceptance between sequences and between texts; and what
drafting itself costs, which belongs in the step law's fixed part.
"""

from dataclasses import dataclass, field
from math import ceil
from typing import Final

from ..errors import NotModelledError, UsageError
from ..units import Tokens
from .limits import EngineLimits


@dataclass(frozen=True, slots=True)
class Speculation:
    """How many tokens a step verifies for each sequence, and how many it keeps."""

    accepted: float
    """Mean tokens that a sequence is given in a step, from 1 to 1 + `draft_tokens`."""
    draft_tokens: Tokens
    """Tokens that the drafter proposes in each step."""
    _ratio: tuple[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be accepted; raises `UsageError`."""
        # Asked in the affirmative: whatever is compared with a NaN is False.
        if not (self.draft_tokens >= 0 and 1 <= self.accepted <= 1 + self.draft_tokens):
            raise UsageError(
                f"an acceptance length of {self.accepted} with {self.draft_tokens}"
                " draft tokens",
                hint="it is from 1, no draft was right, to 1 + draft tokens, all were",
            )
        # The float as the fraction it is: the clock then has no rounding of its own.
        object.__setattr__(self, "_ratio", float(self.accepted).as_integer_ratio())

    @property
    def verified(self) -> Tokens:
        """Tokens of each decoding sequence that a step computes."""
        return 1 + self.draft_tokens

    @property
    def longest(self) -> Tokens:
        """Most tokens that a sequence is given in one step."""
        return ceil(self.accepted)

    def clock(self, steps: int) -> Tokens:
        """Tokens that a sequence decoding since step 0 was given in so many steps."""
        above, below = self._ratio
        return steps * above // below

    def steps_to(self, clock: Tokens) -> int:
        """Return the fewest steps after which the clock is at `clock` or beyond."""
        above, below = self._ratio
        return -(-clock * below // above)

    def check(self, limits: EngineLimits) -> None:
        """Raise for limits under which a full batch, or one sequence, has no room."""
        batch = limits.max_num_seqs * self.verified
        if limits.max_num_batched_tokens < batch:
            raise UsageError(
                f"max_num_batched_tokens ({limits.max_num_batched_tokens}) is below"
                f" {batch}: {limits.max_num_seqs} sequences verify {self.verified}"
                " tokens each",
                hint="raise the token budget or lower max_num_seqs",
            )
        # The last step may overshoot a sequence's end, and drafts lie beyond that.
        most = limits.max_model_len + self.longest - 1 + self.draft_tokens
        if most > limits.kv_blocks * limits.block_size:
            raise NotModelledError(
                f"max_model_len ({limits.max_model_len}) and drafts are {most} tokens,"
                " more than the KV cache holds"
                f" ({limits.kv_blocks * limits.block_size} tokens)",
                hint="lower max_model_len or give the KV cache more memory",
            )


PLAIN: Final = Speculation(1.0, 0)
"""A token a step: no drafts."""
