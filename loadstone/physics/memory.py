"""How many tokens of KV cache fit beside the weights."""

from dataclasses import dataclass

from ..units import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class KvBudget:
    """What one engine replica's memory holds, in bytes.

    KV capacity = `fraction` x (HBM - weights - activations) / KV bytes per token.
    """

    hbm_bytes: float
    weight_bytes: float
    activation_bytes: float
    kv_bytes_per_token: float
    fraction: float

    @property
    def tokens(self) -> Tokens:
        """Tokens of context that fit; raises `ValueError` when the weights do not."""
        room = self.hbm_bytes - self.weight_bytes - self.activation_bytes
        if room <= 0:
            raise ValueError(
                f"{self.weight_bytes / 1e9:.1f} GB of weights do not fit"
                f" into {self.hbm_bytes / 1e9:.1f} GB of memory"
            )
        return int(self.fraction * room / self.kv_bytes_per_token)

    def blocks(self, block_size: Tokens) -> int:
        """How many whole KV blocks of `block_size` tokens fit."""
        return self.tokens // block_size
