"""A run's figures, each worked out by hand from a handful of rows."""

import json
from math import ceil
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from loadstone.buckets import LogHistogram, bucket_of
from loadstone.traffic.quantiles import LEAST, QUANTILES, nearest_rank
from loadstone.traffic.record import Outcome, RequestRecord, TokensSource
from loadstone.traffic.slo import Slo
from loadstone.traffic.steady import Spans
from loadstone.traffic.summary import (
    Fold,
    describe,
    describe_histogram,
    summarize,
)


def row(
    intended: float,
    sent: float,
    first: float | None,
    last: float | None,
    end: float,
    **more: object,
) -> RequestRecord:
    """Return a row that ended ok, unless `more` says otherwise."""
    given: dict[str, object] = {"outcome": Outcome.OK, "first_event_tokens": 1} | more
    return RequestRecord(
        id="r",
        scenario="chat",
        intended_s=intended,
        sent_s=sent,
        first_s=first,
        last_s=last,
        end_s=end,
        **given,
    )


A = row(0.0, 0.1, 0.5, 1.5, 1.6, input_tokens=10, output_tokens=11,
        icl=((bucket_of(0.1), 10),))  # fmt: skip
B = row(1.0, 1.0, 1.2, 5.2, 5.2, input_tokens=20, output_tokens=21,
        icl=((bucket_of(0.2), 20),))  # fmt: skip
ONE = row(2.0, 2.0, 3.0, 3.0, 3.0, input_tokens=5, output_tokens=1)
"""An answer of a single token has no TPOT."""
WARM = row(0.0, 0.0, 3.0, 3.5, 3.5, input_tokens=7, output_tokens=6, warmup=True,
           icl=((bucket_of(9.0), 5),))  # fmt: skip
BROKEN = row(2.0, 2.9, 3.5, 4.0, 9.0, input_tokens=5, output_tokens=5,
             outcome=Outcome.FAILED, error="timeout",
             icl=((bucket_of(9.0), 4),))  # fmt: skip
REFUSED = row(3.0, 3.0, None, None, 3.1, outcome=Outcome.THROTTLED, status=429,
              error="429 rate_limit")  # fmt: skip
ROWS = [A, B, ONE, WARM, BROKEN, REFUSED]
SPAN = 5.2
"""From A's intended time to B's last token; BROKEN's last token came before that."""


def test_requests_are_counted_by_outcome() -> None:
    """Each in exactly one; what was dropped was never sent; warm-up was sent too."""
    assert summarize(ROWS, dropped=7)["requests"] == {
        "sent": 6,
        "ok": 4,
        "failed": 1,
        "throttled": 1,
        "cancelled": 0,
        "incomplete": 0,
        "dropped": 7,
        "warmup": 1,
        "reconnected": 0,
        "beside": 0,
    }


def test_requests_that_were_sent_again_are_counted() -> None:
    """However they ended."""
    rows = [A, replace(A, reconnects=1), replace(BROKEN, reconnects=1)]
    assert summarize(rows)["requests"]["reconnected"] == 2


def test_tokens_are_those_of_whole_answers() -> None:
    """Warm-up answers are work done; what a broken one gave is not."""
    assert summarize(ROWS)["tokens"] == {
        "input": 10 + 20 + 5 + 7,
        "output": 11 + 21 + 1 + 6,
    }


def test_streams_are_told_apart() -> None:
    """Reasoning, tool calls, and events that are not one token each."""
    first, usage = A.first_s, TokensSource.USAGE
    assert first is not None
    whole = replace(
        A, first_output_s=first, events=A.output_tokens, tokens_source=usage
    )
    rows = [
        whole,
        replace(whole, first_output_s=first + 0.1),
        replace(whole, first_output_s=first + 0.3, first_tool_s=first + 0.3),
        replace(whole, events=whole.output_tokens - 1),
        replace(whole, events=1, tokens_source=TokensSource.CHUNKS),
        replace(whole, events=0),
        replace(whole, first_output_s=None),
    ]
    summary = summarize(rows)
    assert summary["streams"] == {"reasoning": 2, "tool_calls": 1, "usage_differs": 1}
    ttft = A.ttft_s
    assert ttft is not None
    assert summary["ttfo_s"]["n"] == 6
    assert summary["ttfo_s"]["p50"] == pytest.approx(ttft)
    assert summarize(rows * 20)["ttfo_s"]["p99"] == pytest.approx(ttft + 0.3)


def test_throughput_by_hand() -> None:
    """All over the makespan, from the first intended arrival to the last token."""
    summary = summarize(ROWS)
    assert summary["makespan_s"] == pytest.approx(SPAN)
    rates = summary["throughput"]
    assert rates["output_tok_s"] == pytest.approx(39 / SPAN)
    assert rates["total_tok_s"] == pytest.approx((39 + 42) / SPAN)
    assert rates["req_s"] == pytest.approx(4 / SPAN)
    assert rates["goodput_req_s"] is None


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("ttft_s", (0.2, 0.4, 1.0)),
        ("ttft_intended_s", (0.2, 0.5, 1.0)),
        ("tpot_s", (0.1, 0.2)),
        ("e2e_s", (1.0, 1.5, 4.2)),
        ("response_time_s", (1.0, 1.6, 4.2)),
        ("send_lag_s", (0.0, 0.0, 0.1)),
    ],
)
def test_latencies_by_hand(name: str, values: tuple[float, ...]) -> None:
    """Of A, B and the one-token answer; no warm-up, no failure; nearest rank."""
    middle = values[1] if len(values) == 3 else values[0]
    told = {stat: summarize(ROWS * 50)[name][stat] for stat in ("mean", *QUANTILES)}
    assert told == {
        "mean": pytest.approx(sum(values) / len(values)),
        "p50": pytest.approx(middle),
        "p90": pytest.approx(values[-1]),
        "p95": pytest.approx(values[-1]),
        "p99": pytest.approx(values[-1]),
    }
    assert summarize(ROWS)[name]["n"] == len(values)


@pytest.mark.parametrize("name", QUANTILES)
def test_a_percentile_of_too_few_is_not_told(name: str) -> None:
    """Nor its interval; from `n (1 - q) = 1` on both are."""
    least = LEAST[name]
    assert least == ceil(round(1 / (1 - QUANTILES[name]), 9))
    few, enough = (summarize([A] * n)["ttft_s"] for n in (least - 1, least))
    assert (few[name], few[f"{name}_interval"]) == (None, None)
    assert enough[name] == pytest.approx(0.4)
    # The lag of the instrument is an alarm, not a claim.
    assert summarize([A])["send_lag_s"] == {
        stat: pytest.approx(0.1) for stat in ("mean", *QUANTILES)
    } | {"n": 1}


def test_adjusted_percentiles_by_hand() -> None:
    """Ninety answers of 1 to 90 ms, six that never came and four never sent.

    Of a hundred the 50th is 50 ms, the 90th is 90 ms, the 95th never came. What we
    cancelled and the warm-up are not among them.
    """
    rows = [row(0.0, 0.0, i / 1000, 1.0, 1.0) for i in range(1, 91)]
    lost = [
        replace(BROKEN, outcome=outcome)
        for outcome in (Outcome.FAILED, Outcome.THROTTLED, Outcome.INCOMPLETE)
    ]
    others = [replace(BROKEN, outcome=Outcome.CANCELLED), replace(BROKEN, warmup=True)]
    told = summarize(rows + lost * 2 + others, dropped=4)["ttft_s"]
    assert told["p90"] == pytest.approx(0.081)
    assert told["adjusted"] == {
        "p50": pytest.approx(0.050),
        "p90": pytest.approx(0.090),
        "p95": None,
        "p99": None,
        "n": 100,
        "failed_as_inf": 10,
    }


def test_gaps_are_pooled_over_requests() -> None:
    """Ten gaps of A and twenty of B: the median is B's; of ten and ten it is A's."""
    gaps = summarize(ROWS * 4)["icl_s"]
    assert gaps["n"] == 4 * 30
    assert gaps["mean"] == pytest.approx((10 * 0.1 + 20 * 0.2) / 30, rel=0.01)
    assert gaps["p50"] == pytest.approx(0.2, rel=0.01)
    assert gaps["p99"] == pytest.approx(0.2, rel=0.01)
    assert summarize(ROWS)["icl_s"]["p99"] is None
    fewer = summarize([A, replace(B, icl=((bucket_of(0.2), 10),))])["icl_s"]
    assert fewer["p50"] == pytest.approx(0.1, rel=0.01)


def test_gaps_may_be_given_from_outside() -> None:
    """Virtual time has one gap for a whole batch, and none in the rows."""
    gaps = LogHistogram()
    gaps.add(0.03, 1000)
    assert summarize(ROWS, icl=gaps)["icl_s"]["n"] == 1000


def test_errors_are_counted_by_kind() -> None:
    """The most frequent first, ten at most."""
    errors = [replace(BROKEN, error=f"e{i}") for i in range(12) for _ in range(i + 1)]
    assert summarize(ROWS)["errors"] == {"timeout": 1, "429 rate_limit": 1}
    counts = summarize(errors)["errors"]
    assert list(counts.items()) == [(f"e{i}", i + 1) for i in range(11, 1, -1)]


@pytest.mark.parametrize(
    ("slos", "good"),
    [
        ((Slo("ttft_intended_s", "p99", 0.5),), 2),  # A is just within, B below
        ((Slo("ttft_intended_s", "p99", 0.499),), 1),
        ((Slo("ttft_intended_s", "p99", 0.5), Slo("tpot_s", "p99", 0.15)), 1),
        ((Slo("tpot_s", "p99", 0.15),), 3),  # A, the warm-up, and one token has no TPOT
        ((Slo("e2e_s", "p50", 100.0),), 4),
    ],
)
def test_goodput_counts_requests_that_met_every_limit(
    slos: tuple[Slo, ...], good: int
) -> None:
    """By their own value, whatever the statistic; what failed never does."""
    rates = summarize(ROWS, slos=slos)["throughput"]
    assert rates["goodput_req_s"] == pytest.approx(good / SPAN)


def test_slos_are_judged_over_the_rows() -> None:
    """In their order, each with its value."""
    slos = (Slo("ttft_s", "p50", 0.4), Slo("e2e_s", "mean", 2.0))
    first, second = summarize([A, A, B], slos=slos)["slo"]
    assert first == {
        "metric": "ttft_s",
        "stat": "p50",
        "max_s": 0.4,
        "value_s": pytest.approx(0.4),
        "met": True,
        "failed_as_inf": 0,
    }
    assert second["value_s"] == pytest.approx((1.5 + 1.5 + 4.2) / 3)
    assert second["met"] is False


def test_failures_miss_an_objective_and_leave_the_percentiles_alone() -> None:
    """Those are over the answers; the judgement is not. And it is all JSON."""
    slos = tuple(Slo("ttft_s", stat, 100.0) for stat in ("p50", "p99", "mean"))
    summary = summarize([A, B, ONE, BROKEN], slos=slos)
    assert summary["ttft_s"]["p50"] == pytest.approx(0.4)
    assert [line["met"] for line in summary["slo"]] == [True, False, False]
    assert {line["failed_as_inf"] for line in summary["slo"]} == {1}
    json.dumps(summary, allow_nan=False)


def test_nothing_sent_has_no_figures() -> None:
    """None, and not zero, where there is nothing to divide by."""
    summary = summarize([], dropped=3, slos=(Slo("ttft_s", "p99", 1.0),))
    assert summary["requests"]["sent"] == 0
    assert summary["requests"]["dropped"] == 3
    assert set(summary["throughput"].values()) == {None}
    told = {stat: summary["ttft_s"][stat] for stat in ("mean", *QUANTILES, "n")}
    assert told == dict.fromkeys(("mean", *QUANTILES)) | {"n": 0}
    assert summary["icl_s"]["mean"] is None
    assert summary["slo"][0]["met"] is None


def test_nothing_answered_has_no_throughput() -> None:
    """But a goodput of zero, for there were objectives and nobody met them."""
    summary = summarize([BROKEN, REFUSED], slos=(Slo("ttft_s", "p99", 1.0),))
    rates = summary["throughput"]
    assert (rates["output_tok_s"], rates["req_s"]) == (None, None)
    assert rates["goodput_req_s"] == 0.0
    assert summary["slo"][0]["met"] is False
    assert summary["ttft_s"]["n"] == 0
    assert summary["tokens"] == {"input": 0, "output": 0}


def test_makespan_ends_with_the_last_token_or_the_end_where_none_came() -> None:
    """A connection that stays open after the last token does not count."""

    def makespan(*rows: RequestRecord) -> float:
        return float(summarize(rows)["makespan_s"])

    assert makespan() == 0.0
    assert makespan(A) == pytest.approx(1.5)
    assert makespan(A, replace(B, last_s=4.0, end_s=60.0)) == pytest.approx(4.0)
    assert makespan(A, REFUSED) == pytest.approx(3.1)
    assert makespan(B, ONE) == pytest.approx(4.2)


def test_fold_may_be_asked_on_the_way() -> None:
    """Its figures so far are those of the rows so far, and no row is kept."""
    slos = (Slo("ttft_s", "p99", 1.0),)
    fold = Fold(slos)
    for n, each in enumerate(ROWS, 1):
        fold.add(each)
        assert fold.summary(dropped=2) == summarize(ROWS[:n], dropped=2, slos=slos)
    assert fold.sent == len(ROWS)


# ------------------------------------------------------------- quantiles


@pytest.mark.parametrize(
    ("n", "q", "rank"),
    [(1, 0.5, 1), (1, 0.99, 1), (2, 0.5, 1), (3, 0.5, 2), (10, 0.9, 9), (11, 0.9, 10),
     (20, 0.95, 19), (21, 0.95, 20), (100, 0.99, 99), (101, 0.99, 100), (100, 1.0, 100),
     (99, 0.99, 99)],
)  # fmt: skip
def test_nearest_rank_by_hand(n: int, q: float, rank: int) -> None:
    """The ceil(q n)-th smallest: a value that was measured, never one in between."""
    assert nearest_rank(range(1, n + 1), q) == rank


@pytest.mark.parametrize("percent", [50, 90, 95, 99])
def test_nearest_rank_has_no_rounding_error(percent: int) -> None:
    """For any number of samples the rank is that of exact arithmetic."""
    q = QUANTILES[f"p{percent}"]
    for n in range(1, 5000):
        assert nearest_rank(range(1, n + 1), q) == -(-percent * n // 100)


@given(st.lists(st.floats(0.001, 1e4), min_size=1, max_size=80))
def test_histogram_says_the_same_as_the_values(values: list[float]) -> None:
    """To within 1 %, so that merged histograms may stand for rows elsewhere."""
    histogram = LogHistogram()
    for value in values:
        histogram.add(value)
    exact, close = describe(values), describe_histogram(histogram)
    assert close == {
        name: pytest.approx(value, rel=0.01) for name, value in exact.items()
    }


# ------------------------------------------------------------- the steady rate


def rate_of(*answers: tuple[float, float, int]) -> float | None:
    """Return the steady rate of answers: first token, last token, how many."""
    spans = Spans()
    for answer in answers:
        spans.add(*answer)
    return spans.rate()


@pytest.mark.parametrize(
    ("answers", "rate"),
    [
        # Ten tokens in ten seconds: 10 % at 1 s, 90 % at 9 s.
        ([(0.0, 10.0, 10)], 8 / 8),
        # 1 token/s, and 3 from second 5 on: 2 of 20 by 2 s, 18 by 5 + 13/3 s.
        ([(0.0, 10.0, 10), (5.0, 10.0, 10)], 16 / (5 + 13 / 3 - 2)),
        # A pause in the middle counts: 10 % at 0.2 s, 90 % at 9.8 s.
        ([(0.0, 1.0, 10), (9.0, 10.0, 10)], 16 / 9.6),
        # A slow tail of 5 % of the tokens does not.
        ([(0.0, 9.5, 95), (9.5, 1000.0, 5)], 10.0),
        # Nor does a slow start.
        ([(0.0, 1000.0, 5), (1000.0, 1009.5, 95)], 10.0),
        # Single events: all of a token comes at once.
        ([(0.0, 0.0, 1), (10.0, 10.0, 1)], 1.6 / 10),
    ],
)
def test_steady_rate_by_hand(
    answers: list[tuple[float, float, int]], rate: float
) -> None:
    """The middle 80 % of the tokens over the time they took: ramp and drain are out."""
    assert rate_of(*answers) == pytest.approx(rate, rel=1e-5)


def test_steady_rate_needs_tokens() -> None:
    """Without an event there is none."""
    assert rate_of() is None
    assert rate_of((0.0, 1.0, 0)) is None
    rows = [row(0.0, 0.0, None, None, 1.0)]
    assert summarize(rows)["throughput"]["steady_output_tok_s"] is None


@given(
    st.lists(
        st.tuples(st.floats(0, 1e4), st.floats(0, 1e3), st.integers(1, 1000)),
        min_size=1,
        max_size=40,
    )
)
def test_steady_rate_is_that_of_all_kinks_in_order(
    spans: list[tuple[float, float, int]],
) -> None:
    """Cutting time into bins loses nothing against a walk over every kink."""
    ends = [(first, max(first + more, first + 1e-6), n) for first, more, n in spans]
    total = sum(n for _, _, n in ends)

    def given_by(t: float) -> float:
        return sum(
            n * min(max((t - first) / (last - first), 0.0), 1.0)
            for first, last, n in ends
        )

    def when(count: float) -> float:
        times = sorted({t for first, last, _ in ends for t in (first, last)})
        after = next(t for t in times if given_by(t) >= count * (1 - 1e-12))
        before = max((t for t in times if t < after), default=after)
        low, high = given_by(before), given_by(after)
        return before + (after - before) * (
            (count - low) / (high - low) if high > low else 1
        )

    time = when(0.9 * total) - when(0.1 * total)
    rate = rate_of(*ends)
    assert rate is not None
    assert 0.8 * total / rate == pytest.approx(time, rel=1e-6, abs=2e-6)


def test_steady_rate_is_that_of_the_middle_of_a_long_run() -> None:
    """A thousand overlapping answers: what a naive count of their tokens says."""
    rng = Random(6)
    answers, stamps = [], []
    for i in range(1000):
        first, n = i * 0.05 + rng.random(), rng.randint(50, 150)
        last = first + n * 0.02
        answers.append((first, last, n))
        stamps += [first + (j + 0.5) * (last - first) / n for j in range(n)]
    stamps.sort()
    early, late = stamps[len(stamps) // 10], stamps[len(stamps) * 9 // 10]
    naive = 0.8 * len(stamps) / (late - early)
    assert rate_of(*answers) == pytest.approx(naive, rel=1e-3)
    assert naive == pytest.approx(len(stamps) / 50, rel=0.02)


# ------------------------------------------------------------- attainment, slices


def test_attainment_is_of_all_that_was_asked() -> None:
    """A, B and ONE answered, BROKEN and REFUSED not, two never sent: 2 of 7.

    The warm-up is not judged, nor what we cancelled.
    """
    slos = (Slo("ttft_intended_s", "p99", 0.5),)
    rows = [*ROWS, replace(BROKEN, outcome=Outcome.CANCELLED)]
    told = summarize(rows, dropped=2, slos=slos)["goodput"]
    low, high = told.pop("share_interval")
    assert told == {"met": 2, "of": 7, "share": pytest.approx(2 / 7)}
    assert 0 < low < 2 / 7 < high < 1
    assert summarize(rows, dropped=2)["goodput"] is None
    assert summarize([], slos=slos)["goodput"] is None


def test_slices_are_by_scenario_tenant_stage_and_slice() -> None:
    """Each with its own requests, tokens, latencies and attainment."""
    slos = (Slo("ttft_s", "p99", 0.5),)
    rag = replace(B, scenario="rag", stage="embed", slice="hard")
    rows = [A, ONE, replace(BROKEN, tenant="b"), rag, replace(rag, warmup=True)]
    told = summarize(rows, slos=slos)["slices"]
    keys = [
        tuple(part[key] for key in ("scenario", "tenant", "stage", "slice"))
        for part in told
    ]
    assert keys == [
        ("chat", "b", "generate", ""),
        ("chat", "default", "generate", ""),
        ("rag", "default", "embed", "hard"),
    ]
    lost, chat, embed = told
    assert (lost["requests"]["failed"], lost["ttft_s"]["n"]) == (1, 0)
    assert lost["ttft_s"]["adjusted"]["failed_as_inf"] == 1
    assert (chat["requests"]["sent"], chat["output_tokens"]) == (2, 12)
    assert chat["ttft_s"]["mean"] == pytest.approx((0.4 + 1.0) / 2)
    assert chat["goodput"]["share"] == 0.5
    assert (embed["requests"]["ok"], embed["e2e_s"]["n"]) == (2, 1)
    assert (embed["goodput"]["met"], embed["goodput"]["of"]) == (1, 1)
    assert summarize(rows)["slices"][1]["goodput"] is None


@given(st.lists(st.sampled_from(ROWS), max_size=30), st.integers(0, 3))
def test_slices_add_up_to_the_whole(rows: list[RequestRecord], tenants: int) -> None:
    """Whatever the rows: counts, tokens, samples and attainment."""
    slos = (Slo("ttft_s", "p99", 0.5),)
    spread = [replace(r, tenant=str(i % (tenants + 1))) for i, r in enumerate(rows)]
    whole = summarize(spread, slos=slos)
    parts = whole["slices"]
    for outcome in Outcome:
        total = sum(part["requests"][outcome] for part in parts)
        assert total == whole["requests"][outcome]
    assert sum(p["output_tokens"] for p in parts) == whole["tokens"]["output"]
    assert sum(p["ttft_s"]["n"] for p in parts) == whole["ttft_s"]["n"]
    lost = sum(p["ttft_s"]["adjusted"]["failed_as_inf"] for p in parts)
    assert lost == whole["ttft_s"]["adjusted"]["failed_as_inf"]
    met = sum(p["goodput"]["met"] for p in parts if p["goodput"])
    assert met == (whole["goodput"] or {"met": 0})["met"]


def test_order_of_rows_changes_nothing() -> None:
    """Rows of several workers stand one after the other; intervals go by time."""
    rng = Random(8)
    rows = [
        row(float(i), float(i), i + rng.random(), i + 2.0, i + 2.0, output_tokens=3)
        for i in range(300)
    ]
    slos = (Slo("ttft_s", "p99", 0.5),)
    apart = rows[::2] + rows[1::2]
    whole, other = summarize(rows, slos=slos), summarize(apart, slos=slos)
    assert other["ttft_s"] == whole["ttft_s"]
    assert other["goodput"] == whole["goodput"]
    for edge in ("start_s", "end_s"):
        assert other["window"][edge] == pytest.approx(whole["window"][edge])
