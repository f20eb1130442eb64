"""Verdicts: both sides of each limit, and which one is named when several apply."""

from dataclasses import replace
from math import inf, nextafter

import pytest

from loadstone.traffic.verdict import (
    MAX_LOOP_LAG_S,
    MAX_SEND_LAG_S,
    MAX_TTFT_ERROR_S,
    MIN_DELIVERED,
    MIN_SAMPLES,
    VITALS,
    Evidence,
    Verdict,
    judge,
)

GOOD = Evidence(
    samples=100,
    ttft_error={"mean": 0.001, "p99": 0.005},
    loop_lag_p99=0.005,
    recv_lag_p99=0.005,
    vitals={name: limit for name, (limit, _) in VITALS.items()},
    send_lag_p99=0.05,
    scheduled=1000,
    sent=990,
)
"""Everything just within its limit."""


def test_limits_are_those_that_are_documented() -> None:
    """5 ms of error, 5 ms of lag, 50 ms of send lag, 99 % delivered, 100 requests."""
    limits = (
        MAX_TTFT_ERROR_S,
        MAX_LOOP_LAG_S,
        MAX_SEND_LAG_S,
        MIN_DELIVERED,
        MIN_SAMPLES,
    )
    assert limits == (0.005, 0.005, 0.05, 0.99, 100)


def test_what_is_beyond_a_limit_reads_so() -> None:
    """It is rounded up: "5.0 ms late (limit 5.0 ms)" explains nothing."""
    reason = judge(replace(GOOD, loop_lag_p99=0.00501))[1][0]
    assert reason.endswith("was 5.1 ms late at p99 (limit 5.0 ms)")


def test_at_every_limit_a_run_is_ok() -> None:
    """And has no reasons."""
    assert judge(GOOD) == (Verdict.OK, [])


@pytest.mark.parametrize(
    ("worse", "verdict", "reason"),
    [
        (
            {"ttft_error": {"p99": nextafter(0.005, inf)}},
            Verdict.CLIENT_LIMITED,
            "TTFT was read 5.1 ms late at p99",
        ),
        (
            {"beyond_profile": "twice what this machine reads"},
            Verdict.CLIENT_LIMITED,
            "twice what this machine reads",
        ),
        (
            {"loop_lag_p99": nextafter(0.005, inf)},
            Verdict.CLIENT_LIMITED,
            "event loop was 5.1 ms late",
        ),
        (
            {"recv_lag_p99": nextafter(0.005, inf)},
            Verdict.CLIENT_LIMITED,
            "lay in the client's kernel for 5.1 ms",
        ),
        ({"sent": 989}, Verdict.RATE_NOT_DELIVERED, "989 of 1000 intended"),
        (
            {"send_lag_p99": nextafter(0.05, inf)},
            Verdict.RATE_NOT_DELIVERED,
            "sent 50.1 ms late at p99",
        ),
        (
            {"server_lag_p99": nextafter(0.005, inf)},
            Verdict.CLIENT_LIMITED,
            "the mock wrote first tokens 5.1 ms late",
        ),
        ({"workers_lost": 1}, Verdict.RATE_NOT_DELIVERED, "1 of the load generator's"),
        ({"samples": 99}, Verdict.TOO_FEW_SAMPLES, "99 answered requests"),
        ({"samples": 0}, Verdict.TOO_FEW_SAMPLES, "0 answered requests"),
    ],
)
def test_just_beyond_a_limit_is_not_ok(
    worse: dict[str, object], verdict: Verdict, reason: str
) -> None:
    """The reason has the figure."""
    found, reasons = judge(replace(GOOD, **worse))
    assert found is verdict
    assert len(reasons) == 1
    assert reason in reasons[0]


@pytest.mark.parametrize(
    ("name", "limit", "reason"),
    [
        ("gc_share", 0.01, "garbage collections stood the client still for 1.0%"),
        ("disk_share", 0.01, "writes of rows stood the client still for 1.0%"),
        ("cpu_share", 0.95, "needed a core for 95.0% of the run: give it more"),
        ("cpu_wait_share", 0.25, "kept the client off the core for 25.0%"),
        ("steal_share", 0.1, "gave the machine's cores to others for 10.0%"),
    ],
)
def test_each_vital_has_a_limit(name: str, limit: float, reason: str) -> None:
    """Beyond it the client is limited, and the reason has the figure."""
    assert VITALS[name][0] == limit
    beyond = replace(GOOD, vitals={name: nextafter(limit, inf)})
    verdict, reasons = judge(beyond)
    assert (verdict, len(reasons)) == (Verdict.CLIENT_LIMITED, 1)
    assert reason in reasons[0]


def test_worst_verdict_is_given_with_all_reasons() -> None:
    """Stamps that lie come before a schedule that was missed, that before too few."""
    bad = replace(
        GOOD,
        samples=3,
        ttft_error={"p99": 0.1},
        loop_lag_p99=0.2,
        sent=10,
        send_lag_p99=3.0,
    )
    verdict, reasons = judge(bad)
    assert verdict is Verdict.CLIENT_LIMITED
    assert len(reasons) == 5
    verdict, reasons = judge(replace(bad, ttft_error={}, loop_lag_p99=None))
    assert (verdict, len(reasons)) == (Verdict.RATE_NOT_DELIVERED, 3)
    verdict, reasons = judge(
        replace(bad, ttft_error={}, loop_lag_p99=0.0, sent=1000, send_lag_p99=0.0)
    )
    assert (verdict, len(reasons)) == (Verdict.TOO_FEW_SAMPLES, 1)


def test_what_was_not_measured_is_not_held_against_a_run() -> None:
    """A server without truth, a client without a lag figure, a run of nothing due."""
    assert judge(Evidence(samples=100)) == (Verdict.OK, [])
    assert judge(replace(GOOD, ttft_error={"p99": None}))[0] is Verdict.OK
    assert judge(replace(GOOD, scheduled=0, sent=0))[0] is Verdict.OK


def test_closed_loop_has_no_schedule_to_miss() -> None:
    """Its users send when they are ready, however late that is."""
    closed = replace(GOOD, scheduled=None, sent=5, send_lag_p99=10.0)
    assert judge(closed) == (Verdict.OK, [])


def test_client_ahead_of_the_truth_is_not_limited() -> None:
    """An error below zero is the clock's, not the client's."""
    assert judge(replace(GOOD, ttft_error={"p99": -1.0}))[0] is Verdict.OK


def test_a_machine_without_descriptors_limits_its_client() -> None:
    """A request that never had a socket says nothing of the server; one is enough."""
    evidence = Evidence(samples=1000, scheduled=1000, sent=1000)
    assert judge(evidence)[0] is Verdict.OK
    verdict, (reason,) = judge(replace(evidence, without_socket=1))
    assert verdict is Verdict.CLIENT_LIMITED
    assert "ulimit -n" in reason
