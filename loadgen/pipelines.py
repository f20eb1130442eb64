"""Running totals of pipelines: how long stages take, and what was retrieved.

Like the rest of `ClientStats`: written as a row comes, read at a scrape, shipped as
plain numbers. A run without a pipeline has none of these series.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from loadstone.buckets import BucketArray
from loadstone.traffic.record import RequestRecord
from loadstone.vocabulary import Client, MetricSpec

STAGE: Final = "stage"
FIGURES: Final = {
    "generation_ttft_s": Client.GENERATION_TTFT,
    "hits": Client.RETRIEVED,
    "recall": Client.RECALL,
}
"""What a pipeline's row tells besides its stages, and the metric that exports it."""
_SPECS: Final = {STAGE: Client.STAGE_TIME, **FIGURES}


class _Key(NamedTuple):
    figure: str
    labels: tuple[str, ...]


class PipelineStats:
    """Histograms by scenario and tenant, those of stages by stage too."""

    def __init__(self) -> None:
        self._histograms: dict[_Key, BucketArray] = {}

    def __repr__(self) -> str:
        return f"<PipelineStats of {len(self._histograms)} histograms>"

    def add(self, row: RequestRecord) -> None:
        """Count a pipeline's row if it was answered, outside the warm-up."""
        if not row.stages or not row.ok or row.warmup:
            return
        whose = row.scenario, row.tenant
        for stage, seconds in row.stages:
            self._of(STAGE, *whose, stage).add(seconds)
        for name in FIGURES:
            value = getattr(row, name)
            if value is not None:
                self._of(name, *whose).add(value)

    def read(self) -> Iterator[tuple[MetricSpec, list[tuple[tuple[str, ...], Any]]]]:
        """Yield each metric that has a value, with its series."""
        for figure, spec in _SPECS.items():
            found = [
                (key.labels, array)
                for key, array in self._histograms.items()
                if key.figure == figure
            ]
            if found:
                yield spec, found

    def snapshot(self) -> list[list[Any]]:
        """Return everything as strings, numbers and lists."""
        return [
            [key.figure, list(key.labels), list(array.counts), array.total]
            for key, array in self._histograms.items()
        ]

    def merge(self, snapshot: list[list[Any]]) -> None:
        """Add another one's snapshot."""
        for figure, labels, counts, total in snapshot:
            self._of(figure, *labels).merge(counts, total)

    def _of(self, figure: str, *labels: str) -> BucketArray:
        key = _Key(figure, labels)
        found = self._histograms.get(key)
        if found is None:
            found = self._histograms[key] = BucketArray(_SPECS[figure].bounds)
        return found
