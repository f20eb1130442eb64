"""From a plan to its requests: reads the files and tables that the plan names."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from math import inf
from pathlib import Path
from typing import Any

from loadstone.catalog.plans import load_plan
from loadstone.catalog.workloads import load_lengths
from loadstone.traffic.classes import TrafficClass
from loadstone.traffic.lengths import Lengths
from loadstone.traffic.mix import Draw, Mix
from loadstone.traffic.plan import Plan, in_turn
from loadstone.traffic.prompts import OwnPrompt, OwnPrompts, read_prompts
from loadstone.traffic.request import Request
from loadstone.traffic.trace import Trace, cut, read_trace, sample
from loadstone.wire.tokens import count

from .files import read_text


def mix_of(plan: Plan) -> Mix:
    """Return what the plan's classes draw from; reads the files and tables they name.

    A plan without classes has those of the built-in plan of its scenario's name.
    """
    classes = plan.classes or load_plan(plan.scenario).classes
    return Mix(
        tuple(
            Draw(
                each, load_lengths, seed=plan.seed, limit=plan.max_tokens,
                prompts=own_prompts(each, skip_bad=plan.skip_bad_rows),
            )
            for each in classes
        )
    )  # fmt: skip


def own_prompts(of: TrafficClass, *, skip_bad: bool) -> list[OwnPrompt]:
    """Read the prompts that a class brings; none where it has a file of none."""
    found = _prompts_of(of, skip_bad=skip_bad)
    return found.prompts if found else []


def _prompts_of(of: TrafficClass, *, skip_bad: bool) -> OwnPrompts | None:
    if of.prompts is None:
        return None
    return read_prompts(
        read_text(of.prompts, "prompts"),
        name=of.prompts,
        count=count,
        slice_by=of.slice_by,
        skip_bad=skip_bad,
    )


def lengths_of(plan: Plan) -> tuple[Lengths, Lengths]:
    """Return how long the plan's prompts and answers are, over all its requests."""
    return mix_of(plan).pooled()


def requests_of(plan: Plan) -> list[Request]:
    """Draw the plan's requests for a live run; none for a closed loop.

    The same in every process.
    """
    return [] if plan.loop == "closed" else list(stream_of(plan)())


def trace_of(plan: Plan) -> Trace | None:
    """Read the part of the plan's trace that is replayed, if it has one."""
    if plan.trace is None:
        return None
    lines = read_text(plan.trace, "trace").splitlines()
    trace = read_trace(lines, name=plan.trace, skip_bad=plan.skip_bad_rows)
    trace.rows = cut(trace.rows, plan.trace_from_s, plan.trace_to_s or inf)
    if plan.trace_sample is not None:
        trace.rows = sample(trace.rows, plan.trace_sample, plan.seed)
    return trace


def skipped_of(plan: Plan) -> dict[str, Any]:
    """Return what the summary says of rows that were left out."""
    if not plan.skip_bad_rows:
        return {}
    told: dict[str, Any] = {}
    if (trace := trace_of(plan)) is not None:
        told[plan.trace or ""] = _told(len(trace.rows), trace.skipped, trace.shown)
    for each in plan.classes:
        if (own := _prompts_of(each, skip_bad=True)) is not None:
            told[each.prompts or ""] = _told(len(own.prompts), own.skipped, own.shown)
    return {"skipped_rows": told}


def _told(kept: int, skipped: int, shown: Sequence[str]) -> dict[str, Any]:
    return {"kept": kept, "skipped": skipped, "shown": list(shown)}


def stream_of(plan: Plan) -> Callable[[], Iterator[Request]]:
    """Return what draws the plan's requests, from the first, each time it is called."""
    trace = trace_of(plan)
    rows = trace.rows if trace else None
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
