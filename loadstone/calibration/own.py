"""A step law fitted to somebody's own measurements, starting from the catalog's.

The catalog's law is the prior. What is fitted are logarithms of factors on it: one
named `stack` on every cost of a step at once, for the software's generation, and one on
each part of the step, by least squares on the relative errors of TPOT. A part has a
factor of its own only if the points by themselves would know it better than the prior
does; else that factor is 1, and its constants are named. Points at one concurrency know
nothing but `stack`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log, sqrt
from typing import Final

from ..errors import UsageError
from ..physics.steplaw import StepLaw
from ..units import Seconds, Tokens
from .linear import inverse, normal
from .steady import Steady, mean_step

STACK: Final = "stack"
PARTS: Final[dict[str, tuple[str, ...]]] = {
    "fixed": ("weights_ms", "expert_weights_ms", "step_ms"),
    "tokens": ("gemm_us_per_token", "token_us", "sequence_us"),
    "kv": ("kv_ns_per_token",),
    "pairs": ("pair_ns",),
}
"""The constants that are times, by what they grow with. Those of a part keep their
proportion: TPOT hardly tells reading weights from launching kernels."""
SHAPE: Final = ("knee", "expert_miss", "sigma")
"""Constants that are no times: never fitted here."""
_PART_OF: Final = {cost: part for part, costs in PARTS.items() for cost in costs}
_REFERENCE: Final = "fixed"
"""The others are told apart from this one: that all are, only `stack` can say."""
_PRIOR_SD: Final = 0.3
"""Of the logarithm of a factor, `stack` or a part's own."""
_NOISE: Final = 0.02
_NOISE_POINTS: Final = 4
"""Before any point is seen, relative errors are taken to be 2 %, as if from 4 points:
the residuals of very few points say little about their noise."""
Z80: Final = 1.2816
"""80 % of a normal distribution lie within this many standard deviations."""


@dataclass(frozen=True, slots=True)
class Residual:
    """A point and what the fitted law says of it."""

    point: Steady
    predicted_s: Seconds

    @property
    def error(self) -> float:
        """Predicted over measured TPOT, less 1."""
        return self.predicted_s / self.point.tpot_s - 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A law, how well the points know it, and what they do not."""

    law: StepLaw
    prior: StepLaw
    factors: dict[str, float]
    """The factors that were fitted, on the prior."""
    intervals: dict[str, tuple[float, float]]
    """80 % interval of each cost that is not 0."""
    unidentified: tuple[str, ...]
    """Constants that keep the prior's proportion, or its value."""
    residuals: tuple[Residual, ...]
    noise: float
    """Relative standard deviation of a point about the law."""

    @property
    def mean_error(self) -> float:
        """Mean absolute relative error over the points."""
        return sum(abs(r.error) for r in self.residuals) / len(self.residuals)


def fit_law(points: Sequence[Steady], prior: StepLaw, budget: Tokens) -> Fitted:
    """Fit `prior` to `points` under a token `budget` of a step.

    Raises `UsageError` without a point.
    """
    if not points:
        raise UsageError("there is no point to fit")
    fit = _Fit(points, prior, budget)
    costs = [cost for cost in _PART_OF if getattr(prior, cost) > 0]
    parts = [p for p, inside in PARTS.items() if not set(costs).isdisjoint(inside)]
    apart = fit.told_apart([part for part in parts if part != _REFERENCE])
    known = [_REFERENCE, *apart] if apart else []
    logs = fit.solve([STACK, *known])
    law = fit.law(logs)
    noise = fit.noise(law, len(logs))
    # What stays at its prior is still unknown: intervals are those of a fit of all.
    every = [STACK, *parts]
    covariance = inverse(normal(fit.slopes(law, every), noise, _PRIOR_SD))
    return Fitted(
        law=law,
        prior=prior,
        factors={name: exp(x) for name, x in logs.items()},
        intervals={
            cost: _interval(getattr(law, cost), every.index(_PART_OF[cost]), covariance)
            for cost in costs
        },
        unidentified=(
            *(cost for cost in costs if _PART_OF[cost] not in known),
            *(name for name in SHAPE if getattr(prior, name) > 0),
        ),
        residuals=tuple(Residual(p, mean_step(law, p, budget)) for p in points),
        noise=noise,
    )


def _interval(
    value: float, index: int, covariance: Sequence[Sequence[float]]
) -> tuple[float, float]:
    """Return the 80 % interval of a cost: `stack` (the first factor) times its part."""
    on = (0, index)
    reach = Z80 * sqrt(sum(covariance[i][j] for i in on for j in on))
    return value * exp(-reach), value * exp(reach)


_ROUNDS: Final = 50
_STILL: Final = 1e-9
_NUDGE: Final = 1e-5


@dataclass(frozen=True, slots=True)
class _Fit:
    """Points and what is known before them."""

    points: Sequence[Steady]
    prior: StepLaw
    budget: Tokens

    def law(self, logs: Mapping[str, float]) -> StepLaw:
        """Return the prior with its costs multiplied by factors, as logarithms."""
        return _scaled(self.prior, logs)

    def solve(self, free: Sequence[str]) -> dict[str, float]:
        """Return the best logarithms of `free`: Gauss-Newton, the prior a pull to 0."""
        logs = dict.fromkeys(free, 0.0)
        for _ in range(_ROUNDS):
            law = self.law(logs)
            slopes = self.slopes(law, free)
            errors = self.errors(law)
            pull = [
                sum(row[j] * e for row, e in zip(slopes, errors, strict=True))
                / _NOISE**2
                - logs[name] / _PRIOR_SD**2
                for j, name in enumerate(free)
            ]
            known = inverse(normal(slopes, _NOISE, _PRIOR_SD))
            step = [sum(a * b for a, b in zip(row, pull, strict=True)) for row in known]
            for name, change in zip(free, step, strict=True):
                logs[name] += max(-1.0, min(1.0, change))
            if max(map(abs, step)) < _STILL:
                break
        return logs

    def told_apart(self, parts: Sequence[str]) -> list[str]:
        """Return those of `parts` that the points alone tell apart from the others.

        The one known worst is dropped until all are known better than by the prior.
        """
        left = list(parts)
        while left:
            free = [STACK, *left]
            logs = self.solve(free)
            law = self.law(logs)
            slopes = self.slopes(law, free)
            alone = inverse(normal(slopes, self.noise(law, len(free)), _NO_PRIOR))
            worst = max(range(1, len(free)), key=lambda j: alone[j][j])
            if alone[worst][worst] <= _PRIOR_SD**2:
                break
            left.remove(free[worst])
        return left

    def errors(self, law: StepLaw) -> list[float]:
        """Return the logarithm of measured over predicted TPOT of each point."""
        return [log(p.tpot_s / mean_step(law, p, self.budget)) for p in self.points]

    def slopes(self, law: StepLaw, factors: Sequence[str]) -> list[list[float]]:
        """Return d ln TPOT / d ln factor, a row for each point."""
        nudged = [_scaled(law, {name: _NUDGE}) for name in factors]
        rows = []
        for point in self.points:
            base = log(mean_step(law, point, self.budget))
            rows.append(
                [
                    (log(mean_step(n, point, self.budget)) - base) / _NUDGE
                    for n in nudged
                ]
            )
        return rows

    def noise(self, law: StepLaw, factors: int) -> float:
        """Return the relative standard deviation of a point about the law."""
        squares = sum(error**2 for error in self.errors(law))
        seen = max(len(self.points) - factors, 0)
        return sqrt((_NOISE_POINTS * _NOISE**2 + squares) / (_NOISE_POINTS + seen))


_NO_PRIOR: Final = 1e3


def _scaled(law: StepLaw, logs: Mapping[str, float]) -> StepLaw:
    stack = logs.get(STACK, 0.0)
    return replace(
        law,
        **{
            cost: getattr(law, cost) * exp(stack + logs.get(part, 0.0))
            for cost, part in _PART_OF.items()
        },
    )
