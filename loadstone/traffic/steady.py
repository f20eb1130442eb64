"""When answers gave their tokens, and at what rate in the steady part of a run.

Each answer's tokens are taken as evenly spread between its first and its last, so the
count of tokens given is piecewise linear in time, with two kinks an answer.
"""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from ..units import Seconds, Tokens

_STEADY: Final = (0.1, 0.9)
_INSTANT: Final = 1e-6
"""A single event has no length; a microsecond stands in for it."""
_BINS: Final = 4096

Kink = tuple[Seconds, float]
"""An instant at which a rate changes, and by how much."""


@dataclass(frozen=True, slots=True)
class Count:
    """A piecewise linear count at the edges of equal bins; exact, without a sort.

    With the sum of the kinks `d` at `t` before a bin's edge `e`, the count there is
    `sum(d) e - sum(d t)`.
    """

    low: Seconds
    width: Seconds
    rates: list[float]
    """At each edge, in units a second."""
    given: list[float]
    """At each edge."""

    @classmethod
    def of(
        cls, kinks: Iterable[Kink], low: Seconds, high: Seconds, bins: int
    ) -> "Count":
        """Count what is given between two instants."""
        width = (high - low) / bins
        changes, moments = [0.0] * (bins + 1), [0.0] * (bins + 1)
        for t, change in kinks:
            after = max(0.0, t - low)
            i = min(int(after / width), bins)
            changes[i] += change
            moments[i] += change * after
        rates = [0.0, *accumulate(changes[:bins])]
        given = [
            rate * i * width - moment
            for i, (rate, moment) in enumerate(
                zip(rates, [0.0, *accumulate(moments[:bins])], strict=True)
            )
        ]
        return cls(low, width, rates, given)

    @property
    def bins(self) -> list[float]:
        """The mean rate inside each bin."""
        edges = zip(self.given, self.given[1:], strict=False)
        return [(after - before) / self.width for before, after in edges]


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
        """Return tokens/s while the middle 80 % of them were given; None without any.

        That leaves ramp and drain out wherever they are less than a tenth of the work.
        """
        middle = self.middle()
        if middle is None:
            return None
        start, end = middle
        return (_STEADY[1] - _STEADY[0]) * self.total / (end - start)

    def middle(self) -> tuple[Seconds, Seconds] | None:
        """Say when a tenth and when nine tenths of the tokens had been given."""
        total = self.total
        if not total:
            return None
        start, end = self._times([share * total for share in _STEADY])
        return (start, end) if end > start else None

    def __len__(self) -> int:
        return len(self._tokens)

    def rate_between(self, start: Seconds, end: Seconds) -> float:
        """Return tokens/s between two instants."""
        given = sum(
            n * (min(last, end) - max(first, start)) / (last - first)
            for first, last, n in zip(
                self._first, self._last, self._tokens, strict=True
            )
            if first < end and last > start
        )
        return given / (end - start)

    @property
    def bounds(self) -> tuple[Seconds, Seconds]:
        """When the first and the last token came."""
        return min(self._first), max(self._last)

    def kinks(self) -> Iterator[Kink]:
        """Yield each instant at which the rate changes, and by how much, unordered."""
        for first, last, n in zip(self._first, self._last, self._tokens, strict=True):
            rate = n / (last - first)
            yield first, rate
            yield last, -rate

    def _times(self, counts: list[float]) -> list[Seconds]:
        """Say when each of the counts was reached.

        Only inside the bin of a wanted count are kinks put in order.
        """
        count = Count.of(self.kinks(), *self.bounds, _BINS)
        bins = [
            next((i for i in range(_BINS) if count.given[i + 1] >= wanted), _BINS - 1)
            for wanted in counts
        ]
        inside: dict[int, list[Kink]] = {i: [] for i in bins}
        for t, change in self.kinks():
            i = min(int((t - count.low) / count.width), _BINS - 1)
            if i in inside:
                inside[i].append((t, change))
        return [
            _walk(count, i, sorted(inside[i]), wanted)
            for i, wanted in zip(bins, counts, strict=True)
        ]


def _walk(count: Count, i: int, kinks: list[Kink], wanted: float) -> Seconds:
    at, given, rate = count.low + i * count.width, count.given[i], count.rates[i]
    for t, change in kinks:
        if given + rate * (t - at) >= wanted:
            break
        given += rate * (t - at)
        at, rate = t, rate + change
    return at + (wanted - given) / rate if rate > 0 else at
