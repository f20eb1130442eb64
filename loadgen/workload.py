"""From a plan to its requests: reads the files and tables that the plan names."""

from pathlib import Path

from loadstone.catalog.workloads import load_lengths
from loadstone.errors import UsageError
from loadstone.traffic.lengths import Lengths
from loadstone.traffic.plan import SCENARIOS, Plan, schedule
from loadstone.traffic.request import Request
from loadstone.traffic.trace import read_azure_csv


def read_text(path: str, what: str) -> str:
    """Read a file the user named; raises `UsageError` saying which and why not."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as failed:
        reason = getattr(failed, "strerror", None) or "is not UTF-8 text"
        raise UsageError(f"cannot read the {what} {path}: {reason}") from None


def lengths_of(plan: Plan) -> tuple[Lengths, Lengths]:
    """Return the input and output length tables of the plan's scenario."""
    scenario = SCENARIOS[plan.scenario]
    return load_lengths(scenario.input_lengths), load_lengths(scenario.output_lengths)


def requests_of(plan: Plan) -> list[Request]:
    """Draw the plan's requests; none for a closed loop. The same in every process."""
    if plan.loop == "closed":
        return []
    rows = None
    if plan.trace is not None:
        rows = read_azure_csv(
            read_text(plan.trace, "trace").splitlines(), name=plan.trace
        )
    return schedule(plan, lengths_of(plan), rows)
