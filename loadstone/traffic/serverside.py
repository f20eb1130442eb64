"""The server's own figures over a run, beside what the client saw: a fold of scrapes.

Levels (running, waiting, KV use, power) are averaged over the scrapes of the window,
and have a maximum; what only grows (tokens, energy) has a rate. Pages of several
servers are added up, shares averaged. The timeline puts queue and KV use of each
stretch beside the TTFT of the requests that were sent in it.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from ..units import Seconds
from .engines import COUNTERS, ENERGY_J, SHARES
from .quantiles import nearest_rank
from .record import RequestRecord

STRETCHES: Final = 60
"""Most stretches of a timeline; none is shorter than a second."""
_RATES: Final = {
    "prompt_tokens": "prompt_tok_s",
    "generation_tokens": "generation_tok_s",
    "preemptions": "preemptions_per_s",
}
"""What the rate of a counter is called."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one page said at one time, in seconds since t0; `error` if it did not."""

    t: Seconds
    source: str
    page: str
    values: Mapping[str, float]
    error: str = ""

    def to_line(self) -> str:
        """Return it as a line of `server_metrics.jsonl`."""
        row: dict[str, Any] = {
            "t": round(self.t, 3), "source": self.source, "page": self.page,
            "values": dict(self.values),
        }  # fmt: skip
        if self.error:
            row["error"] = self.error
        return json.dumps(row) + "\n"


def read_scrapes(lines: Iterable[str]) -> list[Scrape]:
    """Read the lines of the file; one that a kill cut off is left out."""
    rows = (json.loads(line) for line in lines if line.endswith("\n"))
    return [
        Scrape(
            t=row["t"],
            source=row["source"],
            page=row.get("page", ""),
            values=row["values"],
            error=row.get("error", ""),
        )
        for row in rows
    ]


def describe_server(
    scrapes: Sequence[Scrape],
    rows: Sequence[RequestRecord],
    window: tuple[Seconds, Seconds],
) -> dict[str, Any]:
    """Return the summary's `server`: figures over the window, sources, timeline."""
    begin, end = window
    inside = [s for s in scrapes if begin <= s.t <= end and s.values]
    return {
        "window": {"begin_s": begin, "end_s": end},
        "sources": _sources(scrapes),
        **_figures(inside),
        "timeline": _timeline(inside, rows, window),
    }


def _sources(scrapes: Sequence[Scrape]) -> list[dict[str, Any]]:
    """Say which pages were scraped, how often, and what went wrong last."""
    told: dict[tuple[str, str], dict[str, Any]] = {}
    for scrape in scrapes:
        key = (scrape.page, scrape.source)
        row = told.setdefault(
            key,
            {"page": scrape.page, "source": scrape.source, "scrapes": 0, "failed": 0},
        )
        row["failed" if scrape.error else "scrapes"] += 1
        if scrape.error:
            row["error"] = scrape.error
    return list(told.values())


def _figures(scrapes: Sequence[Scrape]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for word in dict.fromkeys(word for scrape in scrapes for word in scrape.values):
        if word in COUNTERS:
            grown = [_growth(s) for s in _by_page(scrapes, word).values() if len(s) > 1]
            if not grown:
                continue
            if word == ENERGY_J:
                told[word] = sum(amount for amount, _ in grown)
                told["power_from_energy_w"] = sum(a / s for a, s in grown)
            else:
                rate = sum(amount / seconds for amount, seconds in grown)
                told[_RATES[word]] = {"mean": rate}
        else:
            levels = _levels(scrapes, word)
            mean = sum(levels) / len(levels)
            told[word] = {"mean": mean, "max": max(levels), "n": len(levels)}
    return told


def _by_page(
    scrapes: Sequence[Scrape], word: str
) -> dict[tuple[str, str], list[tuple[Seconds, float]]]:
    series = defaultdict(list)
    for scrape in scrapes:
        if word in scrape.values:
            series[scrape.page, scrape.source].append((scrape.t, scrape.values[word]))
    return series


def _levels(scrapes: Sequence[Scrape], word: str) -> list[float]:
    """Return the level at each scrape, over all pages that were read at that time."""
    at: dict[Seconds, list[float]] = defaultdict(list)
    for scrape in scrapes:
        if word in scrape.values:
            at[scrape.t].append(scrape.values[word])
    share = word in SHARES
    return [sum(v) / (len(v) if share else 1) for v in at.values()]


def _growth(series: Sequence[tuple[Seconds, float]]) -> tuple[float, Seconds]:
    """Return by how much a counter grew, and in how long; a restart begins at 0."""
    grown = 0.0
    for (_, before), (_, now) in pairwise(series):
        grown += now - before if now >= before else now
    return grown, series[-1][0] - series[0][0]


def _timeline(
    scrapes: Sequence[Scrape],
    rows: Sequence[RequestRecord],
    window: tuple[Seconds, Seconds],
) -> list[dict[str, Any]]:
    begin, end = window
    width = max(1.0, (end - begin) / STRETCHES)
    cut: dict[int, list[Scrape]] = defaultdict(list)
    for scrape in scrapes:
        cut[int((scrape.t - begin) / width)].append(scrape)
    waits: dict[int, list[Seconds]] = defaultdict(list)
    for row in rows:
        if row.ok and row.ttft_s is not None and begin <= row.sent_s <= end:
            waits[int((row.sent_s - begin) / width)].append(row.ttft_s)
    told = []
    for index in sorted({*cut, *waits}):
        ttfts = sorted(waits.get(index, ()))
        figures = _figures(cut.get(index, ()))
        levels = {k: v["mean"] for k, v in figures.items() if isinstance(v, dict)}
        told.append({
            "t": round(begin + index * width, 3),
            **levels,
            "requests": len(ttfts),
            "ttft_p50_s": nearest_rank(ttfts, 0.5),
            "ttft_p99_s": nearest_rank(ttfts, 0.99),
        })  # fmt: skip
    return told
