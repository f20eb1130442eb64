"""The constants that are fitted: what each is, what is known before, and how well.

All are positive and fitted as logarithms. Before a point is seen each has a value and a
spread `sd` of its logarithm: what data sheets, kernel tables and habit allow. A name
with `@` is a family's own factor on the constant before it; `silicon.` and `stack.`
factors belong to one chip and one software generation. Factors start at 1.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from .runs import Run


@dataclass(frozen=True, slots=True)
class Constant:
    """A fitted constant, its unit, and its prior: value and sd of its logarithm."""

    name: str
    value: float
    sd: float
    unit: str
    meaning: str


COMMON: Final = (
    Constant("memory", 0.85, 0.1, "1", "share of the memory's data-sheet bandwidth"),
    Constant("cache", 0.85, 0.15, "1", "the same of KV reads, relative to weights"),
    Constant("gemm.fp4", 0.42, 0.3, "1", "share of the FP4 peak in GEMMs"),
    Constant("gemm.fp8", 0.55, 0.3, "1", "share of the FP8 or BF16 peak in GEMMs"),
    Constant("gemm.widened", 0.25, 0.5, "1", "the same for 4-bit weights in BF16"),
    Constant("gemm.experts", 0.8, 0.1, "1", "grouped GEMMs relative to plain ones"),
    Constant("gemm.peak", 0.8, 0.3, "1", "exponent of the peak in the GEMM rate"),
    Constant("gemm.width", 0.1, 0.35, "1", "exponent of the narrow side of a matrix"),
    Constant("power", 0.58, 0.43, "1", "exponent of the board's power in the clock"),
    Constant("knee", 0.3, 0.3, "1", "p - 1; kernel tables of GB300 give 0.32"),
    Constant("attention.decode", 0.5, 0.3, "1", "share of the peak in decoding"),
    Constant("attention.prefill", 0.6, 0.5, "1", "share of the BF16 peak in prefill"),
    Constant("activation", 30.0, 0.5, "B", "moved for a token, layer and model width"),
    Constant("link", 0.6, 0.3, "1", "share of the scale-up link's bandwidth"),
    Constant("latency.eager", 45e-6, 0.5, "s", "of an all-reduce without CUDA graphs"),
    Constant("latency.graph", 8e-6, 0.5, "s", "of an all-reduce with CUDA graphs"),
    Constant("latency.exchange", 20e-6, 0.7, "s", "of an exchange with the experts"),
    Constant("launch.eager", 80e-6, 0.4, "s", "of a layer without CUDA graphs"),
    Constant("launch.graph", 35e-6, 0.4, "s", "of a layer with CUDA graphs"),
    Constant("launch.quantise", 30e-6, 0.7, "s", "of a layer, more if all is FP4"),
    Constant("launch.latent", 100e-6, 0.8, "s", "of a layer, more with MLA"),
    Constant("host.step", 2e-3, 0.8, "s", "of a step"),
    Constant("host.ranks", 5e-3, 1.0, "s", "of a step under data-parallel attention"),
    Constant("host.sequence", 3e-6, 1.0, "s", "of a sequence in a step"),
)  # fmt: skip
BY_FAMILY: Final = {
    "gemm.fp4": 0.25, "gemm.fp8": 0.25, "memory": 0.15, "cache": 0.2,
    "launch.graph": 0.3, "launch.eager": 0.1, "latency.eager": 0.3,
    "attention.prefill": 0.5, "power": 0.5,
}  # fmt: skip
"""Constants that kernels of one family may have otherwise: sd of the factor."""
SILICON_SD: Final = 0.05
STACK_SD: Final = 0.2
FEWEST_POINTS: Final = 4
"""A factor is fitted where at least so many points have it; else it stays at 1."""


def constants_for(runs: Iterable[Run]) -> tuple[Constant, ...]:
    """Return the constants that `runs` can say something of."""
    counts: dict[str, int] = {}
    limits: dict[str, set[float]] = {}
    for run in runs:
        limits.setdefault(run.gpu.family, set()).add(run.gpu.power_limit_w)
        for name in _factors(run):
            counts[name] = counts.get(name, 0) + 1
    for family, watts in limits.items():
        if len(watts) == 1:
            # At one limit an exponent is one more factor on what GEMMs sustain.
            del counts[f"power@{family}"]
    factors = tuple(
        _factor(name) for name, n in sorted(counts.items()) if n >= FEWEST_POINTS
    )
    return COMMON + factors


def _factors(run: Run) -> Iterable[str]:
    family, layout = run.gpu.family, run.layout
    precisions = set(run.model.precisions(layout.precision))
    used = {"memory", "cache", "attention.prefill", "power"}
    used.add("launch.graph" if layout.graphs else "launch.eager")
    if "fp4" in precisions and run.gpu.fp4_dense_tflops:
        used.add("gemm.fp4")
    if precisions - {"fp4"}:
        used.add("gemm.fp8")
    if layout.tensor_parallel > 1 and not layout.graphs:
        used.add("latency.eager")
    yield from (f"{name}@{family}" for name in used)
    yield f"silicon.{run.gpu.name}"
    yield f"stack.{run.stack}"


def _factor(name: str) -> Constant:
    if name.startswith("silicon."):
        return Constant(name, 1.0, SILICON_SD, "1", "this chip's GEMMs in its family")
    if name.startswith("stack."):
        return Constant(name, 1.0, STACK_SD, "1", "on every cost of a step")
    common, _, family = name.partition("@")
    return Constant(name, 1.0, BY_FAMILY[common], "1", f"{common} on {family}")
