"""Machines as they are rented: from a preset's name to an engine with its constants."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf
from random import Random
from statistics import fmean
from typing import Any, Final

from ..errors import UsageError
from ..fact import Fact
from ..physics.accelerator import Accelerator
from ..physics.architecture import Architecture
from ..physics.derive import Layout
from ..physics.limits import EngineLimits
from ..physics.memory import KvBudget
from ..physics.pipeline import Pipeline, pipeline_of
from ..physics.spread import vm_speeds
from ..physics.steplaw import StepLaw
from .facts import read_fields, read_table
from .gpus import load_accelerator
from .laws import load_law
from .models import load_architecture, model_name
from .placement import describe, expert_parallel_of, kv_budget, place
from .points import load_rack_spreads

_PLAIN: Final = ("title", "gpu", "engine", "engine_of_experts", "price")
_FINE_EXPERTS: Final = 32
"""From so many experts on a mixture has an engine of its own."""
_MACHINE: Final = ("gpus_per_vm", "vms_per_rack")
_ENGINE: Final = (
    "max_num_seqs", "max_num_batched_tokens", "block_size", "kv_fraction",
    "activation_bytes", "max_model_len", "sigma",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One kind of VM serving one model: engine law and limits, every fact behind."""

    name: str
    title: str
    model: str
    gpu: str
    price: str
    layout: Layout
    stack: str
    """The serving software, which a law has a factor for."""
    gpus_per_vm: int
    vms_per_rack: int
    law: StepLaw
    basis: str
    """`fitted` on published points of this GPU and model, `transferred`, or `own`."""
    interval: Fact | None
    """Half of a mean 80 % interval of such laws, over the prediction, if known."""
    limits: EngineLimits
    memory: KvBudget
    """Of one engine, all its GPUs together."""
    vm_tail: float
    """How far the VMs of a rack lie apart (`physics.spread`); 0 where nobody said."""
    facts: dict[str, Fact]

    @property
    def pipeline(self) -> Pipeline:
        """How late its engines look at what arrives."""
        return pipeline_of(self.stack, self.layout)

    @property
    def precision(self) -> str:
        """Precision of the weights."""
        return self.layout.precision

    @property
    def tensor_parallel(self) -> int:
        """GPUs of one engine."""
        return self.layout.tensor_parallel

    @property
    def expert_parallel(self) -> int:
        """GPUs of an engine that a layer's experts are spread over."""
        return expert_parallel_of(self.layout)

    @property
    def cache_dtype(self) -> str:
        """Precision of the KV cache."""
        return self.layout.cache

    def engines(self, vms: int) -> int:
        """Return how many engines `vms` VMs hold; raises `UsageError` for a rest."""
        engines, rest = divmod(vms * self.gpus_per_vm, self.tensor_parallel)
        if rest or not engines:
            raise UsageError(
                f"{vms} VM of {self.gpus_per_vm} GPUs cannot be shared out to engines"
                f" of {self.tensor_parallel} GPUs",
                hint=f"--vms {self.tensor_parallel // self.gpus_per_vm or 1} or a"
                " multiple, or another --tensor-parallel-size",
            )
        return engines

    def speeds(self, vms: int, seed: int) -> list[float]:
        """Return each engine's speed over the mean VM's, drawn from `seed`.

        An engine on several VMs is as slow as the slowest of them.
        """
        of_vm = vm_speeds(vms, self.vm_tail, Random(f"{seed}/vms"))
        gpus = self.tensor_parallel
        return [
            min(of_vm[i * gpus // self.gpus_per_vm : _above(i, gpus, self.gpus_per_vm)])
            for i in range(self.engines(vms))
        ]

    def with_limits(self, **limits: int | None) -> "Preset":
        """Return the preset with some of the engine's limits replaced; None keeps one.

        Raises `UsageError` when the engine could not serve under them.
        """
        given = {name: value for name, value in limits.items() if value is not None}
        return replace(self, limits=replace(self.limits, **given))

    def slowed(self, factor: float) -> "Preset":
        """Return the preset with everything taking `factor` times as long.

        Raises `UsageError` for a factor that is not a positive number.
        """
        if not 0 < factor < inf:
            raise UsageError(
                f"slowdown must be a positive number, not {factor:g}",
                hint="10 makes everything take ten times as long",
            )
        return replace(self, law=self.law.slowed(factor))

    def assumptions(self, *, short: bool = False) -> Iterator[str]:
        """Say what timing rests on: its basis, what is assumed or known as a range.

        `short`: without their sources.
        """
        sure = f", within {self.interval.value:.0%} (80 %)" if self.interval else ""
        yield f"{describe(self.layout)}, on {self.gpu}; law {_BASIS[self.basis]}{sure}"
        if self.pipeline.words:
            yield self.pipeline.words
        for name, fact in self.facts.items():
            if fact.confidence == "assumed" or fact.low is not None:
                span = "" if fact.low is None else f" ({fact.low:g} to {fact.high:g})"
                text = f"{name} {fact.value:g}{span}"
                yield (
                    text
                    if short
                    else f"{text} {fact.unit}, {fact.confidence}: {fact.source}"
                )


def _above(engine: int, gpus: int, gpus_per_vm: int) -> int:
    """Return the VM after the last one that has GPUs of `engine`."""
    return -(-(engine + 1) * gpus // gpus_per_vm)


_BASIS: Final = {
    "fitted": "fitted on published points of this GPU and model",
    "transferred": "transferred: no published point of this GPU and model was fitted",
    "own": "fitted on your own points",
}


def preset_names() -> list[str]:
    """Return the names of the presets there are."""
    return sorted(read_table("presets"))


def load_preset(
    name: str,
    model: str,
    *,
    precision: str | None = None,
    tensor_parallel: int | None = None,
    expert_parallel: int | None = None,
) -> Preset:
    """Load preset `name` serving `model`, laid out by rule where nothing is said.

    Raises `CatalogError` for unknown names, `NotModelledError` for a layout that the
    GPU or the model does not have, `UsageError` for one that does not fit.
    """
    machine, facts = read_machine(name)
    gpu, architecture = load_accelerator(machine["gpu"]), load_architecture(model)
    stack = machine[_engine_for(architecture)]
    how, engine = read_fields("engines", stack, plain=("graphs",), facts=_ENGINE)
    value = {key: fact.value for key, fact in (facts | engine).items()}
    layout = place(
        gpu,
        architecture,
        gpus_per_vm=int(value["gpus_per_vm"]),
        graphs=how["graphs"],
        precision=precision,
        tensor_parallel=tensor_parallel,
        expert_parallel=expert_parallel,
    )
    limits, memory = _limits(gpu, architecture, layout, value)
    law = load_law(gpu, architecture, layout, stack=stack, sigma=engine["sigma"])
    return Preset(
        name=name,
        title=machine["title"],
        model=architecture.name,
        gpu=gpu.name,
        price=machine["price"],
        layout=layout,
        stack=stack,
        gpus_per_vm=int(value["gpus_per_vm"]),
        vms_per_rack=int(value["vms_per_rack"]),
        law=law.law,
        basis=law.basis,
        interval=law.interval,
        limits=limits,
        memory=memory,
        vm_tail=_tail(gpu),
        facts=facts | engine | law.facts | _published(gpu, architecture, layout),
    )


def read_machine(name: str) -> tuple[dict[str, Any], dict[str, Fact]]:
    """Read a preset without a model; raises `CatalogError`."""
    return read_fields(
        "presets", name, plain=_PLAIN, facts=_MACHINE, optional=("rack_it_w",)
    )


def _engine_for(model: Architecture) -> str:
    fine = model.experts is not None and model.experts.count >= _FINE_EXPERTS
    return "engine_of_experts" if fine else "engine"


def _limits(
    gpu: Accelerator, model: Architecture, layout: Layout, value: dict[str, float]
) -> tuple[EngineLimits, KvBudget]:
    # Under data-parallel attention each GPU schedules its own sequences.
    ranks = layout.tensor_parallel if layout.data_parallel_attention else 1
    sequences = ranks * int(value["max_num_seqs"])
    memory = kv_budget(
        gpu,
        model,
        layout,
        activation_bytes=value["activation_bytes"],
        fraction=value["kv_fraction"],
        max_num_seqs=sequences,
    )
    block_size = int(value["block_size"])
    blocks = memory.blocks(block_size)
    longest = max(int(value["max_model_len"]), model.max_context_tokens)
    limits = EngineLimits(
        max_num_seqs=sequences,
        max_num_batched_tokens=ranks * int(value["max_num_batched_tokens"]),
        kv_blocks=blocks,
        block_size=block_size,
        max_model_len=min(longest, blocks * block_size),
    )
    return limits, memory


def _tail(gpu: Accelerator) -> float:
    """Return how far VMs of this GPU lie apart, by a rack whose VMs were published."""
    tails = [r.tail for r in load_rack_spreads() if r.accelerator == gpu.name]
    return fmean(tails) if tails else 0.0


def _published(
    gpu: Accelerator, model: Architecture, layout: Layout
) -> dict[str, Fact]:
    """Return what was published of a whole rack of this, if anything was."""
    for rack in load_rack_spreads():
        if (rack.accelerator, model_name(rack.model), rack.precision) == (
            gpu.name,
            model.name,
            layout.precision,
        ):
            return dict(rack.facts())
    return {}
