"""`loadstone bundle`: a run as evidence, and the check of such an archive."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from ..errors import ExitCode, UsageError
from ..report.bundle import Checked, check, pack
from ..runs import RunFiles


@click.command(
    "bundle",
    epilog="""\b
Examples:
  loadstone bundle runs/latest --out evidence.zip
  loadstone bundle --check evidence.zip
  loadstone bundle --check evidence.zip --manifest 4f0c...     # in the contract
  loadstone report evidence.zip                              # the report, made anew

Exit codes: 0 made, or as it was made; 3 it was changed since.""",
)
@click.argument("folder", required=False, metavar="[DIR]",
                type=click.Path(path_type=Path))  # fmt: skip
@click.option("--out", metavar="FILE.zip", type=click.Path(path_type=Path),
              help="where to write it  [default: RUN.zip, here]")  # fmt: skip
@click.option("--check", "checked", metavar="FILE.zip",
              type=click.Path(path_type=Path),
              help="say whether an archive is as it was made")  # fmt: skip
@click.option("--manifest", metavar="SHA256",
              help="with --check: what its manifest's hash has to be")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="print the result as JSON")
def command(
    *, folder: Path | None, out: Path | None, checked: Path | None,
    manifest: str | None, as_json: bool,
) -> int:  # fmt: skip
    """Pack the run in DIR into one archive: plan, environment, rows, figures, report.

    The hash that is printed stands for all of it: quote it in a contract, and whoever
    has the archive can check it and make the report again, offline. Hashes say that
    nothing was changed, not who made it; to say that too, sign the hash with a tool
    that both sides trust, such as ssh-keygen -Y sign.
    """
    if (folder is None) == (checked is None):
        raise UsageError("give a run folder to pack, or --check FILE.zip")
    if checked is not None:
        if out is not None:
            raise UsageError("--check writes nothing: --out has no meaning here")
        return _check(checked, manifest, as_json=as_json)
    if manifest is not None:
        raise UsageError("--manifest is for --check")
    assert folder is not None
    run = RunFiles.open(folder)
    path = out or Path(f"{run.name}.zip")
    digest = pack(run, path)
    if as_json:
        click.echo(json.dumps({"bundle": str(path), "manifest_sha256": digest}))
    else:
        click.echo(f"bundle      {path}\nmanifest    {digest}")
    return ExitCode.DONE


def _check(path: Path, wanted: str | None, *, as_json: bool) -> int:
    checked = check(path)
    other = wanted is not None and wanted.lower() != checked.manifest_sha256
    if as_json:
        told = asdict(checked) | {
            "manifest_as_wanted": None if wanted is None else not other
        }
        click.echo(json.dumps(told))
    else:
        _print(checked, wanted if other else None)
    return ExitCode.NOT_MET if checked.findings or other else ExitCode.DONE


def _print(checked: Checked, wanted: str | None) -> None:
    click.echo(f"run         {checked.run}\nmanifest    {checked.manifest_sha256}")
    if wanted is not None:
        click.echo(f"OTHER       the manifest is not {wanted}")
    for finding in checked.findings:
        text = (
            "does not follow from the rows"
            if finding.what == "report"
            else finding.what
        )
        click.echo(f"CHANGED     {finding.name}: {text}")
    for note in checked.notes:
        click.echo(f"note        {note}")
    if not checked.findings and wanted is None:
        click.echo("sound       every file is as it was packed")
