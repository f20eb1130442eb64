"""The steady rate: tokens/s while the middle 80 % of a run's tokens were given.

Each answer's tokens are taken as evenly spread between its first and its last, so the
count of tokens given is piecewise linear in time, with two kinks an answer.
"""

from array import array
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from ..units import Seconds, Tokens

_STEADY: Final = (0.1, 0.9)
_INSTANT: Final = 1e-6
"""A single event has no length; a microsecond stands in for it."""
_BINS: Final = 4096


class Spans:
    """When answers gave their tokens: 24 bytes each."""

    def __init__(self) -> None:
        self._first, self._last = array("d"), array("d")
        self._tokens = array("q")

    def __repr__(self) -> str:
        return f"<Spans of {len(self._tokens)} answers>"

    def add(self, first: Seconds, last: Seconds, tokens: Tokens) -> None:
        """Note an answer."""
        self._first.append(first)
        self._last.append(max(last, first + _INSTANT))
        self._tokens.append(tokens)

    @property
    def total(self) -> Tokens:
        """How many tokens there were."""
        return sum(self._tokens)

    def rate(self) -> float | None:
        """Return the steady rate in tokens/s; None where no tokens were given."""
        total = self.total
        if not total:
            return None
        start, end = _Count(self).times([share * total for share in _STEADY])
        share = _STEADY[1] - _STEADY[0]
        return share * total / (end - start) if end > start else None

    @property
    def bounds(self) -> tuple[Seconds, Seconds]:
        """When the first and the last token came."""
        return min(self._first), max(self._last)

    def kinks(self) -> Iterator[tuple[Seconds, float]]:
        """Yield each instant at which the rate changes, and by how much, unordered."""
        for first, last, n in zip(self._first, self._last, self._tokens, strict=True):
            rate = n / (last - first)
            yield first, rate
            yield last, -rate


class _Count:
    """How many tokens were given by when; exact, without sorting all kinks.

    Time is cut into bins. With the sum of the kinks `d` at `t` before a bin's edge `e`,
    the count there is `sum(d) e - sum(d t)`. Only inside the bin of a wanted count are
    kinks put in order.
    """

    def __init__(self, spans: Spans) -> None:
        self._spans = spans
        self._low, high = spans.bounds
        self._width = (high - self._low) / _BINS
        rates, moments = [0.0] * _BINS, [0.0] * _BINS
        for t, change in spans.kinks():
            i = self._bin(t)
            rates[i] += change
            moments[i] += change * (t - self._low)
        self._rates = [0.0, *accumulate(rates)]
        """Tokens/s at each edge."""
        self._given = [
            rate * i * self._width - moment
            for i, (rate, moment) in enumerate(
                zip(self._rates, [0.0, *accumulate(moments)], strict=True)
            )
        ]

    def _bin(self, t: Seconds) -> int:
        return min(int((t - self._low) / self._width), _BINS - 1)

    def times(self, counts: list[float]) -> list[Seconds]:
        """Say when each of the counts was reached."""
        bins = [
            next((i for i in range(_BINS) if self._given[i + 1] >= count), _BINS - 1)
            for count in counts
        ]
        inside: dict[int, list[tuple[Seconds, float]]] = {i: [] for i in bins}
        for t, change in self._spans.kinks():
            if (i := self._bin(t)) in inside:
                inside[i].append((t, change))
        return [
            self._walk(i, sorted(inside[i]), count)
            for i, count in zip(bins, counts, strict=True)
        ]

    def _walk(
        self, i: int, kinks: list[tuple[Seconds, float]], count: float
    ) -> Seconds:
        at, given, rate = self._low + i * self._width, self._given[i], self._rates[i]
        for t, change in kinks:
            if given + rate * (t - at) >= count:
                break
            given += rate * (t - at)
            at, rate = t, rate + change
        return at + (count - given) / rate if rate > 0 else at
