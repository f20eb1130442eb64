"""The flows that a plan names: built in, or classes in a user's own Python file."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from loadstone.errors import UsageError
from loadstone.traffic.fields import meant
from loadstone.traffic.flow import Flow, Flows, User
from loadstone.traffic.plan import Plan
from loadstone.traffic.request import Request


def flows_of(plan: Plan, built_in: Flows) -> Flows:
    """Return the flows of the plan's classes, by the names they have there.

    Raises `UsageError` for one that is neither `built_in` nor a class in a file.
    """
    names = {each.flow for each in plan.classes if each.flow}
    return {name: _flow(name, plan, built_in) for name in sorted(names)}


def _flow(name: str, plan: Plan, built_in: Flows) -> Callable[[Request], Flow]:
    if name in built_in:
        return built_in[name]
    path, colon, called = name.rpartition(":")
    if not colon:
        raise UsageError(
            f"no flow {name!r}",
            hint=f"{meant(name, [*built_in])}; or write flow = 'my_users.py:MyUser'",
        )
    made = getattr(_module(Path(path)), called, None)
    if not (isinstance(made, type) and issubclass(made, User)):
        raise UsageError(
            f"{path} has no class {called} that is a loadstone.traffic.flow.User"
        )
    return made(plan.seed).ask


def _module(path: Path) -> ModuleType:
    """Run a user's file; its own errors come as they are, with its traceback."""
    name = f"_loadstone_flow_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UsageError(f"cannot read the flow {path}", hint="name a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
