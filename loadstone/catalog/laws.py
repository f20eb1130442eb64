"""The step law of a model on a GPU, every constant behind."""

from dataclasses import dataclass
from typing import Final

from ..errors import NotModelledError
from ..physics.accelerator import Accelerator
from ..physics.architecture import Architecture
from ..physics.derive import Layout
from ..physics.steplaw import StepLaw
from .facts import Fact, read_fact, read_table

UNITS: Final = {
    "weights_ms": "ms/step",
    "gemm_us_per_token": "us/token",
    "kv_ns_per_token": "ns/token of context",
    "pair_ns": "ns/attention pair",
    "knee": "1",
    "sequence_us": "us/sequence",
    "step_ms": "ms/step",
    "token_us": "us/token",
    "expert_weights_ms": "ms/step",
    "expert_miss": "1",
    "sigma": "1",
}
"""Constants of a step law."""
_CONSTANTS: Final = (
    "weights_ms", "gemm_us_per_token", "kv_ns_per_token", "pair_ns", "knee", "sigma"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Law:
    """A step law, what it rests on (`fitted` or `transferred`), and its constants."""

    law: StepLaw
    basis: str
    facts: dict[str, Fact]


def load_law(gpu: Accelerator, model: Architecture, layout: Layout) -> Law:
    """Return the law of one engine; raises `NotModelledError` where none was fitted."""
    table = read_table("laws").get(gpu.name, {}).get(model.name, {})
    table = table.get(layout.precision)
    if table is None or table["tensor_parallel"] != layout.tensor_parallel:
        raise NotModelledError(
            f"no timing for {model.name} in {layout.precision} on {gpu.name}"
        )
    facts = {
        name: read_fact(table[name], f"laws.toml [{gpu.name}.{model.name}.{name}]")
        for name in _CONSTANTS
    }
    law = StepLaw(**{name: fact.value for name, fact in facts.items()})
    return Law(law, "fitted", facts)
