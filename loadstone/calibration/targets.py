"""What the calibration is held to, and whether it is met."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from .constants import FEWEST_POINTS
from .validation import Row, Validation, mean_error

PRIMARY_MEAN: Final = 0.05
"""Mean error over the primary set, at most."""
PRIMARY_LARGEST: Final = 0.15
"""Error of any one of them, at most."""
PRIMARY_ALONE: Final = 0.09
"""The same with each point left out by itself, at most."""
WIDE_MEAN: Final = 0.12
"""Mean error over all points that are modelled, at most."""
LEFT_OUT_MEAN: Final = 0.20
"""Mean error over the points of an accelerator or a model, fitted without it."""
COVERAGE: Final = (0.7, 0.9)
"""Share of fitted points inside their 80 % intervals."""


@dataclass(frozen=True, slots=True)
class Target:
    """A figure with its limit, both as text, and whether it keeps to it."""

    name: str
    text: str
    limit: str
    met: bool


def judged_targets(v: Validation) -> Iterator[Target]:
    """Hold a validation against every target that takes no other fit."""
    yield _at_most(
        PRIMARY_MEAN, "mean error over the primary set", mean_error(v.primary)
    )
    yield _at_most(
        PRIMARY_LARGEST,
        "largest error in the primary set",
        max(abs(row.error) for row in v.primary),
    )
    yield _at_most(
        PRIMARY_ALONE,
        "each point of it left out by itself",
        v.alone_error(v.primary),
    )
    yield _at_most(WIDE_MEAN, "mean error over the wide set", mean_error(v.rows))
    each = len(v.runs) / len(v.fit.constants)
    yield Target(
        "points for each constant",
        f"{each:.1f}",
        f"at least {FEWEST_POINTS}",
        each >= FEWEST_POINTS,
    )
    covered = fmean(row.covered for row in v.rows)
    low, high = COVERAGE
    yield Target(
        "points inside their 80 % interval",
        f"{100 * covered:.0f} %",
        f"{100 * low:.0f} to {100 * high:.0f} %",
        low <= covered <= high,
    )


def left_out_target(name: str, rows: Iterable[Row]) -> Target:
    """Hold the points of an accelerator or a model to what a fit without them owes."""
    return _at_most(
        LEFT_OUT_MEAN, f"mean error over {name}, left out", mean_error(rows)
    )


def _at_most(limit: float, name: str, error: float) -> Target:
    return Target(
        name, f"{100 * error:.1f} %", f"at most {100 * limit:.0f} %", error <= limit
    )
