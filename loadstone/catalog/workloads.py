"""Length tables by name."""

from ..errors import CatalogError
from ..traffic.lengths import Lengths
from .facts import entry


def load_lengths(name: str) -> Lengths:
    """Load a length distribution; raises `CatalogError` if none has that name."""
    table = entry("lengths", name)
    known = {"levels", "tokens", "unit", "source", "date", "confidence", "note"}
    if not set(table) <= known or not {"source", "date", "confidence"} <= set(table):
        raise CatalogError(f"lengths.toml [{name}]: unknown field or no provenance")
    return Lengths(tuple(table["levels"]), tuple(table["tokens"]))
