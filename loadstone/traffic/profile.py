"""How the rate goes over a run: flat, a ramp, steps, a day.

A profile is a piecewise linear factor over the run, from 0 (its start) to 1 (its end);
the rate at a moment is `--rate` times the factor. Its integral is piecewise quadratic
and is inverted exactly.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import cos, sqrt, tau
from typing import Final

from ..errors import UsageError
from ..units import Seconds

Knot = tuple[float, float]
"""Where in the run (0 to 1), and the factor there; two at one place are a jump."""

_DAY_PARTS: Final = 96
"""Straight pieces that stand for the cosine of a day: a quarter of an hour each; the
factor is within 0.06 % of the cosine's swing."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A rate's course, as knots from place 0 to place 1."""

    knots: tuple[Knot, ...]

    @classmethod
    def parse(cls, text: str) -> "Profile":
        """Read what `PROFILES` shows; raises `UsageError` saying what is odd."""
        name, _, given = text.partition(":")
        if name not in _READERS:
            raise UsageError(
                f"no rate profile {name!r}", hint=f"one of {', '.join(PROFILES)}"
            )
        try:
            knots = _READERS[name](given)
        except ValueError:
            raise UsageError(
                f"rate profile {text!r} cannot be read", hint=f"write {PROFILES[name]}"
            ) from None
        if not all(0.0 <= factor < float("inf") for _, factor in knots):
            raise UsageError(f"rate profile {text!r}: factors are 0 or more")
        if not any(factor for _, factor in knots):
            raise UsageError(f"rate profile {text!r} is 0 throughout")
        return cls(tuple(knots))

    @property
    def mean(self) -> float:
        """The factor's mean over the run."""
        return sum(_area(a, b) for a, b in pairwise(self.knots))

    def factor(self, place: float) -> float:
        """Return the factor at `place` (0 to 1); at a jump, the later one."""
        i = bisect_right(self.knots, place, key=lambda knot: knot[0]) - 1
        (x0, f0), (x1, f1) = self.knots[i], self.knots[min(i + 1, len(self.knots) - 1)]
        return f0 if x1 == x0 else f0 + (f1 - f0) * (place - x0) / (x1 - x0)

    def over(self, rate: float, duration: Seconds) -> Callable[[float], Seconds | None]:
        """Return the inverse of the integral of `rate` x factor over `duration`.

        It takes points that rise, and gives None for one that comes after the end.
        """
        if all(factor == self.knots[0][1] for _, factor in self.knots):
            flat = rate * self.knots[0][1]
            return lambda point: point / flat  # exact, and endless: as if no profile
        pieces = list(pairwise(self.knots))
        scale = rate * duration
        starts = [0.0, *accumulate(scale * _area(a, b) for a, b in pieces)]

        def due(point: float) -> Seconds | None:
            i = bisect_right(starts, point) - 1
            if i >= len(pieces):
                return None
            (x0, f0), (x1, f1) = pieces[i]
            # Solve f0 d + slope d^2 / 2 = rest, in the form that is stable near 0.
            rest = (point - starts[i]) / scale
            slope = (f1 - f0) / (x1 - x0)
            root = sqrt(max(0.0, f0 * f0 + 2.0 * slope * rest))
            ahead = 2.0 * rest / (f0 + root) if rest else 0.0
            return duration * min(x1, x0 + ahead)

        return due


FLAT: Final = Profile(((0.0, 1.0), (1.0, 1.0)))


def _area(a: Knot, b: Knot) -> float:
    return (b[0] - a[0]) * (a[1] + b[1]) / 2.0


def _span(text: str) -> tuple[float, float]:
    low, dots, high = text.partition("..")
    if not dots:
        raise ValueError(text)
    return float(low), float(high)


def _flat(text: str) -> Sequence[Knot]:
    if text:
        raise ValueError(text)
    return FLAT.knots


def _ramp(text: str) -> list[Knot]:
    low, high = _span(text)
    return [(0.0, low), (1.0, high)]


def _steps(text: str) -> list[Knot]:
    factors = [float(part) for part in text.split(",")]
    edges = [i / len(factors) for i in range(len(factors) + 1)]
    return [
        (edge, factor)
        for (a, b), factor in zip(pairwise(edges), factors, strict=True)
        for edge in (a, b)
    ]


def _diurnal(text: str) -> list[Knot]:
    low, high = _span(text)
    places = [i / _DAY_PARTS for i in range(_DAY_PARTS + 1)]
    return [(x, low + (high - low) * (1.0 - cos(tau * x)) / 2.0) for x in places]


_READERS: Final[dict[str, Callable[[str], Sequence[Knot]]]] = {
    "flat": _flat, "ramp": _ramp, "steps": _steps, "diurnal": _diurnal,
}  # fmt: skip

PROFILES: Final = {
    "flat": "flat",
    "ramp": "ramp:0.1..1 (from a tenth of the rate up to it)",
    "steps": "steps:0.25,0.5,0.75,1 (equal parts of the run)",
    "diurnal": "diurnal:0.2..1 (one day squeezed into the run, from night to night)",
}
"""How each is written."""
