"""`loadstone selfcheck`: up to which load this machine's readings are right."""

import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from random import Random
from typing import Final

import click
from rich.console import Console

from loadgen.selfcheck import default_path, this_machine, write_profile

from ..errors import ExitCode, LoadstoneError
from ..report.table import duration, number
from ..runs import read_rows
from ..traffic.machine import LIMITS, WITHIN, Bracket, Profile
from ..traffic.selfcheck import (
    AXES,
    QUICK,
    THOROUGH,
    Axis,
    Pace,
    Step,
    arrivals,
    bracket,
    ramp,
)
from ..traffic.verdict import VITALS
from ..units import format_duration
from .locust_child import failed, running
from .mock_child import mock_server
from .run import locust_arguments

_DRAIN: Final = "5s"
_HEAD: Final = (
    f"{'load':>19} {'events/s':>9} {'TTFT error p50/p99':>20} {'TPOT p99':>9}"
    f" {'core':>5}  verdict"
)


@click.command(
    "selfcheck",
    epilog="""\b
Examples:
  loadstone selfcheck
  loadstone selfcheck --quick
  loadstone selfcheck --profile this-machine.json
  loadstone run azure-chat --rate 20 --selfcheck this-machine.json""",
)
@click.option(
    "--profile",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="where to keep what was found"
    "  [default: $XDG_STATE_HOME/loadstone/selfcheck.json]",
)
@click.option(
    "--quick", is_flag=True, help="in half a minute, and the limit within a factor of 2"
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="N",
              help="of the arrivals")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="print what was found as JSON")
def command(*, profile: Path | None, quick: bool, seed: int, as_json: bool) -> int:
    """Find up to which load this machine measures TTFT and TPOT right.

    Starts a mock on this machine and reads it with the client of `loadstone run`, at
    growing loads, until its TTFT is more than 2 ms off the mock's truth or its TPOT 5 %
    (p99). `loadstone run` stamps runs beyond that load `client_limited`. The mock takes
    its share of the same cores, so the limits are lower than they would be against a
    server elsewhere. Close what else keeps the machine busy.
    """
    path = profile or default_path(os.environ)
    pace = QUICK if quick else THOROUGH
    console = Console(stderr=as_json)
    console.print(
        f"about {format_duration(pace.budget_s)}; the mock runs on this machine"
        " too, and takes its share of the cores",
        highlight=False,
        soft_wrap=True,
    )
    steps: list[Step] = []
    began = time.monotonic()
    with _stopped_by_sigterm(), mock_server(0, lambda _: None) as url:
        console.print(_HEAD, highlight=False)
        for axis in AXES:
            deadline = began + axis.until * pace.budget_s
            for step in _climb(axis, pace, url, seed, deadline):
                steps.append(step)
                console.print(_line(step), highlight=False, soft_wrap=True)
    found = {axis.limit: bracket(axis, steps) for axis in AXES}
    useful = all(one.held is not None for one in found.values())
    now = datetime.now(UTC).isoformat(timespec="seconds")
    document = {
        **Profile(this_machine(), now, found).to_json(),
        "steps": [step.to_json() for step in steps],
    }
    if useful:
        write_profile(path, document)
    notes = [*_told(found), *_doubts(steps)]
    if as_json:
        kept = str(path) if useful else None
        click.echo(json.dumps({"profile": kept, **document, "notes": notes}))
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)
    where = str(path) if useful else "none was kept"
    console.print(f"[dim]profile     {where}[/dim]", highlight=False, soft_wrap=True)
    return ExitCode.DONE if useful else ExitCode.NOT_VALID


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Have SIGTERM unwind as Ctrl-C does, so that it leaves no process either."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _climb(
    axis: Axis, pace: Pace, url: str, seed: int, deadline: float
) -> Iterator[Step]:
    """Try one load after the other until the ramp ends, or its time. Tries one."""
    climbing = ramp(axis.start, low=axis.low, high=axis.high, precision=pace.precision)
    began = time.monotonic()
    asked = next(climbing)
    for turn in count(1):
        step = _try(axis, asked, pace, url, Random(f"{seed}/{axis.limit}/{turn}"))
        yield step
        try:
            asked = climbing.send(not step.faults)
        except StopIteration:
            return
        now = time.monotonic()
        if now + (now - began) / turn > deadline:
            return


def _try(axis: Axis, asked: float, pace: Pace, url: str, rng: Random) -> Step:
    """Run a step as `loadstone run` runs a trace; raises `LoadstoneError`."""
    rows = arrivals(axis, asked, pace, rng)
    with tempfile.TemporaryDirectory(prefix="loadstone-selfcheck-") as folder:
        trace = Path(folder) / "trace.jsonl"
        lines = (
            {"timestamp": row.at_s * 1e3, "input_length": row.input_tokens,
             "output_length": row.output_tokens}
            for row in rows
        )  # fmt: skip
        trace.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        given = {
            "scenario": "chat", "trace": str(trace), "out": folder,
            "duration": f"{pace.step_s}s", "warmup": f"{pace.warmup_s}s",
            "drain": _DRAIN,
        }  # fmt: skip
        # A place for each, so that nothing ever waits for one.
        arguments = locust_arguments(given, host=url, users=len(rows))
        with running([*arguments, "--headless"]) as child:
            told = dict(child)
            if child.interrupted:
                raise KeyboardInterrupt
            if "failed" in told:
                raise failed(told["failed"])
            if "done" not in told:
                child.close()
                raise LoadstoneError("the client ended early", hint=child.log_tail())
        done = told["done"]
        answered = list(read_rows(Path(done["folder"])))
        return Step.of(axis, asked, answered, done["summary"]["instrument"])


def _line(step: Step) -> str:
    ttft, tpot = step.ttft_error_s, step.tpot_error["p99"]
    errors = f"{duration(ttft['p50'])} / {duration(ttft['p99'])}"
    asked = f"{step.asked:,.0f} {step.axis.unit}"
    return (
        f"{asked:>19} {number(step.load.events_per_s, 0):>9} {errors:>20}"
        f" {'-' if tpot is None else f'{tpot:.1%}':>9}"
        f" {number(step.vitals.get('cpu_share'), 2):>5}"
        f"  {'; '.join(step.faults) or 'right'}"
    )


def _told(found: Mapping[str, Bracket]) -> Iterator[str]:
    for name, one in found.items():
        unit = LIMITS[name]
        if one.held is None:
            yield (
                f"not within {WITHIN} at any load that was tried, in {unit}:"
                " the machine is busy with something else, or too slow"
            )
        elif one.missed is None:
            yield f"{one.held:,.0f} {unit} are within {WITHIN}; more was not tried"
        else:
            yield (
                f"{one.held:,.0f} {unit} are within {WITHIN},"
                f" {one.missed:,.0f} {unit} are not"
            )


def _doubts(steps: Sequence[Step]) -> Iterator[str]:
    """Say what else than the client may have set the limit."""
    worst = {
        name: max((s.vitals.get(name, 0.0) for s in steps if s.faults), default=0.0)
        for name in ("cpu_wait_share", "steal_share")
    }
    for name, share in worst.items():
        limit, text = VITALS[name]
        if share > limit:
            yield f"{text.format(f'{share:.0%} of a step')}: try it when it is quieter"
