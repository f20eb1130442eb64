"""The steady window of a run: where it neither ramps up, nor drains, nor drifts.

It is looked for in the run's output rate and its number of requests in flight, both cut
into bins. MSER (White 1997, An effective truncation heuristic for bias reduction in
simulation output) leaves out the beginning whose loss makes the standard error of the
mean of the rest least; here both ends are cut, and the squared errors of both series,
each relative to its mean, are added. A bin of a ramp adds more variance than it adds
sample, so it goes; a bin of noise does not. What is left may still drift, and is then
not taken for steady.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, combinations, pairwise
from math import inf
from statistics import fmean, linear_regression
from typing import Final

from ..errors import UsageError
from ..units import Seconds, parse_duration
from .steady import Count, Spans

BINS: Final = 100
LEAST: Final = 50
"""Bins that a window has at least: what holds for less of the run is an episode."""
MIN_ANSWERS: Final = 100
"""Answers below which a bin holds less than one, and noise looks like anything."""
_AT_ONCE: Final = 0.1
_OUTPUT: Final = "the output rate"
_FLIGHT: Final = "the number in flight"
MAX_DRIFT: Final = 0.1
"""Change over the window, as a share of the mean, that is let pass as steady."""
NEAR: Final = 1.5
"""Of all windows whose squared error is within this factor of the least, the longest is
taken: noise that is alike from bin to bin makes short windows look better than they
are."""
FINE: Final = 0.001
"""A relative standard error that is good enough: nothing is cut to better it."""
_GROUPS: Final = 10
"""Means that a trend is drawn through; neighbouring bins share answers."""
_TREND: Final = 29
"""Of the 45 pairs of ten means so many more that rise than fall, or the reverse, are a
trend of whatever shape, with 99 % (Mann 1945, Nonparametric tests against trend)."""
_EXAMPLE: Final = "write it as FROM:TO since the start, such as 30s:2m; or 30s:"


@dataclass(frozen=True, slots=True)
class Window:
    """From `start_s`, inclusive, to `end_s`, exclusive; seconds since t0."""

    start_s: Seconds = -inf
    end_s: Seconds = inf

    def __contains__(self, instant: Seconds) -> bool:
        return self.start_s <= instant < self.end_s

    @classmethod
    def parse(cls, text: str) -> "Window":
        """Read `30s:2m`, either side of which may be empty; raises `UsageError`."""
        start, colon, end = text.partition(":")
        if not colon or not (start.strip() or end.strip()):
            raise UsageError(f"{text!r} is not a window", hint=_EXAMPLE)
        window = cls(
            parse_duration(start) if start.strip() else -inf,
            parse_duration(end) if end.strip() else inf,
        )
        if window.start_s >= window.end_s:
            raise UsageError(f"{text!r} ends before it begins", hint=_EXAMPLE)
        return window

    def within(self, other: "Window") -> "Window | None":
        """Return what both have in common, if anything."""
        start, end = max(self.start_s, other.start_s), min(self.end_s, other.end_s)
        return Window(start, end) if start < end else None


EVER: Final = Window()


@dataclass(frozen=True, slots=True)
class Steady:
    """A run's steady window and how it is known, or why there is none."""

    how: str | None = None
    """`given`, `detected`, or `middle` (of the tokens, where all was due at once)."""
    window: Window | None = None
    reason: str | None = None

    @classmethod
    def given(cls, window: Window, run: Window) -> "Steady":
        """Take a window that was given, cut to the run."""
        inside = window.within(run)
        if inside is None:
            return cls(reason="the window given lies outside the run")
        return cls("given", inside)


Flights = tuple[Sequence[Seconds], Sequence[Seconds]]
"""When each request was sent, and when it ended."""


def look(
    spans: Spans, flights: Flights, first: Seconds, last: Seconds, end: Seconds
) -> Steady:
    """Look for the steady window while requests arrived, from `first` to `last` due.

    After that a run drains. Where all were due at once (in the first tenth of a run
    that ends at `end`) the number in flight can only fall; the window is then while the
    middle 80 % of the tokens were given, if their rate does not drift.
    """
    if len(spans) < MIN_ANSWERS:
        return Steady(reason=f"{len(spans)} answers; it takes {MIN_ANSWERS} to tell")
    if not first < end:
        return Steady(reason="nothing was due outside the warm-up")
    if last - first < _AT_ONCE * (end - first):
        return _look_at_middle(spans)
    rises = ((t, 1.0) for t in flights[0])
    falls = ((t, -1.0) for t in flights[1])
    found = find(
        {
            _OUTPUT: Count.of(spans.kinks(), first, last, BINS).bins,
            _FLIGHT: Count.of(chain(rises, falls), first, last, BINS).bins,
        }
    )
    if found.reason is not None:
        return Steady(reason=found.reason)
    width = (last - first) / BINS
    return Steady(
        "detected", Window(first + found.start * width, first + found.end * width)
    )


def _look_at_middle(spans: Spans) -> Steady:
    middle = spans.middle()
    if middle is None:
        return Steady(reason="no tokens were given")
    drifts = drift_of(_OUTPUT, Count.of(spans.kinks(), *middle, BINS).bins)
    return Steady(reason=drifts) if drifts else Steady("middle", Window(*middle))


def in_flight(flights: Flights, window: Window) -> float:
    """Return the mean number of requests in flight in a window."""
    start, end = window.start_s, window.end_s
    inside = sum(
        min(ended, end) - max(sent, start)
        for sent, ended in zip(*flights, strict=True)
        if sent < end and ended > start
    )
    return inside / (end - start)


@dataclass(frozen=True, slots=True)
class Found:
    """Which bins are steady (`start` to `end`, exclusive), or why none are."""

    start: int = 0
    end: int = 0
    reason: str | None = None


def find(series: Mapping[str, Sequence[float]]) -> Found:
    """Find the steady bins of a run; each series has `BINS`, and a name to print."""
    alive = {name: values for name, values in series.items() if fmean(values) > 0}
    if not alive:
        return Found(reason="nothing was answered")
    start, end = _least_error(list(alive.values()))
    if end - start <= LEAST:
        return Found(reason=f"nothing stays as it is for {LEAST / BINS:.0%} of the run")
    for name, values in alive.items():
        drifts = drift_of(name, values[start:end])
        if drifts is not None:
            return Found(reason=drifts)
    return Found(start, end)


def drift_of(name: str, values: Sequence[float]) -> str | None:
    """Say how a series rises or falls, if it does by more than is let pass."""
    drift = _drift(values)
    if abs(drift) <= MAX_DRIFT:
        return None
    rises = "rises" if drift > 0 else "falls"
    return f"{name} {rises} by {abs(drift):.0%} in its best part"


def _least_error(series: Sequence[Sequence[float]]) -> tuple[int, int]:
    """Return the bins over which the sum of squared relative errors is least."""
    tables = []
    for values in series:
        mean = fmean(values)
        # About the mean, so that the squares keep their digits.
        scaled = [value / mean - 1 for value in values]
        tables.append((
            [0.0, *accumulate(scaled)],
            [0.0, *accumulate(x * x for x in scaled)],
        ))  # fmt: skip
    errors = {}
    for start in range(BINS - LEAST + 1):
        for end in range(start + LEAST, BINS + 1):
            n = end - start
            error = 0.0
            for sums, squares in tables:
                total = sums[end] - sums[start]
                error += squares[end] - squares[start] - total * total / n
            errors[start, end] = error / (n * n)
    enough = max(min(errors.values()) * NEAR, FINE**2)
    fit = (bins for bins, error in errors.items() if error <= enough)
    return max(fit, key=lambda bins: (bins[1] - bins[0], -errors[bins]))


def _drift(values: Sequence[float]) -> float:
    """Return the change over the values as a share of their mean; 0 if by chance."""
    n = len(values)
    edges = [n * i // _GROUPS for i in range(_GROUPS + 1)]
    means = [fmean(values[a:b]) for a, b in pairwise(edges)]
    rises = sum((b > a) - (b < a) for a, b in combinations(means, 2))
    if abs(rises) < _TREND:
        return 0.0
    return linear_regression(range(_GROUPS), means).slope * _GROUPS / fmean(means)
