"""`loadstone simulate --find-max`: the highest rate that meets the objectives."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from loadgen.folder import RunFolder
from loadgen.workload import lengths_of, stream_of

from ..errors import ExitCode, UsageError
from ..physics.capacity import capacity
from ..report.table import duration, number, usd
from ..traffic.probe import Bearing
from ..traffic.search import PRECISION, REPEATS, Answer, End, Probe, find_max
from ..traffic.survey import survey_of_users
from ..units import Seconds, format_duration, parse_duration
from .engine_options import build
from .virtual_run import VirtualRun, interruptible

SEARCH: Final = "search.json"
_MEASURED_S: Final = 300.0
"""Five minutes show growth of a VM's backlog from 1 % above its capacity on."""
_WARMUP_S: Final = 30.0
_SAMPLES: Final = 10_000
"""Measured requests of a probe, at least: a hundred of them are above its p99."""
_ABOVE: Final = 8.0
"""The search goes up to so many times the capacity estimated from the step law."""
_BELOW: Final = 1000.0


def search_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a search."""
    for option in reversed((
        click.option("--find-max", is_flag=True,
                     help="search the highest rate that meets --slo or --recipe"),
        click.option("--tolerance", type=click.FloatRange(0.001, 1.0), metavar="X",
                     help="how close the search gets, relative"
                     f"  [default: {PRECISION:g}]"),
        click.option("--repeats", type=click.IntRange(1), metavar="N",
                     help="seeds that decide at the boundary, an odd number"
                     f"  [default: {REPEATS}]"),
        click.option("--max-rate", type=click.FloatRange(0, min_open=True),
                     metavar="REQ/S", help="highest rate that the search tries"),
    )):  # fmt: skip
        command = option(command)
    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """How to search; None where it is left to us."""

    precision: float
    repeats: int
    max_rate: float | None
    measured_s: Seconds
    warmup_s: Seconds

    @classmethod
    def of(cls, given: Mapping[str, Any], *, find_max: bool) -> "SearchSettings | None":
        """Read the options, None where no search is wanted.

        Raises `UsageError` for those that mean nothing then.
        """
        if not find_max:
            for name in ("tolerance", "repeats", "max_rate"):
                if given[name] is not None:
                    flag = "--" + name.replace("_", "-")
                    raise UsageError(f"{flag} is for a search", hint="add --find-max")
            return None
        for name in ("rate", "rate_profile", "users", "trace", "offline"):
            if given[name] is not None:
                flag = "--" + name.replace("_", "-")
                raise UsageError(f"--find-max tries its own rates: leave {flag} out")
        if given["slo"] is None and given["recipe"] is None:
            raise UsageError(
                "--find-max needs objectives", hint="give --slo FILE or --recipe NAME"
            )
        warmup, measured = given["warmup"], given["duration"]
        return cls(
            precision=given["tolerance"] or PRECISION,
            repeats=given["repeats"] or REPEATS,
            max_rate=given["max_rate"],
            measured_s=parse_duration(measured) if measured else _MEASURED_S,
            warmup_s=parse_duration(warmup) if warmup else _WARMUP_S,
        )


def find(
    run: VirtualRun, settings: SearchSettings, *, out: Path, options: dict[str, Any],
    console: Console, as_json: bool,
) -> int:  # fmt: skip
    """Search, print each probe as it ends and then the answer; return the exit code."""
    survey_of_users(run.plan, lengths_of(run.plan)).refuse_beyond(
        build(**run.engine).machine.limits.max_model_len
    )
    guess = _guess(run)
    high = settings.max_rate or _ABOVE * guess
    low = min(guess, high) / _BELOW
    search = find_max(
        min(guess, high), low=low, high=high,
        precision=settings.precision, repeats=settings.repeats,
    )  # fmt: skip
    folder = RunFolder.create(out, f"find-max-{run.plan.scenario}")
    folder.write_plan(run.plan, "", options=options)
    console.print(_head(run, settings, low, high), highlight=False, soft_wrap=True)
    began = time.monotonic()
    probes: list[dict[str, Any]] = []
    with interruptible() as stopping:
        answer = None
        probe = next(search)
        while answer is None:
            told = _try(run, settings, probe, stopping)
            if stopping():
                break
            probes.append(told)
            try:
                following = search.send(told["met"])
            except StopIteration as over:
                answer = over.value
                likely = 0
            else:
                probe, likely = following, following.likely + 1
            each = (time.monotonic() - began) / len(probes)
            console.print(_line(told, likely * each), highlight=False, soft_wrap=True)
    document = _document(run, settings, answer, probes, (low, high))
    document["run"] = folder.path.name
    folder.write_json(SEARCH, document)
    if as_json:
        click.echo(json.dumps(document))
    else:
        for line in document["notes"]:
            console.print(line, highlight=False, soft_wrap=True)
        console.print(f"[dim]run folder  {folder.path}[/dim]", highlight=False)
    return _exit_code(answer)


def _guess(run: VirtualRun) -> float:
    """Estimate the capacity under the TPOT objective, if there is one."""
    machine, cluster, _ = build(**run.engine)
    prompts, answers = lengths_of(run.plan)
    steps = (slo.max_s for slo in run.slos if slo.metric == "tpot_s")
    return len(cluster.engines) * capacity(
        machine.law,
        machine.limits,
        prompt=prompts.mean,
        answer=answers.mean,
        longest_step_s=min(steps, default=inf),
    )


def _try(
    run: VirtualRun,
    settings: SearchSettings,
    probe: Probe,
    stopping: Callable[[], bool],
) -> dict[str, Any]:
    """Simulate a rate under the seed of its turn; return what came of it."""
    measured_s = max(settings.measured_s, _SAMPLES / probe.rate)
    seed = run.plan.seed + probe.repeat
    plan = run.plan.retargeted(
        rate=probe.rate,
        seed=seed,
        warmup_s=settings.warmup_s,
        duration_s=settings.warmup_s + measured_s,
    )
    tried = replace(run, plan=plan, engine={**run.engine, "seed": seed})
    bearing = Bearing(
        run.slos,
        requests=sum(r.intended_s >= plan.warmup_s for r in stream_of(plan)()),
        warmup_s=plan.warmup_s,
        duration_s=plan.duration_s,
    )
    summary = tried.run(
        on_row=bearing.add, stopping=lambda: bearing.hopeless or stopping()
    )
    return {
        "rate": probe.rate,
        "seed": seed,
        "met": bearing.borne(summary["slo"]),
        "cut_short": bearing.hopeless,
        "backlog": bearing.backlog,
        "measured_s": measured_s,
        "requests": summary["requests"],
        "slo": summary["slo"],
        "throughput": summary["throughput"],
        "cost": summary["cost"],
    }


def _head(run: VirtualRun, settings: SearchSettings, low: float, high: float) -> str:
    wanted = ", ".join(f"{s.metric} {s.stat} {duration(s.max_s)}" for s in run.slos)
    return (
        f"highest rate with {wanted}, between {low:.3g} and {high:.5g} requests/s, to"
        f" {settings.precision:.1%}; each probe measures"
        f" {format_duration(settings.measured_s)} after"
        f" {format_duration(settings.warmup_s)}, and {_SAMPLES:,} requests at least"
    )


def _line(told: Mapping[str, Any], left_s: Seconds) -> str:
    values = "  ".join(
        f"{slo['metric']} {slo['stat']}"
        f" {'failures' if slo['value_s'] is None else duration(slo['value_s'])}"
        for slo in told["slo"]
    )
    verdict = "met" if told["met"] else "NOT met"
    if told["cut_short"]:
        verdict += ", and cut short"
    elif not told["met"] and all(slo["met"] for slo in told["slo"]):
        first, last = told["backlog"]
        verdict += f", backlog grows from {first:,} to {last:,}"
    left = f"   about {format_duration(round(left_s))} left" if left_s >= 1 else ""
    rate = number(told["rate"], 2)
    return f"{rate:>12} requests/s  seed {told['seed']}  {values}  {verdict}{left}"


def _document(
    run: VirtualRun, settings: SearchSettings, answer: Answer | None,
    probes: list[dict[str, Any]], limits: tuple[float, float],
) -> dict[str, Any]:  # fmt: skip
    machine, _, vms = build(**run.engine)
    best = [
        told for told in probes if answer and told["met"] and told["rate"] == answer.met
    ]
    return {
        "scenario": run.plan.scenario,
        "model": machine.model,
        "preset": machine.name,
        "vms": vms,
        **({"recipe": run.recipe.name} if run.recipe else {}),
        "complete": answer is not None,
        "objectives": [asdict(slo) for slo in run.slos],
        "limits": {"lowest": limits[0], "highest": limits[1]},
        "precision": settings.precision,
        "repeats": settings.repeats,
        "answer": asdict(answer) if answer else None,
        "at_answer": {k: best[0][k] for k in ("throughput", "cost")} if best else None,
        "notes": [
            *_told(answer, limits, vms, best),
            *(run.recipe.notes() if run.recipe else ()),
            "timing assumes: " + "; ".join(machine.assumptions(short=True)),
        ],
        "probes": probes,
    }


def _told(
    answer: Answer | None,
    limits: tuple[float, float],
    vms: int,
    best: list[dict[str, Any]],
) -> list[str]:
    if answer is None:
        return ["stopped before there was an answer"]
    if answer.met is None:
        return [f"not met at any rate down to {limits[0]:.3g} requests/s"]
    per_vm = f"{number(answer.met / vms, 2)} per VM"
    says = {
        End.FOUND: f"highest rate that meets it: {number(answer.met, 2)} requests/s"
        f" ({per_vm}); {number(answer.missed, 2)} does not",
        End.ALWAYS: f"met up to the highest rate that was tried,"
        f" {number(answer.met, 2)} requests/s ({per_vm}): the limit is beyond it",
        End.NEVER: "met by chance only",
        End.UNSETTLED: f"not settled after {answer.probes} probes: met at"
        f" {number(answer.met, 2)} requests/s, missed at {number(answer.missed, 2)}",
    }[answer.end]
    if not best:
        return [says]
    rates, cost = best[0]["throughput"], best[0]["cost"]
    steady = number(rates["steady_output_tok_s"], 0)
    million = usd(cost["usd_per_million_output_tokens"])
    there = f"{steady} output tokens/s steady, {million} per million output tokens"
    return [says, f"there: {there}"]


def _exit_code(answer: Answer | None) -> ExitCode:
    if answer is None or answer.end is End.UNSETTLED:
        return ExitCode.NOT_VALID
    return ExitCode.NOT_MET if answer.end is End.NEVER else ExitCode.DONE
