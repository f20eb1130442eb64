"""The step law of a model on a GPU, from facts and fitted constants."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

from ..errors import CatalogError
from ..fact import Fact
from ..physics.accelerator import Accelerator
from ..physics.architecture import Architecture
from ..physics.derive import Efficiencies, Layout, derive
from ..physics.steplaw import StepLaw
from .facts import entry, read_entry
from .models import load_architecture

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
_TABLES: Final = ("constants", "fit", "intervals")
_BASES: Final = ("fitted", "transferred")
_PROVENANCE: Final = ("source", "date", "confidence")


@dataclass(frozen=True, slots=True)
class Constants:
    """What was fitted, on how many points, and of which accelerators and models."""

    facts: dict[str, Fact]
    points: int
    pairs: frozenset[tuple[str, str]]
    intervals: dict[str, Fact]
    """Half of the mean 80 % interval over the prediction, by what a law rests on."""

    @property
    def efficiencies(self) -> Efficiencies:
        """The constants' values."""
        return Efficiencies({name: fact.value for name, fact in self.facts.items()})

    @property
    def stacks(self) -> tuple[str, ...]:
        """Software generations that have a factor."""
        prefix = "stack."
        return tuple(n.removeprefix(prefix) for n in self.facts if n.startswith(prefix))


def basis(
    gpu: Accelerator, model: Architecture, pairs: Collection[tuple[str, str]]
) -> str:
    """Say what a law rests on, if points of `pairs` of GPU and model were fitted.

    `fitted` on points of this GPU and a model of this architecture, or `transferred`.
    """
    of_it = any(
        name == gpu.name and replace(load_architecture(known), name=model.name) == model
        for name, known in pairs
    )
    return "fitted" if of_it else "transferred"


@dataclass(frozen=True, slots=True)
class Law:
    """A step law, what it rests on (`fitted` or `transferred`), and its constants."""

    law: StepLaw
    basis: str
    facts: dict[str, Fact]
    interval: Fact
    """Half of a mean 80 % interval of such laws, over the prediction."""


@cache
def load_constants() -> Constants:
    """Return the fitted constants; raises `CatalogError` for a malformed table."""
    return constants_of({name: entry("constants", name) for name in _TABLES})


def constants_of(tables: Mapping[str, Any]) -> Constants:
    """Return the constants of the tables of constants.toml.

    Raises `CatalogError` for malformed ones.
    """
    table = tables["constants"]
    names = tuple(name for name in table if name not in _PROVENANCE)
    _, facts = read_entry(table, "constants.toml [constants]", facts=names)
    _, intervals = read_entry(
        tables["intervals"], "constants.toml [intervals]", facts=_BASES
    )
    where = "constants.toml [fit]"
    about, _ = read_entry(tables["fit"], where, plain=("points", "pairs"))
    try:
        pairs = frozenset((gpu, model) for gpu, model in map(str.split, about["pairs"]))
    except (TypeError, ValueError):
        raise CatalogError(f"{where}: pairs are not of a GPU and a model") from None
    return Constants(facts, int(about["points"]), pairs, intervals)


def load_law(
    gpu: Accelerator, model: Architecture, layout: Layout, *, stack: str, sigma: Fact
) -> Law:
    """Derive the law of one engine under the software generation `stack`.

    `sigma` is the spread of a step. Raises `CatalogError` for a generation of which no
    point was fitted, `NotModelledError` for a layout that the model does not have.
    """
    constants = load_constants()
    if stack not in constants.stacks:
        raise CatalogError(
            f"no serving software {stack!r} was fitted",
            hint=f"there is: {', '.join(constants.stacks)}",
        )
    law = derive(
        gpu,
        model,
        layout,
        constants.efficiencies,
        stack=stack,
        sigma=sigma.value,
    )
    origin = next(iter(constants.facts.values()))
    facts = {
        name: Fact(
            value=getattr(law, name),
            unit=unit,
            source=(
                f"data sheet of {gpu.name}, configuration of {model.name} and"
                f" constants fitted on {constants.points} published points"
            ),
            date=origin.date,
            confidence="derived",
        )
        for name, unit in UNITS.items()
        if name != "sigma" and getattr(law, name)
    }
    rests = basis(gpu, model, constants.pairs)
    return Law(law, rests, facts | {"sigma": sigma}, constants.intervals[rests])
