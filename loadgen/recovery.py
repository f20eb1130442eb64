"""The figures of a run that was killed, by what it left in its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadstone.errors import UsageError
from loadstone.runs import RunFiles
from loadstone.traffic.plan import Plan, plan_hash
from loadstone.traffic.slo import slos_of

from .coordinator import Run
from .folder import RunFolder
from .options import OPTIONS, read_options
from .selfcheck import standing
from .workload import requests_of


def recover(path: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the summary of the killed run in that folder, marked incomplete.

    What was planned and has no row is dropped or unknown, see `traffic.accounts`. In a
    folder of one worker only its share is looked at. Nothing is written. Raises
    `UsageError` where the folder is no run's, or its schedule cannot be drawn again:
    the trace is gone.
    """
    files = RunFiles.open(path)
    run, rows, pulses = _reopen(files, environ), list(files.rows()), files.pulses()
    rank = files.environment().get("rank")
    run.settle(rows, pulses, ranks=None if rank is None else [rank])
    summary = run.summary(rows, complete=False)
    summary["instrument"]["reasons"].insert(0, _why(run.plan, files))
    return summary


def _reopen(files: RunFiles, environ: Mapping[str, str]) -> Run:
    """Return a run whose processes are gone, as its folder tells of it."""
    told = files.plan()
    given = told.get("options", {})
    values = read_options({o.name: given.get(o.name) for o in OPTIONS})
    plan = Plan.from_toml(told["plan"])
    requests = requests_of(plan)
    if plan_hash(plan, requests) != told["plan_hash"]:
        raise UsageError(
            f"{files.path}: its plan draws another schedule here than it was sent",
            hint=f"it was made by loadstone {told.get('loadstone', '?')}",
        )
    return Run(
        RunFolder(files.path),
        plan=plan,
        requests=requests,
        digest=told["plan_hash"],
        workers=int(files.environment().get("workers", 1)),
        slos=slos_of(told["slo"], str(files.path)) if "slo" in told else (),
        standing=standing(values["selfcheck"], environ),
        values=values,
    )


def _why(plan: Plan, files: RunFiles) -> str:
    heard = max((pulse.at_s for pulse in files.pulses()), default=None)
    when = "never" if heard is None else f"{max(heard, 0.0):.1f} s after its start"
    why = f"the run did not end by itself: it was last heard of {when}"
    if plan.loop == "closed":
        why += f"; of its {plan.users} users any may have been answered since"
    return why
