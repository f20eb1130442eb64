"""A rate is borne: early verdicts are the late ones, and growth is told from chance."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.traffic.probe import Bearing
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


def bearing(rows: list[RequestRecord], *slos: Slo, end: float = 110.0) -> Bearing:
    """Return what followed the rows."""
    found = Bearing(
        slos, requests=sum(not r.warmup for r in rows), warmup_s=10.0, duration_s=end
    )
    for each in rows:
        found.add(each)
    return found


@given(
    st.lists(st.sampled_from([0.5, 1.0, 1.5, None]), min_size=1, max_size=60),
    st.sampled_from(["p50", "p90", "p99"]),
)
def test_hopeless_is_missed_and_missed_is_hopeless(
    stays: list[float | None], stat: str
) -> None:
    """Over all rows it is the summary's verdict, failures included."""
    rows = [
        row(20.0, 0.1, outcome=Outcome.FAILED) if stay is None else row(20.0, stay)
        for stay in stays
    ]
    limit = Slo("e2e_s", stat, 1.0)
    (judged,) = summarize(rows, slos=(limit,))["slo"]
    assert bearing(rows, limit).hopeless is not judged["met"]


def test_hopeless_comes_as_soon_as_it_is_certain() -> None:
    """Of twenty at p90 two may be over; the third decides, and warm-up never does."""
    found = Bearing([LIMIT], requests=20, warmup_s=10.0, duration_s=110.0)
    said = []
    for at in (5.0, 6.0, 7.0, 20.0, 21.0, 22.0):
        found.add(row(at, 2.0))
        said.append(found.hopeless)
    assert said == [False] * 5 + [True]


def test_means_are_not_judged_early() -> None:
    """One that is very slow may be made up for, or not; only the end can say."""
    mean = Slo("e2e_s", "mean", 1.0)
    found = bearing([row(20.0, 50.0)] * 5, mean)
    assert not found.hopeless
    assert not found.borne([mean.judge([row(20.0, 50.0)])])


def test_backlog_is_counted_half_way_and_at_the_end() -> None:
    """At 60 s and 110 s, both edges by hand."""
    rows = [row(60.0, 1.0), row(50.0, 10.0), row(20.0, 200.0), row(109.0, 1.5)]
    assert bearing(rows).backlog == (2, 2)


@pytest.mark.parametrize(("after", "grows"), [(141, False), (148, True)])
def test_growth_by_hand(after: int, *, grows: bool) -> None:
    """From 100: three deviations of sqrt(100 + n) are 46.6 at 141 and 47.2 at 148."""
    rows = [row(59.0, 2.0)] * 100 + [row(109.0, 2.0)] * after
    found = bearing(rows)
    assert found.backlog == (100, after)
    assert found.grows is grows
    assert found.borne([]) is not grows


def test_a_steady_number_in_flight_hardly_ever_seems_to_grow() -> None:
    """Poisson arrivals that do not wait for each other: in 300 runs, three at most."""
    alarms = 0
    for seed in range(300):
        rng = Random(seed)
        rows, at = [], 0.0
        while at < 110.0:
            at += rng.expovariate(5.0)
            rows.append(row(at, rng.expovariate(1 / 8.0)))
        alarms += bearing(rows).grows
    assert alarms <= 3
