"""Where the time of a request goes that is more than an answer: shares of its stages.

A pipeline's stages follow each other without a gap, so they add up to its `e2e_s`. What
takes most of a typical request need not be what makes a slow one slow, so shares are
told at the median and in the tail: at a quantile q of `e2e_s` they are means over the
requests *around* it, those whose rank is within `BAND` of q (and as far below 1 as
above q, so that the band lies around q): from 45 to 55 % for p50, from 98 to 100 % for
p99, and the request of the nearest rank in any case. A request's share of a stage is
its duration over its own `e2e_s`; shares of one band add up to 1.
"""

from array import array
from collections.abc import Iterator
from math import ceil, floor
from typing import Any, Final

from .quantiles import QUANTILES, nearest_rank
from .record import RequestRecord

BAND: Final = 0.05
"""Half the width of a band, in ranks as a share of all."""
TOLD: Final = ("p50", "p99")
"""The quantiles that shares are told at."""


class Stages:
    """Folds pipelines' rows; rows without stages do not count."""

    def __init__(self) -> None:
        self._e2e = array("d")
        self._taken: dict[str, array[float]] = {}
        """Durations by stage, in the order of rows; 0 where a row has no such stage."""
        self._ttft = array("d")
        self._hits = array("q")
        self._recalls = array("d")

    def __repr__(self) -> str:
        return f"<Stages of {len(self._e2e)} pipelines: {', '.join(self._taken)}>"

    def add(self, row: RequestRecord) -> None:
        """Count an answered row."""
        if row.hits is not None:
            self._hits.append(row.hits)
        if row.recall is not None:
            self._recalls.append(row.recall)
        if not row.stages:
            return
        if row.generation_ttft_s is not None:
            self._ttft.append(row.generation_ttft_s)
        before = len(self._e2e)
        self._e2e.append(row.e2e_s)
        for name, _ in row.stages:
            self._taken.setdefault(name, array("d", bytes(8 * before)))
        for taken in self._taken.values():
            taken.append(0.0)
        for name, seconds in row.stages:
            self._taken[name][before] += seconds

    def summary(self) -> dict[str, Any] | None:
        """Return the figures of `summary.json`'s `stages`; None without a pipeline."""
        if not self._e2e:
            return None
        ranked = sorted(range(len(self._e2e)), key=self._e2e.__getitem__)
        bands = {name: [ranked[i] for i in _band(len(ranked), QUANTILES[name])]
                 for name in TOLD}  # fmt: skip
        return {
            "n": len(ranked),
            "e2e_s": _quantiles(self._e2e),
            "generation_ttft_s": _quantiles(self._ttft),
            "band": {name: len(band) for name, band in bands.items()},
            "share": {name: dict(self._shares(band)) for name, band in bands.items()},
            "seconds": {s: _quantiles(taken) for s, taken in self._taken.items()},
            **({"retrieval": self._retrieval()} if self._hits else {}),
        }

    def _shares(self, band: list[int]) -> Iterator[tuple[str, float]]:
        for stage, taken in self._taken.items():
            shares = (taken[i] / self._e2e[i] for i in band if self._e2e[i] > 0)
            yield stage, sum(shares) / len(band)

    def _retrieval(self) -> dict[str, Any]:
        searches, recalls = len(self._hits), self._recalls
        return {
            "searches": searches,
            "empty": self._hits.count(0),
            "passages": sum(self._hits) / searches,
            "labelled": len(recalls),
            "recall": sum(recalls) / len(recalls) if recalls else None,
        }


def _quantiles(values: "array[float]") -> dict[str, float | None]:
    ordered = sorted(values)
    return {name: nearest_rank(ordered, QUANTILES[name]) for name in TOLD}


def _band(n: int, q: float) -> range:
    """Return the ranks around a quantile, from 0; the nearest one is among them."""
    half = min(BAND, 1.0 - q)
    nearest = max(1, ceil(q * n)) - 1
    # NOTE: rounded, as 0.99 + 0.01 is not 1 and a rank more would be taken.
    first = ceil(round((q - half) * n, 9))
    last = floor(round((q + half) * n, 9))
    return range(min(first, nearest), max(last, nearest + 1))
