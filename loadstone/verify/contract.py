"""A contract: clauses that a run passes, fails, or has too few samples to tell.

Of a latency clause the statistic's 95 % interval decides, not the statistic: it passes
if all of the interval is within the limit and fails if none of it is. Between the two,
and where the sample bounds no interval, a run cannot tell. What failed counts as slower
than any answer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from math import ceil, inf
from typing import Any, Final

from ..errors import ExitCode, UsageError
from ..traffic.intervals import Sample
from ..traffic.quantiles import QUANTILES
from ..traffic.record import RequestRecord
from ..traffic.slo import METRICS as LATENCIES
from ..traffic.slo import STATS, Slo
from ..traffic.verdict import MIN_SAMPLES, Verdict
from ..units import is_number

FIGURES: Final[Mapping[str, tuple[str, ...]]] = {
    "output_tok_s": ("throughput", "output_tok_s"),
    "steady_output_tok_s": ("throughput", "steady_output_tok_s"),
    "total_tok_s": ("throughput", "total_tok_s"),
    "req_s": ("throughput", "req_s"),
    "goodput_req_s": ("throughput", "goodput_req_s"),
    "usd_per_request": ("cost", "usd_per_request"),
    "usd_per_good_request": ("cost", "usd_per_good_request"),
    "usd_per_million_output_tokens": ("cost", "usd_per_million_output_tokens"),
    "usd_per_million_tokens": ("cost", "usd_per_million_tokens"),
    "usd_per_hour": ("cost", "usd_per_hour"),
    "joules_per_output_token": ("cost", "energy", "joules_per_output_token"),
    "gco2_per_output_token": ("cost", "energy", "gco2_per_output_token"),
}
"""Figures of a run that a clause may bound, and where `summary.json` has them."""
SHARES: Final[Mapping[str, tuple[str, ...]]] = {
    "failed_share": ("failed", "incomplete"),
    "throttled_share": ("throttled",),
    "unanswered_share": ("failed", "incomplete", "throttled", "dropped"),
}
"""Shares of the requests that were due, by the outcomes that count."""
RULE_OF_THREE: Final = 3
"""Without a failure among n, at most 3/n of all fail, by 95 % (Hanley 1983)."""
_KEYS: Final = ("metric", "stat", "max", "min")
EXAMPLE: Final = (
    'write [[clause]] with metric = "ttft_intended_s", stat = "p99", max = 0.5'
)


class Status(StrEnum):
    """How a clause came out."""

    PASSED = "pass"
    FAILED = "fail"
    NOT_ENOUGH = "not enough samples"


class ClauseError(UsageError):
    """A clause that is none; `key` is what is wrong in it."""

    def __init__(self, message: str, *, key: str = "", hint: str = EXAMPLE) -> None:
        super().__init__(message, hint=hint)
        self.key = key


@dataclass(frozen=True, slots=True)
class Clause:
    """`metric` (of a latency, its `stat`) is at most, or at least, `limit`."""

    metric: str
    stat: str | None
    bound: str
    """`max` or `min`."""
    limit: float

    @property
    def text(self) -> str:
        """The clause in words."""
        name = f"{self.metric} {self.stat}" if self.stat else self.metric
        return f"{name} {'<=' if self.bound == 'max' else '>='} {self.limit:g}"

    def kept_by(self, value: float) -> bool:
        """Whether a value is within the limit."""
        return value <= self.limit if self.bound == "max" else value >= self.limit


@dataclass(frozen=True, slots=True)
class Finding:
    """A clause and what a run says to it; `low` and `high` bound the value by 95 %."""

    clause: Clause
    status: Status
    value: float | None
    low: float | None
    high: float | None
    n: int
    why: str

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values; a value beyond all answers is None."""
        finite = {
            name: None if value is None or value == inf else value
            for name in ("value", "low", "high")
            for value in (getattr(self, name),)
        }
        return {
            **asdict(self.clause),
            "text": self.clause.text,
            "status": self.status.value,
            **finite,
            "n": self.n,
            "why": self.why,
        }


def read_clause(row: Mapping[str, object]) -> Clause:
    """Read one `[[clause]]`; raises `ClauseError` naming the key that is wrong."""
    for key in row:
        if key not in _KEYS:
            raise ClauseError(f"unknown key {key!r}", key=key)
    metric, stat = row.get("metric"), row.get("stat")
    if metric in LATENCIES:
        if stat not in STATS:
            raise ClauseError(
                f"{metric} needs a stat, one of {', '.join(STATS)}", key="stat"
            )
    elif metric in FIGURES or metric in SHARES:
        if stat is not None:
            raise ClauseError(f"{metric} is one figure: it has no stat", key="stat")
    else:
        raise ClauseError(
            f"metric {metric!r} is unknown",
            key="metric",
            hint=f"there is: {', '.join((*LATENCIES, *FIGURES, *SHARES))}",
        )
    bounds = [key for key in ("max", "min") if key in row]
    if len(bounds) != 1:
        raise ClauseError(f"{metric} needs either max or min", key="metric")
    bound, limit = bounds[0], row[bounds[0]]
    if not is_number(limit) or not 0 <= limit < inf:
        raise ClauseError(f"{bound} must be a number from 0, not {limit!r}", key=bound)
    if bound == "min" and (metric in LATENCIES or metric in SHARES):
        raise ClauseError(f"{metric} is bounded from above: give max", key="min")
    return Clause(str(metric), None if stat is None else str(stat), bound, float(limit))


def judge_contract(
    clauses: Iterable[Clause],
    summary: Mapping[str, Any],
    rows: Iterable[RequestRecord],
) -> list[Finding]:
    """Return what a run says to each clause."""
    listed = list(clauses)
    slos = {
        clause: Slo(clause.metric, clause.stat or "mean", clause.limit)
        for clause in listed
        if clause.metric in LATENCIES
    }
    waits: dict[Clause, list[float]] = {clause: [] for clause in slos}
    if slos:
        for row in rows:
            for clause, slo in slos.items():
                if (wait := slo.counted_wait(row)) is not None:
                    waits[clause].append(wait)
    return [
        _of_latency(clause, waits[clause])
        if clause in slos
        else _of_share(clause, summary)
        if clause.metric in SHARES
        else _of_figure(clause, summary)
        for clause in listed
    ]


def contract_exit_code(
    findings: Iterable[Finding], summary: Mapping[str, Any]
) -> ExitCode:
    """Return 0 all passed, 3 one failed, 4 the run or its samples cannot tell."""
    verdict = summary["instrument"]["verdict"]
    believed = (Verdict.OK, Verdict.TOO_FEW_SAMPLES)
    if verdict not in believed or not summary["complete"]:
        return ExitCode.NOT_VALID
    found = {finding.status for finding in findings}
    if Status.FAILED in found:
        return ExitCode.NOT_MET
    return ExitCode.NOT_VALID if Status.NOT_ENOUGH in found else ExitCode.DONE


def least_samples(stat: str) -> int:
    """Return how many samples a statistic needs to be more than an extreme of them."""
    q = QUANTILES.get(stat)
    return MIN_SAMPLES if q is None else ceil(round(1 / (1 - q), 6))


def _of_latency(clause: Clause, waits: list[float]) -> Finding:
    stat = clause.stat or "mean"
    n, needed = len(waits), least_samples(stat)
    if stat == "mean" and inf in waits:
        # Nobody waits for ever on average, and so nobody knows how long.
        why = f"{waits.count(inf):,} of {n:,} were not answered: there is no mean"
        return Finding(clause, Status.FAILED, None, None, None, n, why)
    sample = Sample(waits)
    if stat == "mean":
        value, (low, high) = sample.mean, sample.mean_interval()
    else:
        value = sample.quantile(QUANTILES[stat])
        low, high = sample.interval(QUANTILES[stat])
    if n < needed:
        status, why = Status.NOT_ENOUGH, f"{n:,} requests; {stat} needs {needed:,}"
    elif low is not None and low > clause.limit:
        status, why = Status.FAILED, ""
    elif high is not None and high <= clause.limit:
        status, why = Status.PASSED, ""
    elif high is None:
        status = Status.NOT_ENOUGH
        why = f"{n:,} requests do not bound {stat} from above"
    else:
        status, why = Status.NOT_ENOUGH, "the limit is within the 95 % interval"
    return Finding(clause, status, value, low, high, n, why)


def _of_share(clause: Clause, summary: Mapping[str, Any]) -> Finding:
    requests = summary["requests"]
    due = requests["sent"] + requests.get("dropped", 0) - requests["cancelled"]
    hit = sum(requests[outcome] for outcome in SHARES[clause.metric])
    share = hit / due if due else None
    needed = ceil(RULE_OF_THREE / clause.limit) if clause.limit else MIN_SAMPLES
    if share is not None and not clause.kept_by(share):
        status, why = Status.FAILED, f"{hit:,} of {due:,}"
    elif due < needed:
        status = Status.NOT_ENOUGH
        why = f"{due:,} requests; such a limit needs {needed:,}"
    else:
        status, why = Status.PASSED, f"{hit:,} of {due:,}"
    return Finding(clause, status, share, None, None, due, why)


def _of_figure(clause: Clause, summary: Mapping[str, Any]) -> Finding:
    value: Any = summary
    for key in FIGURES[clause.metric]:
        value = value.get(key) if isinstance(value, Mapping) else None
    answers, cost = summary["requests"]["ok"], summary.get("cost", {})
    unpriced = FIGURES[clause.metric][0] == "cost" and cost.get("unpriced_requests")
    if value is None:
        status, why = Status.NOT_ENOUGH, "the run has no such figure"
    elif answers < MIN_SAMPLES:
        status = Status.NOT_ENOUGH
        why = f"{answers:,} answered requests; it needs {MIN_SAMPLES}"
    elif not clause.kept_by(value):
        status, why = Status.FAILED, ""
    elif unpriced:
        status = Status.NOT_ENOUGH
        why = f"{unpriced:,} requests have no price, so it is only a lower bound"
    else:
        status, why = Status.PASSED, ""
    return Finding(clause, status, value, None, None, answers, why)
