"""Arrival times: drawn before the clock starts, the same wherever they are drawn."""

from bisect import bisect_left
from collections import Counter
from itertools import pairwise
from math import exp
from random import Random
from statistics import fmean, pstdev, variance

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.errors import UsageError
from loadstone.traffic.arrivals import PROCESSES, Arrivals
from loadstone.traffic.profile import FLAT, Profile

RATE = st.floats(0.1, 500.0)
DURATION = st.floats(0.001, 3.0)
EVERY_PROCESS = pytest.mark.parametrize("name", PROCESSES)
PROFILE = st.sampled_from(
    ["flat", "ramp:0..1", "ramp:2..0.5", "steps:1,0,3", "diurnal:0.1..2"]
)


def drawn(
    arrivals: str, rate: float, duration: float, seed: int = 0, profile: str = "flat"
) -> list[float]:
    """Draw a whole schedule."""
    return list(
        Arrivals.parse(arrivals).times(
            rate, duration, Random(seed), Profile.parse(profile)
        )
    )


def test_constant_is_a_metronome_from_t0() -> None:
    """Four a second for a second: at the end itself none is due any more."""
    assert drawn("constant", 4.0, 1.0) == [0.0, 0.25, 0.5, 0.75]
    assert drawn("constant", 4.0, 1.0001) == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_constant_adds_up_no_error() -> None:
    """After a day at 10 a second each arrival is where i/rate says."""
    last = 0.0
    for i, due in enumerate(
        Arrivals.parse("constant").times(10.0, 86_400.0, Random(0))
    ):
        last = due
        if i % 100_000 == 0:
            assert due == i / 10.0
    assert last == 863_999 / 10.0


@EVERY_PROCESS
@given(RATE, DURATION, st.integers(), PROFILE)
def test_arrivals_rise_within_the_duration(
    name: str, rate: float, duration: float, seed: int, profile: str
) -> None:
    """None before t0, none at or after the end, none before the one before."""
    times = drawn(name, rate, duration, seed, profile)
    assert all(0.0 <= due < duration for due in times)
    assert all(a < b for a, b in pairwise(times))


@EVERY_PROCESS
@given(RATE, DURATION, st.integers())
def test_longer_run_begins_like_the_shorter(
    name: str, rate: float, duration: float, seed: int
) -> None:
    """Same seed, same times: the duration only says where they end."""
    short = drawn(name, rate, duration, seed)
    long = drawn(name, rate, duration * 2, seed)
    assert long[: len(short)] == short
    assert all(due >= duration for due in long[len(short) :])


@EVERY_PROCESS
def test_the_mean_rate_is_the_one_asked_for(name: str) -> None:
    """Whatever clusters, as many come as were asked for: over 4,000 s at 25/s."""
    # Short bursts: of the default ones too few fit for a close look.
    text = "bursty:burst_s=0.2,calm_s=0.8" if name == "bursty" else name
    counts = [len(drawn(text, 25.0, 4000.0, seed)) for seed in range(4)]
    assert fmean(counts) == pytest.approx(100_000, rel=0.02)


def test_poisson_gaps_are_exponential() -> None:
    """Mean and spread are 1/rate, and e^-1 of the gaps are longer than the mean."""
    times = drawn("poisson", 50.0, 1000.0, 2)
    gaps = [b - a for a, b in pairwise([0.0, *times])]
    assert len(times) == pytest.approx(50_000, abs=3 * 50_000**0.5)
    assert fmean(gaps) == pytest.approx(0.02, rel=0.015)
    assert pstdev(gaps) == pytest.approx(0.02, rel=0.03)
    assert fmean(gap > 0.02 for gap in gaps) == pytest.approx(exp(-1), rel=0.02)


def test_poisson_depends_on_the_seed_alone() -> None:
    """And the rate only scales it."""
    first = drawn("poisson", 5.0, 100.0, 3)
    assert first == drawn("poisson", 5.0, 100.0, 3)
    assert first != drawn("poisson", 5.0, 100.0, 4)
    assert drawn("poisson", 10.0, 50.0, 3) == pytest.approx([t / 2 for t in first])


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gamma_gaps_vary_as_burstiness_says(burstiness: float) -> None:
    """Their coefficient of variation is 1/sqrt(burstiness), as in vLLM."""
    times = drawn(f"gamma:burstiness={burstiness}", 50.0, 2000.0, 5)
    gaps = [b - a for a, b in pairwise(times)]
    assert pstdev(gaps) / fmean(gaps) == pytest.approx(burstiness**-0.5, rel=0.03)


def test_bursts_are_as_long_and_as_dense_as_asked() -> None:
    """Counts in windows far longer than a cycle vary as theory has it for an MMPP.

    For two states of rates a and b, left at rates r and s, the variance to mean ratio
    of counts in a long window is 1 + 2 (a - b)^2 r s / ((r + s)^2 (a s + b r)).
    """
    a, b, r, s = 40.0, 5.0, 1 / 2.0, 1 / 8.0
    mean = (a * s + b * r) / (r + s)
    theory = 1 + 2 * (a - b) ** 2 * r * s / ((r + s) ** 2 * (a * s + b * r))
    windows = Counter(
        int(due // 200.0)
        for seed in range(8)
        for due in (
            t + seed * 20_000.0
            for t in drawn("bursty:ratio=8,burst_s=2s,calm_s=8s", mean, 20_000.0, seed)
        )
    )
    counts = [windows[i] for i in range(800)]
    assert fmean(counts) == pytest.approx(mean * 200, rel=0.02)
    assert variance(counts) / fmean(counts) == pytest.approx(theory, rel=0.15)
    assert theory > 20  # a Poisson process would have 1


@pytest.mark.parametrize(
    "text",
    ["flat", "ramp:0..1", "ramp:2..0.5", "steps:1,0,3", "diurnal:0.1..2"],
)
def test_the_rate_follows_the_profile(text: str) -> None:
    """A metronome seen through a profile has its integral in every tenth of the run."""
    profile = Profile.parse(text)
    times = drawn("constant", 1000.0, 60.0, profile=text)
    assert len(times) == pytest.approx(60_000 * profile.mean, abs=1.5)
    fine = [profile.factor((i + 0.5) / 6000) for i in range(6000)]
    for tenth in range(10):
        low, high = tenth * 6.0, (tenth + 1) * 6.0
        seen = bisect_left(times, high) - bisect_left(times, low)
        expected = 6000 * fmean(fine[tenth * 600 : (tenth + 1) * 600])
        assert seen == pytest.approx(expected, abs=4)


def test_a_profile_of_ones_changes_nothing() -> None:
    """To the last bit: the same schedule as without."""
    plain = drawn("poisson", 7.0, 50.0, 1)
    assert drawn("poisson", 7.0, 50.0, 1, "ramp:1..1") == plain
    assert drawn("poisson", 7.0, 50.0, 1, "steps:1,1,1") == plain
    assert Profile.parse("flat") == FLAT


def test_diurnal_starts_at_night() -> None:
    """Lowest at both ends, highest in the middle."""
    day = Profile.parse("diurnal:0.2..1")
    assert [day.factor(x) for x in (0.0, 0.25, 0.5, 1.0)] == pytest.approx(
        [0.2, 0.6, 1.0, 0.2]
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("uniform", "no arrival process 'uniform'"),
        ("gamma:shape=2", "gamma has no parameter 'shape'"),
        ("gamma:burstiness=0", "burstiness must be more than 0, not '0'"),
        ("gamma:burstiness=nan", "burstiness must be more than 0, not 'nan'"),
        ("bursty:burst_s=soon", "burst_s must be more than 0, not 'soon'"),
        ("poisson:ratio=2", "poisson has no parameter 'ratio'"),
    ],
)
def test_what_is_not_a_process_is_refused(text: str, complaint: str) -> None:
    """The message names the process, the parameter and the value."""
    with pytest.raises(UsageError, match=complaint):
        Arrivals.parse(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("triangle", "no rate profile 'triangle'"),
        ("ramp:5", "cannot be read"),
        ("steps:", "cannot be read"),
        ("flat:2", "cannot be read"),
        ("ramp:-1..1", "factors are 0 or more"),
        ("steps:1,nan", "factors are 0 or more"),
        ("ramp:0..0", "is 0 throughout"),
    ],
)
def test_what_is_not_a_profile_is_refused(text: str, complaint: str) -> None:
    """The message says what is odd; the hint how it is written."""
    with pytest.raises(UsageError, match=complaint):
        Profile.parse(text)
