"""Model against measurement: every run, each left out in turn, and how sure to be.

Leaving one run out is not a new fit but the exact answer of the linearised one: its
error over one less its leverage. Leaving out an accelerator or a model is a new fit.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, sqrt
from typing import Final

from ..catalog.points import PublishedPoint
from ..physics.derive import Efficiencies
from .constants import SILICON_SD
from .fitting import NOISE, Fit, Laws, Weighed, errors, fit, slopes, spread
from .generations import foreseen, with_stack
from .judgement import Judged, judge
from .runs import Run, refusal, runs_of
from .sets import outliers, primary

_LATEST_WEIGHT: Final = 8.0
"""A run of MLPerf's latest round counts as so many: it is the software that is served
today, and what is asked of the model most. The weight is chosen by runs left out one by
one: those of the primary set are missed by 7.3 % at 1, 6.7 % at 4 and 6.4 % at 8, all
runs by 7.2, 7.4 and 7.8 %.
"""
_COVERED: Final = 0.8
_TRANSFER_NOISE: Final = 0.16
"""Of the step's logarithm, where neither the run nor its like was fitted: what facts do
not tell of a chip or a model. With it the spread that the fit itself knows of decides
little, which is what its errors are like."""
_KINDS: Final[dict[str, Callable[[Run], str]]] = {
    "accelerator": lambda run: run.gpu.name,
    "model": lambda run: run.model.name,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A run, how it is predicted, and the interval that should hold 80 % of truths."""

    judged: Judged
    basis: str
    """`fitted`, or `left out`: neither it nor its like were in the fit."""
    low: float
    high: float

    @property
    def run(self) -> Run:
        """The run."""
        return self.judged.run

    @property
    def error(self) -> float:
        """Predicted over published, less 1."""
        return self.judged.error

    @property
    def covered(self) -> bool:
        """Whether the published figure is in the interval."""
        return self.low <= self.judged.published <= self.high

    @property
    def half_width(self) -> float:
        """Half of the interval's width over the prediction."""
        return (self.high - self.low) / 2 / self.judged.predicted


@dataclass(frozen=True, slots=True)
class Fold:
    """Runs that were left out of a fit, with their errors and the spread of each."""

    kind: str
    name: str
    fit: Fit
    runs: tuple[Run, ...]
    errors: tuple[float, ...]
    """Logarithm of predicted over measured time of a token."""
    sds: tuple[float, ...]
    """Of that logarithm: what the fit does not know, and the noise of a point."""

    @property
    def efficiencies(self) -> Efficiencies:
        """The fit's constants, and what it foresees of generations it has not."""
        return _with_stacks(self.fit, self.runs)


def _with_stacks(fitted: Fit, runs: Iterable[Run]) -> Efficiencies:
    return with_stack(fitted.efficiencies, {run.stack for run in runs})


def weigh(runs: Sequence[Run]) -> list[Weighed]:
    """Weigh runs: those of MLPerf's latest round count more."""
    latest = max((run.round for run in runs), default="")
    return [
        Weighed(run, _LATEST_WEIGHT if run.round == latest != "" else 1.0)
        for run in runs
    ]


def leave_out(whole: Fit, kind: str, name: str) -> Fold:
    """Fit without an accelerator or a model and predict the runs that have it."""
    key = _KINDS[kind]
    inside = [w for w in whole.runs if key(w.run) != name]
    out = tuple(w.run for w in whole.runs if key(w.run) == name)
    without = fit(inside, start=whole)
    return Fold(
        kind=kind,
        name=name,
        fit=without,
        runs=out,
        errors=tuple(errors(out, _with_stacks(without, out))),
        sds=tuple(sds(without, out, _TRANSFER_NOISE)),
    )


_TOLD: Final = 0.7
_UNTOLD: Final = 0.95
"""Of a constant's prior spread: at most, at least so much is left by the points."""


def untold(whole: Fit, without: Fit) -> tuple[str, ...]:
    """Return the constants of `whole` that the points of `without` do not tell.

    Those that all points together do tell, and that these leave at the prior.
    """
    known = _left(without)
    return tuple(
        name
        for name, left in _left(whole).items()
        if left <= _TOLD and known.get(name, 1.0) >= _UNTOLD
    )


def _left(fitted: Fit) -> dict[str, float]:
    """Return how much of each constant's prior spread the points leave."""
    return {
        c.name: sqrt(fitted.covariance[i][i]) / c.sd
        for i, c in enumerate(fitted.constants)
    }


def sds(fitted: Fit, runs: Sequence[Run], noise: float = NOISE) -> list[float]:
    """Return what a fit does not know of runs, as spreads of the step's logarithm.

    `noise` is what no constant would tell.
    The factor of a chip that no point has is as uncertain as its prior, and 1 in the
    prediction; that of a software generation is foreseen from those beside it.
    """
    constants, logs = fitted.constants, fitted.logs
    rows = slopes(runs, constants, logs)
    known = fitted.efficiencies.values
    return [
        sqrt(spread(row, fitted.covariance) ** 2 + _unknown(run, known) + noise**2)
        for run, row in zip(runs, rows, strict=True)
    ]


def _unknown(run: Run, known: Mapping[str, float]) -> float:
    _, variance = foreseen(run.stack, known)
    if f"silicon.{run.gpu.name}" not in known:
        variance += SILICON_SD**2
    return variance


@dataclass(frozen=True)
class Validation:
    """A fit held against the points it was fitted on, and against those left out."""

    fit: Fit
    refused: Mapping[str, str]
    """Points that are not modelled, by id, and why."""

    @cached_property
    def folds(self) -> tuple[Fold, ...]:
        """Each accelerator and each model left out in turn."""
        return tuple(
            leave_out(self.fit, kind, name)
            for kind, key in _KINDS.items()
            for name in sorted({key(w.run) for w in self.fit.runs})
        )

    @cached_property
    def scale(self) -> float:
        """By what spreads are multiplied so that 80 % of left-out truths are within."""
        return _quantile(
            [
                abs(e) / sd
                for fold in self.folds
                for e, sd in zip(fold.errors, fold.sds, strict=True)
            ]
        )

    @cached_property
    def fitted_scale(self) -> float:
        """The same for fitted runs, each left out by itself."""
        return _quantile(
            [
                abs(e) / sd
                for e, sd in zip(self.alone, sds(self.fit, self.runs), strict=True)
            ]
        )

    @property
    def runs(self) -> list[Run]:
        """The runs that were fitted."""
        return [w.run for w in self.fit.runs]

    @cached_property
    def alone(self) -> tuple[float, ...]:
        """Errors of the step's logarithm, each run left out by itself."""
        pairs = zip(self.fit.errors, self.fit.leverages, strict=True)
        return tuple(e / (1.0 - leverage) for e, leverage in pairs)

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Every fitted run."""
        return _rows(
            self.runs,
            self.fit.efficiencies,
            "fitted",
            [sd * self.fitted_scale for sd in sds(self.fit, self.runs)],
        )

    @cached_property
    def left_out(self) -> dict[tuple[str, str], tuple[Row, ...]]:
        """The runs of each accelerator and model, predicted without any of them."""
        return {
            (fold.kind, fold.name): _rows(
                fold.runs,
                fold.efficiencies,
                "left out",
                [sd * self.scale for sd in fold.sds],
            )
            for fold in self.folds
        }

    @cached_property
    def outliers(self) -> dict[str, str]:
        """Why a run contradicts others of its machine, by id."""
        return outliers(self.runs)

    @cached_property
    def primary(self) -> tuple[Row, ...]:
        """The primary set without its outliers."""
        ids = {run.point.id for run in primary(self.runs)} - self.outliers.keys()
        return tuple(row for row in self.rows if row.run.point.id in ids)

    @property
    def primary_outliers(self) -> tuple[Row, ...]:
        """The outliers of the primary set."""
        ids = {run.point.id for run in primary(self.runs)} & self.outliers.keys()
        return tuple(row for row in self.rows if row.run.point.id in ids)

    def alone_error(self, rows: Iterable[Row]) -> float:
        """Return the mean absolute error of rows, each left out by itself."""
        errors_ = dict(zip((r.point.id for r in self.runs), self.alone, strict=True))
        return _mean(abs(errors_[row.run.point.id]) * row.judged.gain for row in rows)


def validate(points: Iterable[PublishedPoint]) -> Validation:
    """Fit to the points that are modelled and hold the fit against them."""
    points = list(points)
    refused = {p.id: why for p in points if (why := refusal(p)) is not None}
    return Validation(fit(weigh(runs_of(points))), refused)


def _rows(
    runs: Sequence[Run], constants: Efficiencies, basis: str, reach: Sequence[float]
) -> tuple[Row, ...]:
    laws = Laws(constants)
    rows = []
    for run, sd in zip(runs, reach, strict=True):
        judged = judge(run, laws.of(run))
        low, high = judged.interval(sd)
        rows.append(Row(judged=judged, basis=basis, low=low, high=high))
    return tuple(rows)


def _quantile(values: Iterable[float]) -> float:
    ranked = sorted(values)
    return ranked[min(len(ranked), ceil(_COVERED * (len(ranked) + 1))) - 1]


def mean_error(rows: Iterable[Row]) -> float:
    """Return the mean absolute error."""
    return _mean(abs(row.error) for row in rows)


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)
