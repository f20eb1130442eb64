"""The load generator's running totals: written as a request ends, read at a scrape.

One process has one `ClientStats`. A worker ships a snapshot of it (plain lists and
numbers) with each of Locust's reports, and the master sums the newest snapshot of every
worker, so a report that is lost or repeated costs nothing.
"""

from collections.abc import Iterable, Mapping
from math import inf
from operator import attrgetter
from typing import Any, Final, NamedTuple

from loadstone.buckets import BucketArray, LogHistogram, bucket_value
from loadstone.traffic.machine import LEAST_SPAN_S, Load
from loadstone.traffic.record import Outcome, RequestRecord
from loadstone.units import Seconds
from loadstone.vocabulary import Client

from .pipelines import PipelineStats
from .receive import ReceiveLags

LATENCIES: Final = {
    "ttft_s": Client.TTFT,
    "ttft_intended_s": Client.TTFT_INTENDED,
    "tpot_s": Client.TPOT,
    "icl_s": Client.ICL,
    "e2e_s": Client.E2E,
    "response_time_s": Client.RESPONSE_TIME,
    "send_lag_s": Client.SEND_LAG,
}
"""Each latency of a row, and the metric that exports it."""
_TIMES: Final = {n: attrgetter(n) for n in LATENCIES if n != "icl_s"}
"""How each that a row has one value of is read from it."""
_COUNTS: Final = (
    "scheduled", "dropped", "in_flight", "input_tokens", "output_tokens", "warmup",
    "reconnects", "missed", "hidden", "events",
)  # fmt: skip
_LOGS: Final = ("loop_lag", "ttft_error", "mock_lag")


class Slice(NamedTuple):
    """What requests are told apart by, in metrics and tables."""

    scenario: str
    tenant: str
    stage: str


class SliceStats:
    """Counts and latencies of one slice of the traffic.

    `percentiles` has the same latencies as `histograms`, right to 1 % instead of within
    bounds that suit a dashboard.
    """

    def __init__(self) -> None:
        self.outcomes = dict.fromkeys((o.value for o in Outcome), 0)
        self.scheduled = 0
        """Requests whose intended time has come."""
        self.dropped = 0
        self.in_flight = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.warmup = 0
        self.reconnects = 0
        self.missed = 0
        """Requests that an objective counts as slower than any answer."""
        self.hidden = 0
        """Answers without an event that could be timed: their TTFT is missed too."""
        self.events = 0
        """Content events that were read."""
        self.begin_s, self.end_s = inf, -inf
        """The first intended time, and the last token or end."""
        self.histograms = {n: BucketArray(m.bounds) for n, m in LATENCIES.items()}
        self.percentiles = {name: LogHistogram() for name in LATENCIES}
        self._timed = [
            (read, self.histograms[name], self.percentiles[name])
            for name, read in _TIMES.items()
        ]

    def __repr__(self) -> str:
        return f"<SliceStats sent={self.sent} in_flight={self.in_flight}>"

    @property
    def sent(self) -> int:
        """Requests that were sent: those with an outcome and those in flight."""
        return sum(self.outcomes.values()) + self.in_flight

    @property
    def load(self) -> Load:
        """The mean load of what has ended, from the first intended time on."""
        span = max(self.end_s - self.begin_s, LEAST_SPAN_S)
        return Load(self.events / span, sum(self.outcomes.values()) / span)

    def add(self, row: RequestRecord) -> None:
        """Count one ended request; latencies only if answered, outside the warm-up."""
        self.outcomes[row.outcome.value] += 1
        self.warmup += row.warmup
        self.reconnects += row.reconnects
        self.events += row.events
        self.begin_s = min(self.begin_s, row.intended_s)
        self.end_s = max(self.end_s, row.end_s if row.last_s is None else row.last_s)
        if not row.ok:
            self.missed += not row.warmup and row.outcome is not Outcome.CANCELLED
            return
        self.output_tokens += row.output_tokens
        self.input_tokens += row.input_tokens
        if row.warmup:
            return
        self.hidden += row.first_s is None
        for read, histogram, percentiles in self._timed:
            if (value := read(row)) is not None:
                histogram.add(value)
                percentiles.add(value)
        if row.icl:
            self._add_gaps(row.icl)

    def _add_gaps(self, gaps: Iterable[tuple[int, int]]) -> None:
        histogram = self.histograms["icl_s"]
        for bucket, count in gaps:
            histogram.add(bucket_value(bucket), count)
        self.percentiles["icl_s"].merge(gaps)

    def snapshot(self) -> dict[str, Any]:
        """Return everything as numbers, lists and dicts."""
        return {
            "counts": {name: getattr(self, name) for name in _COUNTS},
            "outcomes": dict(self.outcomes),
            "span_s": [self.begin_s, self.end_s],
            "histograms": {
                n: [list(h.counts), h.total] for n, h in self.histograms.items()
            },
            "percentiles": {n: h.pairs() for n, h in self.percentiles.items()},
        }

    def merge(self, snapshot: Mapping[str, Any]) -> None:
        """Add another one's snapshot."""
        self._count(snapshot["counts"], snapshot["outcomes"], *snapshot["span_s"])
        for name, (counts, total) in snapshot["histograms"].items():
            self.histograms[name].merge(counts, total)
        for name, pairs in snapshot["percentiles"].items():
            self.percentiles[name].merge((b, n) for b, n in pairs)

    def absorb(self, other: "SliceStats") -> None:
        """Add another one of this process: 50 us, where a snapshot takes 5 ms."""
        counts = {name: getattr(other, name) for name in _COUNTS}
        self._count(counts, other.outcomes, other.begin_s, other.end_s)
        for name, histogram in other.histograms.items():
            self.histograms[name].merge(histogram.counts, histogram.total)
            self.percentiles[name].absorb(other.percentiles[name])

    def _count(
        self,
        counts: Mapping[str, int],
        outcomes: Mapping[str, int],
        begin_s: Seconds,
        end_s: Seconds,
    ) -> None:
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + counts[name])
        for outcome, count in outcomes.items():
            self.outcomes[outcome] += count
        self.begin_s, self.end_s = min(self.begin_s, begin_s), max(self.end_s, end_s)


class ClientStats:
    """The totals of a process, or of several: by slice, and of the instrument."""

    def __init__(self) -> None:
        self.slices: dict[Slice, SliceStats] = {}
        self.loop_lag = LogHistogram()
        self.ttft_error = LogHistogram()
        """Size of the TTFT error of each request against the server's truth."""
        self.mock_lag = LogHistogram()
        """How late the server wrote first tokens, where its answers tell."""
        self.worst_pause_s = 0.0
        """Longest garbage collection seen."""
        self.pipelines = PipelineStats()
        self.recv_lags = ReceiveLags()
        """How long bytes of answers lay in the kernel before they were read."""
        self.reserved = [0, 0]
        """Input and output tokens that the requests in flight have asked for."""
        self.vitals: dict[str, float] = {}
        """What `loadgen.watch` tallies; of several processes the worst."""

    def __repr__(self) -> str:
        whole = self.whole()
        return f"<ClientStats {len(self.slices)} slices, {whole!r}>"

    def slice_of(self, scenario: str, tenant: str, stage: str) -> SliceStats:
        """Return the totals of a slice, which begins at its first mention."""
        key = Slice(scenario, tenant, stage)
        found = self.slices.get(key)
        if found is None:
            found = self.slices[key] = SliceStats()
        return found

    def add(self, row: RequestRecord) -> None:
        """Count one ended request."""
        self.slice_of(row.scenario, row.tenant, row.stage).add(row)
        self.pipelines.add(row)
        if row.truth is not None:
            self.mock_lag.add(row.truth.lag_s)
        error = row.ttft_error_s
        if error is not None and row.ok:
            self.ttft_error.add(abs(error))

    def reserve(self, input_tokens: int, output_tokens: int) -> None:
        """Count what a request asks for while it is in flight; less, when it ends."""
        self.reserved[0] += input_tokens
        self.reserved[1] += output_tokens

    def whole(self) -> SliceStats:
        """Return the sum over all slices."""
        whole = SliceStats()
        for part in self.slices.values():
            whole.absorb(part)
        return whole

    def latencies(self) -> dict[tuple[str, ...], tuple[tuple[int, int], ...]]:
        """Return the counts of every latency's histogram, by slice and latency."""
        return {
            (*key, name): histogram.pairs()
            for key, part in self.slices.items()
            for name, histogram in part.percentiles.items()
        }

    def snapshot(self) -> dict[str, Any]:
        """Return everything as numbers, strings, lists and dicts."""
        return {
            "slices": [[*key, part.snapshot()] for key, part in self.slices.items()],
            **{name: getattr(self, name).pairs() for name in _LOGS},
            "worst_pause_s": self.worst_pause_s,
            "recv_lags": self.recv_lags.snapshot(),
            "reserved": list(self.reserved),
            "pipelines": self.pipelines.snapshot(),
            "vitals": dict(self.vitals),
        }

    def merge(self, snapshot: Mapping[str, Any]) -> None:
        """Add another process's snapshot."""
        for scenario, tenant, stage, part in snapshot["slices"]:
            self.slice_of(scenario, tenant, stage).merge(part)
        for name in _LOGS:
            getattr(self, name).merge((b, n) for b, n in snapshot[name])
        self.worst_pause_s = max(self.worst_pause_s, snapshot["worst_pause_s"])
        self.recv_lags.merge(snapshot["recv_lags"])
        self.reserve(*snapshot["reserved"])
        self.pipelines.merge(snapshot["pipelines"])
        for name, value in snapshot["vitals"].items():
            self.vitals[name] = max(value, self.vitals.get(name, value))


def total(snapshots: Iterable[Mapping[str, Any]]) -> ClientStats:
    """Sum snapshots of several processes."""
    stats = ClientStats()
    for snapshot in snapshots:
        stats.merge(snapshot)
    return stats
