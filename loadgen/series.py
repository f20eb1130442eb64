"""How a run went over time: one point a second, from totals that only grow.

Rates and percentiles of a point are those of the last few seconds: the difference of
two totals. Because histograms subtract bucket by bucket, no request is kept.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from loadstone.buckets import LogHistogram
from loadstone.units import Seconds

from .stats import SliceStats

WINDOW_S: Final = 5.0
"""How far back a point looks."""
KEEP: Final = 3600
"""Most points kept: an hour."""
_SHOWN: Final = {
    "ttft": ("ttft_s", (0.5, 0.95, 0.99)),
    "tpot": ("tpot_s", (0.5, 0.99)),
}


class _Total(NamedTuple):
    at_s: Seconds
    scheduled: int
    sent: int
    output_tokens: int
    histograms: Mapping[str, Mapping[int, int]]


class Series:
    """The points of one run, oldest first."""

    def __init__(self) -> None:
        self._recent: deque[_Total] = deque()
        self._points: deque[dict[str, float | None]] = deque(maxlen=KEEP)

    def __repr__(self) -> str:
        return f"<Series of {len(self._points)} points>"

    def add(self, at_s: Seconds, whole: SliceStats) -> None:
        """Add the totals as of `at_s` seconds after t0."""
        now = _Total(
            at_s,
            whole.scheduled,
            whole.sent,
            whole.output_tokens,
            {
                name: dict(whole.percentiles[name].pairs())
                for name, _ in _SHOWN.values()
            },
        )
        self._recent.append(now)
        while len(self._recent) > 2 and at_s - self._recent[1].at_s >= WINDOW_S:
            self._recent.popleft()
        self._points.append(self._point(self._recent[0], now, whole.in_flight))

    def columns(self) -> dict[str, list[float | None]]:
        """Return the points by column: `t`, rates per second and percentiles in ms."""
        names = self._points[0] if self._points else ()
        return {name: [point[name] for point in self._points] for name in names}

    def _point(
        self, before: _Total, now: _Total, in_flight: int
    ) -> dict[str, float | None]:
        span = now.at_s - before.at_s
        point: dict[str, Any] = {"t": round(now.at_s, 2), "in_flight": in_flight}
        for name in ("scheduled", "sent", "output_tokens"):
            grown = getattr(now, name) - getattr(before, name)
            point[f"{name}_per_s"] = round(grown / span, 2) if span > 0 else None
        for label, (name, quantiles) in _SHOWN.items():
            recent = _difference(now.histograms[name], before.histograms[name])
            for q in quantiles:
                value = recent.quantile(q)
                point[f"{label}_p{q * 100:g}_ms"] = value and round(value * 1000, 2)
        return point


def _difference(now: Mapping[int, int], before: Mapping[int, int]) -> LogHistogram:
    grown = ((bucket, n - before.get(bucket, 0)) for bucket, n in now.items())
    return LogHistogram((bucket, n) for bucket, n in grown if n)
