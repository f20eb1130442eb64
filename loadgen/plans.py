"""Plans by name or by file."""

from collections.abc import Sequence
from pathlib import Path

from loadstone.catalog.plans import load_plan
from loadstone.traffic.planfile import PlanFile, read_plan

from .files import read_text

SUFFIX = ".toml"


def find_plan(name: str, known: Sequence[str] | None = None) -> PlanFile:
    """Return a built-in plan, or the one in a file that ends in `.toml`.

    `known` are the options there are; None lets any pass. Raises `UsageError` for a
    name there is not, and for a file that is wrong.
    """
    if not name.endswith(SUFFIX):
        return load_plan(name)
    return read_plan(
        read_text(name, "plan"), path=name, name=Path(name).stem, options=known
    )
