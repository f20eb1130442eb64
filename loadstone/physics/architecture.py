"""A model as its configuration has it, and what follows: bytes and FLOPs per token."""

from dataclasses import dataclass
from typing import Final

from ..errors import NotModelledError

WEIGHT_BYTES: Final = {"fp4": 9 / 16, "fp8": 1.0, "bf16": 2.0}
"""Bytes of a parameter. NVFP4: 4 bits and one 8-bit scale for 16 values."""
_BITS: Final = {"fp4": 4, "fp8": 8, "bf16": 16}
CACHE_BYTES: Final = {"fp8": 1.0, "bf16": 2.0}
"""Bytes of a value in the KV cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """The mixture-of-experts layers: `active` of `count` experts for each token."""

    count: int
    active: int
    ffn_dim: int
    """Width of one expert: three matrices of d_model x ffn_dim."""
    shared: int = 0
    """Experts of the same width that every token passes."""
    dense_layers: int = 0
    """Layers without experts."""

    def touched(self, tokens: float) -> float:
        """Return the expected share of experts that `tokens` tokens touch (0 to 1)."""
        share: float = 1.0 - self.miss**tokens
        return share

    @property
    def miss(self) -> float:
        """Return the chance that a token leaves a given expert alone."""
        return 1.0 - self.active / self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class Latent:
    """Multi-head latent attention: the cache holds one latent for all heads."""

    kv_rank: int
    rope_dim: int
    q_rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A decoder-only transformer. Parameters are counts, not billions."""

    name: str
    params_total: float
    params_active: float
    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    """Ignored with `latent`."""
    head_dim: int
    vocab_size: int
    max_context_tokens: int
    experts: Experts | None = None
    latent: Latent | None = None
    sliding_layers: int = 0
    """Layers that attend to the last `sliding_window` tokens alone."""
    sliding_window: int = 0
    dense_bits: float = 4
    """Fewest bits that published checkpoints have for weights outside the experts."""
    expert_bits: float = 16
    """Most bits that published checkpoints have for the weights of experts."""

    @property
    def full_layers(self) -> int:
        """Layers that attend to the whole context."""
        return self.n_layers - self.sliding_layers

    @property
    def params_experts(self) -> float:
        """Parameters of all routed experts."""
        if self.experts is None:
            return 0.0
        e = self.experts
        layers = self.n_layers - e.dense_layers
        return layers * 3.0 * self.d_model * e.ffn_dim * e.count

    @property
    def params_experts_active(self) -> float:
        """Parameters of the routed experts that a token passes."""
        if self.experts is None:
            return 0.0
        return self.params_experts * self.experts.active / self.experts.count

    def precisions(self, precision: str) -> tuple[str, str]:
        """Return what the experts and what the other weights have at `precision`.

        4-bit checkpoints of mixtures quantise the experts and leave the rest wider;
        some are published with 4-bit experts alone. Raises `NotModelledError` for a
        precision that is none of `WEIGHT_BYTES`.
        """
        if precision not in WEIGHT_BYTES:
            raise NotModelledError(
                f"weights in {precision!r} are none of {', '.join(WEIGHT_BYTES)}"
            )
        if self.experts is None:
            return precision, precision
        bits = _BITS[precision]
        return (
            _at_most(min(bits, self.expert_bits)),
            _at_most(max(bits, self.dense_bits)),
        )

    def weight_bytes(self, precision: str) -> float:
        """Return the size of all weights of a checkpoint in `precision`."""
        experts, dense = self.precisions(precision)
        routed = self.params_experts
        return (
            routed * WEIGHT_BYTES[experts]
            + (self.params_total - routed) * WEIGHT_BYTES[dense]
        )

    def kv_bytes_per_token(self, cache: str) -> float:
        """Return what the cache holds for a token in the layers of full attention."""
        return self.full_layers * self._layer_cache(cache)

    def kv_fixed_bytes_per_sequence(self, cache: str) -> float:
        """Return what the sliding layers hold for a sequence past their window."""
        return self.sliding_layers * self.sliding_window * self._layer_cache(cache)

    def pair_flops(self) -> float:
        """Return the FLOPs of one attention pair (a query, a key) in prefill.

        Two products of 2 x heads x head_dim in each layer of full attention; MLA is
        expanded to full heads in prefill, whose keys also carry the rotary part.
        """
        qk, pv = self.head_dim, self.head_dim
        if self.latent is not None:
            qk += self.latent.rope_dim
        return 2.0 * self.full_layers * self.n_heads * (qk + pv)

    def context_flops(self) -> float:
        """Return the FLOPs of decode attention for a token of context.

        MLA attends in the latent space, where every head reads the whole latent.
        """
        width = (
            self.latent.kv_rank * 2 + self.latent.rope_dim
            if self.latent is not None
            else 2 * self.head_dim
        )
        return 2.0 * self.full_layers * self.n_heads * width

    def _layer_cache(self, cache: str) -> float:
        if cache not in CACHE_BYTES:
            raise NotModelledError(
                f"a KV cache in {cache!r} is none of {', '.join(CACHE_BYTES)}"
            )
        values = (
            self.latent.kv_rank + self.latent.rope_dim
            if self.latent is not None
            else 2 * self.n_kv_heads * self.head_dim
        )
        return values * CACHE_BYTES[cache]


def _at_most(bits: float) -> str:
    """Return the widest precision of at most `bits`."""
    return max((b, name) for name, b in _BITS.items() if b <= bits)[1]
