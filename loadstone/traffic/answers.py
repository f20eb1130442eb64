"""The latencies of a run's answers as columns, and what they add up to.

Of an answer 68 bytes are kept: when it was due, its latencies, and which part of the
run it belongs to.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from math import ceil, nan
from typing import Any, Final

from .intervals import Interval, Sample
from .quantiles import LEAST, QUANTILES
from .record import RequestRecord
from .window import Window

LATENCIES: Final = (
    "ttft_s", "ttft_intended_s", "ttfo_s", "tpot_s", "e2e_s", "response_time_s",
    "send_lag_s",
)  # fmt: skip
ALARMS: Final = frozenset({"send_lag_s"})
"""Of the instrument, not of the server: of few samples the greatest is told, as what
an alarm should go by."""

Stats = dict[str, float | int | None]
Block = dict[str, Any]


class Answers:
    """Rows of whole answers, those that the percentiles are over."""

    def __init__(self) -> None:
        self._due = array("d")
        self._parts = array("I")
        self._columns = {name: array("d") for name in LATENCIES}

    def __repr__(self) -> str:
        return f"<Answers n={len(self._due)}>"

    def add(self, row: RequestRecord, part: int) -> None:
        """Note an answer; `part` is the number of its slice."""
        self._due.append(row.intended_s)
        self._parts.append(part)
        for name, values in self._columns.items():
            value = getattr(row, name)
            values.append(nan if value is None else value)

    def in_order(self) -> list[int]:
        """Return the answers' numbers in the order in which they were due."""
        return sorted(range(len(self._due)), key=self._due.__getitem__)

    def inside(self, window: Window, order: Sequence[int]) -> Sequence[int]:
        """Return those that were due in a window."""
        ends = window.start_s, window.end_s
        low, high = (bisect_left(order, t, key=self._due.__getitem__) for t in ends)
        return order[low:high]

    def by_part(self, order: Iterable[int]) -> dict[int, list[int]]:
        """Return them by the number of their slice."""
        parts: dict[int, list[int]] = {}
        for i in order:
            parts.setdefault(self._parts[i], []).append(i)
        return parts

    def blocks(
        self, order: Sequence[int], *, lost: int, names: Iterable[str] = LATENCIES
    ) -> dict[str, Block]:
        """Return the figures of each latency; `lost` requests got no answer."""
        return {name: self._block(name, order, lost) for name in names}

    def _block(self, name: str, order: Sequence[int], lost: int) -> Block:
        column = self._columns[name]
        # What is not itself is nan: no value.
        sample = Sample([x for i in order if (x := column[i]) == x])
        stats: Stats = {
            "mean": sample.mean,
            **{k: sample.quantile(q) for k, q in QUANTILES.items()},
            "n": sample.n,
        }
        if name in ALARMS:
            return stats
        return {
            **hidden(stats),
            "mean_interval": _pair(sample.mean_interval()),
            **{
                f"{k}_interval": _pair(sample.interval(q))
                if sample.n >= LEAST[k]
                else None
                for k, q in QUANTILES.items()
            },
            "adjusted": adjusted(sample.ordered, lost),
        }


def hidden(stats: Mapping[str, float | int | None]) -> Stats:
    """Leave out the percentiles of which there are too few samples."""
    n = stats["n"] or 0
    return {k: None if n < LEAST.get(k, 0) else v for k, v in stats.items()}


def adjusted(ordered: Sequence[float], lost: int) -> Stats:
    """Return percentiles with `lost` requests slower than any answer.

    None where there are too few samples, or where the rank falls on a lost one.
    """
    n = len(ordered) + lost
    found: Stats = {"n": n, "failed_as_inf": lost}
    for name, q in QUANTILES.items():
        rank = ceil(q * n)
        seen = LEAST[name] <= n and rank <= len(ordered)
        found[name] = ordered[rank - 1] if seen else None
    return found


def _pair(interval: Interval) -> list[float | None] | None:
    return None if interval == (None, None) else list(interval)
