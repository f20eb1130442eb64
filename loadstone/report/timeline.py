"""A run over time and its distributions: one pass over the rows, in bounded memory.

Time is cut into at most `_MOST` bins; when a row lies beyond the last, neighbouring
bins are merged and the pass goes on. A bin holds sums only, so a run of a million rows
takes no more memory than one of a thousand. Percentiles come from histograms that are
right to within 1 % (`loadstone.buckets`), as the figures over time, which nobody adds
up; the exact ones of the whole run are in its summary.

Requests and their latencies are placed in time by when they were sent, what is due by
when it was due, and outcomes by when they were known. Where all were sent at once,
latencies are placed by the tokens that end them. The tokens of an answer are taken as
evenly spread between its first and its last, as for the steady rate.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final

from ..buckets import LogHistogram
from ..traffic.record import Outcome, RequestRecord
from ..units import Seconds

WIDTHS: Final = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 3600.0, 43200.0)
"""Of a bin while rows come, in seconds; each divides the next, so merging is exact."""
_MOST: Final = 600
_SHOWN_WIDTHS: Final = (
    0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0,
    1800.0, 3600.0, 7200.0, 14400.0, 43200.0, 86400.0,
)  # fmt: skip
_SHOWN: Final = 70
"""Bins of a chart at most: finer ones show the chance of single requests."""
DISTRIBUTIONS: Final = (
    "ttft_s", "ttft_intended_s", "tpot_s", "e2e_s", "response_time_s",
)  # fmt: skip


class _Spread:
    """The integral of a step function of time, cut into bins; each step costs O(1).

    Of each bin the sum of its steps and of its steps times their instants is kept; with
    both summed up to an edge `e` the integral there is `sum(d) e - sum(d t)`.
    """

    __slots__ = ("moments", "steps")

    def __init__(self) -> None:
        self.steps = [0.0] * _MOST
        self.moments = [0.0] * _MOST

    def step(self, bin_: int, at: Seconds, change: float) -> None:
        self.steps[bin_] += change
        self.moments[bin_] += change * at

    def integrals(self, width: Seconds) -> list[float]:
        """Return what falls into each bin."""
        edges = [
            steps * (i + 1) * width - moments
            for i, (steps, moments) in enumerate(
                zip(accumulate(self.steps), accumulate(self.moments), strict=True)
            )
        ]
        return [b - a for a, b in zip([0.0, *edges], edges, strict=False)]

    def merge(self, group: int) -> None:
        self.steps = _merged(self.steps, group)
        self.moments = _merged(self.moments, group)


def _merged(values: Sequence[float], group: int) -> list[float]:
    """Sum each `group` of neighbours; as many bins as before, the last ones empty."""
    sums = [sum(values[i : i + group]) for i in range(0, len(values), group)]
    return sums + [0] * (len(values) - len(sums))


def _pooled(histograms: Sequence[LogHistogram], group: int) -> list[LogHistogram]:
    pooled = []
    for i in range(0, len(histograms), group):
        whole = LogHistogram()
        for histogram in histograms[i : i + group]:
            whole.merge(histogram.pairs())
        pooled.append(whole)
    return pooled + [LogHistogram() for _ in range(len(histograms) - len(pooled))]


@dataclass(frozen=True, slots=True)
class Bin:
    """What happened in `width_s` from `start_s` on. Rates are per second."""

    start_s: Seconds
    width_s: Seconds
    output_tok_s: float
    in_flight: float
    """On average."""
    due: int
    sent: int
    ended: dict[str, int]
    """How many requests ended, by outcome; those that there were."""
    ttft_p50_s: Seconds | None
    ttft_p99_s: Seconds | None
    tpot_p50_s: Seconds | None
    tpot_p99_s: Seconds | None
    ttfts: tuple[tuple[int, int], ...] = field(repr=False)
    """Histogram of the TTFT of what was sent, as `LogHistogram` pairs."""


class Timeline:
    """Takes rows one by one, in any order, and lets go of them.

    `at_once` says that all requests were sent at t0.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self._at_once = at_once
        self.rows = 0
        self.distributions = {name: LogHistogram() for name in DISTRIBUTIONS}
        self.stages: dict[str, LogHistogram] = {}
        """How long each stage of an answer took, by its name, in order."""
        self.end_s: Seconds = 0.0
        """The last instant of any row."""
        self.width_s = WIDTHS[0]
        """How long a bin is now."""
        self._due, self._sent = [0] * _MOST, [0] * _MOST
        self._ended = {outcome.value: [0] * _MOST for outcome in Outcome}
        self._within_bin = [0.0] * _MOST
        """Tokens of answers that lie in one bin as a whole."""
        self._tokens, self._flight = _Spread(), _Spread()
        self._ttft = [LogHistogram() for _ in range(_MOST)]
        self._tpot = [LogHistogram() for _ in range(_MOST)]

    def __repr__(self) -> str:
        return f"<Timeline of {self.rows} rows, {self.end_s:g} s>"

    def add(self, row: RequestRecord) -> None:
        """Count a row."""
        self.rows += 1
        outcome = row.outcome.value
        sent_s, end_s = max(row.sent_s, 0.0), max(row.end_s, 0.0)
        if end_s > self.end_s:
            self.end_s = end_s
            while end_s >= self.width_s * _MOST:
                self._widen(next((w for w in WIDTHS if w > self.width_s), None))
        width = self.width_s
        sent, ended = int(sent_s / width), int(end_s / width)
        self._due[int(max(row.intended_s, 0.0) / width)] += 1
        self._sent[sent] += 1
        self._ended[outcome][ended] += 1
        self._flight.step(sent, sent_s, 1.0)
        self._flight.step(ended, end_s, -1.0)
        if row.ok:
            self._add_answer(row, sent)

    def _add_answer(self, row: RequestRecord, sent: int) -> None:
        first, last, width = row.first_s, row.last_s, self.width_s
        begun = done = sent
        if first is not None and last is not None:
            begun, done = int(max(first, 0.0) / width), int(max(last, 0.0) / width)
            if begun == done:
                self._within_bin[begun] += row.output_tokens
            else:
                rate = row.output_tokens / (last - first)
                self._tokens.step(begun, first, rate)
                self._tokens.step(done, last, -rate)
        if (ttft := row.ttft_s) is not None:
            self._ttft[begun if self._at_once else sent].add(ttft)
        if (tpot := row.tpot_s) is not None:
            self._tpot[done if self._at_once else sent].add(tpot)
        if row.warmup:
            return
        for name, spent in row.stages:
            if name not in self.stages:
                self.stages[name] = LogHistogram()
            self.stages[name].add(spent)
        for name, histogram in self.distributions.items():
            if (value := getattr(row, name)) is not None:
                histogram.add(value)

    def _widen(self, width_s: Seconds | None) -> None:
        """Go on with wider bins; what was counted keeps its place."""
        if width_s is None:
            raise OverflowError(f"a row ends {self.end_s:g} s after the run began")
        group = round(width_s / self.width_s)
        self.width_s = width_s
        self._due = _counts(self._due, group)
        self._sent = _counts(self._sent, group)
        self._ended = {name: _counts(n, group) for name, n in self._ended.items()}
        self._within_bin = _merged(self._within_bin, group)
        self._tokens.merge(group)
        self._flight.merge(group)
        self._ttft = _pooled(self._ttft, group)
        self._tpot = _pooled(self._tpot, group)

    def bins(self) -> list[Bin]:
        """Return the run in at most 70 bins from t0 to its end.

        The bins in memory are merged to get there: add no more rows afterwards.
        """
        now = self.width_s
        wide = (w for w in _SHOWN_WIDTHS if w * _SHOWN >= self.end_s and w >= now)
        whole = (w for w in wide if abs(w / now - round(w / now)) < 1e-9)
        if (shown := next(whole, now)) != now:
            self._widen(shown)
        return list(self._bins())

    def _bins(self) -> Iterator[Bin]:
        width = self.width_s
        tokens, flight = self._tokens.integrals(width), self._flight.integrals(width)
        for i in range(int(self.end_s / width) + 1 if self.rows else 0):
            ttft, tpot = self._ttft[i], self._tpot[i]
            # The run ends inside its last bin, and the rate is over what there is.
            span = min(width, max(self.end_s - i * width, width / 10))
            yield Bin(
                start_s=i * width,
                width_s=width,
                output_tok_s=max(0.0, tokens[i] + self._within_bin[i]) / span,
                in_flight=max(0.0, flight[i]) / span,
                due=self._due[i],
                sent=self._sent[i],
                ended={name: n[i] for name, n in self._ended.items() if n[i]},
                ttft_p50_s=ttft.quantile(0.5),
                ttft_p99_s=ttft.quantile(0.99),
                tpot_p50_s=tpot.quantile(0.5),
                tpot_p99_s=tpot.quantile(0.99),
                ttfts=ttft.pairs(),
            )

    def stage_figures(self) -> list[dict[str, Any]]:
        """Return name, mean, p50 and p99 of each stage, in the order they came."""
        return [
            {
                "stage": name,
                "mean_s": spent.total / spent.count,
                "p50_s": spent.quantile(0.5),
                "p99_s": spent.quantile(0.99),
                "n": spent.count,
            }
            for name, spent in self.stages.items()
        ]


def _counts(values: Sequence[int], group: int) -> list[int]:
    return [int(n) for n in _merged(values, group)]
