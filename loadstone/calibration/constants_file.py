"""A fit across the published points as the catalog's table of constants."""

from collections.abc import Iterable
from typing import Final

from .fitting import Fit
from .own import Z80

_HEAD: Final = """\
# Fitted constants: how well software uses a chip. `loadstone validate --write` makes this file from published_points.csv;
# what each constant does is in physics/derive.py. `low` and `high` are 80 % intervals. A name with @ is a family's own
# factor on the constant before it; silicon is what one chip sustains beside its family; stack is a software generation.
"""
_DIGITS: Final = 5


def constants_text(fit: Fit) -> str:
    """Write the table; the same fit gives the same text."""
    points = [weighed.run.point for weighed in fit.runs]
    pairs = sorted({f"{w.run.gpu.name} {w.run.model.name}" for w in fit.runs})
    return "\n".join(
        (
            _HEAD,
            "[fit]",
            f"points = {len(points)}",
            "# Accelerators and models of which there are such points.",
            f"pairs = [{', '.join(map(_quoted, pairs))}]",
            "",
            "[constants]",
            f'source = "fit of all constants together on {len(points)} published points"',
            f"date = {_quoted(max(point.source_date for point in points))}",
            'confidence = "derived"',
            *_lines(fit),
            "",
        )
    )


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
