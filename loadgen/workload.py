"""From a plan to its requests: reads the files and tables that the plan names."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from loadstone.catalog.workloads import load_lengths
from loadstone.errors import NotModelledError, UsageError
from loadstone.traffic.lengths import Lengths
from loadstone.traffic.plan import SCENARIOS, Plan, in_turn
from loadstone.traffic.request import Request
from loadstone.traffic.trace import read_trace


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
    """Draw the plan's requests for a live run; none for a closed loop.

    The same in every process. Raises `NotModelledError` for what is not sent yet.
    """
    if plan.loop == "closed":
        return []
    requests = list(stream_of(plan)())
    if any(request.prefix or request.priority for request in requests):
        raise NotModelledError(
            f"{plan.trace}: its shared prefixes and priorities are not sent to an"
            " endpoint yet",
            hint="replay it in virtual time: loadstone simulate --trace FILE",
        )
    return requests


def stream_of(plan: Plan) -> Callable[[], Iterator[Request]]:
    """Return what draws the plan's requests, from the first, each time it is called."""
    rows = None
    if plan.trace is not None:
        rows = read_trace(read_text(plan.trace, "trace").splitlines(), name=plan.trace)
    lengths = lengths_of(plan)
    return lambda: in_turn(plan, lengths, rows)


def with_trace_located(plan: Plan) -> Plan:
    """Return the plan with its trace's whole path and hash, if it has one."""
    if plan.trace is None:
        return plan
    text = read_text(plan.trace, "trace")
    return plan.retargeted(
        trace=str(Path(plan.trace).absolute()),
        trace_sha256=hashlib.sha256(text.encode()).hexdigest(),
    )
