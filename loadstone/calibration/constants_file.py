"""A fit across the published points as the catalog's table of constants, and back."""

from collections.abc import Iterable, Mapping, Sequence
from math import log
from typing import Final

from ..catalog.laws import Constants
from ..catalog.points import PublishedPoint
from ..errors import CatalogError
from .constants import constants_for
from .fitting import Fit, Weighed
from .own import Z80

_HEAD: Final = """\
# Fitted constants: how well software uses a chip. `loadstone validate --write` makes
# this file from published_points.csv; physics/derive.py says what each of them does.
# `low` and `high` are 80 % intervals. A name with @ is a family's own factor on the
# constant before it, silicon is what one chip sustains beside its family, stack is a
# software generation. The intervals are half-widths over the prediction: what holds
# four of five figures of fitted points, and of points of which the fit knows no like.
"""
_DIGITS: Final = 5


def constants_text(fit: Fit, intervals: Mapping[str, float]) -> str:
    """Write the tables; the same fit gives the same text.

    `intervals` are the half-widths, over the prediction, of the mean 80 % interval, by
    what a law rests on.
    """
    points = [weighed.run.point for weighed in fit.runs]
    pairs = sorted(map(" ".join, pairs_of(fit)))
    return "\n".join(
        (
            _HEAD,
            "[fit]",
            f"points = {len(points)}",
            "# Accelerators and models of which there are such points.",
            f"pairs = [{', '.join(map(_quoted, pairs))}]",
            "",
            "[intervals]",
            *_provenance(points),
            *(
                f'{basis} = {{ value = {value:.2f}, unit = "1" }}'
                for basis, value in intervals.items()
            ),
            "",
            "[constants]",
            *_provenance(points),
            *_lines(fit),
            "",
        )
    )


def _provenance(points: Sequence[PublishedPoint]) -> Iterable[str]:
    yield f'source = "fit of all constants on {len(points)} published points"'
    yield f"date = {_quoted(max(point.source_date for point in points))}"
    yield 'confidence = "derived"'


def pairs_of(fit: Fit) -> set[tuple[str, str]]:
    """Return the accelerators and models that were fitted together."""
    return {(w.run.gpu.name, w.run.model.name) for w in fit.runs}


def fit_of(table: Constants, runs: Sequence[Weighed]) -> Fit:
    """Return the fit that a table holds, held against `runs`.

    Raises `CatalogError` where they call for other constants than were fitted.
    """
    constants = constants_for(weighed.run for weighed in runs)
    odd = {constant.name for constant in constants} ^ set(table.facts)
    if odd:
        raise CatalogError(
            f"constants.toml does not belong to these points: {min(odd)!r} is in one"
            " of them alone",
            hint="fit anew with --refit",
        )
    values = table.efficiencies.values
    logs = tuple(log(values[constant.name] / constant.value) for constant in constants)
    return Fit(constants, logs, tuple(runs))


def _lines(fit: Fit) -> Iterable[str]:
    for constant in fit.constants:
        value = fit.efficiencies.values[constant.name]
        low, high = fit.low_high(constant.name, Z80)
        yield (
            f"{_quoted(constant.name)} = {{ value = {_number(value)},"
            f" low = {_number(low)}, high = {_number(high)},"
            f" unit = {_quoted(constant.unit)}, note = {_quoted(constant.meaning)} }}"
        )


def _quoted(text: str) -> str:
    return f'"{text}"'


def _number(value: float) -> str:
    return f"{value:.{_DIGITS}g}"
