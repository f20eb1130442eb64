"""The fit: Gauss-Newton on logarithms, priors as ridges, outliers held back.

    minimise  sum w rho(e / NOISE) + sum (x / sd)^2

e is the logarithm of predicted over measured, of tokens/s for a run without a latency
limit and of the step at the published batch otherwise; x is the logarithm of a constant
over its prior; rho is the pseudo-Huber loss, quadratic up to some `NOISE` and linear
beyond. Nothing is drawn: the same points give the same constants.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp, log, sqrt
from typing import Final

from ..physics.derive import Efficiencies, derive
from ..physics.steplaw import StepLaw
from .constants import Constant, constants_for
from .linear import Matrix, inverse
from .operating import decode_step, tokens_per_s
from .runs import Run

NOISE: Final = 0.05
"""Relative error of a point that is nobody's fault: submitters of one system differ by
2 to 6 %."""
_BEND: Final = 2.0
"""Errors count linearly from so many `NOISE` on."""
_ROUNDS: Final = 30
_STILL: Final = 1e-4
_NUDGE: Final = 1e-4
_LONGEST: Final = 0.7
_DAMPING: Final = (0.0, 0.03, 0.3, 3.0, 30.0)


class Laws:
    """The laws of runs under one set of constants; equal engines share a law."""

    def __init__(self, efficiencies: Efficiencies) -> None:
        self._efficiencies = efficiencies
        self._laws: dict[object, StepLaw] = {}

    def of(self, run: Run) -> StepLaw:
        """Return the law of a run's engine."""
        key = (run.gpu, run.model.name, run.layout, run.stack)
        if key not in self._laws:
            self._laws[key] = derive(
                run.gpu, run.model, run.layout, self._efficiencies, stack=run.stack
            )
        return self._laws[key]


def fit_error(run: Run, law: StepLaw) -> float:
    """Return the logarithm of a run's predicted over measured time of a token."""
    if run.throughput:
        return log(run.point.tokens_per_s_per_gpu / tokens_per_s(run, law))
    assert run.decode_s is not None
    return log(decode_step(run, law) / run.decode_s)


@dataclass(frozen=True, slots=True)
class Weighed:
    """A run and how much it counts."""

    run: Run
    weight: float = 1.0


@dataclass(frozen=True)
class Fit:
    """Fitted constants, what they were fitted on, and how well that knows them."""

    constants: tuple[Constant, ...]
    logs: tuple[float, ...]
    """Of each constant over its prior."""
    runs: tuple[Weighed, ...]

    @cached_property
    def efficiencies(self) -> Efficiencies:
        """The constants' values by name."""
        return efficiencies(self.constants, self.logs)

    @cached_property
    def errors(self) -> tuple[float, ...]:
        """`fit_error` of each run."""
        return tuple(errors([w.run for w in self.runs], self.efficiencies))

    @cached_property
    def covariance(self) -> Matrix:
        """Covariance of the logarithms, priors included."""
        rows = slopes([w.run for w in self.runs], self.constants, self.logs)
        return inverse(_information(self, rows))

    @cached_property
    def leverages(self) -> tuple[float, ...]:
        """How far each run pulls its own prediction: 0 not at all, 1 wherever it is."""
        rows = slopes([w.run for w in self.runs], self.constants, self.logs)
        return tuple(
            weight * spread(row, self.covariance) ** 2
            for weight, row in zip(_weights(self.runs, self.errors), rows, strict=True)
        )

    def low_high(self, name: str, z: float) -> tuple[float, float]:
        """Return a constant's interval of `z` standard deviations."""
        i = [constant.name for constant in self.constants].index(name)
        value = self.efficiencies.values[name]
        reach = exp(z * sqrt(self.covariance[i][i]))
        return value / reach, value * reach


def fit(runs: Sequence[Weighed], start: Fit | None = None) -> Fit:
    """Fit the constants that `runs` can say something of; `start` only saves time."""
    constants = constants_for(w.run for w in runs)
    known = {} if start is None else start_logs(start)
    now = Fit(constants, tuple(known.get(c.name, 0.0) for c in constants), tuple(runs))
    loss = _loss(now)
    for _ in range(_ROUNDS):
        after, less = _improved(now, loss)
        gained, now, loss = loss - less, after, less
        if gained < _STILL * loss:
            break
    return now


def start_logs(fitted: Fit) -> dict[str, float]:
    """Return the logarithms of a fit by the constants' names."""
    return {c.name: x for c, x in zip(fitted.constants, fitted.logs, strict=True)}


def _improved(now: Fit, loss: float) -> tuple[Fit, float]:
    """Return the fit after a step that lowers the loss, or `now` if none does."""
    rows = slopes([w.run for w in now.runs], now.constants, now.logs)
    weights = _weights(now.runs, now.errors)
    pull = [
        sum(w * row[j] * e for w, row, e in zip(weights, rows, now.errors, strict=True))
        + now.logs[j] / constant.sd**2
        for j, constant in enumerate(now.constants)
    ]
    information = _information(now, rows)
    for damping in _DAMPING:
        damped = [list(row) for row in information]
        for j in range(len(damped)):
            damped[j][j] *= 1 + damping
        step = [
            max(-_LONGEST, min(_LONGEST, sum(map(float.__mul__, row, pull))))
            for row in inverse(damped)
        ]
        logs = tuple(x - dx for x, dx in zip(now.logs, step, strict=True))
        after = Fit(now.constants, logs, now.runs)
        less = _loss(after)
        if less < loss:
            return after, less
    return now, loss


def efficiencies(constants: Sequence[Constant], logs: Sequence[float]) -> Efficiencies:
    """Return constants at `logs` over their priors."""
    return Efficiencies(
        {c.name: c.value * exp(x) for c, x in zip(constants, logs, strict=True)}
    )


def errors(runs: Sequence[Run], constants: Efficiencies) -> list[float]:
    """Return `fit_error` of each run."""
    laws = Laws(constants)
    return [fit_error(run, laws.of(run)) for run in runs]


def slopes(
    runs: Sequence[Run], constants: Sequence[Constant], logs: Sequence[float]
) -> list[list[float]]:
    """Return d `fit_error` / d logarithm of a constant, a row for each run."""
    base = errors(runs, efficiencies(constants, logs))
    columns = []
    for j, constant in enumerate(constants):
        nudged = Laws(
            efficiencies(constants, [*logs[:j], logs[j] + _NUDGE, *logs[j + 1 :]])
        )
        columns.append(
            [
                (fit_error(run, nudged.of(run)) - e) / _NUDGE
                if _concerns(constant.name, run)
                else 0.0
                for run, e in zip(runs, base, strict=True)
            ]
        )
    return [list(row) for row in zip(*columns, strict=True)]


def _concerns(name: str, run: Run) -> bool:
    """Whether a factor can be in a run's law; every common constant may be."""
    family = name.partition("@")[2]
    if family:
        return family == run.gpu.family
    kind, _, of = name.partition(".")
    return {"silicon": run.gpu.name, "stack": run.stack}.get(kind, of) == of


def spread(slope: Sequence[float], covariance: Matrix) -> float:
    """Return the standard deviation of a prediction from that of the constants."""
    inner = [sum(map(float.__mul__, row, slope)) for row in covariance]
    return sqrt(max(0.0, sum(map(float.__mul__, inner, slope))))


def _weights(
    runs: Sequence[Weighed], errors_: Mapping[int, float] | Sequence[float]
) -> list[float]:
    """Return each run's weight in the normal equations: outliers count less."""
    return [
        w.weight / sqrt(1 + (errors_[i] / (_BEND * NOISE)) ** 2) / NOISE**2
        for i, w in enumerate(runs)
    ]


def _information(now: Fit, rows: Sequence[Sequence[float]]) -> Matrix:
    size = len(now.constants)
    weighed = [
        [weight * x for x in row]
        for weight, row in zip(_weights(now.runs, now.errors), rows, strict=True)
    ]
    columns, scaled = list(zip(*rows, strict=True)), list(zip(*weighed, strict=True))
    matrix = [[0.0] * size for _ in range(size)]
    for i in range(size):
        for j in range(i + 1):
            matrix[i][j] = matrix[j][i] = sum(map(float.__mul__, scaled[i], columns[j]))
        matrix[i][i] += 1 / now.constants[i].sd ** 2
    return matrix


def _loss(now: Fit) -> float:
    bend = _BEND * NOISE
    points = sum(
        w.weight * 2 * (_BEND**2) * (sqrt(1 + (e / bend) ** 2) - 1)
        for w, e in zip(now.runs, now.errors, strict=True)
    )
    priors = ((x / c.sd) ** 2 for c, x in zip(now.constants, now.logs, strict=True))
    return points + sum(priors)
