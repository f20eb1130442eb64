"""A rate is borne: early verdicts are the late ones, and growth is told from chance."""

import json
from math import inf, log
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.traffic.probe import (
    Bearing,
    Look,
    Tally,
    samples_to_show,
    share_nats,
)
from loadstone.traffic.record import Outcome, RequestRecord
from loadstone.traffic.slo import Slo
from loadstone.traffic.summary import summarize

LIMIT = Slo("e2e_s", "p90", 1.0)


def row(at: float, stay: float, **more: object) -> RequestRecord:
    """Return a request that stayed so long, in the warm-up if it came before 10 s."""
    given = {"outcome": Outcome.OK, "warmup": at < 10.0} | more
    return RequestRecord(
        id="r", scenario="chat", intended_s=at, sent_s=at, end_s=at + stay, **given
    )


def bearing(
    rows: list[RequestRecord], *slos: Slo, end: float = 110.0, nats: float = 7.0
) -> Bearing:
    """Return what followed the rows."""
    found = Bearing(
        slos,
        requests=sum(not r.warmup for r in rows),
        warmup_s=10.0,
        duration_s=end,
        nats=nats,
    )
    for each in rows:
        found.add(each)
    return found


@given(
    st.lists(st.sampled_from([0.5, 1.0, 1.5, None]), min_size=1, max_size=60),
    st.sampled_from(["p50", "p90", "p99", "mean"]),
)
def test_what_seems_met_is_what_the_summary_says(
    stays: list[float | None], stat: str
) -> None:
    """Over all rows, failures included, whichever statistic is limited."""
    rows = [
        row(20.0, 0.1, outcome=Outcome.FAILED) if stay is None else row(20.0, stay)
        for stay in stays
    ]
    limit = Slo("e2e_s", stat, 1.0)
    (judged,) = summarize(rows, slos=(limit,))["slo"]
    (tally,) = bearing(rows, limit).look().tallies
    assert tally.met is judged["met"]
    assert tally.n == len(rows)
    told = bearing(rows, limit).look().to_json()
    assert Look.from_json(json.loads(json.dumps(told))).to_json() == told


@given(
    st.integers(1, 400), st.floats(1.0, 20.0), st.sampled_from(["p50", "p90", "p99"])
)
def test_hopeless_comes_as_soon_as_it_is_certain(
    n: int, nats: float, stat: str
) -> None:
    """The request that makes it so is the first with the evidence over all `n`."""
    limit = Slo("e2e_s", stat, 1.0)
    found = Bearing([limit], requests=n, warmup_s=10.0, duration_s=110.0, nats=nats)
    share = Tally.empty(limit).limit
    for over in range(1, n + 1):
        found.add(row(5.0, 2.0))  # the warm-up never counts
        found.add(row(20.0, 2.0))
        sure = over / n > share and share_nats(over / n, share) * n >= nats
        assert found.hopeless is sure


def test_means_are_not_judged_early() -> None:
    """One that is very slow may be made up for, or not; only the end can say."""
    mean = Slo("e2e_s", "mean", 1.0)
    found = bearing([row(20.0, 50.0)] * 5, mean)
    assert not found.hopeless
    assert not found.look().seems_met(7.0)


def test_evidence_about_a_mean_by_hand() -> None:
    """Waits of 0.4 and 0.8 s, fifty of each: 100 (1 - 0.6)^2 / (2 0.2^2) nats."""
    mean = Slo("e2e_s", "mean", 1.0)
    rows = [row(20.0 + i, 0.4 if i % 2 else 0.8) for i in range(80)]
    rows += [row(100.0, stay) for stay in (0.4, 0.8) * 10]
    (tally,) = bearing(rows, mean).look().tallies
    assert tally.clustering == 1.0
    assert tally.nats == pytest.approx(100 * 0.16 / 0.08)
    broken = bearing([*rows, row(30.0, 0.1, outcome=Outcome.FAILED)], mean).look()
    assert (broken.met_nats, broken.missed_nats) == (0.0, inf)


def test_clusters_of_slow_requests_are_worth_one_each() -> None:
    """Ten slow ones in one of ten stretches vary ten times more than by chance."""
    spread = Tally(0.01, share=True, stretches=((100, 1.0),) * 10, squares=10.0)
    burst = Tally(
        0.01, share=True, stretches=((100, 10.0), *((100, 0.0),) * 9), squares=10.0
    )
    assert spread.clustering == 1.0
    # By hand: (9^2 + 9 1^2) / 100 / (0.01 0.99) / 9.
    assert burst.clustering == pytest.approx(90 / 100 / 0.0099 / 9)
    both = burst + burst
    assert (both.n, both.mean, len(both.stretches)) == (2000, 0.01, 20)


@pytest.mark.parametrize(
    ("stat", "shown"), [("p99", 477), ("p90", 46), ("p50", 7), ("mean", 0)]
)
def test_how_many_requests_it_takes(stat: str, shown: int) -> None:
    """ln(120) nats by none over the limit: 4.787 / -ln(0.99) is 476.4."""
    limit = Slo("e2e_s", stat, 1.0)
    assert samples_to_show(limit, log(120)) == shown


def test_backlog_is_counted_half_way_and_at_the_end() -> None:
    """At 60 s and 110 s, both edges by hand; what was never sent waited to the end."""
    rows = [row(60.0, 1.0), row(50.0, 10.0), row(20.0, 200.0), row(109.0, 1.5)]
    found = bearing(rows)
    assert found.look().backlog == (2, 2)
    found.add_dropped([30.0, 100.0])
    assert found.look().backlog == (3, 4)


def test_what_was_never_sent_is_over_any_limit() -> None:
    """Unless it was due in the warm-up."""
    found = bearing([], LIMIT)
    found.add_dropped([5.0, 30.0, 100.0])
    (tally,) = found.look().tallies
    assert (tally.n, tally.mean) == (2, 1.0)


def test_a_steady_number_in_flight_hardly_ever_seems_to_grow() -> None:
    """Poisson arrivals that do not wait for each other: in 300 runs, three at most."""
    alarms = 0
    for seed in range(300):
        rng = Random(seed)
        rows, at = [], 0.0
        while at < 110.0:
            at += rng.expovariate(5.0)
            rows.append(row(at, rng.expovariate(1 / 8.0)))
        alarms += bearing(rows).look().growth_nats > 4.5
    assert alarms <= 3


def test_growth_by_hand() -> None:
    """From 100 to 148: 48^2 / (2 248) nats; less is no growth at all."""
    rows = [row(59.0, 2.0)] * 100 + [row(109.0, 2.0)] * 148
    assert bearing(rows).look().growth_nats == pytest.approx(48 * 48 / 496)
    assert bearing(rows[:199]).look().growth_nats == 0.0
