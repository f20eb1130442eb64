"""Recipes: MLPerf-like loads with the limits that MLCommons published.

Not MLPerf results: no accuracy run, no compliance tests, lengths from tables, and an
emulated engine.
"""

from dataclasses import dataclass
from typing import Any, Final

from ..errors import CatalogError, NotModelledError, UsageError
from ..fact import Fact
from ..traffic.slo import Slo
from ..units import MS, Tokens
from .facts import read_table

_PREFIX: Final = "mlperf-"
RECIPES: Final = tuple(_PREFIX + name for name in ("offline", "server", "interactive"))
_PLAIN: Final = {"dataset", "lengths", "samples", "max_output_tokens"}
_LIMITS: Final = {"ttft_p99_ms": "ttft_intended_s", "tpot_p99_ms": "tpot_s"}
"""Published limits, and what they are of: MLPerf's clock starts when a query is issued,
whatever the client does then."""
_PROVENANCE: Final = {"source", "date", "confidence", "note"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A scenario of the benchmark for one model."""

    name: str
    model: str
    dataset: str
    scenario: str
    """The scenario of `loadstone.traffic.plan` whose lengths stand for the data set."""
    samples: int
    max_output_tokens: Tokens | None
    limits: dict[str, Fact]
    """By name, in milliseconds."""

    @property
    def offline(self) -> bool:
        """Whether all requests are there at once, with no limit on latency."""
        return not self.limits

    @property
    def slos(self) -> tuple[Slo, ...]:
        """The limits as objectives."""
        return tuple(
            Slo(metric, "p99", self.limits[limit].value * MS)
            for limit, metric in _LIMITS.items()
            if limit in self.limits
        )

    def notes(self) -> list[str]:
        """Say what it is, what it is not, and where its limits are from."""
        facts = self.limits.values()
        sources = sorted({f"{fact.source}, {fact.date}" for fact in facts})
        kind = f"{self.name}: MLPerf-like, not an MLPerf result"
        return [
            f"{kind}; lengths as of {self.dataset}",
            *(f"limits from {source}" for source in sources),
        ]


def load_recipe(name: str, model: str) -> Recipe:
    """Load a recipe for a model.

    Raises `UsageError` for an unknown name, `CatalogError` for a model without it and
    `NotModelledError` where the lengths of its data set are not in the catalog.
    """
    if name not in RECIPES:
        raise UsageError(f"no recipe {name!r}", hint=f"one of {', '.join(RECIPES)}")
    table = read_table("slos")
    found = table.get(model, {}).get(name.removeprefix(_PREFIX))
    if found is None:
        there = [
            f"{other} {_PREFIX}{scenario}"
            for other, scenarios in table.items()
            for scenario in scenarios
        ]
        raise CatalogError(
            f"no recipe {name} for {model} in the catalog",
            hint=f"there is: {', '.join(there)}",
        )
    if "lengths" not in found:
        raise NotModelledError(
            f"recipe {name} of {model}: no lengths of its data set in the catalog"
            f" ({found['dataset']})",
            hint="give --rate and --slo, with a --scenario or a --trace",
        )
    return _read(name, model, found)


def _read(name: str, model: str, table: dict[str, Any]) -> Recipe:
    where = f"slos.toml [{model}.{name.removeprefix(_PREFIX)}]"
    unknown = set(table) - _PLAIN - set(_LIMITS) - _PROVENANCE
    if unknown:
        raise CatalogError(f"{where}: unknown field {min(unknown)!r}")
    birth = {field: table[field] for field in _PROVENANCE & set(table)}
    try:
        limits = {
            limit: Fact(value=table[limit], unit="ms", **birth)
            for limit in _LIMITS
            if limit in table
        }
        return Recipe(
            name=name,
            model=model,
            dataset=table["dataset"],
            scenario=table["lengths"],
            samples=table["samples"],
            max_output_tokens=table.get("max_output_tokens"),
            limits=limits,
        )
    except (KeyError, TypeError, ValueError) as wrong:
        raise CatalogError(f"{where}: {wrong}") from None
