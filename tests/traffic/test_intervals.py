"""Confidence intervals: by hand, and by how often they hold what they should."""

from collections.abc import Callable
from math import comb, exp, inf, log
from random import Random
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.traffic.intervals import (
    BATCHES,
    NO_INTERVAL,
    Interval,
    Sample,
    batches,
    phi,
    ranks,
    share_interval,
    student,
)

QUANTILES = (0.5, 0.9, 0.95, 0.99)


@pytest.mark.parametrize(
    ("n", "q", "expected"),
    [
        # 1 of 10 or fewer below the median: 11 / 1024; 2 or fewer: 56 / 1024.
        (10, 0.5, (2, 9)),
        # Conover's table of the sign test: 15 of 50 % each, 4th and 12th.
        (15, 0.5, (4, 12)),
        # Nothing is above the p99 of 100 with 0.99^100 = 37 %.
        (100, 0.99, (97, 101)),
        # 0.99^367 = 2.501 %, 0.99^368 = 2.476 %.
        (367, 0.99, (359, 368)),
        (368, 0.99, (360, 368)),
        # A single value says nothing of the median.
        (1, 0.5, (0, 2)),
    ],
)
def test_ranks_by_hand(n: int, q: float, expected: tuple[int, int]) -> None:
    """Which order statistics hold a percentile with 95 %."""
    assert ranks(n, q) == expected


@given(st.integers(1, 400), st.sampled_from(QUANTILES))
def test_ranks_are_those_of_exact_arithmetic(n: int, q: float) -> None:
    """Each side is missed by 2.5 % at most, and one rank further in by more."""

    def below(k: int) -> float:
        return sum(comb(n, i) * q**i * (1 - q) ** (n - i) for i in range(k))

    low, high = ranks(n, q)
    assert below(low) <= 0.025 + 1e-9 < 0.025 + 2e-9 < below(low + 1) + 1e-8
    assert 1 - below(high) <= 0.025 + 1e-9
    assert 1 - below(high - 1) > 0.025 - 1e-9


def test_ranks_of_many_are_about_normal() -> None:
    """A million: 1.96 standard deviations about the middle."""
    low, high = ranks(10**6, 0.5)
    assert (low + high - 1) / 2 == pytest.approx(500_000, abs=1)
    assert high - low == pytest.approx(2 * 1.95996 * 500, abs=3)


@pytest.mark.parametrize(
    ("p", "freedom", "value"),
    [(0.975, 5, 2.5706), (0.975, 9, 2.2622), (0.975, 19, 2.0930), (0.995, 8, 3.3554),
     (0.995, 19, 2.8609), (0.975, 10**6, 1.9600), (0.5, 19, 0.0)],
)  # fmt: skip
def test_student_is_that_of_the_tables(p: float, freedom: int, value: float) -> None:
    """To 0.001, and more for more degrees of freedom."""
    assert student(p, freedom) == pytest.approx(value, abs=2e-3)
    assert student(1 - p, freedom) == pytest.approx(-value, abs=2e-3)


@given(st.integers(0, 500))
def test_batches_are_the_whole_in_order(n: int) -> None:
    """Each value in one; their sizes differ by one at most."""
    cuts = [list(range(n))[cut] for cut in batches(n)]
    assert [i for cut in cuts for i in cut] == list(range(n))
    assert len(cuts) == (BATCHES if n >= 2 * BATCHES else 1)
    assert max(map(len, cuts)) - min(map(len, cuts)) <= 1


def test_interval_of_few_by_hand() -> None:
    """Ten values: the second and the ninth hold the median; nothing bounds p99."""
    sample = Sample([7.0, 1.0, 3.0, 2.0, 10.0, 9.0, 4.0, 8.0, 6.0, 5.0])
    assert sample.ordered == [float(i) for i in range(1, 11)]
    assert sample.interval(0.5) == (2.0, 9.0)
    assert sample.interval(0.99) == (9.0, None)
    assert sample.mean == 5.5
    assert sample.mean_interval() == NO_INTERVAL
    assert Sample([]).interval(0.5) == Sample([]).mean_interval() == NO_INTERVAL
    assert (Sample([]).mean, Sample([]).quantile(0.5)) == (None, None)


def test_mean_interval_by_hand() -> None:
    """Twenty batches of two with means 1 to 20: 10.5 give or take 2.093 s / sqrt 20.

    The variance of 1 to 20 is 35, so the half width is 2.7688.
    """
    values = [x for mean in range(1, 21) for x in (mean - 0.5, mean + 0.5)]
    low, high = Sample(values).mean_interval()
    assert low == pytest.approx(10.5 - 2.7688, abs=1e-3)
    assert high == pytest.approx(10.5 + 2.7688, abs=1e-3)


def test_phi_by_hand() -> None:
    """Batches alike: 1. All below or all above by turns: a batch says one thing.

    The variance of ten zeros and ten ones is 5/19; of 100 independent values in each
    batch it would be 1/4 in 100. Student's allowance is (2.093 / 1.960) squared.
    """
    assert phi([0.5] * BATCHES, 2000) == 1.0
    assert phi([1.0] * BATCHES, 2000) == 1.0
    assert phi([0.0, 1.0], 2000) == 1.0
    turns = [0.0, 1.0] * (BATCHES // 2)
    assert phi(turns, 2000) == pytest.approx(5 / 19 / (0.25 / 100) * 1.1403, rel=1e-3)


def test_interval_of_what_comes_in_bursts_is_that_of_the_bursts() -> None:
    """A thousand values in twenty batches of alike: no more is known than by twenty."""
    order = Random(1).sample(range(BATCHES), BATCHES)
    low, high = Sample([float(i) for i in order for _ in range(50)]).interval(0.5)
    assert low is not None
    assert high is not None
    alone = Sample([float(i) for i in range(BATCHES)]).interval(0.5)
    assert low <= (alone[0] or 0.0) < (alone[1] or 0.0) <= high


@pytest.mark.parametrize(
    ("met", "of", "low", "high"),
    # Wilson 1927, and Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
     (1, 29, 0.0061, 0.1718)],
)  # fmt: skip
def test_share_interval_is_wilsons(met: int, of: int, low: float, high: float) -> None:
    """Of requests that met at even distances: batches that say nothing more."""
    even = [int(i * met // of != (i + 1) * met // of) for i in range(of)]
    assert sum(even) == met
    found = share_interval(even)
    assert found == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_requests_that_were_never_sent_missed() -> None:
    """They lower the share, and have no time. Of nobody there is no share."""
    assert share_interval([]) == NO_INTERVAL
    assert share_interval([1] * 10, 10) == share_interval([1, 0] * 10)


# ------------------------------------------------------------- coverage


def holds(interval: Interval, value: float) -> bool:
    """Whether an interval has the value in it; an open side bounds nothing."""
    low, high = interval
    return (low is None or low <= value) and (high is None or value <= high)


def covered(
    trials: int, sample: Callable[[], Sample], truth: dict[float, float]
) -> dict[float, float]:
    """Return how often a percentile's interval held the true one."""
    hits = dict.fromkeys(truth, 0)
    for _ in range(trials):
        drawn = sample()
        for q, value in truth.items():
            hits[q] += holds(drawn.interval(q), value)
    return {q: n / trials for q, n in hits.items()}


TRIALS = 2000
CHANCE = 3 * (0.95 * 0.05 / TRIALS) ** 0.5
"""Three standard deviations of a share of 95 %."""


@pytest.mark.parametrize("n", [30, 200])
def test_independent_values_are_covered(n: int) -> None:
    """Of lognormal samples at least 95 % hold each percentile; ranks are whole numbers.

    And of means, once there are enough to be about normal.
    """
    rng, normal = Random(n), NormalDist()
    truth = {q: exp(normal.inv_cdf(q)) for q in QUANTILES}
    shares = covered(
        TRIALS, lambda: Sample([rng.lognormvariate(0, 1) for _ in range(n)]), truth
    )
    assert min(shares.values()) >= 0.95 - CHANCE
    assert shares[0.5] <= 0.99


def test_means_of_independent_values_are_covered() -> None:
    """95 % of them, to within chance."""
    rng = Random(3)
    hits = sum(
        holds(Sample([rng.expovariate(1) for _ in range(400)]).mean_interval(), 1.0)
        for _ in range(TRIALS)
    )
    assert hits / TRIALS == pytest.approx(0.95, abs=CHANCE)


def test_shares_are_covered() -> None:
    """A share of 0.9, by Wilson's interval."""
    rng = Random(4)
    hits = sum(
        holds(share_interval([int(rng.random() < 0.9) for _ in range(100)]), 0.9)
        for _ in range(TRIALS)
    )
    assert hits / TRIALS >= 0.95 - CHANCE


def queue(rng: Random, n: int, load: float) -> list[float]:
    """Return the times that requests spend in an M/M/1 queue in its steady state."""
    wait = rng.expovariate(1 - load) if rng.random() < load else 0.0
    times = []
    for _ in range(n):
        service = rng.expovariate(1.0)
        times.append(wait + service)
        wait = max(0.0, wait + service - rng.expovariate(load))
    return times


def test_requests_that_waited_together_are_covered() -> None:
    """In a queue at 80 % load; as independent values they would be held far too sure.

    Time in system is exponential with rate `1 - load` (Kleinrock). A run of 5000
    requests still falls a little short of 95 %: a batch is not much longer than what
    the queue remembers.
    """
    rng, load, n, trials = Random(5), 0.8, 5000, 300
    truth = {q: -log(1 - q) / (1 - load) for q in QUANTILES}
    naive = 0

    def sample() -> Sample:
        nonlocal naive
        drawn = Sample(queue(rng, n, load))
        low, high = ranks(n, 0.9)
        alone = drawn.ordered[low - 1], drawn.ordered[high - 1]
        naive += holds(alone, truth[0.9])
        return drawn

    shares = covered(trials, sample, truth)
    assert min(shares.values()) > 0.85
    assert naive / trials < 0.4


def test_nothing_is_infinite() -> None:
    """An open side is None, so that it can be written as JSON."""
    for n in (1, 2, 50, 150):
        for q in QUANTILES:
            assert inf not in Sample([float(i) for i in range(n)]).interval(q)
