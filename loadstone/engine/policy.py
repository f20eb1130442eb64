"""Admission policies: how much KV a sequence takes when it is let in, and what follows.

All three run decoding sequences first, then a partial prefill, then the queue, under
one token budget and one batch limit. They differ in what they ask for at the door:

=================  ==========================  ==============  ======================
policy             blocks taken at admission   later blocks    a chunk may end
=================  ==========================  ==============  ======================
`vllm`             those of the first chunk    one by one      anywhere
`trtllm_max_util`  those of the whole prompt   one by one      where a block ends
`trtllm_no_evict`  prompt + declared maximum   none            where a block ends
=================  ==========================  ==============  ======================

Where later blocks can run out, the sequence admitted last is preempted (TensorRT-LLM:
paused) and recomputed from the front of the queue, and nobody is admitted in that step.
`trtllm_no_evict` never preempts; it pays with a smaller batch, the more so the further
`max_tokens` is above the true answer. Reserved blocks count as used.

Sources: `vllm` is vLLM v1's scheduler (`vllm/v1/core/sched/scheduler.py`); the others
are TensorRT-LLM's MAX_UTILIZATION and GUARANTEED_NO_EVICT (`capacityScheduler.cpp`)
with context chunks first come, first served (`microBatchScheduler.cpp`: a chunk cut
short is rounded down to the chunk unit, by default one block). Two simplifications:
TensorRT-LLM may fill what such rounding leaves of the budget, less than a block, with
shorter prompts from behind; and its reuse of blocks is not modelled, so prefixes and
priorities are refused there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..errors import NotModelledError, UsageError
from ..physics.limits import EngineLimits
from ..units import Tokens
from .sequence import Sequence

Room = Callable[[Sequence, Tokens], Tokens]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One row of the table above."""

    name: str
    room: Room
    """Tokens to take blocks for at admission, given the end of the first chunk."""
    grows: bool = True
    """Blocks of output tokens are taken one by one, and may run out."""
    whole_chunks: bool = False
    """A chunk that does not finish its prompt ends where a block ends."""
    extras: bool = False
    """Prefix cache and priorities are modelled."""

    def check(self, limits: EngineLimits) -> None:
        """Raise `UsageError` for limits under which no prompt could be chunked."""
        if self.whole_chunks and limits.max_num_batched_tokens < limits.block_size:
            raise UsageError(
                f"max_num_batched_tokens ({limits.max_num_batched_tokens}) is below"
                f" block_size ({limits.block_size}), and {self.name} chunks by blocks",
                hint="raise the token budget or use smaller blocks",
            )

    def refuse_extra(self, what: str, hint: str) -> None:
        """Raise `NotModelledError` if this policy has no `what`."""
        if not self.extras:
            raise NotModelledError(
                f"{what} under policy {self.name} is not modelled", hint=hint
            )


POLICIES: Final = {
    policy.name: policy
    for policy in (
        Policy(name="vllm", room=lambda _, end: end, extras=True),
        Policy(
            name="trtllm_max_util", room=lambda seq, _: seq.target, whole_chunks=True
        ),
        Policy(
            name="trtllm_no_evict",
            room=lambda seq, _: seq.prompt_tokens + seq.max_output_tokens,
            grows=False,
            whole_chunks=True,
        ),
    )
}


def find_policy(name: str) -> Policy:
    """Return a policy by name; raises `UsageError` listing those there are."""
    try:
        return POLICIES[name]
    except KeyError:
        raise UsageError(
            f"no policy {name!r}", hint=f"one of {', '.join(POLICIES)}"
        ) from None
