"""What bounds one engine replica: batch, token budget, KV cache, context."""

from dataclasses import dataclass

from ..errors import NotModelledError, UsageError
from ..units import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """One engine's limits, by vLLM's names. `kv_blocks` of `block_size` tokens."""

    max_num_seqs: int
    max_num_batched_tokens: Tokens
    kv_blocks: int
    block_size: Tokens
    max_model_len: Tokens

    def __post_init__(self) -> None:
        """Refuse limits under which the engine could not serve; raises `UsageError`."""
        for name in ("max_num_seqs", "kv_blocks", "block_size", "max_model_len"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"{name} must be at least 1, not {getattr(self, name)}"
                )
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise UsageError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) is below"
                f" max_num_seqs ({self.max_num_seqs}): a full batch could not decode",
                hint="raise the token budget or lower max_num_seqs",
            )
        if self.max_model_len > self.kv_blocks * self.block_size:
            raise NotModelledError(
                f"max_model_len ({self.max_model_len}) is more than the KV cache holds"
                f" ({self.kv_blocks * self.block_size} tokens)",
                hint="lower max_model_len or give the KV cache more memory",
            )
