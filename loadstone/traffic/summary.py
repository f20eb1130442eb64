"""A run's figures: a fold over its rows.

Percentiles are nearest rank over requests that ended ok outside the warm-up (`slo`
counts the others too, see `Slo.judge`); `icl_s` pools the gaps of all of them.
`streams` counts answers that began with reasoning, that called tools, and whose usage
names another number of tokens than came in events. `output_tok_s` counts every output
token of an answer that ended ok over the makespan (first intended arrival to last
token). `steady_output_tok_s` is the rate while the middle 80 % of those tokens were
given (each request's tokens taken as evenly spread between its first and last), which
leaves ramp and drain out.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, Final

from ..buckets import BucketArray, LogHistogram
from ..units import Seconds
from .quantiles import QUANTILES, nearest_rank
from .record import Outcome, RequestRecord
from .slo import Slo, goodput

LATENCIES: Final = (
    "ttft_s", "ttft_intended_s", "ttfo_s", "tpot_s", "e2e_s", "response_time_s",
    "send_lag_s",
)  # fmt: skip
_STEADY: Final = (0.1, 0.9)

Stats = dict[str, float | int | None]


def describe(values: Iterable[float]) -> Stats:
    """Return mean, p50, p90, p95, p99 and n; without values all but n are None."""
    ordered = sorted(values)
    mean = sum(ordered) / len(ordered) if ordered else None
    ranks = {name: nearest_rank(ordered, q) for name, q in QUANTILES.items()}
    return {"mean": mean, **ranks, "n": len(ordered)}


def describe_histogram(histogram: LogHistogram | BucketArray) -> Stats:
    """Return the same of a histogram: right to within 1 %, or an upper bound."""
    n = histogram.count
    mean = histogram.total / n if n else None
    return {
        "mean": mean,
        **{k: histogram.quantile(q) for k, q in QUANTILES.items()},
        "n": n,
    }


def summarize(
    records: Iterable[RequestRecord],
    *,
    dropped: int = 0,
    icl: LogHistogram | None = None,
    slos: tuple[Slo, ...] = (),
) -> dict[str, Any]:
    """Fold rows into the run's figures, named as in `summary.json`.

    `dropped` requests were intended and never sent. `icl` replaces the rows' own gaps
    where they have none (virtual time).
    """
    rows = list(records)
    ended = [r for r in rows if r.ok]
    measured = [r for r in ended if not r.warmup]
    if icl is None:
        icl = LogHistogram()
        for row in measured:
            icl.merge(row.icl)
    span = makespan(rows)
    return {
        "requests": _requests(rows, dropped),
        "tokens": {
            "input": sum(r.input_tokens for r in ended),
            "output": sum(r.output_tokens for r in ended),
        },
        "streams": {
            "reasoning": sum(r.reasoned for r in ended),
            "tool_calls": sum(r.first_tool_s is not None for r in ended),
            "usage_differs": sum(r.usage_differs for r in ended),
        },
        "makespan_s": span,
        "throughput": {
            **_throughput(ended, span),
            "goodput_req_s": goodput(rows, slos, span),
        },
        **{name: describe(_values(measured, name)) for name in LATENCIES},
        "icl_s": describe_histogram(icl),
        "errors": dict(Counter(r.error for r in rows if r.error).most_common(10)),
        "slo": [slo.judge(rows) for slo in slos],
    }


def makespan(rows: Sequence[RequestRecord]) -> Seconds:
    """First intended arrival to the last token (or end, where no token came)."""
    if not rows:
        return 0.0
    return max(r.end_s if r.last_s is None else r.last_s for r in rows) - min(
        r.intended_s for r in rows
    )


def _requests(rows: Sequence[RequestRecord], dropped: int) -> dict[str, int]:
    counts = Counter(r.outcome for r in rows)
    return {
        "sent": len(rows),
        **{outcome.value: counts[outcome] for outcome in Outcome},
        "dropped": dropped,
        "warmup": sum(r.warmup for r in rows),
        "reconnected": sum(r.reconnects for r in rows),
    }


def _throughput(
    ended: Sequence[RequestRecord], span: Seconds
) -> dict[str, float | None]:
    if not ended or span <= 0:
        return dict.fromkeys(
            ("output_tok_s", "steady_output_tok_s", "total_tok_s", "req_s")
        )
    output = sum(r.output_tokens for r in ended)
    return {
        "output_tok_s": output / span,
        "steady_output_tok_s": steady_rate(ended),
        "total_tok_s": (output + sum(r.input_tokens for r in ended)) / span,
        "req_s": len(ended) / span,
    }


def steady_rate(ended: Sequence[RequestRecord]) -> float | None:
    """Return tokens/s while the middle 80 % of the output tokens were given."""
    spans = [
        (r.first_s, r.last_s, r.output_tokens)
        for r in ended
        if r.first_s is not None and r.last_s is not None
    ]
    edges: list[tuple[float, float]] = []
    for first, last, tokens in spans:
        # A single event has no length; a microsecond stands in for it.
        rate = tokens / max(last - first, 1e-6)
        edges += [(first, rate), (max(last, first + 1e-6), -rate)]
    if not edges:
        return None
    edges.sort()
    times = [t for t, _ in edges]
    rates = list(accumulate(d for _, d in edges))
    given = [
        0.0,
        *accumulate(
            rates[i] * (times[i + 1] - times[i]) for i in range(len(times) - 1)
        ),
    ]
    start, end = (_when(given, times, share * given[-1]) for share in _STEADY)
    return (
        (_STEADY[1] - _STEADY[0]) * given[-1] / (end - start) if end > start else None
    )


def _when(given: Sequence[float], times: Sequence[float], tokens: float) -> float:
    """Invert the cumulative count: say when `tokens` were given."""
    i = min(max(bisect_left(given, tokens), 1), len(given) - 1)
    step = given[i] - given[i - 1]
    share = (tokens - given[i - 1]) / step if step > 0 else 1.0
    return times[i - 1] + share * (times[i] - times[i - 1])


def _values(rows: Iterable[RequestRecord], name: str) -> Iterable[float]:
    return (value for row in rows if (value := getattr(row, name)) is not None)
