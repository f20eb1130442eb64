"""A run's figures from merged totals, where its rows are not all at hand.

Counts are exact, percentiles right to within 1 %, as `LogHistogram` has them. What only
rows can tell (the steady rate, goodput, the table of errors) is None or empty here.
"""

from math import ceil
from typing import Any, Final

from loadstone.traffic.quantiles import QUANTILES
from loadstone.traffic.slo import Slo
from loadstone.traffic.summary import describe_histogram

from .stats import LATENCIES, ClientStats, SliceStats

SOURCE: Final = "merged histograms"
"""What a summary made here says that it is from."""

_OF_EVENTS: Final = ("ttft_s", "ttft_intended_s", "tpot_s")
"""What an answer without a single event has no value of."""


def figures(stats: ClientStats, slos: tuple[Slo, ...]) -> dict[str, Any]:
    """Return what `traffic.summary.summarize` does of rows, as far as totals tell."""
    whole = stats.whole()
    span = max(0.0, whole.end_s - whole.begin_s) if whole.sent else 0.0
    answers = whole.outcomes["ok"]
    some = answers > 0 and span > 0
    tokens = whole.input_tokens + whole.output_tokens
    return {
        "source": SOURCE,
        "requests": {
            "sent": whole.sent,
            **whole.outcomes,
            "dropped": whole.dropped,
            "warmup": whole.warmup,
            "reconnected": whole.reconnects,
        },
        "tokens": {"input": whole.input_tokens, "output": whole.output_tokens},
        "makespan_s": span,
        "throughput": {
            "output_tok_s": whole.output_tokens / span if some else None,
            "steady_output_tok_s": None,
            "total_tok_s": tokens / span if some else None,
            "req_s": answers / span if some else None,
            "goodput_req_s": None,
        },
        **{name: describe_histogram(whole.percentiles[name]) for name in LATENCIES},
        "errors": {},
        "errors_between_s": {},
        "slo": [judge(slo, whole) for slo in slos],
    }


def judge(slo: Slo, whole: SliceStats) -> dict[str, Any]:
    """Return a limit's line as `Slo.judge_waits` does: a failure is slower than any."""
    histogram = whole.percentiles[slo.metric]
    n = histogram.count
    missed = whole.missed + (whole.hidden if slo.metric in _OF_EVENTS else 0)
    value: float | None = None
    if slo.stat == "mean":
        value = histogram.total / n if n and not missed else None
    elif n:
        rank = ceil(QUANTILES[slo.stat] * (n + missed))
        value = histogram.quantile(rank / n) if rank <= n else None
    known = n + missed > 0
    return {
        "metric": slo.metric,
        "stat": slo.stat,
        "max_s": slo.max_s,
        "value_s": value,
        "met": (value is not None and value <= slo.max_s) if known else None,
        "failed_as_inf": missed,
    }
