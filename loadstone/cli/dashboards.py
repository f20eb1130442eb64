"""`loadstone dashboards`: Grafana's JSON, made and kept true."""

from pathlib import Path

import click

from ..errors import LoadstoneError, UsageError


@click.group(
    "dashboards",
    epilog="""\b
Examples:
  loadstone dashboards build
  loadstone dashboards build --out dashboards-for-grafana
  loadstone dashboards check""",
)
def command() -> None:
    """Make the Grafana dashboards, or check that they are what the code makes."""


_out = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="folder of the JSON (default: the repository's, with its documentation)",
)


@command.command("build", short_help="write the JSON and its table in the docs")
@_out
def build(*, out: Path | None) -> None:
    """Write the dashboards' JSON, and in a checkout the table in docs/dashboards.md."""
    from dashboards.files import rendered

    folder, document = _places(out)
    for path, text in list(rendered(folder, document)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        click.echo(_shown(path))


@command.command("check", short_help="name what is not as the code makes it")
@_out
def check(*, out: Path | None) -> None:
    """Fail if a file is not what the code makes now, and name it."""
    from dashboards.files import stale

    wrong = stale(*_places(out))
    if wrong:
        where = "" if out is None else f" --out {out}"
        raise LoadstoneError(
            f"not what the code makes: {', '.join(_shown(path) for path in wrong)}",
            hint=f"run `loadstone dashboards build{where}`;"
            " a file that it does not write is to be removed",
            code="stale",
        )
    click.echo("the dashboards are what the code makes")


def _places(out: Path | None) -> tuple[Path, Path | None]:
    """Return the folder of the JSON, and the document if it goes with it."""
    from dashboards.files import DOCUMENT, JSON_HOME

    if out is not None:
        return out, None
    if not DOCUMENT.exists():
        raise UsageError(
            "this is no checkout of loadstone, so there is no place for dashboards",
            hint="give --out DIR",
        )
    return JSON_HOME, DOCUMENT


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
