"""The built-in plans: files such as users write, in `catalog/plans`."""

from functools import cache
from importlib.resources import files

from ..errors import UsageError
from ..traffic.fields import meant
from ..traffic.planfile import PlanFile, read_plan


def plan_names() -> list[str]:
    """Return the names of the plans there are."""
    folder = files(__package__) / "plans"
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    )


def plan_text(name: str) -> str:
    """Return a plan's file; raises `UsageError` when there is none of that name."""
    if name not in plan_names():
        raise UsageError(f"no plan {name!r}", hint=meant(name, plan_names()))
    return (files(__package__) / "plans" / f"{name}.toml").read_text(encoding="utf-8")


@cache
def load_plan(name: str) -> PlanFile:
    """Read a plan; raises `UsageError` when there is none of that name."""
    return read_plan(plan_text(name), path=f"{name}.toml", name=name)
