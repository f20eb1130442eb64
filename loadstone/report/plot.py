"""Scatter plots as SVG: few kinds, no dependency, legible on light and dark pages."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from typing import Final

WIDTH: Final = 760
HEIGHT: Final = 480
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 150, 34, 52
_RADIUS: Final = 3.2
COLOURS: Final = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866",
    "#999999", "#44bb99",
)  # fmt: skip
"""Paul Tol's bright and light sets: told apart by the colour-blind, on both grounds."""
_STYLE: Final = """\
<style>
text { font: 12px sans-serif; fill: #333; }
.title { font-size: 14px; font-weight: bold; }
.axis { stroke: #888; fill: none; }
.grid { stroke: #8885; fill: none; }
.band { fill: #8883; }
.line { stroke: #888; stroke-dasharray: 5 4; fill: none; }
.hollow { fill: none; stroke-width: 1.3; }
@media (prefers-color-scheme: dark) { text { fill: #ddd; } }
</style>"""


@dataclass(frozen=True, slots=True)
class Dots:
    """Points of one colour and kind, with a name for the legend."""

    name: str
    points: Sequence[tuple[float, float]]
    hollow: bool = False
    colour: int = 0


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: where a value lies between 0 and 1, and its ticks."""

    title: str
    place: Callable[[float], float]
    ticks: Sequence[tuple[float, str]]


def log_axis(title: str, values: Iterable[float]) -> Axis:
    """Make an axis of whole decades around positive `values`."""
    logs = [log10(value) for value in values]
    low, high = floor(min(logs)), ceil(max(logs))
    high = max(high, low + 1)
    return Axis(
        title,
        lambda value: (log10(value) - low) / (high - low),
        [(10.0**e, f"{10.0**e:,.0f}") for e in range(low, high + 1)],
    )


def linear_axis(title: str, low: float, high: float, step: float, unit: str) -> Axis:
    """Make an axis from `low` to `high`; what lies beyond is drawn at its end."""
    count = round((high - low) / step)
    ticks = [low + step * i for i in range(count + 1)]
    return Axis(
        title,
        lambda value: (min(max(value, low), high) - low) / (high - low),
        [(tick, f"{tick:+.0f}{unit}" if tick else f"0{unit}") for tick in ticks],
    )


def names_axis(names: Sequence[str]) -> Axis:
    """Make an axis with a place for each name; name i is at value i."""
    return Axis(
        "",
        lambda value: (value + 0.5) / len(names),
        [(i, name) for i, name in enumerate(names)],
    )


def scatter(
    title: str,
    x: Axis,
    y: Axis,
    dots: Sequence[Dots],
    *,
    lines: Sequence[Sequence[tuple[float, float]]] = (),
    band: Sequence[tuple[float, float]] = (),
) -> str:
    """Draw points, dashed `lines` and a shaded `band`, all in the axes' values."""

    def at(point: tuple[float, float]) -> str:
        return f"{_x(x.place(point[0])):.1f},{_y(y.place(point[1])):.1f}"

    view = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {view} aria-label="{escape(title)}">',
        _STYLE,
        _text(_LEFT, 20, title, "start", "title"),
        *_frame(x, y),
    ]
    if band:
        parts.append(f'<polygon class="band" points="{" ".join(map(at, band))}"/>')
    parts += [
        f'<polyline class="line" points="{" ".join(map(at, line))}"/>' for line in lines
    ]
    for group in dots:
        parts += [_dot(at(point), group) for point in group.points]
    parts += _legend(dots)
    return "\n".join((*parts, "</svg>", ""))


def _x(share: float) -> float:
    return _LEFT + share * (WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)


def _frame(x: Axis, y: Axis) -> Iterable[str]:
    left, right, bottom, top = _x(0), _x(1), _y(0), _y(1)
    for value, label in x.ticks:
        at = _x(x.place(value))
        yield f'<path class="grid" d="M{at:.1f} {bottom:.1f}V{top:.1f}"/>'
        yield _text(at, bottom + 18, label, "middle")
    for value, label in y.ticks:
        at = _y(y.place(value))
        yield f'<path class="grid" d="M{left:.1f} {at:.1f}H{right:.1f}"/>'
        yield _text(left - 8, at + 4, label, "end")
    yield f'<path class="axis" d="M{left:.1f} {top:.1f}V{bottom:.1f}H{right:.1f}"/>'
    yield _text((left + right) / 2, HEIGHT - 12, x.title, "middle")
    middle = (top + bottom) / 2
    yield (
        f'<text x="16" y="{middle:.1f}" text-anchor="middle"'
        f' transform="rotate(-90 16 {middle:.1f})">{escape(y.title)}</text>'
    )


def _dot(at: str, group: Dots) -> str:
    cx, cy = at.split(",")
    colour = COLOURS[group.colour % len(COLOURS)]
    look = f'class="hollow" stroke="{colour}"' if group.hollow else f'fill="{colour}"'
    return f'<circle cx="{cx}" cy="{cy}" r="{_RADIUS}" {look}/>'


def _legend(dots: Sequence[Dots]) -> Iterable[str]:
    for row, group in enumerate(dots):
        y = _TOP + 8 + 20 * row
        yield _dot(f"{WIDTH - _RIGHT + 16:.1f},{y:.1f}", group)
        yield _text(WIDTH - _RIGHT + 26, y + 4, group.name, "start")


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    look = f' class="{kind}"' if kind else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{look}>'
        f"{escape(text)}</text>"
    )
