"""What the calibration is held to, and whether it is met."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from .constants import FEWEST_POINTS
from .validation import Validation, mean_error

PRIMARY_MEAN: Final = 0.05
"""Mean error over the primary set, at most."""
PRIMARY_LARGEST: Final = 0.15
"""Error of any one of them, at most."""
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
    """Hold a validation against every target."""
    error = mean_error(v.primary)
    yield Target(
        "mean error over the primary set",
        f"{100 * error:.1f} %",
        f"at most {100 * PRIMARY_MEAN:.0f} %",
        error <= PRIMARY_MEAN,
    )
    largest = max(abs(row.error) for row in v.primary)
    yield Target(
        "largest error in the primary set",
        f"{100 * largest:.1f} %",
        f"at most {100 * PRIMARY_LARGEST:.0f} %",
        largest <= PRIMARY_LARGEST,
    )
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
