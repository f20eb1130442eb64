"""A run cut into equal stretches of time, so that it can be drawn again from them.

Requests near in time are alike: they met the same queue. Stretches that are long beside
what a queue remembers are nearly independent, so a run drawn from its own stretches
with replacement is as different from it as another run would have been: the block
bootstrap (Kunsch 1989, The jackknife and the bootstrap for general stationary
observations), here with blocks that do not overlap.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import ceil, inf
from typing import Final

from ..units import Seconds
from .record import Outcome, RequestRecord
from .slo import Slo, meets_all
from .steady import Count, Spans
from .window import EVER, Window

BLOCKS: Final = 20
METRICS: Final = ("ttft_s", "tpot_s", "e2e_s", "response_time_s")
AT_ONCE: Final = 0.1
"""Share of the run in which all was due, below which it is offline."""

Weights = Sequence[int]
"""How often each stretch is drawn; all 1 is the run itself."""
WHOLE: Final = (1,) * BLOCKS


class Tape:
    """Takes the rows of a run, one by one; `cut` makes stretches of them.

    What got no answer counts as one that took as long as the run.
    """

    def __init__(self, slos: tuple[Slo, ...] = (), window: Window = EVER) -> None:
        self.due: dict[str, Seconds] = {}
        """When each measured request was due, by id: what runs are paired by."""
        self._slos, self._window = slos, window
        self._begin, self._end = inf, -inf
        self._asked, self._lost = array("d"), array("d")
        self._answered = {name: array("d") for name in ("due", *METRICS)}
        self._ends, self._good = array("d"), array("d")
        self._spans = Spans()

    def __repr__(self) -> str:
        return f"<Tape of {len(self.due)} requests>"

    def add(self, row: RequestRecord) -> None:
        """Note a row; warm-up, what we cancelled and what lies outside are passed."""
        self._begin = min(self._begin, row.intended_s)
        self._end = max(self._end, row.end_s)
        if row.ok and row.first_s is not None and row.last_s is not None:
            self._spans.add(row.first_s, row.last_s, row.output_tokens)
        if row.ok:
            self._ends.append(row.end_s)
            if meets_all(row, self._slos):
                self._good.append(row.end_s)
        if row.warmup or row.outcome is Outcome.CANCELLED:
            return
        if row.intended_s not in self._window:
            return
        self.due[row.id] = row.intended_s
        self._asked.append(row.intended_s)
        if not row.ok:
            self._lost.append(row.intended_s)
            return
        self._answered["due"].append(row.intended_s)
        for name in METRICS:
            value = getattr(row, name)
            self._answered[name].append(inf if value is None else value)

    def cut(self) -> "Cut | None":
        """Cut it; None where there is nothing to cut."""
        if not self._asked or not self._ends:
            return None
        first, last = min(self._asked), max(self._asked)
        if last - first >= AT_ONCE * (self._end - first):
            return self._cut_by_time(first, last)
        middle = self._spans.middle()
        return self._cut_offline(*middle) if middle else None

    def _cut_by_time(self, first: Seconds, last: Seconds) -> "Cut":
        width = (last - first) / BLOCKS

        def block(t: Seconds) -> int:
            return min(int((t - first) / width), BLOCKS - 1)

        slowest = self._end - self._begin
        values: dict[str, list[list[float]]] = {
            name: [[] for _ in range(BLOCKS)] for name in METRICS
        }
        blocks = [block(t) for t in self._answered["due"]]
        for name, parts in values.items():
            for i, value in zip(blocks, self._answered[name], strict=True):
                if value < inf:
                    parts[i].append(value)
            for due in self._lost:
                parts[block(due)].append(slowest)
            for part in parts:
                part.sort()
        asked, lost = [0.0] * BLOCKS, [0.0] * BLOCKS
        for due in self._asked:
            asked[block(due)] += 1
        for due in self._lost:
            lost[block(due)] += 1
        answered = [a - b for a, b in zip(asked, lost, strict=True)]
        sums = self._sums(first, last) | {"asked": asked, "answered": answered}
        ordered = {name: sorted(chain(*parts)) for name, parts in values.items()}
        return Cut(values, ordered, sums, slowest, offline=False)

    def _cut_offline(self, start: Seconds, end: Seconds) -> "Cut":
        return Cut({}, {}, self._sums(start, end), inf, offline=True)

    def _sums(self, start: Seconds, end: Seconds) -> dict[str, list[float]]:
        """Return what was done in each stretch between two instants, and its length."""
        width = (end - start) / BLOCKS
        tokens = Count.of(self._spans.kinks(), start, end, BLOCKS).bins
        sums = {
            "seconds": [width] * BLOCKS,
            "tokens": [rate * width for rate in tokens],
        }
        for name, ends in (("done", self._ends), ("good", self._good)):
            sums[name] = [0.0] * BLOCKS
            for t in ends:
                if start <= t < end:
                    sums[name][min(int((t - start) / width), BLOCKS - 1)] += 1
        return sums


@dataclass(frozen=True, slots=True)
class Cut:
    """A run's stretches: sorted latencies of each, and sums over each."""

    values: Mapping[str, Sequence[Sequence[float]]]
    ordered: Mapping[str, Sequence[float]]
    """The same, of the whole run."""
    sums: Mapping[str, Sequence[float]]
    slowest: Seconds
    """What a request without an answer counts as."""
    offline: bool

    def count(self, metric: str) -> int:
        """How many values of a metric there are."""
        return len(self.ordered.get(metric, ()))

    def tail(self, metric: str, q: float) -> int:
        """Return in how many stretches a value is as large as the quantile."""
        limit = self.quantile(metric, q)
        return sum(bool(part) and part[-1] >= limit for part in self.values[metric])

    def ratio(self, top: str, bottom: str, weights: Weights = WHOLE) -> float:
        """Return one sum over another; 0 where that is 0."""
        if not {top, bottom} <= self.sums.keys():
            return 0.0
        above, below = (
            sum(w * x for w, x in zip(weights, self.sums[name], strict=True))
            for name in (top, bottom)
        )
        return above / below if below else 0.0

    def quantile(self, metric: str, q: float, weights: Weights = WHOLE) -> float:
        """Return the nearest-rank quantile of the stretches drawn; 0 without values.

        By bisection over the values of the run, so that no draw is ever put together.
        """
        drawn = [
            (w, part)
            for w, part in zip(weights, self.values[metric], strict=True)
            if w and part
        ]
        rank = ceil(q * sum(w * len(part) for w, part in drawn))

        def below(value: float) -> int:
            return sum(w * bisect_right(part, value) for w, part in drawn)

        ordered = self.ordered[metric]
        return ordered[bisect_left(ordered, rank, key=below)] if rank else 0.0
