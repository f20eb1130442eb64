"""Where a value lies on an axis, and what stands beside it there."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil, floor, inf, log, log10
from typing import Final

from ..units import HOUR, Seconds

Label = Callable[[float], str]
_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)
_CLOCK: Final = (
    0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200,
    14400, 21600, 43200, 86400,
)  # fmt: skip
"""Between ticks of a time axis, in seconds: what a clock is read by."""
_TICKS: Final = 5
_MARKS: Final = (
    (200.0, (1.0,)),
    (10.0, (1.0, 2.0, 5.0)),
    (2.5, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)),
    (0.0, (1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)),
)
"""Ticks of a decade, by how many times the highest value is the lowest."""


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from `low` to `high`, and its ticks as (value, text)."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    place: Callable[[float], float]
    """Maps a value to a number in which the axis is even."""

    def at(self, value: float) -> float:
        """Return where a value lies, 0 to 1; what is beyond is at the end."""
        low, high = self.place(self.low), self.place(self.high)
        return (self.place(min(max(value, self.low), self.high)) - low) / (high - low)


def _even(value: float) -> float:
    return value


def linear(highest: float, label: Label) -> Scale:
    """Make an axis from 0 to a round number that is not below `highest`."""
    step = _round_step(max(highest, 1e-9) / _TICKS)
    count = max(1, ceil(highest / step - 1e-9))
    ticks = tuple((step * i, label(step * i)) for i in range(count + 1))
    return Scale(0.0, step * count, ticks, _even)


def _round_step(least: float) -> float:
    decade = 10.0 ** floor(log10(least))
    return next(s * decade for s in _STEPS if s * decade >= least * (1 - 1e-9))


def decades(values: Iterable[float], label: Label) -> Scale:
    """Make a logarithmic axis around positive values, its ticks at round numbers."""
    some = [value for value in values if 0 < value < inf] or [1.0]
    low, high = min(some), max(some)
    marks = next(marks for ratio, marks in _MARKS if high / low >= ratio)
    grid = [
        mark * 10.0**e
        for e in range(floor(log10(low)) - 1, ceil(log10(high)) + 2)
        for mark in marks
    ]
    first = max(g for g in grid if g <= low)
    last = min(g for g in grid if g >= high and g > first)
    ticks = tuple((g, label(g)) for g in grid if first <= g <= last)
    return Scale(first, last, ticks, log)


def clock(end_s: Seconds) -> Scale:
    """Make a time axis from t0 to `end_s`."""
    end_s = max(end_s, _CLOCK[0])
    step = next((s for s in _CLOCK if end_s / s <= 8), _CLOCK[-1])
    unit, name = _clock_unit(end_s)
    count = floor(end_s / step + 1e-9)
    ticks = tuple((step * i, f"{step * i / unit:g} {name}") for i in range(count + 1))
    return Scale(0.0, end_s, ticks, _even)


def _clock_unit(end_s: Seconds) -> tuple[float, str]:
    if end_s <= 180:
        return 1.0, "s"
    return (60.0, "min") if end_s <= 3 * HOUR else (HOUR, "h")


def tail(low: float = 0.0, high: float = 0.999) -> Scale:
    """Make an axis of shares on which each nine takes the same room."""
    marks = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)
    ticks = tuple((m, f"{100 * m:g} %") for m in marks if low <= m <= high)
    return Scale(low, high, ticks, lambda share: -log10(1.0 - share))


def shares() -> Scale:
    """Make an axis from 0 to 100 %."""
    ticks = tuple((t / 4, f"{25 * t} %") for t in range(5))
    return Scale(0.0, 1.0, ticks, _even)


# --------------------------------------------------------------------- what is written


def short_duration(seconds: Seconds) -> str:
    """Write a duration for a tick: `20 ms`, `0.5 s` as `500 ms`, `2 min`."""
    if seconds == 0:
        return "0"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.3g} min"


def short_number(value: float) -> str:
    """Write a number for a tick: `1.5k`, `20k`, `1.1M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"
