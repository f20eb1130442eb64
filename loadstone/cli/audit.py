"""`loadstone audit`: proves that a run's accounts are in order."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
from prometheus_client.parser import text_string_to_metric_families
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadgen.workload import stream_of

from ..errors import ExitCode, LoadstoneError, UsageError
from ..runs import METRICS, ROWS, RunFiles
from ..traffic.audit import Books, Check, audit, metric_key
from ..traffic.plan import Plan, plan_hash
from ..traffic.served import Served

_STYLE: Final = {"ok": "green", "wrong": "red", "not_checked": "dim"}
_WORDS: Final = {"ok": "ok", "wrong": "WRONG", "not_checked": "not checked"}


@click.command(
    "audit",
    epilog="""\b
Examples:
  loadstone audit runs/latest
  loadstone audit runs/20261123-101500-chat --json

Exit codes: 0 the accounts are in order, 4 they are not.""",
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="print the checks as JSON")
def command(*, folder: Path, as_json: bool) -> int:
    """Prove that each request of a run ended in exactly one outcome.

    The plan in DIR is drawn again and held against the rows; the summary, the metrics,
    Locust's statistics and the mock's own counts must be the same. Works on the folder
    of a run that was killed, too.
    """
    run = RunFiles.open(folder)
    if not list(run.path.glob(ROWS)):
        raise UsageError(
            f"{folder} has no rows",
            hint="a simulation with --no-rows keeps none: run it without",
        )
    checks = audited(run)
    if as_json:
        told = {"run": run.name, "checks": [check.to_json() for check in checks]}
        click.echo(json.dumps(told))
    else:
        _print(run, checks)
    wrong = any(check.state == "wrong" for check in checks)
    return ExitCode.NOT_VALID if wrong else ExitCode.DONE


def audited(run: RunFiles) -> list[Check]:
    """Check a run's accounts; raises `UsageError` for a file that is not one."""
    try:
        return audit(run.rows(), _books_of(run))
    except (AttributeError, KeyError, TypeError, ValueError) as wrong:
        raise UsageError(
            f"{run.path} holds something that loadstone did not write: {wrong!r}",
            hint="audit the folder as the run left it",
        ) from None


def _books_of(run: RunFiles) -> Books:
    """Gather what there is of a run besides its rows."""
    table, summary = run.plan(), run.summary()
    others: dict[str, Any] = {"summary": summary, "metrics": _metrics(run)}
    if (counts := run.server_counts()) is not None:
        others["served"] = Served.read(counts)
    try:
        plan = Plan.from_toml(table.get("plan", {}))
        if plan.loop == "closed":
            return Books(why_not="a closed loop: the answers say when to ask", **others)
        planned = list(stream_of(plan)())
        return Books(
            planned=planned,
            duration_s=plan.duration_s,
            pulses=run.pulses(),
            workers=int(run.environment().get("workers", 1)),
            hash_planned=table.get("plan_hash"),
            hash_drawn=plan_hash(plan, planned),
            **others,
        )
    except LoadstoneError as wrong:
        return Books(why_not=f"the plan cannot be drawn: {wrong.message}", **others)


def _metrics(run: RunFiles) -> dict[str, float] | None:
    """Return the last exposition's counters, added up over all but the outcome."""
    path = run.path / METRICS
    if not path.is_file():
        return None
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(path.read_text(encoding="utf-8")):
        if family.type != "counter":
            continue
        for sample in family.samples:
            key = metric_key(sample.name, sample.labels.get("outcome", ""))
            sums[key] = sums.get(key, 0.0) + sample.value
    return sums


def _print(run: RunFiles, checks: Sequence[Check]) -> None:
    table = Table("check", "what must hold", "", box=SIMPLE_HEAD, title_justify="left")
    for check in checks:
        notes = [*check.found] if check.found else []
        if check.wrong > len(notes):
            notes.append(f"... and {check.wrong - len(notes)} more")
        # What is told may be of a row, and what is in a row of a server.
        says = Text(_WORDS[check.state], style=_STYLE[check.state])
        for note in notes or ([check.why] if check.why else []):
            says.append(f"\n{note}", style="default")
        table.add_row(Text(check.name), Text(check.holds), says)
    console = Console()
    console.print(Text(f"accounts of {run.name}"))
    console.print(table)
