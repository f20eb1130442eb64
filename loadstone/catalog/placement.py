"""How a model is laid out on a machine: precision, parallelism, and the memory left."""

from dataclasses import dataclass
from typing import Final

from ..errors import NotModelledError, UsageError
from ..physics.accelerator import PRECISIONS, Accelerator
from ..physics.architecture import Architecture
from ..physics.memory import KvBudget

ROOMY: Final = 0.5
"""Weights take at most this share of a group's memory, where the machine has enough
GPUs. With it the smallest group is the published one for 11 of 14 pairs of accelerator
and model whose settings are known (docs/calibration.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One engine: its GPUs, and the precision of weights and cache."""

    precision: str
    tensor_parallel: int
    expert_parallel: int
    cache: str = "fp8"

    def __str__(self) -> str:
        experts = f" EP{self.expert_parallel}" if self.expert_parallel > 1 else ""
        return (
            f"{self.precision} TP{self.tensor_parallel}{experts}, KV cache {self.cache}"
        )


def place(
    gpu: Accelerator,
    model: Architecture,
    *,
    gpus_per_vm: int,
    precision: str | None = None,
    tensor_parallel: int | None = None,
    expert_parallel: int | None = None,
) -> Placement:
    """Lay `model` out; what is None is chosen by rule.

    Precision: the lowest that the tensor cores have. Tensor parallelism: the smallest
    power of two whose memory the weights fill at most by half, or else all GPUs of the
    VM. Expert parallelism: as tensor parallelism, for models with experts. Raises
    `NotModelledError` for what the chip or the model does not have, `UsageError` for
    what does not fit.
    """
    precision = precision or ("fp4" if gpu.fp4_dense_tflops else "fp8")
    _check_precision(gpu, precision)
    if tensor_parallel is None:
        tensor_parallel = _smallest_group(gpu, model, precision, gpus_per_vm)
    if not 1 <= tensor_parallel <= gpu.domain_gpus or tensor_parallel.bit_count() > 1:
        raise NotModelledError(
            f"tensor parallelism of {tensor_parallel} is not modelled on {gpu.name}",
            hint=f"a power of two up to {gpu.domain_gpus}, the GPUs it links",
        )
    if expert_parallel is None:
        expert_parallel = tensor_parallel if model.experts else 1
    _check_experts(model, tensor_parallel, expert_parallel)
    return Placement(
        precision=precision,
        tensor_parallel=tensor_parallel,
        expert_parallel=expert_parallel,
    )


def _check_precision(gpu: Accelerator, precision: str) -> None:
    peaks = {
        "fp4": gpu.fp4_dense_tflops,
        "fp8": gpu.fp8_dense_tflops,
        "bf16": gpu.bf16_dense_tflops,
    }
    if precision not in PRECISIONS:
        raise NotModelledError(
            f"no precision {precision!r}", hint=f"one of {', '.join(PRECISIONS)}"
        )
    if peaks[precision] is None:
        had = ", ".join(name for name, peak in peaks.items() if peak)
        raise NotModelledError(
            f"the tensor cores of {gpu.name} have no {precision}",
            hint=f"--precision {had.replace(', ', ' or ')}",
        )


def _smallest_group(
    gpu: Accelerator, model: Architecture, precision: str, gpus_per_vm: int
) -> int:
    weights = model.weight_bytes(precision)
    group = 1
    while weights > ROOMY * group * gpu.hbm_bytes and 2 * group <= gpus_per_vm:
        group *= 2
    return group


def _check_experts(model: Architecture, tensor: int, expert: int) -> None:
    if expert != 1 and model.experts is None:
        raise NotModelledError(
            f"{model.name} has no experts, so expert parallelism must be 1"
        )
    if expert not in (1, tensor):
        raise NotModelledError(
            f"expert parallelism of {expert} in a group of {tensor} is not modelled",
            hint=f"1 or {tensor}",
        )


def kv_budget(
    gpu: Accelerator,
    model: Architecture,
    placement: Placement,
    *,
    activation_bytes: float,
    fraction: float,
    max_num_seqs: int,
) -> KvBudget:
    """Return the memory of one engine, all its GPUs together.

    `activation_bytes` are those of one GPU. Sliding-window layers hold a fixed number
    of bytes for each of `max_num_seqs` sequences, which is set aside. Raises
    `UsageError` when the weights do not fit.
    """
    gpus = placement.tensor_parallel
    fixed = model.kv_fixed_bytes_per_sequence(placement.cache) * max_num_seqs
    copies = _copies(model, placement)
    budget = KvBudget(
        hbm_bytes=gpus * gpu.hbm_bytes,
        weight_bytes=model.weight_bytes(placement.precision),
        activation_bytes=gpus * activation_bytes + copies * fixed,
        kv_bytes_per_token=copies * model.kv_bytes_per_token(placement.cache),
        fraction=fraction,
    )
    try:
        _ = budget.tokens
    except ValueError as wrong:
        raise UsageError(
            f"{model.name} in {placement.precision} on {gpus} x {gpu.name}: {wrong}",
            hint="raise --tensor-parallel-size or lower --precision",
        ) from None
    return budget


def _copies(model: Architecture, placement: Placement) -> float:
    """Return how often a group holds each token's cache.

    A group wider than the model has KV heads holds copies of them. With expert
    parallelism attention is data-parallel: a sequence is on one GPU only.
    """
    if placement.expert_parallel > 1:
        return 1.0
    heads = 1 if model.latent is not None else model.n_kv_heads
    return max(1.0, placement.tensor_parallel / heads)
