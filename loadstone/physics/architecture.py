"""A model as its configuration has it, and what follows: bytes and FLOPs per token."""

from dataclasses import dataclass
from typing import Final

from ..errors import NotModelledError

WEIGHT_BYTES: Final = {"fp4": 9 / 16, "fp8": 1.0, "bf16": 2.0}
"""Bytes of a parameter. NVFP4: 4 bits and one 8-bit scale for 16 values."""
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
        return 1.0 - (1.0 - self.active / self.count) ** tokens


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
        return (
            (self.n_layers - e.dense_layers)
            * 3.0 * self.d_model * e.ffn_dim * e.count
        )  # fmt: skip

    def weight_bytes(self, precision: str) -> float:
        """Return the size of all weights, were every one of them at `precision`."""
        if precision not in WEIGHT_BYTES:
            raise NotModelledError(
                f"weights in {precision!r} are none of {', '.join(WEIGHT_BYTES)}"
            )
        return self.params_total * WEIGHT_BYTES[precision]

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
