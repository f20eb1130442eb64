"""`loadstone verify`: a claim, or a contract, against a run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadgen.files import read_text

from ..catalog.claims import beside, claim_names, load_claim, read_claim, spread
from ..errors import ExitCode, NotValidError, UsageError
from ..measured import measured_of
from ..report.table import number
from ..runs import RunFiles
from ..verify.claim import Claim
from ..verify.contract import (
    FIGURES,
    Finding,
    Status,
    contract_exit_code,
    judge_contract,
    read_clause,
)
from ..verify.judgement import Judgement, judge_claim
from .completing import one_of
from .rows_file import read_rows

_COLOURS: Final = {0: "green", 3: "red", 4: "yellow"}
_STATUS: Final = {
    Status.PASSED: "green", Status.FAILED: "red", Status.NOT_ENOUGH: "yellow",
}  # fmt: skip


@click.command(
    "verify",
    epilog="""\b
Examples:
  loadstone verify --list
  loadstone verify gb300-rack-1.1m runs/latest
  loadstone verify gb300-over-gb200-27 runs/gb300 runs/gb200
  loadstone verify mlperf-6.0-0078-gb300-72gpu-llama2-70b-server runs/latest
  loadstone verify claim.toml runs/latest --gpus 8
  loadstone verify --contract contract.toml runs/latest

\b
Exit codes: 0 reproduced, or every clause passed; 3 not reproduced, or a clause failed;
4 the run is not valid or too short, or has too few samples to tell.""",
)
@click.argument("what", nargs=-1, metavar="[CLAIM] [DIR [BASELINE_DIR]]",
                shell_complete=one_of(claim_names, or_file=True))  # fmt: skip
@click.option("--contract", "contract", metavar="FILE", type=click.Path(path_type=Path),
              help="judge clauses (TOML) instead of a claim")  # fmt: skip
@click.option("--gpus", type=click.FloatRange(0, min_open=True), metavar="N",
              help="GPUs that answered  [default: as the run says]")  # fmt: skip
@click.option("--list", "listed", is_flag=True, help="list the claims there are")
@click.option("--json", "as_json", is_flag=True, help="print the result as JSON")
def command(
    *, what: tuple[str, ...], contract: Path | None, gpus: float | None, listed: bool,
    as_json: bool,
) -> int:  # fmt: skip
    """Say how far a run reproduces a claim, and which conditions were others.

    CLAIM is a name of the catalog, the id of a published point, or a file (TOML).
    Figures are compared per GPU and multiplied up to the claim's GPUs. A comparison is
    with the published baseline, or with the run in BASELINE_DIR.
    """
    console = Console()
    if listed:
        return _list(console, as_json=as_json)
    if contract is not None:
        if len(what) != 1:
            raise UsageError("--contract takes one DIR", hint="see --help")
        return _contract(contract, Path(what[0]), console, as_json=as_json)
    if len(what) not in (2, 3):
        raise UsageError(
            "give a claim and the folder of a run",
            hint="such as: loadstone verify gb300-rack-1.1m runs/latest",
        )
    claim = claim_named(what[0])
    runs = [RunFiles.open(Path(name)) for name in what[1:]]
    if len(runs) == 2 and not claim.compares:
        raise UsageError(f"{claim.name} compares with nothing: give one folder")
    measured = [measured_of(run, gpus=gpus) for run in runs]
    judgement = judge_claim(
        claim, measured[0], baseline=measured[1] if len(measured) == 2 else None,
        beside=list(beside(claim)), notes=list(spread(claim, measured[0])),
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(judgement.to_json()))
    else:
        _print(judgement, console)
    return judgement.exit_code


def claim_named(name: str) -> Claim:
    """Return a claim of the catalog, or of a user's file (TOML)."""
    if name.endswith(".toml"):
        return read_claim(read_text(name, "claim"), name)
    return load_claim(name)


def _list(console: Console, *, as_json: bool) -> int:
    claims = [load_claim(name) for name in claim_names()]
    if as_json:
        click.echo(json.dumps([
            {"name": c.name, "title": c.title, "text": c.text(),
             "standing": c.standing(), "source": c.source, "date": c.date}
            for c in claims
        ]))  # fmt: skip
        return ExitCode.DONE
    table = _table("Claim", "value", "model", "standing")
    for claim in claims:
        table.add_row(claim.name, claim.text(), claim.model, claim.standing())
    console.print(table)
    console.print("Any id of the published points is a claim too.", style="dim")
    return ExitCode.DONE


# ----------------------------------------------------------------------- the contract


def _contract(path: Path, folder: Path, console: Console, *, as_json: bool) -> int:
    clauses = read_rows(path, "clause", read_clause)
    if not clauses:
        raise UsageError(f"{path} has no [[clause]]", hint="see docs/verify.md")
    run = RunFiles.open(folder)
    summary = run.summary()
    if summary is None:
        raise NotValidError(
            f"{folder} has no figures: the run was ended before they were made"
        )
    findings = judge_contract(clauses, summary, run.rows())
    code = contract_exit_code(findings, summary)
    verdict = summary["instrument"]["verdict"]
    if as_json:
        click.echo(json.dumps({
            "run": run.name, "exit_code": int(code), "verdict": verdict,
            "complete": summary["complete"],
            "clauses": [finding.to_json() for finding in findings],
        }))  # fmt: skip
        return code
    table = _table("Clause", "measured", "95 % interval", "samples", "")
    for finding in findings:
        table.add_row(*_clause(finding), style=_STATUS[finding.status])
    console.print(table)
    said = {0: "all passed", 3: "broken", 4: "cannot be told"}[int(code)]
    console.print(f"contract: {said}", style=_COLOURS[int(code)])
    if code is ExitCode.NOT_VALID:
        console.print(f"the run's verdict is {verdict}", highlight=False)
    if any(clause.metric in FIGURES for clause in clauses):
        for missing in summary.get("cost", {}).get("missing", ()):
            console.print(f"cost: {missing['text']}", style="dim", highlight=False)
    return code


def _clause(finding: Finding) -> Sequence[str]:
    seen = finding.to_json()
    low, high = seen["low"], seen["high"]
    ends = "" if low is None and high is None else f"{_value(low)} to {_value(high)}"
    status = finding.status.value + (f": {finding.why}" if finding.why else "")
    return seen["text"], _value(seen["value"]), ends, f"{finding.n:,}", status


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}"


# ------------------------------------------------------------------- what is printed


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _print(found: Judgement, console: Console) -> None:
    claim, run = found.claim, found.measured
    # As text, here and below: files of users and names of servers are in it.
    console.print(Text(claim.title, style="bold"))
    console.print(Text(f"  {claim.text()}: {claim.standing()}"))
    console.print(Text(f"  {claim.source}, {claim.date}", style="dim"))
    figures = _table("", "tokens/s/GPU", "")
    figures.add_row("claimed", number(claim.per_gpu), claim.text())
    figures.add_row("measured", number(run.per_gpu), _scaled(found))
    for other in found.beside:
        verified = "verified" if other.verified else "unverified"
        figures.add_row(
            f"published {other.scenario.capitalize()}, {other.accelerator}",
            number(other.output_tok_s_per_gpu),
            f"{other.limits}; {verified}",
        )
    console.print(figures)
    table = _table("Condition", "claim", "run", "")
    for d in found.differences:
        same = {True: "same", False: "differs", None: "not known"}[d.same]
        table.add_row(d.condition, Text(d.claimed), Text(d.measured), same)
    console.print(table)
    console.print(f"measured as {run.counted}", style="dim", highlight=False)
    colour = _COLOURS[int(found.exit_code)]
    for note in found.notes:
        console.print(Text(note, style="dim"))
    console.print(found.text(), style=colour, highlight=False)
    for why in (*found.not_valid, *found.broken_limits):
        console.print(Text(f"- {why}"))


def _scaled(found: Judgement) -> str:
    claim, run = found.claim, found.measured
    if claim.compares:
        return f"{found.scaled:.3g} times the baseline"
    return f"{run.output_tok_s:,.0f} tokens/s on {run.gpus:g} GPUs" + (
        f", {found.scaled:,.0f} on {claim.gpus} by multiplication"
        if run.gpus != claim.gpus and claim.metric == "output_tok_s"
        else ""
    )
