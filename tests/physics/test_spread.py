"""VMs of a rack lie apart as the published ones do, and a slow one is slow in all."""

from math import fsum
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.catalog.points import load_rack_spreads
from loadstone.physics.spread import fit_tail, order_statistics, vm_speeds
from loadstone.physics.steplaw import StepLaw


def test_the_published_rack_is_reproduced() -> None:
    """The published rack is reproduced."""
    rack = load_rack_spreads()[0]
    mean = rack.vm_mean_tokens_per_s
    published = [
        vm / mean
        for vm in (
            rack.vm_min_tokens_per_s,
            rack.vm_median_tokens_per_s,
            rack.vm_max_tokens_per_s,
        )
    ]
    speeds = vm_speeds(rack.n_vms, fit_tail(*published, rack.n_vms), Random(1))
    ranked = sorted(speeds)
    middle = (ranked[8] + ranked[9]) / 2
    assert [ranked[0], middle, ranked[-1]] == pytest.approx(published, abs=0.005)
    assert fsum(speeds) / len(speeds) == pytest.approx(1.0)


@given(st.integers(1, 60), st.floats(0, 0.1), st.integers())
def test_the_mean_vm_has_speed_one(vms: int, tail: float, seed: int) -> None:
    """The mean vm has speed one and the seed says which is slow."""
    speeds = vm_speeds(vms, tail, Random(seed))
    assert fsum(speeds) / vms == pytest.approx(1.0)
    assert sorted(speeds) == sorted(vm_speeds(vms, tail, Random(seed + 1)))
    assert speeds == vm_speeds(vms, tail, Random(seed))


@given(st.floats(0.001, 0.05), st.integers(2, 40))
def test_a_tail_is_found_again(tail: float, vms: int) -> None:
    """A tail is found again."""
    ranked = sorted(vm_speeds(vms, tail, Random(0)))
    median = (ranked[(vms - 1) // 2] + ranked[vms // 2]) / 2
    assert fit_tail(ranked[0], median, ranked[-1], vms) == pytest.approx(tail)


def test_order_statistics_of_one_and_two() -> None:
    """Order statistics of one and two."""
    assert order_statistics(1) == [1.0]
    assert order_statistics(2) == [0.5, 1.5]


@pytest.mark.parametrize("tail", [-0.01, 1.0, float("nan")])
def test_a_tail_that_stops_a_vm_is_refused(tail: float) -> None:
    """A tail that stops a vm is refused."""
    with pytest.raises(ValueError, match="tail"):
        vm_speeds(18, tail, Random(0))


def test_a_slowed_law_is_slower_by_that_factor_everywhere() -> None:
    """A slowed law is slower by that factor everywhere."""
    law = StepLaw(
        weights_ms=5, gemm_us_per_token=30, kv_ns_per_token=20, pair_ns=1, knee=1.3,
        sequence_us=4, step_ms=2, token_us=3, expert_weights_ms=7, expert_miss=0.9,
    )  # fmt: skip
    for load in ((1, 0, 10, 0), (900, 800, 4e5, 1e6)):
        assert law.slowed(1.1).seconds(*load) == pytest.approx(1.1 * law.seconds(*load))
