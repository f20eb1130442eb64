"""What each figure of `summary.json` means: formula, unit, and what others call it.

One table: `loadstone report` prints it, docs/statistics.md shows it, and a test holds
it to what a summary has. Where the same word means something else in another tool, that
tool's word stands here with its meaning, since that is where disputes come from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One figure. `t_...` are instants on the client's clock."""

    name: str
    """As in `summary.json`."""
    title: str
    formula: str
    unit: str
    peers: Mapping[str, str] = field(default_factory=dict)
    """By tool, what it calls this; or what it means by the same word."""


_LATENCIES: Final = (
    Term(
        name="ttft_s",
        title="time to first token",
        formula="t_first - t_sent: first content event of any kind, reasoning included,"
        " role-only deltas not",
        unit="s",
        peers={
            "vLLM bench": "TTFT, but a role-only delta counts",
            "AIPerf": "TTFT",
            "GuideLLM": "TTFT",
            "inference-perf": "TTFT",
            "llmperf": "TTFT, connection set-up included",
            "MLPerf Endpoints": "TTFT",
            "Locust": "none: response_time of a stream is that of its headers",
        },
    ),
    Term(
        name="ttft_intended_s",
        title="time to first token, from due",
        formula="t_first - t_intended",
        unit="s",
        peers={"MLPerf LoadGen": "TTFT (Server), from the scheduled time"},
    ),
    Term(
        name="ttfo_s",
        title="time to first output",
        formula="t_first_output - t_sent: reasoning skipped",
        unit="s",
        peers={"AIPerf": "TTFO", "GuideLLM": "TTFOT"},
    ),
    Term(
        name="tpot_s",
        title="time per output token",
        formula="(t_last - t_first) / (n_out - tokens of the first event)",
        unit="s/token",
        peers={
            "MLPerf Endpoints": "TPOT, the same",
            "vLLM bench": "TPOT = (e2e - TTFT) / (n_out - 1)",
            "MLPerf LoadGen": "TPOT = (e2e - TTFT) / (n_out - 1)",
            "AIPerf": "called inter-token latency",
            "GuideLLM": "called ITL; its TPOT = e2e / n_out includes TTFT",
            "inference-perf": "TPOT over (n_out - 1); its NTPOT = e2e / n_out",
            "llmperf": "ITL = (TTFT + sum of gaps) / n_out",
        },
    ),
    Term(
        name="icl_s",
        title="gap between events",
        formula="t_event - t_previous event, gaps of all answers pooled",
        unit="s",
        peers={
            "vLLM bench": "ITL",
            "AIPerf": "ICL, inter-chunk latency",
            "MLPerf Endpoints": "ITL",
            "inference-perf": "ITL, with a gap of 0 between tokens of one chunk",
        },
    ),
    Term(
        name="e2e_s",
        title="answer, from send",
        formula="t_end - t_sent",
        unit="s",
        peers={
            "vLLM bench": "E2EL",
            "AIPerf": "request latency",
            "GuideLLM": "request_latency",
            "Locust": "response_time, where the answer is not streamed",
        },
    ),
    Term(
        name="response_time_s",
        title="answer, from due",
        formula="t_end - t_intended: the wait of a user whom no cap held back",
        unit="s",
        peers={
            "wrk2": "latency",
            "MLPerf LoadGen": "latency (Server), from the scheduled time",
            "GuideLLM": "request_scheduled_latency",
            "AIPerf": "effective_latency, which skips arrivals that its cap held back",
        },
    ),
    Term(
        name="send_lag_s",
        title="send lag",
        formula="t_sent - t_intended: the client's own fault, or its cap's",
        unit="s",
        peers={"inference-perf": "schedule_delay"},
    ),
)

_STATISTICS: Final = (
    Term(
        name="mean",
        title="mean, with mean_interval",
        formula="sum / n; interval by the means of 20 batches in order of time"
        " (Student's t, 19 degrees of freedom)",
        unit="s",
        peers={"GuideLLM": "mean and its interval, requests taken as independent"},
    ),
    Term(
        name="p99",
        title="percentile, nearest rank (p50, p90, p95, p99)",
        formula="the ceil(q n)-th smallest of n; none below n = 1 / (1 - q):"
        " 2, 10, 20 and 100",
        unit="s",
        peers={
            "MLPerf LoadGen": "p99, which needs 662 samples to be claimed",
            "vLLM bench": "interpolated, from any number of samples",
            "Locust": "of response times rounded to two digits",
        },
    ),
    Term(
        name="p99_interval",
        title="95 % confidence interval of a percentile",
        formula="the order statistics whose ranks hold the percentile with 95 % by the"
        " binomial law, of n / phi independent samples; phi says how much more the"
        " share below it varies from batch to batch than of independent requests",
        unit="s",
    ),
    Term(
        name="adjusted",
        title="percentiles of all that was asked",
        formula="nearest rank with failed, throttled, incomplete and dropped requests"
        " as +inf; none where the rank falls on one",
        unit="s",
        peers={"AIPerf": "adj_*"},
    ),
    Term(
        name="window",
        title="steady window",
        formula="given by --window, or of the time in which requests arrived the"
        " longest stretch whose output rate and number in flight have about the least"
        " standard error (MSER, from both ends), at least half of it; where all were"
        " due at once, while the middle 80 % of the tokens were given; none if rate or"
        " number drifts inside it by more than 10 %",
        unit="s",
        peers={
            "vLLM bench": "in Rust only: while in flight is a share of"
            " --max-concurrency",
        },
    ),
)

_RATES: Final = (
    Term(
        name="makespan_s",
        title="makespan",
        formula="last token (or end) - first intended arrival",
        unit="s",
        peers={"vLLM bench": "benchmark duration"},
    ),
    Term(
        name="output_tok_s",
        title="output rate",
        formula="output tokens of whole answers / makespan",
        unit="tokens/s",
        peers={
            "vLLM bench": "output token throughput",
            "AIPerf": "output token throughput",
        },
    ),
    Term(
        name="steady_output_tok_s",
        title="steady output rate",
        formula="output tokens given in the steady window / its length; over the middle"
        " 80 % of the tokens where there is no steady window",
        unit="tokens/s",
        peers={"MLPerf LoadGen": "tokens/s (Offline) of a run long beside its ramp"},
    ),
    Term(
        name="total_tok_s",
        title="token rate",
        formula="(input + output tokens of whole answers) / makespan",
        unit="tokens/s",
        peers={"vLLM bench": "total token throughput"},
    ),
    Term(
        name="req_s",
        title="request rate",
        formula="whole answers / makespan",
        unit="requests/s",
        peers={
            "vLLM bench": "request throughput",
            "Locust": "RPS, failures included",
        },
    ),
    Term(
        name="goodput_req_s",
        title="goodput",
        formula="requests that met every objective by their own values / makespan",
        unit="requests/s",
        peers={"vLLM bench": "request goodput", "AIPerf": "goodput"},
    ),
    Term(
        name="goodput",
        title="attainment",
        formula="requests that met every objective / those asked: sent and dropped,"
        " without warm-up and what was cancelled; interval by Wilson's score",
        unit="share",
        peers={"GuideLLM": "attainment, with Wilson's interval"},
    ),
)

_COUNTS: Final = (
    Term(
        name="ok",
        title="answered",
        formula="requests whose answer came back whole",
        unit="requests",
    ),
    Term(
        name="failed",
        title="failed",
        formula="requests that ended in an error or broke off",
        unit="requests",
    ),
    Term(
        name="throttled",
        title="throttled",
        formula="requests refused with 429: a limit, not a fault",
        unit="requests",
        peers={"AIPerf": "an error", "GuideLLM": "an error"},
    ),
    Term(
        name="incomplete",
        title="incomplete",
        formula="requests still running when the drain ended",
        unit="requests",
        peers={"GuideLLM": "incomplete"},
    ),
    Term(
        name="cancelled",
        title="cancelled",
        formula="requests in flight when the run was stopped",
        unit="requests",
    ),
    Term(
        name="dropped",
        title="dropped",
        formula="requests that were due and never sent",
        unit="requests",
        peers={"k6": "dropped_iterations"},
    ),
    Term(
        name="warmup",
        title="warm-up",
        formula="requests due in --warmup: sent and counted, in no percentile",
        unit="requests",
    ),
    Term(
        name="usage_differs",
        title="usage differs",
        formula="answers whose usage names another number of tokens than events came",
        unit="answers",
        peers={"AIPerf": "token discrepancy, usage against its tokenizer"},
    ),
)

_MONEY: Final = (
    Term(
        name="usd_per_request",
        title="cost per request",
        formula="the bill of the makespan / whole answers",
        unit="USD",
        peers={"LLMeter": "cost per request, by tokens or time of the endpoint"},
    ),
    Term(
        name="usd_per_million_output_tokens",
        title="cost per million output tokens",
        formula="the bill of the makespan / output tokens of whole answers x 10^6",
        unit="USD",
    ),
)

GLOSSARY: Final[Mapping[str, tuple[Term, ...]]] = {
    "Latencies": _LATENCIES,
    "Statistics": _STATISTICS,
    "Rates": _RATES,
    "Counts": _COUNTS,
    "Money": _MONEY,
}
"""Every term, by chapter."""


def glossary() -> tuple[Term, ...]:
    """Return every term, in order of print."""
    return tuple(term for terms in GLOSSARY.values() for term in terms)


def peers_text(term: Term) -> str:
    """Say in a line what others call it; empty where nobody has it."""
    return "; ".join(f"{tool}: {word}" for tool, word in term.peers.items())


def glossary_markdown() -> str:
    """Return the table as Markdown, a chapter each; ends without a line feed."""
    head = ("figure", "meaning", "formula", "unit", "elsewhere")
    return "\n\n".join(
        "\n".join(
            (
                f"### {chapter}\n",
                f"| {' | '.join(head)} |",
                "|---" * len(head) + "|",
                *map(_markdown_row, terms),
            )
        )
        for chapter, terms in GLOSSARY.items()
    )


def _markdown_row(term: Term) -> str:
    cells = (f"`{term.name}`", term.title, term.formula, term.unit, peers_text(term))
    return f"| {' | '.join(cells)} |"
