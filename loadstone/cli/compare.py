"""`loadstone compare`: two runs, figure by figure, and how sure each difference is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import click
from rich.console import Console

from ..errors import ExitCode, UsageError
from ..report.comparison import conditions, print_conditions, print_differences, title
from ..runs import RunFiles
from ..traffic.compare import Comparison, Priced, compare, paired
from ..traffic.intervals import CONFIDENCE
from ..traffic.slo import Slo, judged_by
from ..traffic.tape import Tape
from ..traffic.verdict import Verdict
from ..traffic.window import EVER, Window

_WIDTH: Final = 120
_SETTINGS: Final = ("plan", "options", "environment", "run")
_NOT_CONDITIONS: Final = frozenset({"out", "run_id", "json", "no_rows", "metrics_port"})
"""Of plan and environment what names a run, or has no bearing on its figures."""
_OF_SUMMARY: Final = ("model", "preset", "vms", "recipe", "loop")
_BY_TIME: Final = frozenset({"rent", "own", "provisioned"})
"""Bases of a cost that runs with the clock, busy or idle."""


def _tolerance(_: click.Context, __: click.Parameter, text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        raise UsageError(f"--tolerance {text}: not a number of per cent") from None
    if not 0 <= share < 1:
        raise UsageError(f"--tolerance {text}: must be from 0% to 100%")
    return share


@click.command(
    "compare",
    epilog="""\b
Examples:
  loadstone compare runs/before runs/latest
  loadstone compare runs/a runs/b --tolerance 5%
  loadstone compare runs/a runs/b --json

Exit codes: 0 no regression, 3 B is worse than A by more than the tolerance, with
confidence, 4 one of the runs is not valid.""",
)
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--tolerance", default="2%", show_default=True, metavar="PERCENT",
              callback=_tolerance,
              help="how much worse B may be before it is a regression")  # fmt: skip
@click.option("--seed", default=0, show_default=True, metavar="N", help="of the draws")
@click.option("--json", "as_json", is_flag=True, help="print the comparison as JSON")
def command(*, a: Path, b: Path, tolerance: float, seed: int, as_json: bool) -> int:
    """Compare run B with run A, both given as run folders.

    Runs of the same schedule are compared request by request due at the same time. All
    intervals hold together with 95 % confidence.
    """
    one, two = _Read.of(a), _Read.of(b)
    slos = one.slos if one.slos == two.slos else ()
    tapes = [read.tape(slos) for read in (one, two)]
    pairs = paired(tapes[0].due, tapes[1].due)
    found = compare(
        one.priced(tapes[0]), two.priced(tapes[1]),
        pairs=pairs, rng=Random(seed), goodput=bool(slos),
    )  # fmt: skip
    document = {
        "a": one.told(),
        "b": two.told(),
        "paired": pairs,
        "confidence": CONFIDENCE,
        "tolerance": tolerance,
        "figures": [each.to_json() for each in found.differences],
        "left_out": dict(found.left_out),
        "regressions": [d.name for d in found.differences if d.regressed(tolerance)],
        "conditions": [
            {"name": name, "a": x, "b": y}
            for name, x, y in conditions(one.settings(), two.settings())
        ],
    }
    if as_json:
        click.echo(json.dumps(document))
    else:
        _print(document, found)
    return _exit_code(document)


@dataclass(frozen=True, slots=True)
class _Read:
    """A run as it was read."""

    files: RunFiles
    plan: Mapping[str, Any]
    summary: Mapping[str, Any]

    @classmethod
    def of(cls, path: Path) -> "_Read":
        files = RunFiles.open(path)
        return cls(files, files.plan(), files.summary() or {})

    @property
    def slos(self) -> tuple[Slo, ...]:
        """The objectives that the run was judged by."""
        return judged_by(self.summary)

    def tape(self, slos: tuple[Slo, ...]) -> Tape:
        """Read its rows."""
        window = self.plan.get("options", {}).get("window")
        tape = Tape(slos, Window.parse(window) if window else EVER)
        for row in self.files.rows():
            tape.add(row)
        return tape

    def priced(self, tape: Tape) -> Priced:
        """Cut what was read; raises `UsageError` where nothing was answered."""
        cut = tape.cut()
        if cut is None:
            raise UsageError(
                f"{self.files.path}: no rows of answered requests to compare",
                hint="a run with --no-rows leaves none",
            )
        return Priced(cut, self._usd_per_s())

    def _usd_per_s(self) -> float | None:
        cost = self.summary.get("cost", {})
        span = cost.get("window_s") or self.summary.get("makespan_s")
        if cost.get("basis") not in _BY_TIME or not span or not cost["usd_total"]:
            return None
        return float(cost["usd_total"]) / float(span)

    def invalid(self) -> list[str]:
        """Say why the run is not to be believed, if so."""
        if not self.summary:
            return ["it was ended before its summary was written"]
        reasons = [] if self.summary["complete"] else ["it was stopped early"]
        instrument = self.summary["instrument"]
        if instrument["verdict"] != Verdict.OK:
            reasons += [instrument["verdict"], *instrument["reasons"]]
        return reasons

    def told(self) -> dict[str, Any]:
        """Return what the document says of the run itself."""
        return {"run": self.files.name, "invalid": self.invalid()}

    def settings(self) -> dict[str, Any]:
        """Return all that a run's figures may depend on."""
        plan = dict(self.plan.get("plan", {}))
        options = dict(self.plan.get("options", {}))
        parts: tuple[Mapping[str, Any], ...] = (
            plan,
            {name: value for name, value in options.items() if name not in plan},
            self.files.environment(),
            {name: self.summary.get(name) for name in _OF_SUMMARY if name not in plan},
        )
        return {
            name: {k: v for k, v in part.items() if k not in _NOT_CONDITIONS}
            for name, part in zip(_SETTINGS, parts, strict=True)
        }


def _exit_code(document: Mapping[str, Any]) -> ExitCode:
    if document["a"]["invalid"] or document["b"]["invalid"]:
        return ExitCode.NOT_VALID
    return ExitCode.NOT_MET if document["regressions"] else ExitCode.DONE


def _print(document: Mapping[str, Any], found: Comparison) -> None:
    console = Console(highlight=False)
    wide = Console(highlight=False, width=max(console.width, _WIDTH))
    a, b = document["a"], document["b"]
    schedule = (
        "the same schedule, paired by time" if document["paired"]
        else "different schedules, not paired"
    )  # fmt: skip
    wide.print(f"A {a['run']}\nB {b['run']}\n{schedule}")
    print_differences(found.differences, wide)
    for name, why in found.left_out.items():
        wide.print(f"not compared: {title(name)} ({why})", style="dim")
    print_conditions(
        [(row["name"], row["a"], row["b"]) for row in document["conditions"]], wide
    )
    wide.print(
        "-: no difference is shown. All intervals hold together with 95 % confidence,"
        " if what a request meets is forgotten in a twentieth of the run."
    )
    for name, run in (("A", a), ("B", b)):
        for reason in run["invalid"]:
            wide.print(f"{name} is not valid: {reason}", style="red")
    worse = ", ".join(map(title, document["regressions"]))
    more = f"by more than {100 * document['tolerance']:g} %"
    if worse:
        wide.print(f"REGRESSION: B is worse {more}, with confidence: {worse}")
    else:
        wide.print(f"no regression: in no figure is B shown to be worse {more}")
