"""Service-level objectives: limits on percentiles and, for goodput, on requests."""

import tomllib
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from ..errors import UsageError
from ..units import is_number
from .quantiles import QUANTILES, nearest_rank
from .record import Outcome, RequestRecord

METRICS: Final = ("ttft_s", "ttft_intended_s", "tpot_s", "e2e_s", "response_time_s")
STATS: Final = ("mean", *QUANTILES)
_EXAMPLE: Final = (
    'write [[slo]] with metric = "ttft_intended_s", stat = "p99", max_s = 0.5'
)


@dataclass(frozen=True, slots=True)
class Slo:
    """`stat` of `metric` is at most `max_s` s; a request meets it by its own value."""

    metric: str
    stat: str
    max_s: float

    def met_by(self, row: RequestRecord) -> bool:
        """Whether a request keeps the limit; one token has no TPOT to miss."""
        value = self.wait_of(row)
        return row.ok and (value is None or value <= self.max_s)

    def wait_of(self, row: RequestRecord) -> float | None:
        """Return what a request counts as: infinity if it never got what is limited.

        None where there is nothing to count: the TPOT of tokens that came at once.
        """
        if not row.ok:
            return inf
        value: float | None = getattr(row, self.metric)
        at_once = self.metric == "tpot_s" and row.first_s is not None
        return inf if value is None and not at_once else value

    def counted_wait(self, row: RequestRecord) -> float | None:
        """Return what a request adds to the judgement, if anything.

        Warm-up and what we cancelled ourselves are not judged.
        """
        if row.warmup or row.outcome is Outcome.CANCELLED:
            return None
        return self.wait_of(row)

    def judge(self, rows: Iterable[RequestRecord]) -> dict[str, Any]:
        """Return the limit's line of `summary.json` for these rows."""
        waits = (self.counted_wait(row) for row in rows)
        return self.judge_waits(wait for wait in waits if wait is not None)

    def judge_waits(self, waits: Iterable[float]) -> dict[str, Any]:
        """Return the line for what `counted_wait` said; `met` is None without a sample.

        What failed is slower than any answer: a limit is not met by survivors alone.
        Where the statistic falls on a failure there is no value, and the limit is not
        met.
        """
        ordered = sorted(waits)
        value = self._stat_of(ordered)
        return {
            "metric": self.metric,
            "stat": self.stat,
            "max_s": self.max_s,
            "value_s": None if value == inf else value,
            "met": None if value is None else value <= self.max_s,
            "failed_as_inf": len(ordered) - bisect_left(ordered, inf),
        }

    def _stat_of(self, ordered: list[float]) -> float | None:
        if self.stat == "mean":
            return sum(ordered) / len(ordered) if ordered else None
        return nearest_rank(ordered, QUANTILES[self.stat])


def judged_by(summary: Mapping[str, Any]) -> tuple[Slo, ...]:
    """Return the objectives that a run was judged by, from its `summary.json`."""
    return tuple(
        Slo(line["metric"], line["stat"], line["max_s"])
        for line in summary.get("slo", ())
    )


def read_slos(text: str, *, name: str) -> tuple[Slo, ...]:
    """Read an SLO file (TOML); raises `UsageError` naming the entry that is wrong."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as wrong:
        raise UsageError(f"{name}: {wrong}", hint=_EXAMPLE) from None
    entries = table.get("slo")
    if set(table) != {"slo"} or not isinstance(entries, list) or not entries:
        raise UsageError(
            f"{name}: holds no [[slo]] entries, or other things too", hint=_EXAMPLE
        )
    return slos_of(entries, name)


def slos_of(entries: Any, name: str) -> tuple[Slo, ...]:
    """Read the `[[slo]]` entries of a file; raises `UsageError` naming a wrong one."""
    if not isinstance(entries, list):
        raise UsageError(f"{name}: slo is no list", hint=_EXAMPLE)
    return tuple(
        _read(entry, f"{name}: [[slo]] number {i}")
        for i, entry in enumerate(entries, 1)
    )


def _read(entry: Any, where: str) -> Slo:
    if not isinstance(entry, dict) or set(entry) != {"metric", "stat", "max_s"}:
        raise UsageError(
            f"{where}: needs exactly metric, stat and max_s", hint=_EXAMPLE
        )
    if entry["metric"] not in METRICS:
        raise UsageError(
            f"{where}: metric {entry['metric']!r} is none of {', '.join(METRICS)}"
        )
    if entry["stat"] not in STATS:
        raise UsageError(
            f"{where}: stat {entry['stat']!r} is none of {', '.join(STATS)}"
        )
    limit = entry["max_s"]
    if not is_number(limit) or not 0 < limit < inf:
        raise UsageError(
            f"{where}: max_s must be a positive number of seconds, not {limit!r}"
        )
    return Slo(entry["metric"], entry["stat"], float(limit))


def meets_all(row: RequestRecord, slos: tuple[Slo, ...]) -> bool:
    """Whether a request keeps every limit by its own values: it counts as goodput."""
    return all(slo.met_by(row) for slo in slos)
