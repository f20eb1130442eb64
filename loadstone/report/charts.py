"""Charts as inline SVG, drawn by arithmetic alone: no script, no library, no address.

A chart is a string of well-formed SVG; everything that is text in it is escaped here.
Colours are classes (`s1` to `s5` for series, `h1` to `h7` for heat), so that the page
decides how they look on a light screen, a dark one and on paper. Whoever hovers reads
the figures (`<title>`); whoever hears the page is told the chart's `label`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from .escaping import escaped
from .scales import Scale

WIDTH: Final = 520
HEIGHT: Final = 220
HEATS: Final = 7
"""How many colours a heatmap has."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 10, 26
_RADIUS: Final = 3.5

Look = Literal["line", "area", "dashed"]
Point = tuple[float, float | None]
"""In the axes' values; no second value is a gap."""


@dataclass(frozen=True, slots=True)
class Series:
    """One quantity: its name for the legend, its points, its colour (1 to 5)."""

    name: str
    points: Sequence[Point]
    colour: int = 1
    look: Look = "line"


@dataclass(frozen=True, slots=True)
class Tip:
    """What is said of the stretch from `begin` to `end` of the x axis."""

    begin: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A dashed line at a value of an axis, with a word beside it."""

    value: float
    text: str


@dataclass(frozen=True, slots=True)
class Shade:
    """A stretch of the x axis that is set apart."""

    begin: float
    end: float
    text: str


def plot(
    label: str,
    x: Scale,
    y: Scale,
    series: Sequence[Series],
    *,
    tips: Sequence[Tip] = (),
    limits: Sequence[Mark] = (),
    marks: Sequence[Mark] = (),
    shades: Sequence[Shade] = (),
) -> str:
    """Draw series over x; `limits` are lines across, `marks` lines upwards."""
    area = _Area(x, y)
    parts = [
        *(area.shade(shade) for shade in shades),
        *area.frame(),
        *(part for one in series for part in area.curve(one)),
        *(area.across(mark) for mark in limits),
        *(area.upwards(mark) for mark in marks),
        *(area.tip(tip) for tip in tips),
    ]
    return _svg(label, parts, HEIGHT)


@dataclass(frozen=True, slots=True)
class Dot:
    """A measured point with its own words."""

    x: float
    y: float
    text: str
    colour: int = 1
    hollow: bool = False
    name: str = ""
    """Written beside it, if anything."""


def scatter(
    label: str, x: Scale, y: Scale, dots: Sequence[Dot], *, line: Sequence[Point] = ()
) -> str:
    """Draw points, and a line through some of them, such as a front."""
    area = _Area(x, y)
    parts = [*area.frame(), *area.curve(Series("", line, 1))]
    parts += [part for dot in dots for part in area.dot(dot)]
    return _svg(label, parts, HEIGHT)


def heatmap(
    label: str,
    x: Scale,
    y: Scale,
    cells: Mapping[tuple[float, float, float, float], float],
    *,
    tips: Sequence[Tip] = (),
    limits: Sequence[Mark] = (),
) -> str:
    """Draw cells (x0, x1, y0, y1) by their weight, from 0 to 1, in `HEATS` colours.

    All cells of a colour are one path: a page of them stays small.
    """
    area = _Area(x, y)
    paths: dict[int, list[str]] = {}
    for cell, weight in cells.items():
        heat = min(HEATS, 1 + int(weight * HEATS))
        paths.setdefault(heat, []).append(area.cell(*cell))
    parts = [
        f'<path class="h{heat}" d="{"".join(path)}"/>'
        for heat, path in sorted(paths.items())
    ]
    parts += [*area.frame(), *(area.across(mark) for mark in limits)]
    parts += [area.tip(tip) for tip in tips]
    return _svg(label, parts, HEIGHT)


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of a waterfall: from where to where, how far its tail goes."""

    name: str
    begin: float
    end: float
    tail: float
    text: str


def waterfall(label: str, x: Scale, bars: Sequence[Bar]) -> str:
    """Draw bars one below the other, each from where the one before ended."""
    room, left = 24, 110
    height = room * len(bars) + 34

    def at(value: float) -> float:
        return left + x.at(value) * (WIDTH - left - 80)

    parts = []
    for value, text in x.ticks:
        parts.append(
            f'<path class="grid" d="M{at(value):.1f} 4V{height - _BOTTOM:.1f}"/>'
        )
        parts.append(_text(at(value), height - 8, text, "middle"))
    for i, bar in enumerate(bars):
        top, begin, end = 6 + room * i, at(bar.begin), at(bar.end)
        middle = top + 8
        parts += [
            _text(left - 8, middle + 4, bar.name, "end"),
            f'<path class="tail" d="M{begin:.1f} {middle}H{at(bar.tail):.1f}"/>',
            (
                f'<g class="bar s{1 + i % 5}"><title>{escaped(bar.text)}</title>'
                f'<rect x="{begin:.1f}" y="{top}" height="16"'
                f' width="{max(end - begin, 1.0):.1f}"/></g>'
            ),
            _text(at(bar.tail) + 6, middle + 4, bar.text.rsplit(": ", 1)[-1], "start"),
        ]
    return _svg(label, parts, height)


class _Area:
    """The rectangle between the axes."""

    def __init__(self, x: Scale, y: Scale) -> None:
        self._x, self._y = x, y

    def x(self, value: float) -> float:
        return _LEFT + self._x.at(value) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - self._y.at(value) * (HEIGHT - _TOP - _BOTTOM)

    def frame(self) -> Iterator[str]:
        bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
        for value, label in self._y.ticks:
            at = self.y(value)
            yield f'<path class="grid" d="M{_LEFT} {at:.1f}H{right}"/>'
            yield _text(_LEFT - 7, at + 4, label, "end")
        for value, label in self._x.ticks:
            at = self.x(value)
            yield f'<path class="axis" d="M{at:.1f} {bottom}v4"/>'
            yield _text(at, bottom + 17, label, "middle")
        yield f'<path class="axis" d="M{_LEFT} {bottom}H{right}"/>'

    def curve(self, series: Series) -> Iterator[str]:
        for run in _unbroken(series.points):
            spots = [f"{self.x(px):.1f} {self.y(py):.1f}" for px, py in run]
            if len(spots) == 1:
                cx, cy = spots[0].split(" ")
                look = f"dot s{series.colour}"
                yield f'<circle class="{look}" cx="{cx}" cy="{cy}" r="2"/>'
                continue
            if series.look == "area":
                foot = HEIGHT - _BOTTOM
                first, last = spots[0].split(" ")[0], spots[-1].split(" ")[0]
                yield (
                    f'<path class="area s{series.colour}"'
                    f' d="M{first} {foot}L{"L".join(spots)}L{last} {foot}z"/>'
                )
            dashed = " dashed" if series.look == "dashed" else ""
            yield (
                f'<path class="line s{series.colour}{dashed}" d="M{"L".join(spots)}"/>'
            )

    def dot(self, dot: Dot) -> Iterator[str]:
        look = "hollow" if dot.hollow else "dot"
        cx, cy = self.x(dot.x), self.y(dot.y)
        yield (
            f'<circle class="{look} s{dot.colour}" cx="{cx:.1f}" cy="{cy:.1f}"'
            f' r="{_RADIUS}"><title>{escaped(dot.text)}</title></circle>'
        )
        if dot.name:
            near_end = cx > WIDTH - 90
            side, anchor = (-7, "end") if near_end else (7, "start")
            yield _text(cx + side, cy - 6, dot.name, anchor)

    def cell(self, x0: float, x1: float, y0: float, y1: float) -> str:
        left, right, top, foot = self.x(x0), self.x(x1), self.y(y1), self.y(y0)
        wide, high = right - left, foot - top
        return f"M{left:.1f} {top:.1f}h{wide:.1f}v{high:.1f}h-{wide:.1f}z"

    def across(self, mark: Mark) -> str:
        at, right = self.y(mark.value), WIDTH - _RIGHT
        beside = at - 4 if at > _TOP + 12 else at + 12
        return f'<path class="limit" d="M{_LEFT} {at:.1f}H{right}"/>' + _text(
            right - 2, beside, mark.text, "end", "limit"
        )

    def upwards(self, mark: Mark) -> str:
        at = self.x(mark.value)
        far = at > WIDTH * 0.7
        return (
            f'<path class="at" d="M{at:.1f} {_TOP}V{HEIGHT - _BOTTOM}"/>'
            + _text(at + (-4 if far else 4), HEIGHT - _BOTTOM - 6, mark.text,
                    "end" if far else "start")
        )  # fmt: skip

    def shade(self, shade: Shade) -> str:
        left, right = self.x(shade.begin), self.x(shade.end)
        return (
            self._column("shade", left, right)
            + "</rect>"
            + _text((left + right) / 2, _TOP + 9, shade.text, "middle", "shaded")
        )

    def tip(self, tip: Tip) -> str:
        left, right = self.x(tip.begin), self.x(tip.end)
        column = self._column("tip", left, max(right, left + 1))
        return f"{column}<title>{escaped(tip.text)}</title></rect>"

    @staticmethod
    def _column(kind: str, left: float, right: float) -> str:
        width, height = max(0.0, right - left), HEIGHT - _TOP - _BOTTOM
        return (
            f'<rect class="{kind}" x="{left:.1f}" y="{_TOP}" width="{width:.1f}"'
            f' height="{height}">'
        )


def _unbroken(points: Iterable[Point]) -> Iterator[list[tuple[float, float]]]:
    """Yield the stretches of points that all have a value."""
    run: list[tuple[float, float]] = []
    for x, y in points:
        if y is not None:
            run.append((x, y))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _svg(label: str, parts: Iterable[str], height: float) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img"'
        f' aria-label="{escaped(label)}">{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    look = f' class="{kind}"' if kind else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{look}>'
        f"{escaped(text)}</text>"
    )
