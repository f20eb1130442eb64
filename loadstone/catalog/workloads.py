"""Length tables and prices by name."""

from dataclasses import dataclass

from ..errors import CatalogError
from ..traffic.lengths import Lengths
from .facts import Fact, entry, read_fields, read_table


def load_lengths(name: str) -> Lengths:
    """Load a length distribution; raises `CatalogError` if none has that name."""
    table = entry("lengths", name)
    known = {"levels", "tokens", "unit", "source", "date", "confidence", "note"}
    if not set(table) <= known or not {"source", "date", "confidence"} <= set(table):
        raise CatalogError(f"lengths.toml [{name}]: unknown field or no provenance")
    return Lengths(tuple(table["levels"]), tuple(table["tokens"]))


@dataclass(frozen=True, slots=True)
class Price:
    """What a VM costs by the hour, in US dollars, and who says so."""

    name: str
    title: str
    gpus: int
    usd_per_vm_hour: Fact

    def assumption(self) -> str:
        """Say the price with its source, date and confidence."""
        fact = self.usd_per_vm_hour
        return (
            f"{self.title}: {fact.value:g} {fact.unit}"
            f" ({fact.date}, {fact.confidence}):"
            f" {fact.source}" + (f"; {fact.note}" if fact.note else "")
        )


def price_names() -> list[str]:
    """Return the names of the prices there are."""
    return sorted(read_table("prices"))


def load_price(name: str) -> Price:
    """Load a price; raises `CatalogError` when there is none of that name."""
    plain, facts = read_fields(
        "prices", name, plain=("title", "gpus"), facts=("usd_per_vm_hour",)
    )
    return Price(name, plain["title"], plain["gpus"], facts["usd_per_vm_hour"])


def price_of_preset(name: str) -> str | None:
    """Return the name of a preset's price; None for one that is not in the catalog."""
    price = read_table("presets").get(name, {}).get("price")
    return None if price is None else str(price)
