"""Where two ways to pay cross, and what an assumption moves."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.catalog.tariffs import load_tariff, read_tariff
from loadstone.cost.bill import Busy
from loadstone.cost.block import Fleet
from loadstone.cost.breakeven import Line, crossing, crossings, line_of, usd_per_million
from loadstone.cost.sensitivity import sensitivity
from loadstone.cost.usage import Usage
from loadstone.traffic.record import Outcome, RequestRecord, TokensSource

BUSY = Busy(30.0, "hand")
LINES = st.builds(
    Line,
    name=st.sampled_from("abcdef"),
    title=st.just(""),
    basis=st.just("rent"),
    fixed_usd_per_hour=st.floats(0, 1000),
    by_use_usd_per_hour=st.floats(0, 1000),
)


def usage() -> Usage:
    """Return a minute with one answer of 1,000 tokens in and 2,000 out."""
    found = Usage()
    found.add(
        RequestRecord(
            id="1", scenario="chat", intended_s=0.0, sent_s=0.0, end_s=30.0,
            outcome=Outcome.OK, input_tokens=1000, output_tokens=2000,
            tokens_source=TokensSource.USAGE, received_bytes=10**6,
        )
    )  # fmt: skip
    return found


def line(name: str, vms: float = 2) -> Line:
    """Return what an hour of that price costs."""
    return line_of(usage(), Fleet(load_tariff(name), vms), window_s=60.0, busy=BUSY)


def test_rented_hours_are_paid_when_used_and_owned_always() -> None:
    """Two VMs: $224.96 an hour used; or capital and idle power, and load on top."""
    rent, own = line("azure-nd-gb300-v6"), line("own-gb300")
    egress = 60 * 0.001 * 0.087
    assert rent.fixed_usd_per_hour == 0
    assert rent.by_use_usd_per_hour == pytest.approx(224.96 + egress)
    capital = 8 * 48_611 / (4 * 8760)
    idle = 8 * (200 + 35_200 / 72) / 1000 * 1.12 * 0.0861
    load = 8 * 1200 / 1000 * 1.12 * 0.0861
    assert own.fixed_usd_per_hour == pytest.approx(capital + idle)
    assert own.by_use_usd_per_hour == pytest.approx(load / 2)
    reserved = line("gb300-reserved-3y")
    assert reserved.fixed_usd_per_hour == pytest.approx(8 * 3.96)
    assert reserved.by_use_usd_per_hour == pytest.approx(0, abs=1e-9)


def test_an_empty_window_has_no_line() -> None:
    """There is no load to price."""
    fleet = Fleet(load_tariff("own-gb300"), 1)
    with pytest.raises(ValueError, match="nothing was measured"):
        line_of(usage(), fleet, window_s=0.0, busy=BUSY)


@given(LINES, LINES)
def test_lines_cross_where_they_are_said_to(one: Line, other: Line) -> None:
    """There both cost the same; below it the first is no dearer, above no cheaper."""
    first, second = (replace(one, name="1"), replace(other, name="2"))
    found = crossing(first, second)
    assert crossing(second, first).use == found.use
    named = {"1": first, "2": second}
    below, above = named[found.below], named[found.above]
    if found.use is None:
        for use in (0.01, 0.5, 1.0):
            assert below.usd_per_hour(use) <= above.usd_per_hour(use) * (1 + 1e-9)
        return
    at = found.use
    assert 0 <= at <= 1
    assert below.usd_per_hour(at) == pytest.approx(above.usd_per_hour(at), abs=1e-6)
    assert below.usd_per_hour(at / 2) <= above.usd_per_hour(at / 2) + 1e-6
    assert below.usd_per_hour(1.0) >= above.usd_per_hour(1.0) - 1e-6


def test_every_two_lines_are_compared() -> None:
    """Of three there are three pairs."""
    names = ("azure-nd-gb300-v6", "own-gb300", "gb300-reserved-3y")
    assert len(crossings([line(name) for name in names])) == 3


def test_million_tokens_by_hand() -> None:
    """$10 and $20 at full use; half used, $20 over half the tokens."""
    one = Line("x", "", "own", 10.0, 20.0)
    assert usd_per_million(one, 1.0, 1e6) == pytest.approx(30.0)
    assert usd_per_million(one, 0.5, 1e6) == pytest.approx(40.0)


# ----------------------------------------------------------------------- sensitivity


def test_swings_by_hand() -> None:
    """Capital alone: four years a fifth shorter or longer; nothing that does not move.

    The share of tokens changes nobody's bill, so its weight is not there.
    """
    free = read_tariff(
        'like = "own-gb300"\nusd_per_kwh = 0\ngco2_per_kwh = 0\n', "free.toml"
    )
    found = sensitivity(usage(), Fleet(free, 2), window_s=60.0, busy=BUSY)
    money = [one for one in found if one.figure == "usd_per_million_output_tokens"]
    assert [one.assumption for one in money] == ["lifetime_years", "capex_usd_per_gpu"]
    years, capex = money
    assert years.at_low / years.at_base == pytest.approx(1 / 0.8)
    assert years.at_high / years.at_base == pytest.approx(1 / 1.2)
    assert capex.swing == pytest.approx(0.4)
    assert years.swing == pytest.approx(1 / 0.8 - 1 / 1.2)


def test_a_term_is_varied_within_what_it_can_be() -> None:
    """A PUE 20 % below 1.12 would be less than 1: it stays there."""
    tariff = load_tariff("own-gb300")
    assert tariff.varied("pue", 0.8)["pue"] == 1.0
    assert tariff.varied("pue", 1.2)["pue"] == pytest.approx(1.344)


def test_busy_time_of_the_rows_is_an_assumption_too() -> None:
    """Energy depends on it, rent does not; and never beyond the window."""
    fleet = Fleet(load_tariff("azure-nd-gb300-v6"), 2)
    for seconds in (30.0, 59.0):
        found = sensitivity(usage(), fleet, window_s=60.0, busy=Busy(seconds, "rows"))
        of = {one.figure: one for one in found if one.assumption == "busy_share"}
        assert "usd_per_million_output_tokens" not in of
        joules = of["joules_per_output_token"]
        most = (8 * (1400 + 35_200 / 72) * 60) / 2000
        assert joules.at_low < joules.at_base < joules.at_high <= most + 1e-9
