"""Arrival times: drawn before the clock starts, the same wherever they are drawn."""

from itertools import pairwise
from math import exp
from random import Random
from statistics import fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.traffic.arrivals import PROCESSES, ArrivalProcess, constant, poisson

RATE = st.floats(0.1, 500.0)
DURATION = st.floats(0.001, 3.0)
EVERY_PROCESS = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


def test_constant_is_a_metronome_from_t0() -> None:
    """Four a second for a second: at the end itself none is due any more."""
    assert list(constant(4.0, 1.0, Random(0))) == [0.0, 0.25, 0.5, 0.75]
    assert list(constant(4.0, 1.0001, Random(0))) == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_constant_adds_up_no_error() -> None:
    """After a day at 10 a second each arrival is where i/rate says."""
    last = 0.0
    for i, due in enumerate(constant(10.0, 86_400.0, Random(0))):
        last = due
        if i % 100_000 == 0:
            assert due == i / 10.0
    assert last == 863_999 / 10.0


@EVERY_PROCESS
@given(RATE, DURATION, st.integers())
def test_arrivals_rise_within_the_duration(
    process: ArrivalProcess, rate: float, duration: float, seed: int
) -> None:
    """None before t0, none at or after the end, none before the one before."""
    times = list(process(rate, duration, Random(seed)))
    assert all(0.0 <= due < duration for due in times)
    assert all(a < b for a, b in pairwise(times))


@EVERY_PROCESS
@given(RATE, DURATION, st.integers())
def test_longer_run_begins_like_the_shorter(
    process: ArrivalProcess, rate: float, duration: float, seed: int
) -> None:
    """Same seed, same times: the duration only says where they end."""
    short = list(process(rate, duration, Random(seed)))
    long = list(process(rate, duration * 2, Random(seed)))
    assert long[: len(short)] == short
    assert all(due >= duration for due in long[len(short) :])


def test_poisson_gaps_are_exponential() -> None:
    """Mean and spread are 1/rate, and e^-1 of the gaps are longer than the mean."""
    times = list(poisson(50.0, 1000.0, Random(2)))
    gaps = [b - a for a, b in pairwise([0.0, *times])]
    assert len(times) == pytest.approx(50_000, abs=3 * 50_000**0.5)
    assert fmean(gaps) == pytest.approx(0.02, rel=0.015)
    assert pstdev(gaps) == pytest.approx(0.02, rel=0.03)
    assert fmean(gap > 0.02 for gap in gaps) == pytest.approx(exp(-1), rel=0.02)


def test_poisson_depends_on_the_seed_alone() -> None:
    """And the rate only scales it."""
    first = list(poisson(5.0, 100.0, Random(3)))
    assert first == list(poisson(5.0, 100.0, Random(3)))
    assert first != list(poisson(5.0, 100.0, Random(4)))
    faster = list(poisson(10.0, 50.0, Random(3)))
    assert faster == pytest.approx([due / 2 for due in first])
