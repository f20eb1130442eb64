"""A contract: pass, fail, or not enough samples, each side of every limit."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.errors import ExitCode
from loadstone.traffic.record import Outcome, RequestRecord
from loadstone.verify.contract import (
    Clause,
    ClauseError,
    Finding,
    Status,
    contract_exit_code,
    judge_contract,
    least_samples,
    read_clause,
)

PASSED, FAILED, NOT_ENOUGH = Status.PASSED, Status.FAILED, Status.NOT_ENOUGH


def row(i: int, ttft: float, outcome: Outcome = Outcome.OK) -> RequestRecord:
    """Return a request that had its first token after `ttft` seconds."""
    return RequestRecord(
        id=str(i), scenario="chat", intended_s=float(i), sent_s=float(i),
        end_s=i + ttft + 1, first_s=i + ttft, last_s=i + ttft + 1, outcome=outcome,
        output_tokens=10, first_event_tokens=1,
    )  # fmt: skip


def summary(
    n: int = 1000, *, verdict: str = "ok", complete: bool = True, **changes: Any
) -> dict[str, Any]:
    """Return the part of a summary that clauses look at."""
    requests = dict.fromkeys(("failed", "incomplete", "throttled", "dropped"), 0)
    return {
        "requests": requests | {"sent": n, "ok": n, "cancelled": 0} | changes,
        "throughput": {"output_tok_s": 500.0, "goodput_req_s": None},
        "cost": {"usd_per_request": 0.01, "energy": None},
        "instrument": {"verdict": verdict},
        "complete": complete,
    }


def judged(
    clause: dict[str, Any],
    rows: list[RequestRecord] | None = None,
    seen: dict[str, Any] | None = None,
) -> Finding:
    """Judge one clause."""
    (found,) = judge_contract([read_clause(clause)], seen or summary(), rows or [])
    return found


def ttft(n: int, limit: float, stat: str = "p99", slow: int = 0) -> Finding:
    """Judge n requests of about a second, some of them of ten seconds."""
    # Shuffled by a prime: whoever waits longest is not always the last.
    rows = [row(i, 1 + i * 7919 % n / n / 100) for i in range(n - slow)]
    rows += [row(n, 10.0) for _ in range(slow)]
    return judged({"metric": "ttft_intended_s", "stat": stat, "max": limit}, rows)


def test_latency_passes_with_all_of_its_interval() -> None:
    """And fails with none of it: 1,000 requests of 1 to 1.01 s."""
    assert ttft(1000, 1.1).status is PASSED
    assert ttft(1000, 0.9).status is FAILED
    between = ttft(1000, 1.0099)
    assert between.status is NOT_ENOUGH
    assert "interval" in between.why


@pytest.mark.parametrize(("stat", "least"), [("p50", 2), ("p90", 10), ("p99", 100)])
def test_too_few_samples_are_never_a_pass(stat: str, least: int) -> None:
    """However far the limit is; and they are never a failure either."""
    assert least_samples(stat) == least
    for limit in (0.001, 1e6):
        assert ttft(least - 1, limit, stat).status is NOT_ENOUGH
    assert ttft(0, 1e6, stat).status is NOT_ENOUGH


def test_hundred_samples_do_not_bound_a_p99() -> None:
    """It takes 368 independent ones until the greatest is above it, by 97.5 %."""
    assert ttft(100, 1e6).status is NOT_ENOUGH
    assert "from above" in ttft(100, 1e6).why
    assert ttft(2000, 1e6).status is PASSED


def test_failures_are_slower_than_any_answer() -> None:
    """Five in a hundred failed, so there is no p99 to keep; and no mean."""
    rows = [row(i, 0.1, Outcome.OK if i % 20 else Outcome.FAILED) for i in range(2000)]
    p99 = judged({"metric": "ttft_intended_s", "stat": "p99", "max": 5}, rows)
    assert p99.status is FAILED
    assert p99.to_json()["value"] is None
    mean = judged({"metric": "ttft_intended_s", "stat": "mean", "max": 5}, rows)
    assert mean.status is FAILED
    assert "100 of 2,000" in mean.why
    p50 = judged({"metric": "ttft_intended_s", "stat": "p50", "max": 5}, rows)
    assert p50.status is PASSED


def test_figures_are_bounded_on_either_side() -> None:
    """A floor of tokens/s, a ceiling of price; both sides of each."""
    for clause, status in (
        ({"metric": "output_tok_s", "min": 500}, PASSED),
        ({"metric": "output_tok_s", "min": 500.1}, FAILED),
        ({"metric": "usd_per_request", "max": 0.01}, PASSED),
        ({"metric": "usd_per_request", "max": 0.0099}, FAILED),
        ({"metric": "goodput_req_s", "min": 1}, NOT_ENOUGH),
        ({"metric": "joules_per_output_token", "max": 1}, NOT_ENOUGH),
    ):
        assert judged(clause).status is status, clause
    few = summary(99)
    assert judged({"metric": "output_tok_s", "min": 1}, seen=few).status is NOT_ENOUGH
    assert judged({"metric": "output_tok_s", "min": 1}, seen=summary(100)).status is (
        PASSED
    )


def test_price_with_requests_left_out_is_a_lower_bound() -> None:
    """It can fail a ceiling, and not pass one."""
    seen = summary()
    seen["cost"]["unpriced_requests"] = 3
    clause = {"metric": "usd_per_request", "max": 0.02}
    assert judged(clause, seen=seen).status is NOT_ENOUGH
    assert judged(clause | {"max": 0.001}, seen=seen).status is FAILED


def test_share_of_failures_needs_three_times_its_inverse() -> None:
    """Without one among 2,999, up to 1 in 1,000 may still fail."""
    clause = {"metric": "failed_share", "max": 0.001}
    assert judged(clause, seen=summary(2999)).status is NOT_ENOUGH
    assert judged(clause, seen=summary(3000)).status is PASSED
    assert judged(clause, seen=summary(3000, failed=4)).status is FAILED
    cancelled = summary(3000, cancelled=1)
    assert judged(clause, seen=cancelled).status is NOT_ENOUGH
    dropped = summary(3000, dropped=100)
    assert judged(clause, seen=dropped).status is PASSED
    everything = clause | {"metric": "unanswered_share"}
    assert judged(everything, seen=dropped).status is FAILED


def test_exit_codes() -> None:
    """Not valid comes before not met, and not met before not known."""
    good, bad, unknown = (
        Finding(Clause("req_s", None, "min", 1), status, 1.0, None, None, 1, "")
        for status in (PASSED, FAILED, NOT_ENOUGH)
    )
    assert contract_exit_code([good], summary()) is ExitCode.DONE
    assert contract_exit_code([good, unknown], summary()) is ExitCode.NOT_VALID
    assert contract_exit_code([good, unknown, bad], summary()) is ExitCode.NOT_MET
    for seen in (summary(verdict="client_limited"), summary(complete=False)):
        assert contract_exit_code([good, bad], seen) is ExitCode.NOT_VALID
    few = summary(verdict="too_few_samples")
    assert contract_exit_code([good, bad], few) is ExitCode.NOT_MET


@given(
    st.lists(st.floats(0, 100), max_size=400),
    st.floats(0.001, 100),
    st.sampled_from(("mean", "p50", "p90", "p95", "p99")),
)
def test_a_clause_that_passes_is_kept_by_its_value(
    values: list[float], limit: float, stat: str
) -> None:
    """The interval holds the statistic: a pass has no value beyond the limit."""
    rows = [row(i, value) for i, value in enumerate(values)]
    found = judged({"metric": "ttft_intended_s", "stat": stat, "max": limit}, rows)
    if found.status is PASSED:
        assert found.value is not None
        assert found.value <= limit + 1e-9
        assert found.n >= least_samples(stat)
    if found.status is FAILED:
        assert found.value is not None
        assert found.value > limit - 1e-9


@pytest.mark.parametrize(
    ("clause", "key", "said"),
    [
        ({"metric": "speed", "min": 1}, "metric", "unknown"),
        ({"metric": "ttft_s", "max": 1}, "stat", "needs a stat"),
        ({"metric": "ttft_s", "stat": "p77", "max": 1}, "stat", "needs a stat"),
        ({"metric": "req_s", "stat": "p50", "max": 1}, "stat", "no stat"),
        ({"metric": "req_s"}, "metric", "either max or min"),
        ({"metric": "req_s", "max": 1, "min": 1}, "metric", "either max or min"),
        ({"metric": "req_s", "max": "1"}, "max", "a number"),
        ({"metric": "req_s", "min": -1}, "min", "a number"),
        ({"metric": "req_s", "min": True}, "min", "a number"),
        ({"metric": "failed_share", "min": 0.1}, "min", "from above"),
        ({"metric": "ttft_s", "stat": "p50", "min": 0.1}, "min", "from above"),
        ({"metric": "req_s", "max": 1, "note": "x"}, "note", "unknown key"),
    ],
)
def test_wrong_clauses_are_refused(clause: dict[str, Any], key: str, said: str) -> None:
    """With the key, whose line the verb then names."""
    with pytest.raises(ClauseError, match=said) as wrong:
        read_clause(clause)
    assert wrong.value.key == key
