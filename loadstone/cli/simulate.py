"""`loadstone simulate`: a workload on the engine in virtual time."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import Progress

from loadgen.folder import SUMMARY, RunFolder
from loadgen.workload import lengths_of, requests_of

from ..buckets import LogHistogram
from ..catalog.presets import Preset
from ..catalog.workloads import load_price
from ..engine.fleet import Fleet
from ..engine.sequence import Step
from ..engine.virtual import Served, serve
from ..errors import UsageError
from ..physics.cost import Rent
from ..report.table import number, print_summary
from ..traffic.plan import SCENARIOS, Plan, draw, plan_hash
from ..traffic.record import Outcome, RequestRecord, TokensSource, Truth
from ..traffic.request import Request
from ..traffic.summary import summarize
from ..traffic.verdict import exit_code
from ..units import parse_duration
from .engine_options import build, engine_options

_LONG_RUN: Final = 20
"""An offline run of fewer batches than this is mostly ramp and drain, and says so."""


@click.command(
    "simulate",
    epilog="""\b
Examples:
  loadstone simulate --vms 1 --offline 200000
  loadstone simulate --vms 1 --rate 100 --duration 10m
  loadstone simulate --vms 2 --trace azure_llm_2023_conv.csv --speedup 4""",
)
@engine_options
@click.option(
    "--offline", type=click.IntRange(1), metavar="N", help="N requests, all at t = 0"
)
@click.option(
    "--rate", type=float, metavar="REQ/S", help="Poisson arrivals at this rate"
)
@click.option(
    "--trace", metavar="FILE", help="arrivals and lengths of a CSV in Azure's format"
)
@click.option(
    "--speedup",
    type=float,
    default=1.0,
    show_default=True,
    metavar="X",
    help="replay the trace this many times as fast",
)
@click.option(
    "--duration",
    default="10m",
    show_default=True,
    metavar="TIME",
    help="how long requests arrive (--rate, --trace)",
)
@click.option(
    "--scenario",
    type=click.Choice(list(SCENARIOS)),
    help="whose lengths (default: mlperf with --offline, chat with --rate)",
)
@click.option(
    "--out",
    default="runs",
    show_default=True,
    metavar="DIR",
    help="where run folders go",
)
@click.option("--no-rows", is_flag=True, help="write no requests.jsonl")
@click.option("--json", "as_json", is_flag=True, help="print the summary as JSON")
def command(
    *, offline: int | None, rate: float | None, trace: str | None, speedup: float,
    duration: str, scenario: str | None, out: str, no_rows: bool, as_json: bool,
    **engine: Any,
) -> int:  # fmt: skip
    """Run a workload through the emulated engines as fast as the CPU allows."""
    if sum(given is not None for given in (offline, rate, trace)) != 1:
        raise UsageError(
            "say what load: exactly one of --offline N, --rate REQ/S, --trace FILE"
        )
    machine, fleet = build(**engine)
    plan = Plan(
        scenario=scenario or ("mlperf" if offline else "chat"),
        model=machine.model,
        rate=rate,
        trace=trace,
        speedup=speedup,
        duration_s=parse_duration(duration),
        seed=engine["seed"],
        price=machine.price,
        vms=engine["vms"],
    )
    requests = _offline(plan, offline) if offline else requests_of(plan)
    _refuse_too_long(requests, machine)
    folder = RunFolder.create(Path(out), f"simulate-{plan.scenario}")
    folder.write_plan(
        plan, plan_hash(plan, requests), offline=offline, engine=_given(engine)
    )
    console = Console(stderr=as_json)
    summary = _simulate(fleet, requests, folder, rows=not no_rows)
    summary |= _about(machine, engine["vms"], plan, offline, summary)
    folder.write_json(SUMMARY, summary)
    if as_json:
        click.echo(json.dumps(summary))
    else:
        print_summary(summary, console)
        console.print(f"[dim]run folder  {folder.path}[/dim]", highlight=False)
    return exit_code(summary)


def _refuse_too_long(requests: Sequence[Request], machine: Preset) -> None:
    """Refuse what the engines could not serve, before anything is written."""
    longest = max(requests, key=lambda r: r.input_tokens + r.output_tokens)
    length = longest.input_tokens + longest.output_tokens
    if length > machine.limits.max_model_len:
        raise UsageError(
            f"request {longest.id} has {length} tokens, prompt and answer together;"
            f" max_model_len is {machine.limits.max_model_len}",
            hint="raise --max-model-len, or leave such requests out",
            code="context_length_exceeded",
        )


def _given(engine: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in engine.items() if value is not None}


def _offline(plan: Plan, n: int) -> list[Request]:
    lengths = draw(plan, lengths_of(plan))
    return [Request(i, 0.0, *next(lengths), plan.scenario) for i in range(n)]


def _simulate(
    fleet: Fleet, requests: Sequence[Request], folder: RunFolder, *, rows: bool
) -> dict[str, Any]:
    icl = LogHistogram()

    def on_step(_: int, step: Step) -> None:
        if step.decoding:
            icl.add(step.end_s - step.start_s, step.decoding)

    records = []
    target = folder.path / "requests.jsonl" if rows else Path("/dev/null")
    with (
        target.open("w", encoding="utf-8") as lines,
        Progress(console=Console(stderr=True), transient=True) as bar,
    ):
        task = bar.add_task("simulating", total=len(requests))
        for done, record in enumerate(
            _records(serve(fleet, requests, on_step=on_step)), 1
        ):
            records.append(record)
            if rows:
                lines.write(record.to_line())
            if done % 2048 == 0:
                bar.update(task, completed=done)
    return summarize(records, icl=icl)


def _records(served: Iterator[Served]) -> Iterator[RequestRecord]:
    for request, sequence, engine in served:
        first, last = sequence.first_s, sequence.last_s
        assert first is not None
        assert last is not None
        yield RequestRecord(
            id=request.id,
            scenario=request.scenario,
            intended_s=request.intended_s,
            sent_s=request.intended_s,
            end_s=last,
            outcome=Outcome.OK,
            first_s=first,
            last_s=last,
            asked_input_tokens=request.input_tokens,
            asked_output_tokens=request.output_tokens,
            input_tokens=request.input_tokens,
            output_tokens=request.output_tokens,
            first_event_tokens=1,
            events=request.output_tokens,
            tokens_source=TokensSource.USAGE,
            finish_reason="length",
            truth=Truth(request.intended_s, first, first, last, engine),
        )


def _about(
    machine: Preset, vms: int, plan: Plan, offline: int | None, summary: dict[str, Any]
) -> dict[str, Any]:
    price = load_price(machine.price)
    rent = Rent(price.usd_per_vm_hour.value, vms, (price.assumption(),))
    requests, tokens = summary["requests"], summary["tokens"]
    notes = ["virtual time: no client and no network, so nothing here can be late"]
    notes += _offline_notes(machine, vms, offline, summary) if offline else []
    samples = summary["ttft_s"]["n"]
    return {
        "scenario": plan.scenario,
        "loop": "offline" if offline else plan.loop,
        "model": machine.model,
        "preset": machine.name,
        "vms": vms,
        "complete": True,
        "cost": rent.summary(summary["makespan_s"], requests["ok"], tokens["output"]),
        "assumptions": list(machine.assumptions()),
        "instrument": {
            "verdict": "ok" if samples >= 100 else "too_few_samples",
            "reasons": [] if samples >= 100 else [f"{samples} requests; p99 needs 100"],
            "virtual": True,
            "notes": [
                *notes,
                "timing assumes: " + "; ".join(machine.assumptions(short=True)),
            ],
        },
    }


def _offline_notes(
    machine: Preset, vms: int, n: int, summary: dict[str, Any]
) -> Iterator[str]:
    rate = summary["throughput"]["output_tok_s"] / vms
    if "published_vm_min" in machine.facts:
        low, high = machine.facts["published_vm_min"], machine.facts["published_vm_max"]
        inside = "inside" if low.value <= rate <= high.value else "outside"
        yield (
            f"{number(rate, 0)} output tokens/s per VM is {inside} the published"
            f" {number(low.value, 0)} to {number(high.value, 0)} ({low.source})"
        )
    batches = n / (machine.limits.max_num_seqs * machine.engines(vms))
    share = (
        1
        - summary["throughput"]["output_tok_s"]
        / summary["throughput"]["steady_output_tok_s"]
    )
    yield (
        "offline, no latency limit:"
        f" requests wait up to {number(summary['makespan_s'], 0)} s;"
        f" {batches:.1f} times the batch, ramp and drain cost {share:.1%}"
        + ("" if batches >= _LONG_RUN else ": too short, mostly ramp and drain")
    )
