"""What a price list is made of: terms, each in its unit, and the bases they serve.

A term that is not given is missing: what would need it is told to be unpriced, and is
never counted as free.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Final

from ..errors import CatalogError
from ..fact import Fact

_USD_MILLION: Final = "USD/million tokens"


@dataclass(frozen=True, slots=True)
class Term:
    """A figure that a price list may have: its unit, and the values it can take."""

    unit: str
    text: str
    least: float = 0.0
    most: float = float("inf")


TERMS: Final[Mapping[str, Term]] = {
    "usd_per_vm_hour": Term("USD/VM-hour", "rent of a VM"),
    "usd_per_gpu_hour": Term("USD/GPU-hour", "rent of a GPU"),
    "capex_usd_per_gpu": Term("USD/GPU", "what a GPU with its share of a rack cost"),
    "lifetime_years": Term("year", "over which it is written off", least=0.01),
    "residual_share": Term("1", "of the price that is left at the end", most=1.0),
    "usd_per_kwh": Term("USD/kWh", "electricity"),
    "pue": Term("1", "power of the site over that of its machines", least=1.0),
    "gpu_idle_w": Term("W", "draw of a GPU that waits"),
    "gpu_load_w": Term("W", "draw of a GPU inside a step"),
    "rest_w_per_gpu": Term("W", "a GPU's share of what else its rack draws"),
    "gco2_per_kwh": Term("g/kWh", "carbon dioxide of the electricity"),
    "usd_per_gb_egress": Term("USD/GB", "answers leaving the site"),
    "usd_per_million_retrievals": Term("USD/million", "storage I/O of retrieval"),
    "usd_per_million_input_tokens": Term(_USD_MILLION, "input tokens"),
    "usd_per_million_cached_tokens": Term(_USD_MILLION, "input tokens in a cache"),
    "usd_per_million_output_tokens": Term(_USD_MILLION, "output tokens"),
    "usd_per_million_reasoning_tokens": Term(_USD_MILLION, "reasoning tokens"),
    "usd_per_unit_hour": Term("USD/unit-hour", "a provisioned unit"),
    "units": Term("unit", "how many units are provisioned"),
    "prefill_weight": Term(
        "1", "machine time of an input token, in those of an output token"
    ),
}  # fmt: skip

_SCALE: Final = {
    ("USD/token", _USD_MILLION): 1e6,
    ("USD/1k tokens", _USD_MILLION): 1e3,
    ("USD/minute", "USD/VM-hour"): 60.0,
    ("USD/MWh", "USD/kWh"): 1e-3,
    ("kW", "W"): 1e3,
    ("kg/kWh", "g/kWh"): 1e3,
    ("lb/kWh", "g/kWh"): 453.59237,
}
"""Other units that a price list may be written in, and what they are in ours."""

TERMS_OF_RENT: Final = ("pay_as_you_go", "reserved", "spot")
"""How rent is agreed: reserved is due for every hour, the others while it is used."""

BASES: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "rent": (("usd_per_vm_hour", "usd_per_gpu_hour"),),
    "own": (
        ("capex_usd_per_gpu",), ("lifetime_years",), ("residual_share",),
        ("usd_per_kwh",), ("pue",), ("gpu_idle_w",), ("gpu_load_w",),
        ("rest_w_per_gpu",),
    ),
    "tokens": (
        ("usd_per_million_input_tokens",), ("usd_per_million_output_tokens",),
    ),
    "provisioned": (("usd_per_unit_hour",), ("units",)),
}  # fmt: skip
"""What each way of paying cannot be reckoned without: exactly one of each group."""


def in_own_unit(name: str, fact: Fact) -> Fact:
    """Return a term's figure in the term's unit; raises `ValueError` for another one.

    Raises `ValueError` also for a value that the term cannot have.
    """
    term = TERMS[name]
    if fact.unit != term.unit:
        factor = _SCALE.get((fact.unit, term.unit))
        if factor is None:
            raise ValueError(f"unit {fact.unit!r} is not {term.unit}")
        fact = scaled(fact, factor, unit=term.unit)
    if not (isfinite(fact.value) and term.least <= fact.value <= term.most):
        raise ValueError(
            f"{fact.value:g} is not within {term.least:g} to {term.most:g}"
        )
    return fact


def scaled(fact: Fact, factor: float, *, unit: str | None = None) -> Fact:
    """Return a figure times a factor, its bounds too."""
    return replace(
        fact,
        value=fact.value * factor,
        low=None if fact.low is None else fact.low * factor,
        high=None if fact.high is None else fact.high * factor,
        unit=fact.unit if unit is None else unit,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """A way of paying, with every figure of it; `gpus` is how many a VM has."""

    name: str
    title: str
    basis: str
    gpus: int
    facts: Mapping[str, Fact]
    agreed: str = "pay_as_you_go"
    """One of `TERMS_OF_RENT`; it is about rent alone."""
    gpu: str = ""
    """Which GPU the machines have; empty where none is paid for."""

    def __post_init__(self) -> None:
        """Refuse what cannot be reckoned with: raises `CatalogError`."""
        if self.basis not in BASES:
            raise CatalogError(
                f"price {self.name}: no basis {self.basis!r}",
                hint=f"there is: {', '.join(BASES)}",
            )
        if self.agreed not in TERMS_OF_RENT:
            raise CatalogError(
                f"price {self.name}: rent is not agreed as {self.agreed!r}",
                hint=f"there is: {', '.join(TERMS_OF_RENT)}",
            )
        for group in BASES[self.basis]:
            if sum(name in self.facts for name in group) != 1:
                raise CatalogError(
                    f"price {self.name}: paid by {self.basis} it needs"
                    f" {' or '.join(group)}" + (", not both" * (len(group) > 1))
                )
        for name in self.facts:
            if name not in TERMS:
                raise CatalogError(f"price {self.name}: unknown term {name!r}")

    @property
    def due_always(self) -> bool:
        """Whether hours without load are paid for too."""
        rented = self.basis == "rent" and self.agreed != "reserved"
        return self.by_time and not rented

    @property
    def by_time(self) -> bool:
        """Whether machines are paid for, busy or idle, and not tokens."""
        return self.basis != "tokens"

    @property
    def by_machine(self) -> bool:
        """Whether it matters how many VMs there are."""
        return self.basis in ("rent", "own")

    def value(self, name: str) -> float | None:
        """Return a term's value in its unit; None where the list has none."""
        fact = self.facts.get(name)
        return None if fact is None else fact.value

    def __getitem__(self, name: str) -> float:
        """Return the value of a term that the basis needs."""
        return self.facts[name].value

    def varied(self, name: str, factor: float) -> "Tariff":
        """Return the list with one term times a factor, kept to what it can be."""
        term, fact = TERMS[name], self.facts[name]
        value = min(max(fact.value * factor, term.least), term.most)
        moved = replace(fact, value=value, low=None, high=None)
        return replace(self, facts={**self.facts, name: moved})

    def assumption(self, name: str) -> str:
        """Say a term with its value, date, confidence and source."""
        fact = self.facts[name]
        text = f"{TERMS[name].text} {fact.value:g} {fact.unit}".removesuffix(" 1")
        bounds = f", {fact.low:g} to {fact.high:g}" if fact.low is not None else ""
        note = f"; {fact.note}" if fact.note else ""
        return f"{text}{bounds} ({fact.date}, {fact.confidence}): {fact.source}{note}"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values, figures with their provenance."""
        return {
            "name": self.name,
            "title": self.title,
            "basis": self.basis,
            "gpus": self.gpus,
            "agreed": self.agreed,
            "gpu": self.gpu,
            "facts": {
                name: {
                    field: value
                    for field in Fact.__dataclass_fields__
                    if (value := getattr(fact, field)) not in (None, "")
                }
                for name, fact in self.facts.items()
            },
        }

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> "Tariff":
        """Read what `to_json` wrote.

        Raises `KeyError`, `TypeError`, `ValueError` or `CatalogError` for another.
        """
        facts = {name: Fact(**fact) for name, fact in table["facts"].items()}
        return cls(
            name=table["name"],
            title=table["title"],
            basis=table["basis"],
            gpus=table["gpus"],
            agreed=table["agreed"],
            gpu=table["gpu"],
            facts=facts,
        )
