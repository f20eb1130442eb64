"""The bill: rent by the hour, spread over what was answered."""

import pytest

from loadstone.physics.cost import Rent, no_price

RENT = Rent(usd_per_vm_hour=10.0, vms=2, assumptions=("list price",))


def test_rent_by_hand() -> None:
    """Two VMs at $10 an hour for half an hour are $10, busy or idle."""
    assert RENT.total(1800.0) == pytest.approx(10.0)
    assert RENT.total(0.0) == 0.0


def test_summary_by_hand() -> None:
    """$10 over 4 requests and 5 million tokens."""
    assert RENT.summary(1800.0, requests=4, output_tokens=5_000_000) == {
        "currency": "USD",
        "usd_total": pytest.approx(10.0),
        "usd_per_request": pytest.approx(2.5),
        "usd_per_million_output_tokens": pytest.approx(2.0),
        "basis": "rent",
        "assumptions": ["2 VM for 1800.0 s, idle time included", "list price"],
    }


def test_nothing_answered_has_a_bill_and_no_unit_price() -> None:
    """The rent is due all the same."""
    bill = RENT.summary(3600.0, requests=0, output_tokens=0)
    assert bill["usd_total"] == pytest.approx(20.0)
    assert bill["usd_per_request"] is None
    assert bill["usd_per_million_output_tokens"] is None


def test_rack_at_the_published_rate() -> None:
    """18 VMs at $112.48 an hour and 1,100,948 tokens/s: 51 cents a million tokens."""
    rack = Rent(usd_per_vm_hour=112.48, vms=18, assumptions=())
    bill = rack.summary(3600.0, requests=1, output_tokens=1_100_948 * 3600)
    assert bill["usd_per_million_output_tokens"] == pytest.approx(0.5108, abs=5e-5)


def test_without_a_price_there_are_no_figures_but_a_reason() -> None:
    """The same fields as with one, so that readers need no branch."""
    bill = no_price("unknown machine")
    assert set(bill) == set(RENT.summary(1.0, 1, 1))
    assert bill["assumptions"] == ["unknown machine"]
    assert {bill[k] for k in bill if k.startswith("usd")} == {None}
