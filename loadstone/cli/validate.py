"""`loadstone validate`: the model held against what was published."""

import json
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ..calibration.constants_file import constants_text, fit_of, pairs_of
from ..calibration.fitting import Fit, Laws, fit
from ..calibration.runs import refusal, runs_of
from ..calibration.simulation import Ttft, simulate_ttft
from ..calibration.targets import Target, judged_targets, left_out_target
from ..calibration.validation import Row, Validation, weigh
from ..catalog.gpus import gpu_names, load_accelerator
from ..catalog.laws import Constants, basis, constants_of, load_constants
from ..catalog.models import load_architecture, model_name, model_names
from ..catalog.placement import describe
from ..catalog.points import load_points
from ..catalog.presets import load_preset, preset_names
from ..errors import CatalogError, ExitCode, LoadstoneError, UsageError
from ..physics.derive import Efficiencies
from ..report.calibration import (
    DOCUMENT,
    FIGURES,
    KEYS,
    POINT,
    TTFT,
    document,
    figures,
    grouped,
    plots,
    point_cells,
    summary,
    ttft_cells,
)

_ROOT: Final = Path(__file__).parents[2]
_WIDTH: Final = 150
"""The table of points is not folded: it is read with a pager, or grepped."""
_CONSTANTS: Final = "loadstone/catalog/constants.toml"


@click.command(
    "validate",
    epilog="""\b
Examples:
  loadstone validate
  loadstone validate --set wide --json
  loadstone validate --leave-out h100        # predicted without any H100 point
  loadstone validate --leave-out deepseek-r1
  loadstone validate --simulate              # time to first token too
  loadstone validate --write                 # fit anew, write constants and document

Exit codes: 0 every target that is printed is met, 3 one is not.""",
)
@click.option(
    "--set",
    "chosen",
    type=click.Choice(["primary", "wide", "all"]),
    default="primary",
    show_default=True,
    help="which points: latest round of each system; all that are modelled; and those"
    " that are not, with the reason",
)
@click.option(
    "--leave-out",
    metavar="ACCELERATOR|MODEL",
    help="fit without it, and predict its points",
)
@click.option(
    "--simulate",
    is_flag=True,
    help="simulate each run's events too, for its time to first token",
)
@click.option("--refit", is_flag=True, help="fit anew instead of taking the catalog's")
@click.option(
    "--write",
    is_flag=True,
    help="fit anew; write the catalog's constants, the document and its plots",
)
@click.option("--json", "as_json", is_flag=True, help="print the result as JSON")
def command(
    *, chosen: str, leave_out: str | None, simulate: bool, refit: bool, write: bool,
    as_json: bool,
) -> int:  # fmt: skip
    """Hold the timing model against published figures, point by point."""
    if write and leave_out:
        raise UsageError("--write is about all points, --leave-out about some")
    console, progress = Console(stderr=as_json), Console(stderr=True)
    with progress.status("fitting"):
        validation = held(_refitted() if refit or write else load_constants())
    if write or leave_out:
        with progress.status("leaving out each accelerator and model in turn"):
            home = _home() if write else None
            paths = list(written(validation, home)) if home else []
            shown = _shown(validation, chosen, leave_out)
        for path in paths:
            console.print(str(path), highlight=False)
    else:
        shown = _shown(validation, chosen, leave_out)
    if simulate:
        shown = replace(shown, ttfts=tuple(_simulated(shown.rows, shown.known)))
    if as_json:
        click.echo(json.dumps(_document(shown)))
    else:
        _print(shown, console)
    met = all(target.met for target in shown.targets)
    return ExitCode.DONE if met else ExitCode.NOT_MET


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """What was asked for."""

    rows: Sequence[Row]
    fit: Fit
    known: Efficiencies
    """What the rows were predicted with: the fit's, and those foreseen from it."""
    outliers: Sequence[Row] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Of the outliers, by id."""
    refused: Mapping[str, str] = field(default_factory=dict)
    targets: Sequence[Target] = ()
    ttfts: Sequence[Ttft] = ()

    @property
    def cells(self) -> Iterator[tuple[str, ...]]:
        """The table of points."""
        yield from map(point_cells, self.rows)
        yield from (point_cells(row, "outlier") for row in self.outliers)
        for name, why in self.refused.items():
            yield (name, *[""] * (len(POINT) - 2), f"not judged: {why}")


def _shown(validation: Validation, chosen: str, leave_out: str | None) -> _Shown:
    if leave_out is not None:
        return _without(validation, *_left_out(validation, leave_out))
    targets = tuple(judged_targets(validation))
    if chosen == "primary":
        return _Shown(
            rows=validation.primary,
            fit=validation.fit,
            known=validation.fit.efficiencies,
            outliers=validation.primary_outliers,
            reasons=validation.outliers,
            targets=targets,
        )
    refused = validation.refused if chosen == "all" else {}
    return _Shown(
        rows=validation.rows,
        fit=validation.fit,
        known=validation.fit.efficiencies,
        refused=refused,
        targets=targets,
    )


def _simulated(rows: Sequence[Row], known: Efficiencies) -> Iterator[Ttft]:
    """Simulate the runs that have a published time to first token."""
    laws, to = Laws(known), Console(stderr=True)
    for row in track(rows, "simulating", console=to, transient=True):
        ttft = simulate_ttft(row.run, laws.of(row.run))
        if ttft is not None:
            yield ttft


def held(constants: Constants) -> Validation:
    """Hold constants against the catalog's points."""
    points = load_points()
    refused = {p.id: why for p in points if (why := refusal(p)) is not None}
    return Validation(fit_of(constants, weigh(runs_of(points))), refused)


def _refitted() -> Constants:
    """Fit the constants anew, with as many digits as are written."""
    text = constants_text(fit(weigh(runs_of(load_points()))), _UNKNOWN)
    return constants_of(tomllib.loads(text))


_UNKNOWN: Final = {"fitted": 0.0, "transferred": 0.0}
"""Intervals that nobody asked for."""


def _intervals(validation: Validation) -> dict[str, float]:
    out = [row for rows in validation.left_out.values() for row in rows]
    return {
        basis: fmean(row.half_width for row in rows)
        for basis, rows in zip(_UNKNOWN, (validation.rows, out), strict=True)
    }


def _left_out(validation: Validation, name: str) -> tuple[str, str]:
    """Say whether `name` is an accelerator or a model, and the catalog's name of it."""
    if name.lower() in gpu_names():
        kind, known = "accelerator", name.lower()
    else:
        try:
            kind, known = "model", model_name(name)
        except CatalogError:
            raise UsageError(
                f"there is no accelerator and no model {name!r}",
                hint=f"one of {', '.join((*gpu_names(), *model_names()))}",
            ) from None
    if known not in grouped(validation.rows, kind):
        raise UsageError(f"no point that is modelled has the {kind} {known}")
    return kind, known


def _without(validation: Validation, kind: str, name: str) -> _Shown:
    """Predict the points of an accelerator or a model by a fit without them."""
    (fold,) = (f for f in validation.folds if (f.kind, f.name) == (kind, name))
    rows = validation.left_out[kind, name]
    return _Shown(
        rows=rows,
        fit=fold.fit,
        known=fold.efficiencies,
        targets=(left_out_target(name, rows),),
    )


# ------------------------------------------------------------------- what is written


def _home() -> Path:
    if not (_ROOT / DOCUMENT).parent.exists():
        raise UsageError(
            "this is no checkout of loadstone, so there is no place for it"
        )
    return _ROOT


def written(validation: Validation, home: Path) -> Iterator[Path]:
    """Write constants, document and plots below `home`; yield each path."""
    for name, text in made(validation).items():
        path = home / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as failed:
            raise LoadstoneError(f"cannot write {path}: {failed.strerror}") from None
        yield path


def made(validation: Validation) -> dict[str, str]:
    """Return every file that follows from a validation, by its path."""
    ttfts = tuple(_simulated(validation.rows, validation.fit.efficiencies))
    served = machines(pairs_of(validation.fit))
    return {
        _CONSTANTS: constants_text(validation.fit, _intervals(validation)),
        DOCUMENT: document(validation, served, ttfts=ttfts),
        **plots(validation),
    }


def machines(pairs: Collection[tuple[str, str]]) -> Iterator[tuple[str, ...]]:
    """Yield preset, model, layout, and what a law fitted on `pairs` rests on."""
    for name in preset_names():
        for model in model_names():
            try:
                machine = load_preset(name, model)
            except UsageError as refused:
                yield name, model, refused.message, "refused"
            else:
                gpu, known = load_accelerator(machine.gpu), load_architecture(model)
                yield name, model, describe(machine.layout), basis(gpu, known, pairs)


# ------------------------------------------------------------------- what is printed


def _document(shown: _Shown) -> dict[str, Any]:
    return {
        "constants": len(shown.fit.constants),
        "points": len(shown.fit.runs),
        "targets": [
            {"name": t.name, "value": t.text, "limit": t.limit, "met": t.met}
            for t in shown.targets
        ],
        "rows": [
            *(_row(row, row.basis) for row in shown.rows),
            *(_row(row, "outlier") for row in shown.outliers),
        ],
        "not_judged": dict(shown.refused),
        "ttft": [
            {
                "point": t.run.point.id,
                "p50_s": t.p50_s,
                "p99_s": t.p99_s,
                "p50_error": t.errors[0],
                "p99_error": t.errors[1],
            }
            for t in shown.ttfts
        ],
    }


def _row(row: Row, status: str) -> dict[str, Any]:
    return {
        "point": row.run.point.id,
        **{kind: key(row) for kind, key in KEYS.items()},
        "figure": row.judged.figure,
        "published": row.judged.published,
        "predicted": row.judged.predicted,
        "error": row.error,
        "low": row.low,
        "high": row.high,
        "status": status,
    }


def _print(shown: _Shown, console: Console) -> None:
    wide = Console(stderr=console.stderr, width=max(console.width, _WIDTH))
    wide.print(_table(POINT, shown.cells))
    for row in shown.outliers:
        wide.print(
            f"{row.run.point.id}: {shown.reasons[row.run.point.id]}", highlight=False
        )
    for kind in KEYS:
        groups = grouped(shown.rows, kind).items()
        rows = [(name, *figures(group)) for name, group in groups]
        wide.print(_table((kind, *FIGURES), rows))
    wide.print(_table(("together", *FIGURES), [("", *figures(shown.rows))]))
    if shown.ttfts:
        wide.print(_table(TTFT, map(ttft_cells, shown.ttfts)))
    wide.print(summary(shown.fit), highlight=False)
    for target in shown.targets:
        met = "met" if target.met else "[red]NOT MET[/red]"
        text = f"{met}: {target.name} {target.text}, {target.limit}"
        wide.print(text, highlight=False)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(head):
        table.add_column(name, justify="left" if i in (0, len(POINT) - 1) else "right")
    for row in rows:
        table.add_row(*row)
    return table
