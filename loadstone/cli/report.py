"""`loadstone report`: a run's folder, or its evidence bundle, made readable."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from ..errors import LoadstoneError, UsageError
from ..report.bundle import unpacked
from ..report.proof import Asked
from ..report.written import FORMATS, REPORT, rendered, write
from ..runs import ROWS, RunFiles
from ..verify.contract import read_clause
from .rows_file import read_rows
from .verify import claim_named

_LARGE: Final = 100_000_000
"""Bytes of rows above which a run's end does not wait for its report: some seconds."""


@click.command(
    "report",
    epilog="""\b
Examples:
  loadstone report runs/latest                      # runs/latest/report.html
  loadstone report runs/latest --format csv --out rows.csv
  loadstone report runs/latest --format json --out - | jq .decision
  loadstone report runs/latest --format md --out -
  loadstone report evidence.zip                     # evidence.html, from a bundle

A run that was killed is reported from its rows, and marked incomplete.""",
)
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR|FILE.zip")
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="html", show_default=True,
    help="a page, all of it as JSON, the rows as a table, or the tables in Markdown",
)  # fmt: skip
@click.option(
    "--out",
    metavar="FILE",
    help="where to write it; - is stdout  [default: DIR/report.FORMAT]",
)
@click.option("--claim", metavar="NAME|FILE",
              help="hold it against a claim: loadstone verify --list")  # fmt: skip
@click.option("--contract", type=click.Path(path_type=Path), metavar="FILE",
              help="say of each clause (TOML) whether the run passes")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="say what was made as JSON")
def command(
    *, folder: Path, form: str, out: str | None, claim: str | None,
    contract: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Make the report of a run, from its folder or its evidence bundle.

    The page opens offline, prints, and has no script in it. No prompt and no secret is
    in any format: rows hold neither. The exit code says that the report was made; what
    it says of a claim or a contract, `loadstone verify` says in its exit code.
    """
    if form == "csv" and (claim or contract):
        raise UsageError("--format csv has the rows alone: no claim, no contract")
    asked = Asked(
        claim_named(claim) if claim else None,
        tuple(read_rows(contract, "clause", read_clause)) if contract else (),
    )
    with _opened(folder) as run:
        pieces = rendered(run, form, asked)
        if out == "-":
            sys.stdout.buffer.writelines(pieces)
            return
        path = Path(out) if out else _beside(folder, form)
        write(pieces, path)
    if as_json:
        click.echo(json.dumps({"report": str(path), "format": form}))
    else:
        click.echo(f"report      {path}")


@contextmanager
def _opened(path: Path) -> Iterator[RunFiles]:
    """Open a run's folder, or its bundle if that is as it was made."""
    if path.is_dir():
        yield RunFiles.open(path)
        return
    if not path.is_file():
        raise UsageError(f"there is no run folder and no bundle {path}")
    with unpacked(path) as (run, checked):
        if checked.findings:
            names = ", ".join(f"{f.name} {f.what}" for f in checked.findings)
            raise UsageError(
                f"{path} is not as it was made: {names}",
                hint="unpack it to look at it: what it shows is not evidence",
            )
        yield run


def _beside(path: Path, form: str) -> Path:
    """Return where a report goes: into the run's folder, or next to the bundle."""
    if path.is_dir():
        return path / Path(REPORT).with_suffix(f".{form}")
    return path.with_suffix(f".{form}")


def end_with_report(folder: Path, console: Console) -> None:
    """Make the page of a run that has just ended, and say where it is.

    It is made here, where nothing is measured. Where that would take long, or cannot be
    done, it is said instead: the run itself is over and written.
    """
    size = sum(path.stat().st_size for path in folder.glob(ROWS))
    path = folder / REPORT
    if size > _LARGE:
        told = f"loadstone report {folder}   (many rows: not made by itself)"
    else:
        try:
            write(rendered(RunFiles.open(folder), "html"), path)
            told = str(path)
        except LoadstoneError as failed:
            told = f"not made: {failed.message}"
    console.print(f"report      {told}", style="dim", highlight=False, soft_wrap=True)
