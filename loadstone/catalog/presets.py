"""Machines as they are rented: from a preset's name to an engine with its constants."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from ..errors import CatalogError, NotModelledError
from ..physics.limits import EngineLimits
from ..physics.memory import KvBudget
from ..physics.steplaw import StepLaw
from .facts import Fact, read_fact, read_fields, read_table

_PRESET_PLAIN: Final = ("title", "gpu", "models", "precision", "price")
_PRESET_FACTS: Final = (
    "gpus_per_vm", "vms_per_rack", "max_num_seqs", "max_num_batched_tokens",
    "block_size", "kv_fraction", "activation_bytes", "max_model_len",
    "published_vm_min", "published_vm_mean", "published_vm_max",
    "published_tokens_per_gpu", "rack_it_w",
    "kv_transfer_bytes_per_s",
)  # fmt: skip
_LAW_FACTS: Final = (
    "weights_ms", "gemm_us_per_token", "kv_ns_per_token", "pair_ns", "knee", "sigma"
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One kind of VM serving one model: engine law and limits, every fact behind."""

    name: str
    title: str
    model: str
    gpu: str
    precision: str
    price: str
    tensor_parallel: int
    gpus_per_vm: int
    vms_per_rack: int
    law: StepLaw
    limits: EngineLimits
    facts: dict[str, Fact]

    @property
    def engines_per_vm(self) -> int:
        """Engine replicas of a VM: one for each tensor-parallel group."""
        return self.gpus_per_vm // self.tensor_parallel

    @property
    def cache_dtype(self) -> str:
        """Precision of the KV cache: the only one that the catalog's models have."""
        return "fp8"

    def with_limits(self, **limits: int | None) -> "Preset":
        """Return the preset with some of the engine's limits replaced; None keeps one.

        Raises `UsageError` when the engine could not serve under them.
        """
        given = {name: value for name, value in limits.items() if value is not None}
        return replace(self, limits=replace(self.limits, **given))

    def slowed(self, factor: float) -> "Preset":
        """Return the preset with everything taking `factor` times as long."""
        return replace(self, law=self.law.slowed(factor))

    def assumptions(self, *, short: bool = False) -> Iterator[str]:
        """Say which constants are assumed or known as a range; `short`: no source."""
        for name, fact in self.facts.items():
            if fact.confidence == "assumed" or fact.low is not None:
                span = "" if fact.low is None else f" ({fact.low:g} to {fact.high:g})"
                text = f"{name} {fact.value:g}{span}"
                yield (
                    text
                    if short
                    else f"{text} {fact.unit}, {fact.confidence}: {fact.source}"
                )


def preset_names() -> list[str]:
    """Return the names of the presets there are."""
    return sorted(read_table("presets"))


def load_preset(name: str, model: str) -> Preset:
    """Load preset `name` serving `model`.

    Raises `CatalogError` for unknown names and `NotModelledError` for a model whose
    timing on this machine is not in the catalog.
    """
    plain, facts = read_fields(
        "presets", name, plain=_PRESET_PLAIN, facts=_PRESET_FACTS
    )
    gpu, precision = plain["gpu"], plain["precision"]
    if model not in plain["models"]:
        raise NotModelledError(
            f"preset {name} has no timing for model {model!r}",
            hint=f"it has: {', '.join(plain['models'])}",
        )
    tensor_parallel, law_facts = _law(gpu, model, precision)
    _, gpu_facts = read_fields("gpus", gpu, plain=(), facts=("hbm_bytes",))
    _, model_facts = read_fields(
        "models", model, plain=(), facts=("kv_bytes_per_token_fp8", "weight_bytes_fp4")
    )
    facts |= law_facts | gpu_facts | model_facts
    value = {key: fact.value for key, fact in facts.items()}
    budget = KvBudget(
        hbm_bytes=value["hbm_bytes"],
        weight_bytes=value["weight_bytes_fp4"],
        activation_bytes=value["activation_bytes"],
        kv_bytes_per_token=value["kv_bytes_per_token_fp8"],
        fraction=value["kv_fraction"],
    )
    block_size = int(value["block_size"])
    return Preset(
        name=name,
        title=plain["title"],
        model=model,
        gpu=gpu,
        precision=precision,
        price=plain["price"],
        tensor_parallel=tensor_parallel,
        gpus_per_vm=int(value["gpus_per_vm"]),
        vms_per_rack=int(value["vms_per_rack"]),
        law=StepLaw(**{field: value[field] for field in _LAW_FACTS}),
        limits=EngineLimits(
            max_num_seqs=int(value["max_num_seqs"]),
            max_num_batched_tokens=int(value["max_num_batched_tokens"]),
            kv_blocks=budget.blocks(block_size),
            block_size=block_size,
            max_model_len=int(value["max_model_len"]),
        ),
        facts=facts,
    )


def _law(gpu: str, model: str, precision: str) -> tuple[int, dict[str, Fact]]:
    try:
        table = dict(read_table("laws")[gpu][model][precision])
        tensor_parallel = int(table.pop("tensor_parallel"))
    except KeyError as missing:
        raise CatalogError(
            f"laws.toml: no {missing} for {gpu}, {model}, {precision}"
        ) from None
    where = f"laws.toml [{gpu}.{model}.{precision}"
    if set(table) != set(_LAW_FACTS):
        odd = min(set(table) ^ set(_LAW_FACTS))
        raise CatalogError(f"{where}]: unknown or missing constant {odd!r}")
    return tensor_parallel, {
        field: read_fact(table[field], f"{where}.{field}]") for field in _LAW_FACTS
    }
