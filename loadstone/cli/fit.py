"""`loadstone fit`: constants from one's own measurements."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from loadgen.files import read_text

from ..calibration.own import Fitted, fit_law
from ..calibration.preset_file import preset_text
from ..calibration.steady import OwnPoint, Steady
from ..catalog.laws import UNITS
from ..catalog.placement import describe
from ..catalog.presets import Preset, preset_names, read_machine
from ..catalog.rows import read_rows
from ..errors import LoadstoneError, UsageError
from ..runs import read_rows as read_run
from .machine_options import DEFAULT_PRESET, load_machine, machine_options
from .sections import Sectioned

_ENOUGH: Final = 4
"""Points for each constant below which the table says that they are few."""


@click.command(
    "fit",
    cls=Sectioned,
    epilog="""\b
Examples:
  loadstone fit points.csv --gpu h100 --model llama-3.1-70b -o mine.toml
  loadstone fit runs/a runs/b runs/c --preset azure-nd-h200-v5 \\
    --model openai/gpt-oss-120b --engines 4 -o mine.toml
  loadstone simulate --preset mine.toml --rate 20

\b
Columns of a CSV; figures of the whole system, mean over requests:
  isl, osl            tokens of prompt and answer (needed)
  concurrency         requests in flight in a closed loop; or
  requests_per_s      the rate of an open one
  tpot_ms             time per output token after the first; or
  tokens_per_s        output tokens/s, with concurrency and ttft_ms
  ttft_ms             time to first token
  engines             replicas that share the load (default: 1)
  label               a name for the table

\b
  isl,osl,concurrency,tpot_ms,ttft_ms
  1000,500,1,19.8,95
  1000,500,64,31.2,310""",
)
@click.argument("sources", nargs=-1, required=True, metavar="POINTS.csv|RUN_DIR...")
@machine_options
@click.option("--gpu", metavar="NAME", help="take the preset that has this GPU")
@click.option(
    "--engines",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="replicas behind the endpoint of the run folders",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.toml",
    help="write the preset here",
)
@click.option("--json", "as_json", is_flag=True, help="print the fit as JSON")
def command(
    *, sources: tuple[str, ...], gpu: str | None, engines: int, out: Path | None,
    as_json: bool, **machine: Any,
) -> None:  # fmt: skip
    """Fit the timing of an engine to points that you measured on it.

    The catalog's law for the GPU and the model is where it starts. What your points
    cannot tell stays there, and is named. Points at several concurrencies, one of them
    1, and with prompts of several lengths tell most.
    """
    if out is not None and out.suffix != ".toml":
        raise UsageError(f"{out} is to be a .toml file, as --preset knows it by that")
    machine["preset"] = _preset_of(gpu, machine["preset"])
    base = load_machine(machine.pop("preset"), machine.pop("model"), **machine)
    points = [point for source in sources for point in _points(source, engines)]
    fitted = fit_law(points, base.law, base.limits.max_num_batched_tokens)
    if out is not None:
        day = datetime.now(UTC).date().isoformat()
        _write(out, preset_text(base, fitted, date=day))
    if as_json:
        click.echo(json.dumps(_document(base, fitted)))
    else:
        _print(base, fitted, out, Console())


def _preset_of(gpu: str | None, preset: str) -> str:
    if gpu is None:
        return preset
    if preset != DEFAULT_PRESET:
        raise UsageError("give --preset or --gpu, not both")
    having = {read_machine(name)[0]["gpu"]: name for name in preset_names()}
    if gpu not in having:
        raise UsageError(
            f"no preset has the GPU {gpu!r}", hint=f"there is: {', '.join(having)}"
        )
    return having[gpu]


def _points(source: str, engines: int) -> Iterator[Steady]:
    """Read a CSV of points, or a run folder, which is one point."""
    if Path(source).is_dir():
        yield Steady.of_rows(read_run(Path(source)), source, engines)
        return
    lines = read_text(source, "points").splitlines(keepends=True)
    for number, point in enumerate(read_rows(lines, OwnPoint, source), 1):
        yield Steady.of(point, number)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as failed:
        raise LoadstoneError(
            f"cannot write {path}: {failed.strerror}", hint="choose --out FILE"
        ) from None


def _document(base: Preset, fitted: Fitted) -> dict[str, Any]:
    return {
        "preset": base.name,
        "model": base.model,
        "gpu": base.gpu,
        "placement": describe(base.layout),
        "points": len(fitted.residuals),
        "factors": fitted.factors,
        "constants": {
            name: {
                "value": getattr(fitted.law, name),
                "prior": getattr(fitted.prior, name),
                "low": interval[0],
                "high": interval[1],
                "unit": UNITS[name],
                "identified": name not in fitted.unidentified,
            }
            for name, interval in fitted.intervals.items()
        },
        "not_identified": list(fitted.unidentified),
        "noise": fitted.noise,
        "mean_error": fitted.mean_error,
        "residuals": [
            {
                "point": r.point.label,
                "batch": r.point.batch,
                "tpot_s": r.point.tpot_s,
                "predicted_tpot_s": r.predicted_s,
                "error": r.error,
            }
            for r in fitted.residuals
        ],
    }


def _print(base: Preset, fitted: Fitted, out: Path | None, console: Console) -> None:
    console.print(
        f"{base.model} on {base.title}, {describe(base.layout)}", highlight=False
    )
    console.print(_constants(fitted))
    console.print(_residuals(fitted))
    for line in _said(fitted):
        console.print(line, highlight=False)
    if out is not None:
        console.print(f"[dim]preset  {out}[/dim]", highlight=False)


def _constants(fitted: Fitted) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("Constant")
    for name in ("catalog", "fitted", "80 % interval"):
        table.add_column(name, justify="right")
    table.add_column("unit")
    for name, (low, high) in fitted.intervals.items():
        value = f"{getattr(fitted.law, name):.4g}"
        table.add_row(
            name,
            f"{getattr(fitted.prior, name):.4g}",
            f"({value})" if name in fitted.unidentified else value,
            f"{low:.4g} to {high:.4g}",
            UNITS[name],
        )
    return table


def _residuals(fitted: Fitted) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("Point")
    for name in ("batch", "TPOT", "of the law", "error"):
        table.add_column(name, justify="right")
    for r in fitted.residuals:
        table.add_row(
            r.point.label,
            f"{r.point.batch:,.1f}",
            f"{1e3 * r.point.tpot_s:,.2f} ms",
            f"{1e3 * r.predicted_s:,.2f} ms",
            f"{100 * r.error:+.1f} %",
        )
    return table


def _said(fitted: Fitted) -> Sequence[str]:
    points, constants = len(fitted.residuals), len(fitted.factors)
    few = "" if points >= _ENOUGH * constants else ": few, so trust the intervals"
    factors = (f"{name} {value:.3f}" for name, value in fitted.factors.items())
    said = [
        (
            f"fitted {constants} factors on {points} points"
            f" ({points / constants:.1f} for each{few}),"
            f" mean error {100 * fitted.mean_error:.1f} %"
        ),
        f"factors on the catalog's law: {', '.join(factors)}",
    ]
    stay = [name for name in fitted.unidentified if name in fitted.intervals]
    kept = [name for name in fitted.unidentified if name not in fitted.intervals]
    if stay:
        said.append(
            f"not identified by these points: {', '.join(stay)}"
            " (in parentheses): the catalog's, times `stack`"
        )
    said.append(f"never fitted: {', '.join(kept)}: the catalog's")
    return said
