"""A step law from facts: chip, model, layout, and how well software uses a chip.

Every constant of the law is what the facts allow, over an efficiency that was fitted
across many published points (docs/calibration.md). With P parameters, D dense and E
expert ones, L layers of width d, tp GPUs in the group:

    weights   bytes(D) / (tp bandwidth memory), and the same of E where touched
    c         2 P_active / (tp rate)              rate: see `_rate`
    k         the larger of KV bytes / (bandwidth memory cache) and attention FLOPs
    q         FLOPs of a pair / (tp peak prefill)
    a         L d activation / (bandwidth memory), and the bytes of collectives
    s         host work, and the sliding windows that a sequence reads
    f         L (launches + 2 latencies of a collective), and host work

With expert parallelism attention is data-parallel: each GPU of the group has all of the
dense weights and its own sequences, and tokens travel to their experts and back.

An efficiency is a product: one for all chips times one of the chip's family (a name
with `@`). A family that was never fitted has the first alone: its law is transferred.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ..errors import NotModelledError
from ..units import MS, NS, US
from .accelerator import Accelerator
from .architecture import CACHE_BYTES, WEIGHT_BYTES, Architecture
from .steplaw import StepLaw

_REFERENCE_FLOPS: Final = {"fp4": 1e16, "fp8": 2e15, "bf16": 1e15}
"""Peaks around which efficiency falls with the peak: FLOP/s."""
_REFERENCE_WIDTH: Final = 8192
_REFERENCE_WATTS: Final = 1000.0
_DISPATCH_BYTES: Final = 3.0
"""Of an activation that goes to an expert (1 byte) and comes back (2)."""
_REDUCE_BYTES: Final = 2.0
"""Of an activation in an all-reduce; the switch adds up, so it goes over once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One engine: precision of weights and cache, GPUs of a group, CUDA graphs."""

    precision: str
    cache: str
    tensor_parallel: int = 1
    data_parallel_attention: bool = False
    """Experts are spread over the group and each GPU attends for its own sequences."""
    graphs: bool = True


@dataclass(frozen=True, slots=True)
class Efficiencies:
    """Fitted constants by name; `calibration.constants` says what each one is."""

    values: Mapping[str, float]

    def of(self, name: str, family: str) -> float:
        """Return a constant times its family's own factor, if it has one."""
        return self.values[name] * self.values.get(f"{name}@{family}", 1.0)

    def factor(self, name: str) -> float:
        """Return a factor that is 1 unless it was fitted."""
        return self.values.get(name, 1.0)


def cache_precision(gpu: Accelerator, model: Architecture) -> str:
    """Return what the KV cache is kept in: 8 bits where there are kernels for it.

    On Hopper those are for plain grouped-query attention only.
    """
    special = model.latent is not None or model.sliding_layers > 0
    return "bf16" if gpu.family == "hopper" and special else "fp8"


def derive(
    gpu: Accelerator,
    model: Architecture,
    layout: Layout,
    efficiencies: Efficiencies,
    *,
    stack: str = "",
    sigma: float = 0.0,
) -> StepLaw:
    """Return the law of one engine under the software generation `stack`.

    Raises `NotModelledError` for a layout that the model or chip does not have.
    """
    if layout.cache not in CACHE_BYTES:
        raise NotModelledError(
            f"a KV cache in {layout.cache!r} is none of {', '.join(CACHE_BYTES)}"
        )
    if layout.data_parallel_attention and model.experts is None:
        raise NotModelledError(f"{model.name} has no experts to spread over GPUs")
    costs = _Costs(gpu, model, layout, efficiencies)
    slow = efficiencies.factor(f"stack.{stack}")
    dense, experts = costs.weights()
    return StepLaw(
        weights_ms=slow * dense / MS,
        expert_weights_ms=slow * experts / MS,
        expert_miss=model.experts.miss if model.experts else 0.0,
        gemm_us_per_token=slow * costs.gemm() / US,
        kv_ns_per_token=slow * costs.context() / NS,
        pair_ns=slow * costs.pair() / NS,
        knee=1.0 + efficiencies.of("knee", gpu.family),
        token_us=slow * costs.token() / US,
        sequence_us=slow * costs.sequence() / US,
        step_ms=slow * costs.step() / MS,
        sigma=sigma,
    )


@dataclass(frozen=True, slots=True)
class _Costs:
    """Seconds of each term, on the slowest GPU of a group that shares evenly."""

    gpu: Accelerator
    model: Architecture
    layout: Layout
    eff: Efficiencies

    def weights(self) -> tuple[float, float]:
        """Return the read of the dense weights and of all experts."""
        experts, dense = self.model.precisions(self.layout.precision)
        routed = self.model.params_experts
        share = 1 if self.layout.data_parallel_attention else self._gpus
        return (
            (self.model.params_total - routed) * WEIGHT_BYTES[dense] / share
            / self._bandwidth,
            routed * WEIGHT_BYTES[experts] / self._gpus / self._bandwidth,
        )  # fmt: skip

    def gemm(self) -> float:
        """Return the GEMMs of a token."""
        model = self.model
        experts, dense = model.precisions(self.layout.precision)
        active = model.params_experts_active
        seconds = (
            2.0 * (model.params_active - active) / self._rate(dense, model.d_model)
        )
        if model.experts is not None:
            narrow = min(model.d_model, model.experts.ffn_dim)
            rate = self._rate(experts, narrow) * self._of("gemm.experts")
            seconds += 2.0 * active / rate
        return seconds / self._gpus

    def context(self) -> float:
        """Return decode attention to a token of context: one kernel, so a roofline."""
        layout, model = self.layout, self.model
        # MLA has one latent for all heads, which a tensor-parallel group cannot split.
        whole = model.latent is not None and not layout.data_parallel_attention
        read = model.kv_bytes_per_token(layout.cache) / (1 if whole else self._gpus)
        peak = self.gpu.flops("fp8" if layout.cache == "fp8" else "bf16")
        rate = peak * self._of("attention.decode") * self._clock
        compute = model.context_flops() / self._gpus / rate
        return max(read / (self._bandwidth * self._of("cache")), compute)

    def pair(self) -> float:
        """Return one pair of prefill attention."""
        rate = self.gpu.flops("bf16") * self._of("attention.prefill") * self._clock
        return self.model.pair_flops() / self._gpus / rate

    def token(self) -> float:
        """Return activations and collectives of a token."""
        model, n = self.model, self._gpus
        spread = self.layout.data_parallel_attention
        # Norms and residuals are whole on each GPU of a group, the rest is split.
        share = 1 / n if spread else 0.5 + 0.5 / n
        wide = model.n_layers * model.d_model
        seconds = share * wide * self._of("activation") / self._bandwidth
        link = self.gpu.link_bytes_per_s * self._of("link")
        if spread and model.experts is not None:
            moe_layers = model.n_layers - model.experts.dense_layers
            goes = (n - 1) * (1.0 - (1.0 - 1.0 / n) ** model.experts.active)
            bytes_ = moe_layers * model.d_model * _DISPATCH_BYTES * goes / n
            seconds += bytes_ / link
        elif n > 1:
            seconds += 2 * wide * _REDUCE_BYTES / link
        return seconds

    def sequence(self) -> float:
        """Return the host's work for a sequence, and its sliding windows."""
        windows = self.model.kv_fixed_bytes_per_sequence(self.layout.cache) / self._gpus
        read = windows / (self._bandwidth * self._of("cache"))
        hosts = self._gpus if self.layout.data_parallel_attention else 1
        return read + self._of("host.sequence") / hosts

    def step(self) -> float:
        """Return launches, latencies of collectives and the host's work for a step."""
        model, layout = self.model, self.layout
        _, dense = model.precisions(layout.precision)
        launch = self._of("launch.graph" if layout.graphs else "launch.eager")
        if dense == "fp4" and self.gpu.fp4_dense_tflops:
            launch += self._of("launch.quantise")
        if model.latent is not None:
            launch += self._of("launch.latent")
        seconds = model.n_layers * launch
        if layout.data_parallel_attention and model.experts is not None:
            moe_layers = model.n_layers - model.experts.dense_layers
            exchange = 2 * moe_layers * self._of("latency.exchange")
            return seconds + self._of("host.ranks") + exchange
        if self._gpus > 1:
            kind = "graph" if layout.graphs else "eager"
            seconds += 2 * model.n_layers * self._of(f"latency.{kind}")
        return seconds + self._of("host.step")

    @property
    def _gpus(self) -> int:
        return self.layout.tensor_parallel

    @property
    def _bandwidth(self) -> float:
        return self.gpu.hbm_bytes_per_s * self._of("memory")

    def _of(self, name: str) -> float:
        return self.eff.of(name, self.gpu.family)

    @property
    def _clock(self) -> float:
        """Return the clock that tensor cores sustain, over that of 1,000 W a board.

        They are what draws power, so the board's limit holds them back: switching
        takes power with the cube of the clock while voltage follows it, and with its
        first power where voltage cannot fall further: an exponent of 1/3 to 1. How near
        to its limit a chip is laid out differs by family. Memory has its own clock.
        """
        watts = self.gpu.power_limit_w / _REFERENCE_WATTS
        clock: float = watts ** self._of("power")
        return clock

    def _rate(self, precision: str, width: int) -> float:
        """Return FLOP/s of one GPU's GEMMs.

        Efficiency falls with the peak, because not all of a GEMM is tensor cores, and
        with narrow matrices; `silicon` is what one chip sustains beside its family.
        Where the tensor cores lack the precision, weights are widened on the way.
        """
        peak = self.gpu.flops(precision)
        if precision == "fp4" and self.gpu.fp4_dense_tflops is None:
            return peak * self._of("gemm.widened") * self._clock
        if precision == "fp8" and self.gpu.fp8_dense_tflops is None:
            precision = "bf16"
        kind = "gemm.fp4" if precision == "fp4" else "gemm.fp8"
        reference = _REFERENCE_FLOPS[precision]
        rate: float = (
            reference
            * self._of(kind)
            * (peak / reference) ** self._of("gemm.peak")
            * (width / _REFERENCE_WIDTH) ** self._of("gemm.width")
            * self._clock
            * self.eff.factor(f"silicon.{self.gpu.name}")
        )
        return rate
