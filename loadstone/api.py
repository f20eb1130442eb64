"""What loadstone offers to Python code; all of it can be had from `loadstone` itself.

    import loadstone

    summary = loadstone.simulate("azure-chat", rate=10, duration="1m")
    run = loadstone.open_run("runs/latest")

Nothing here waits for wall-clock time, and nothing but `write_report` writes a file.
What is not listed in `__all__` may change with any release. `docs/api-python.md` has
examples that the tests run.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .catalog.models import model_names as models
from .catalog.plans import plan_names as plans
from .catalog.presets import Preset, load_preset
from .catalog.presets import preset_names as presets
from .cli.simulate import Asked
from .cli.simulate import command as _simulate
from .errors import CatalogError, LoadstoneError, NotModelledError, UsageError
from .report.written import FORMATS, rendered, write
from .runs import RunFiles
from .traffic.flow import Answer, Ask, Flow, Local, User
from .traffic.record import RequestRecord
from .traffic.request import Request

__all__ = [
    "Answer",
    "Ask",
    "CatalogError",
    "Flow",
    "LoadstoneError",
    "Local",
    "NotModelledError",
    "Preset",
    "Request",
    "RequestRecord",
    "RunFiles",
    "UsageError",
    "User",
    "load_preset",
    "models",
    "open_run",
    "plans",
    "presets",
    "simulate",
    "write_report",
]


def simulate(
    plan: str | Path | None = None,
    *,
    on_row: Callable[[RequestRecord], object] = lambda _: None,
    **options: object,
) -> dict[str, Any]:
    """Run a workload on the emulated engines in virtual time; return its summary.

    `plan` is a built-in plan's name (see `plans`), a file, or a run's `plan.toml`.
    `options` are those of `loadstone simulate`, by name with underscores: one of `rate`
    (requests/s), `users`, `trace` (a file) and `offline` (requests) says how much load
    there is; `duration` and other times are seconds, or text such as "2m"; `preset`,
    `model`, `vms`, ... say what serves it. True switches a flag on, False off, None is
    as if it were not given.

    The summary is what `summary.json` has: times in seconds, rates per second, money in
    US dollars. `on_row` is given each request's row as it ends; rows are not kept, so
    memory does not grow with the run. The same arguments give the same figures.

    Raises `UsageError` for an option or a value that there is not, `NotModelledError`
    for a machine that the timing model does not cover. Source of the timing:
    `docs/calibration.md`.
    """
    words = [] if plan is None else [str(plan)]
    for name, value in options.items():
        words += _words(name, value)
    try:
        with _simulate.make_context("simulate", words) as context:
            run = Asked(context.params).run(searched=False)
    except click.ClickException as wrong:
        raise UsageError(wrong.format_message()) from None
    run.survey()
    return run.run(on_row=on_row)


_NOT_HERE = ("find_max", "sweep", "resume", "json", "no_rows", "out", "help")


def _words(name: str, value: object) -> list[str]:
    """Return an option as it would be typed."""
    if name in _NOT_HERE:
        raise UsageError(
            f"simulate() has no {name}: it returns figures, writes no folder"
        )
    flag = "--" + name.replace("_", "-")
    match value:
        case None:
            return []
        case True:
            return [flag]
        case False:
            return ["--no-" + name.replace("_", "-")]
        case int() | float() if name in _TIMES:
            return [f"{flag}={value}s"]
    return [f"{flag}={value}"]


_TIMES = ("duration", "drain", "warmup", "think", "trace_from", "trace_to")


def open_run(folder: str | Path) -> RunFiles:
    """Return the run in a folder that `loadstone run` or `simulate` wrote.

    It has `plan()`, `environment()`, `summary()` (None for a run that was killed) and
    `rows()`, an iterator of `RequestRecord` with stamps in seconds since the run's t0.
    Raises `UsageError` if there is none.
    """
    return RunFiles.open(Path(folder))


def write_report(run: RunFiles, path: str | Path) -> None:
    """Write a run's report, in the format that the path's suffix names.

    `.html` is one page that opens offline, `.json` all that is in it, `.md` its tables,
    `.csv` the rows. Raises `UsageError` for another suffix or a run without rows,
    `LoadstoneError` where the file cannot be written.
    """
    path = Path(path)
    form = path.suffix.removeprefix(".")
    if form not in FORMATS:
        raise UsageError(f"no report of the format {form!r}", hint=", ".join(FORMATS))
    write(rendered(run, form), path)
