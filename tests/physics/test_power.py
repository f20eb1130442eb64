"""Power and energy of a GPU, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.physics.power import Activity, PowerLaw, rest_of_rack

LAW = PowerLaw(idle_w=200.0, limit_w=1400.0)


@pytest.mark.parametrize(
    ("utilisation", "watts"), [(0.0, 200.0), (0.25, 500.0), (0.5, 800.0), (1.0, 1400.0)]
)
def test_power_by_hand(utilisation: float, watts: float) -> None:
    """200 W idle, 1200 W more for a GPU that is always inside a step."""
    assert LAW.watts(utilisation) == pytest.approx(watts)


def test_energy_by_hand() -> None:
    """10 s with 4 s inside steps: 200 W x 10 s + 1200 W x 4 s = 6800 J."""
    assert LAW.joules(10.0, 4.0) == pytest.approx(6800.0)
    assert LAW.joules(0.0, 0.0) == 0.0
    assert LAW.joules(10.0, 4.0) == pytest.approx(10.0 * LAW.watts(0.4))


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1)), max_size=20))
def test_energy_is_power_integrated_over_any_division(
    parts: list[tuple[float, float]],
) -> None:
    """However the time is cut up, the pieces' mean power times length is the whole."""
    elapsed = sum(length for length, _ in parts)
    busy = sum(length * share for length, share in parts)
    pieces = sum(LAW.watts(share) * length for length, share in parts)
    assert LAW.joules(elapsed, busy) == pytest.approx(pieces)


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1), st.floats(0, 1))
def test_energy_never_falls(
    before: float, more: float, share: float, then: float
) -> None:
    """As neither time nor busy time does."""
    first = LAW.joules(before, before * share)
    assert LAW.joules(before + more, before * share + more * then) >= first


@pytest.mark.parametrize(
    ("idle", "limit"), [(-1.0, 10.0), (11.0, 10.0), (float("nan"), 10.0)]
)
def test_a_gpu_that_draws_less_when_it_works_is_refused(
    idle: float, limit: float
) -> None:
    """As is one that gives power back, or whose power is not a number."""
    with pytest.raises(ValueError, match="not a power law"):
        PowerLaw(idle_w=idle, limit_w=limit)


def test_the_rest_of_a_rack_by_hand() -> None:
    """136 kW less 72 GPUs of 1.4 kW; a rack may have nothing else, but not less."""
    assert rest_of_rack(136_000.0, 72, LAW) == pytest.approx(35_200.0)
    assert rest_of_rack(2800.0, 2, LAW) == 0.0
    for rack_w in (2799.9, float("nan")):
        with pytest.raises(ValueError, match="2 GPUs of 1400 W draw more"):
            rest_of_rack(rack_w, 2, LAW)


def test_shares_by_hand() -> None:
    """4 of 10 s busy, 3 s in GEMMs, bytes worth 1 s of the memory's bandwidth."""
    earlier = Activity(100.0, 50.0, 20.0, 10.0)
    later = Activity(110.0, 54.0, 23.0, 11.0)
    assert later.shares_since(earlier) == pytest.approx((0.4, 0.3, 0.1))


def test_shares_are_between_none_and_all() -> None:
    """A step's bytes are counted when it ends, which may be after it mostly ran."""
    earlier = Activity(0.0)
    assert Activity(1.0, 0.5, 1.2, 2.0).shares_since(earlier) == (0.5, 1.0, 1.0)
    assert Activity(0.0, 0.0).shares_since(earlier) == (0.0, 0.0, 0.0)
