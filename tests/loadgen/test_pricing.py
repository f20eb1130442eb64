"""What a run is priced with, and what its totals tell where rows are elsewhere."""

from pathlib import Path

import pytest

from loadgen.pricing import fleet_of, tariff_of, usage_of_rows, usage_of_totals
from loadgen.stats import ClientStats
from loadstone.cost.bill import Busy
from loadstone.cost.block import Fleet, cost_block
from loadstone.errors import UsageError
from loadstone.traffic.plan import Plan
from loadstone.traffic.record import Outcome, RequestRecord, TokensSource


def row(i: int, outcome: Outcome = Outcome.OK) -> RequestRecord:
    """Return a request of ten tokens in and twenty out."""
    answered = outcome is Outcome.OK
    return RequestRecord(
        id=str(i), scenario="chat", intended_s=float(i), sent_s=float(i), end_s=i + 1.0,
        outcome=outcome, input_tokens=10 * answered, output_tokens=20 * answered,
        tenant="a" if i % 3 else "b", tokens_source=TokensSource.USAGE,
    )  # fmt: skip


def test_price_is_a_name_or_a_file(tmp_path: Path) -> None:
    """What ends in .toml is a file."""
    own = tmp_path / "mine.toml"
    own.write_text('like = "azure-nd-gb300-v6"\nusd_per_vm_hour = 36.0\n')
    assert tariff_of(str(own))["usd_per_vm_hour"] == 36.0
    assert tariff_of("azure-nd-gb300-v6")["usd_per_vm_hour"] == 112.48
    with pytest.raises(UsageError, match="cannot read the price list"):
        tariff_of(str(tmp_path / "gone.toml"))


def test_machines_must_be_counted_and_tokens_not(tmp_path: Path) -> None:
    """Rent without a number of VMs says nothing; a token list has none."""
    assert fleet_of(Plan()) is None
    with pytest.raises(UsageError, match="number of VMs"):
        fleet_of(Plan(price="azure-nd-gb300-v6"))
    own = tmp_path / "api.toml"
    own.write_text(
        'basis = "tokens"\nusd_per_million_input_tokens = 1\n'
        "usd_per_million_output_tokens = 2\n"
    )
    fleet = fleet_of(Plan(price=str(own)))
    assert fleet is not None
    assert (fleet.vms, fleet.tariff.basis) == (0, "tokens")


def test_totals_give_the_bill_of_the_rows() -> None:
    """Sums by slice are the same; a tail and bytes are told to be missing."""
    rows = [row(i, Outcome.OK if i % 7 else Outcome.FAILED) for i in range(50)]
    stats = ClientStats()
    for one in rows:
        stats.add(one)
    fleet, busy = Fleet(tariff_of("azure-nd-gb300-v6"), 2), Busy(40.0, "hand")
    by_rows, by_totals = (
        cost_block(usage, fleet, window_s=60.0, busy=busy)
        for usage in (usage_of_rows(rows, ()), usage_of_totals(stats))
    )
    for key in ("usd_total", "usd_per_request", "usd_per_million_output_tokens"):
        assert by_totals[key] == pytest.approx(by_rows[key])
    for name in ("a", "b"):
        ours, theirs = by_totals["by"]["tenant"][name], by_rows["by"]["tenant"][name]
        assert ours == pytest.approx(theirs)
    assert by_totals["per_request_usd"]["n"] == 0
    assert any("bytes" in missing["text"] for missing in by_totals["missing"])
