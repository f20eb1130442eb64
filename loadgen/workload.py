"""From a plan to its requests: reads the files and tables that the plan names."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from loadstone.catalog.plans import load_plan
from loadstone.catalog.workloads import load_lengths
from loadstone.traffic.lengths import Lengths
from loadstone.traffic.mix import Draw, Mix
from loadstone.traffic.plan import Plan, in_turn
from loadstone.traffic.request import Request
from loadstone.traffic.trace import read_trace

from .files import read_text


def mix_of(plan: Plan) -> Mix:
    """Return what the plan's classes draw from; reads the files and tables they name.

    A plan without classes has those of the built-in plan of its scenario's name.
    """
    classes = plan.classes or load_plan(plan.scenario).classes
    return Mix(
        tuple(
            Draw(each, load_lengths, seed=plan.seed, limit=plan.max_tokens)
            for each in classes
        )
    )


def lengths_of(plan: Plan) -> tuple[Lengths, Lengths]:
    """Return how long the plan's prompts and answers are, over all its requests."""
    return mix_of(plan).pooled()


def requests_of(plan: Plan) -> list[Request]:
    """Draw the plan's requests for a live run; none for a closed loop.

    The same in every process.
    """
    return [] if plan.loop == "closed" else list(stream_of(plan)())


def stream_of(plan: Plan) -> Callable[[], Iterator[Request]]:
    """Return what draws the plan's requests, from the first, each time it is called."""
    rows = None
    if plan.trace is not None:
        rows = read_trace(read_text(plan.trace, "trace").splitlines(), name=plan.trace)
    mix = mix_of(plan)
    return lambda: in_turn(plan, mix, rows)


def with_trace_located(plan: Plan) -> Plan:
    """Return the plan with its trace's whole path and hash, if it has one."""
    if plan.trace is None:
        return plan
    text = read_text(plan.trace, "trace")
    return plan.retargeted(
        trace=str(Path(plan.trace).absolute()),
        trace_sha256=hashlib.sha256(text.encode()).hexdigest(),
    )
