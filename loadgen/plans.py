"""Plans by name or by file."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from loadstone.catalog.plans import load_plan
from loadstone.traffic.classes import TrafficClass
from loadstone.traffic.planfile import PlanFile, read_plan
from loadstone.traffic.slo import Slo, read_slos

from .files import read_text

SUFFIX = ".toml"


def find_plan(name: str, known: Sequence[str] | None = None) -> PlanFile:
    """Return a built-in plan, or the one in a file that ends in `.toml`.

    `known` are the options there are; None lets any pass. Raises `UsageError` for a
    name there is not, and for a file that is wrong.
    """
    if not name.endswith(SUFFIX):
        return load_plan(name)
    path = Path(name)
    text = read_text(name, "plan")
    found = read_plan(text, path=name, name=path.stem, options=known)
    beside = path.parent.absolute()
    return replace(
        found,
        classes=tuple(_located(each, beside) for each in found.classes),
        tenants=tuple(
            replace(each, key_file=each.key_file and str(beside / each.key_file))
            for each in found.tenants
        ),
    )


def objectives(path: str | None, scenario: str) -> tuple[Slo, ...]:
    """Return the objectives in a file, or without one those of a plan.

    Raises `UsageError` for a file or a plan that is wrong.
    """
    if path is None:
        return find_plan(scenario).slos
    return read_slos(read_text(path, "SLO file"), name=path)


def _located(of: TrafficClass, beside: Path) -> TrafficClass:
    """Return a class with whole paths: files are sought where the plan is."""
    flow = of.flow if ":" not in of.flow else str(beside / of.flow)
    return replace(of, flow=flow, prompts=of.prompts and str(beside / of.prompts))
