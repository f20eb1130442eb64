"""What the load generator exports: the totals of a run."""

from collections.abc import Callable, Iterator
from typing import Final

from loadgen.coordinator import Run
from loadgen.stats import LATENCIES, SliceStats

from ..buckets import BucketArray, LogHistogram
from ..cost.terms import Tariff
from ..traffic.verdict import VITALS, Verdict
from ..vocabulary import Client, MetricSpec
from .prometheus import Reading, Sample

_COUNTS: Final[tuple[tuple[MetricSpec, Callable[[SliceStats], int]], ...]] = (
    (Client.SCHEDULED, lambda s: s.scheduled),
    (Client.DROPPED, lambda s: s.dropped),
    (Client.IN_FLIGHT, lambda s: s.in_flight),
    (Client.INPUT_TOKENS, lambda s: s.input_tokens),
    (Client.OUTPUT_TOKENS, lambda s: s.output_tokens),
)
_QUANTILES: Final = (0.5, 0.99, 1.0)


def read_client(run: Run) -> Iterator[Reading]:
    """Read a run's totals, over all its processes."""
    stats = run.stats()
    slices = stats.slices
    for spec, count in _COUNTS:
        yield spec, [(key, count(part)) for key, part in slices.items()]
    yield (
        Client.REQUESTS,
        [
            ((*key, outcome), n)
            for key, part in slices.items()
            for outcome, n in part.outcomes.items()
        ],
    )
    for name, spec in LATENCIES.items():
        yield spec, [(key, part.histograms[name]) for key, part in slices.items()]
    yield from stats.pipelines.read()
    if run.fleet is not None:
        yield Client.COST, [((run.fleet.tariff.basis,), run.cost_usd())]
        yield Client.PRICE, list(_terms(run.fleet.tariff))
    now, reasons = run.verdict_now()
    yield Client.VERDICT, [((v.value,), float(v is now)) for v in Verdict]
    yield Client.VERDICT_REASONS, [((), len(reasons))]
    yield Client.LOOP_LAG, _quantiles(stats.loop_lag)
    yield Client.RECV_LAG, _quantiles(stats.recv_lags.histogram)
    yield Client.MOCK_LAG, _quantiles(stats.mock_lag)
    yield Client.TTFT_ERROR, _quantiles(stats.ttft_error)
    yield Client.GC_PAUSE, [((), stats.worst_pause_s)]
    vitals = stats.vitals
    yield (
        Client.TIME_SHARE,
        [((n.removesuffix("_share"),), vitals[n]) for n in VITALS if n in vitals],
    )
    yield Client.DISK_STOP, [((), vitals.get("worst_disk_stop_s", 0.0))]
    yield Client.WORKERS, [((), run.workers)]


def _terms(tariff: Tariff) -> Iterator[Sample]:
    for term, fact in tariff.facts.items():
        labels = (tariff.name, term, fact.unit, fact.date, fact.confidence)
        yield labels, fact.value


def _quantiles(histogram: LogHistogram | BucketArray) -> list[Sample]:
    found = [(q, histogram.quantile(q)) for q in _QUANTILES]
    return [((f"{q:g}",), value) for q, value in found if value is not None]
