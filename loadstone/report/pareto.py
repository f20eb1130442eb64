"""A sweep as a picture: what GPUs give against what users see, as SVG and as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any, Final

from ..traffic.pareto import Point, frontier, knee
from .plot import Axis, Dots, scatter
from .table import number

USER_AXIS: Final = "output tokens/s for each user (1 / TPOT p50)"
GPU_AXIS: Final = "output tokens/s for each GPU"
ALL_AXIS: Final = "output tokens/s of all GPUs (how many is unknown)"
COLUMNS: Final = 60
ROWS: Final = 14
_MARKS: Final = {"beaten": ".", "doubtful": "o", "frontier": "*", "knee": "K"}
"""From least to most important: a later one is drawn over an earlier one."""


@dataclass(frozen=True, slots=True)
class Picture:
    """The steps of a sweep that have both values, by what they are.

    `doubtful` ones are compared with none: the client spoilt them, or the load was more
    than was served, so that what was seen would not last.
    """

    title: str
    y_title: str
    kinds: Mapping[str, Sequence[Point]]
    frontier_loads: tuple[str, ...]
    knee_at: str
    """The load at the knee; empty where every step is doubtful."""
    at_an_end: bool
    """Whether no step, or none that is sound, is beyond the knee on one side."""

    @classmethod
    def of(cls, title: str, steps: Sequence[Mapping[str, Any]]) -> "Picture | None":
        """Sort steps of `sweep.json` out; None where none has both values."""
        per_gpu = all(step["gpus"] is not None for step in steps)
        name = "tok_s_per_gpu" if per_gpu else "output_tok_s"

        def point(step: Mapping[str, Any]) -> Point:
            return step["tok_s_per_user"], step[name]

        whole = [s for s in steps if s["tok_s_per_user"] and s[name] is not None]
        if not whole:
            return None
        sound = [s for s in whole if s["trusted"] and not s["grows"]]
        points = [point(step) for step in sound]
        best, on = knee(points), frontier(points)
        return cls(
            title=title,
            y_title=GPU_AXIS if per_gpu else ALL_AXIS,
            kinds={
                "beaten": [p for i, p in enumerate(points) if i not in on],
                "doubtful": [point(step) for step in whole if step not in sound],
                "frontier": [points[i] for i in on],
                "knee": [] if best is None else [points[best]],
            },
            frontier_loads=tuple(sound[i]["load"] for i in on),
            knee_at="" if best is None else sound[best]["load"],
            at_an_end=best in (on[0], on[-1]) if on else True,
        )

    @property
    def points(self) -> list[Point]:
        """All of them."""
        return [point for some in self.kinds.values() for point in some]

    def _axes(self) -> tuple[Axis, Axis]:
        return (
            from_zero_axis(USER_AXIS, max(x for x, _ in self.points)),
            from_zero_axis(self.y_title, max(y for _, y in self.points)),
        )

    def svg(self) -> str:
        """Draw it."""
        names = {
            "beaten": "beaten on both axes",
            "doubtful": "left out",
            "frontier": "frontier",
            "knee": f"knee: {self.knee_at}",
        }
        dots = [
            Dots(names[kind], some, hollow=kind == "doubtful", colour=colour)
            for colour, (kind, some) in enumerate(self.kinds.items())
            if some
        ]
        x, y = self._axes()
        return scatter(self.title, x, y, dots, lines=[self.kinds["frontier"]])

    def text(self) -> list[str]:
        """Draw it in characters, `COLUMNS` by `ROWS`."""
        x, y = self._axes()
        grid = [[" "] * COLUMNS for _ in range(ROWS)]
        for kind, mark in _MARKS.items():
            for point in self.kinds[kind]:
                column = round(x.place(point[0]) * (COLUMNS - 1))
                row = round((1.0 - y.place(point[1])) * (ROWS - 1))
                grid[row][column] = mark
        top, right = y.ticks[-1][1], x.ticks[-1][1]
        margin = len(top)
        labels = [top, *[""] * (ROWS - 2), "0"]
        lines = [
            f"{label:>{margin}} |{''.join(row)}"
            for label, row in zip(labels, grid, strict=True)
        ]
        return [
            self.y_title,
            *(line.rstrip() for line in lines),
            f"{'':>{margin}} +{'-' * COLUMNS}",
            f"{'':>{margin}}  0{right:>{COLUMNS - 1}}",
            f"{USER_AXIS:>{margin + 2 + COLUMNS}}",
            f"* frontier  K knee ({self.knee_at or 'none'})  . beaten  o left out",
        ]


def from_zero_axis(title: str, most: float) -> Axis:
    """Make an axis from 0 to the next round number from `most` on, with few ticks."""
    step = _round_step(most / 4 if most > 0 else 0.25)
    count = max(1, ceil(most / step - 1e-9))
    digits = max(0, -floor(log10(step) + 1e-9))
    return Axis(
        title,
        lambda value: value / (count * step),
        [(step * i, number(step * i, digits)) for i in range(count + 1)],
    )


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten that is not below."""
    decade = 10.0 ** floor(log10(least))
    return next(
        decade * by for by in (1.0, 2.0, 5.0, 10.0) if decade * by >= least * (1 - 1e-9)
    )
