"""How a model is laid out on a machine: precision, parallelism, and the memory left."""

from typing import Final

from ..errors import NotModelledError, UsageError
from ..physics.accelerator import PRECISIONS, Accelerator
from ..physics.architecture import WEIGHT_BYTES, Architecture
from ..physics.derive import Layout, cache_precision
from ..physics.memory import KvBudget

ROOMY: Final = 0.5
"""Weights take at most this share of a group's memory, where the machine has enough
GPUs. With it the smallest group is one that was published, for 25 of the 31 pairs of
accelerator and model whose settings are stated."""


def describe(layout: Layout) -> str:
    """Say a layout in the field's words: `fp4 TP8 EP8, KV cache fp8`."""
    experts = f" EP{expert_parallel_of(layout)}" * layout.data_parallel_attention
    graphs = "" if layout.graphs else ", no CUDA graphs"
    return (
        f"{layout.precision} TP{layout.tensor_parallel}{experts},"
        f" KV cache {layout.cache}{graphs}"
    )


def expert_parallel_of(layout: Layout) -> int:
    """Return over how many GPUs a layer's experts are spread."""
    return layout.tensor_parallel if layout.data_parallel_attention else 1


def place(
    gpu: Accelerator,
    model: Architecture,
    *,
    gpus_per_vm: int,
    graphs: bool,
    precision: str | None = None,
    tensor_parallel: int | None = None,
    expert_parallel: int | None = None,
) -> Layout:
    """Lay `model` out; what is None is chosen by rule.

    Precision: the lowest that the tensor cores have. Tensor parallelism: the smallest
    power of two whose memory the weights fill at most by half, or else all GPUs of the
    VM. Expert parallelism: as tensor parallelism, for models with experts. Raises
    `NotModelledError` for what the chip or the model does not have.
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
    return Layout(
        precision=precision,
        cache=cache_precision(gpu, model),
        tensor_parallel=tensor_parallel,
        data_parallel_attention=expert_parallel > 1,
        graphs=graphs,
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
    layout: Layout,
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
    gpus = layout.tensor_parallel
    fixed = model.kv_fixed_bytes_per_sequence(layout.cache) * max_num_seqs
    copies = _cache_copies(model, layout)
    budget = KvBudget(
        hbm_bytes=gpus * gpu.hbm_bytes,
        weight_bytes=_weight_bytes(model, layout),
        activation_bytes=gpus * activation_bytes + copies * fixed,
        kv_bytes_per_token=copies * model.kv_bytes_per_token(layout.cache),
        fraction=fraction,
    )
    try:
        _ = budget.tokens
    except ValueError as wrong:
        raise UsageError(
            f"{model.name} as {describe(layout)} on {gpu.name}: {wrong}",
            hint="raise --tensor-parallel-size, or lower --precision",
        ) from None
    return budget


def _weight_bytes(model: Architecture, layout: Layout) -> float:
    """Return the weights of a group.

    Where attention is data-parallel, each GPU has all of them but the experts.
    """
    total = model.weight_bytes(layout.precision)
    if not layout.data_parallel_attention:
        return total
    experts, _ = model.precisions(layout.precision)
    routed = model.params_experts * WEIGHT_BYTES[experts]
    return routed + layout.tensor_parallel * (total - routed)


def _cache_copies(model: Architecture, layout: Layout) -> float:
    """Return how often a group holds each token's cache.

    A group wider than the model has KV heads holds copies of them. Where attention is
    data-parallel, a sequence is on one GPU only.
    """
    if layout.data_parallel_attention:
        return 1.0
    heads = 1 if model.latent is not None else model.n_kv_heads
    return max(1.0, layout.tensor_parallel / heads)
