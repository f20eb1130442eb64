"""The bill: what machines and tokens cost, by hand and for any run."""

from math import fsum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.catalog.tariffs import load_tariff, read_tariff
from loadstone.cost.bill import Bill, Busy, bill_of
from loadstone.cost.block import IN_FLIGHT, Fleet, cost_block, no_price
from loadstone.cost.energy import energy_of, kwh
from loadstone.cost.meter import usd_so_far
from loadstone.cost.rates import Power, rates_of, whole
from loadstone.cost.terms import Tariff
from loadstone.cost.usage import Usage
from loadstone.traffic.record import Outcome, RequestRecord, TokensSource
from loadstone.traffic.slo import Slo
from loadstone.units import MILLIJOULES

RACK_TOK_S = 1_100_948
CENT = 0.01
RENTED = 'like = "azure-nd-gb300-v6"\nusd_per_vm_hour = 36.0\n'
TOKENS = """basis = "tokens"
usd_per_million_input_tokens = 1.0
usd_per_million_output_tokens = 4.0
"""
WHOLE_LIST = (
    TOKENS
    + """usd_per_million_cached_tokens = 0.1
usd_per_million_reasoning_tokens = 4.0
usd_per_gb_egress = 0.05
"""
)
UNITS = 'basis = "provisioned"\nusd_per_unit_hour = 2.0\nunits = 50\n'


def tariff(text: str) -> Tariff:
    """Read a price list of a user's."""
    return read_tariff(text, "mine.toml")


def answer(**changes: Any) -> RequestRecord:
    """Return an answer of 100 tokens in and 50 out, from second 1 to 3."""
    plain: dict[str, Any] = {
        "id": "1", "scenario": "chat", "intended_s": 1.0, "sent_s": 1.0, "end_s": 3.0,
        "first_s": 1.5, "last_s": 3.0, "outcome": Outcome.OK, "input_tokens": 100,
        "output_tokens": 50, "tokens_source": TokensSource.USAGE,
    }  # fmt: skip
    return RequestRecord(**(plain | changes))


def used(*rows: RequestRecord, slos: tuple[Slo, ...] = ()) -> Usage:
    """Fold rows."""
    usage = Usage(slos)
    for row in rows:
        usage.add(row)
    return usage


def billed(text: str, *rows: RequestRecord, busy: float = 5.0, vms: float = 2) -> Bill:
    """Return the bill of ten seconds."""
    return bill_of(
        used(*rows), tariff(text), vms=vms, window_s=10.0, busy=Busy(busy, "hand")
    )


# ------------------------------------------------------------------- golden figures


def rack_block(name: str, busy_share: float = 1.0) -> dict[str, Any]:
    """Return the block of a rack that gives the published tokens for an hour."""
    row = answer(
        sent_s=0.0, intended_s=0.0, end_s=3600.0, input_tokens=0,
        output_tokens=RACK_TOK_S * 3600,
    )  # fmt: skip
    return cost_block(
        used(row.__class__.from_json(row.to_json())),
        Fleet(load_tariff(name), 18),
        window_s=3600.0,
        busy=Busy(3600.0 * busy_share, "hand"),
    )


def test_rack_at_its_list_price_is_51_cents_a_million() -> None:
    """18 VMs x $112.48 an hour over 1,100,948 x 3600 tokens, worked out by hand."""
    block = rack_block("azure-nd-gb300-v6")
    assert block["usd_total"] == pytest.approx(2024.64)
    assert block["usd_per_hour"] == pytest.approx(2024.64)
    assert block["usd_per_million_output_tokens"] == pytest.approx(
        2024.64 / (1.100948 * 3600)
    )
    assert round(block["usd_per_million_output_tokens"], 2) == 0.51
    assert round(block["usd_per_million_output_tokens"], 3) == 0.511


def test_rack_takes_0_1235_joules_a_token() -> None:
    """136 kW over 1,100,948 tokens/s; PUE 1.12 and 366 g/kWh make 14 ug of CO2."""
    energy = rack_block("azure-nd-gb300-v6")["energy"]
    assert energy["avg_power_w"] == pytest.approx(136_000)
    assert energy["joules_per_output_token"] == pytest.approx(0.12353, abs=5e-6)
    assert energy["facility_kwh"] == pytest.approx(136 * 1.12)
    grams = 136_000 * 1.12 / 3.6e6 * 366 / RACK_TOK_S
    assert energy["gco2_per_output_token"] == pytest.approx(grams)
    assert grams == pytest.approx(1.4067e-5, rel=1e-4)


def test_power_alone_is_a_third_of_a_cent_a_million() -> None:
    """0.0343 kWh a million tokens x 1.12 x $0.0861, as the calibration data derive."""
    block = rack_block("own-gb300")
    per_million = block["parts"]["power"] / RACK_TOK_S / 3600 * 1e6
    assert per_million == pytest.approx(0.0033, abs=5e-5)


def test_ownership_is_as_derived_from_the_total_cost() -> None:
    """$2.652 per GPU-hour over 15,291 tokens/s a GPU: 4.8 cents a million."""
    block = rack_block("gb300-tco-hyperscaler")
    assert block["usd_per_million_output_tokens"] == pytest.approx(0.048, abs=5e-4)


def test_owned_rack_by_hand() -> None:
    """$48,611 a GPU over four years of 8,760 hours, and 136 kW at a plug."""
    parts = rack_block("own-gb300")["parts"]
    assert parts["capital"] == pytest.approx(72 * 48_611 / (4 * 8760))
    assert parts["power"] == pytest.approx(136 * 1.12 * 0.0861)


def test_residual_and_idle_power() -> None:
    """A fifth left over is a fifth less; idle GPUs draw 200 W instead of 1,400."""
    own = tariff('like = "own-gb300"\nresidual_share = 0.2\n')
    assert rates_of(own, 18)["capital"].busy == pytest.approx(
        0.8 * rates_of(load_tariff("own-gb300"), 18)["capital"].busy
    )
    idle = rack_block("own-gb300", busy_share=0.0)["energy"]
    assert idle["avg_power_w"] == pytest.approx(136_000 - 72 * 1200)


# ---------------------------------------------------------------------- conversions


def test_millijoules_joules_and_kilowatt_hours() -> None:
    """DCGM counts 3.6 billion millijoules to a kilowatt-hour."""
    assert kwh(3.6e9 / MILLIJOULES) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("written", "per_million"),
    [
        ("4.0", 4.0),
        ('{ value = 4.0, unit = "USD/million tokens" }', 4.0),
        ('{ value = 0.004, unit = "USD/1k tokens" }', 4.0),
        ('{ value = 4e-6, unit = "USD/token" }', 4.0),
    ],
)
def test_token_prices_per_one_thousand_and_million(
    written: str, per_million: float
) -> None:
    """The same price, however a list is written."""
    text = f"{TOKENS.rpartition('usd')[0]}usd_per_million_output_tokens = {written}\n"
    assert tariff(text)["usd_per_million_output_tokens"] == pytest.approx(per_million)


@pytest.mark.parametrize(
    ("term", "written", "value"),
    [
        ("usd_per_vm_hour", '{ value = 0.6, unit = "USD/minute" }', 36.0),
        ("usd_per_kwh", '{ value = 86.1, unit = "USD/MWh" }', 0.0861),
        ("gpu_load_w", '{ value = 1.4, unit = "kW" }', 1400.0),
        ("gco2_per_kwh", '{ value = 0.366, unit = "kg/kWh" }', 366.0),
        ("gco2_per_kwh", '{ value = 0.81, unit = "lb/kWh" }', 367.41),
    ],
)
def test_other_units_are_scaled(term: str, written: str, value: float) -> None:
    """A list may be in the unit that it was printed in."""
    own = tariff(f'like = "azure-nd-gb300-v6"\n{term} = {written}\n')
    assert own[term] == pytest.approx(value, rel=1e-5)


def test_per_hour_per_million_per_request() -> None:
    """Two VMs at $36 for ten seconds: 20 cents, $72 an hour; four answers."""
    usage = used(*(answer(id=str(i)) for i in range(4)))
    block = cost_block(usage, Fleet(tariff(RENTED), 2), window_s=10.0)
    assert block["usd_total"] == pytest.approx(0.2)
    assert block["usd_per_hour"] == pytest.approx(72.0)
    assert block["usd_per_request"] == pytest.approx(0.05)
    assert block["usd_per_million_output_tokens"] == pytest.approx(0.2 / 200 * 1e6)
    assert block["usd_per_million_tokens"] == pytest.approx(0.2 / 600 * 1e6)


# ------------------------------------------------------------------ who pays for what


def test_busy_time_is_shared_by_work() -> None:
    """50 + 0.4 x 100 = 90 units, and 50 + 0.4 x (100 - 50) = 70 with half cached."""
    bill = billed(RENTED, answer(), answer(cached_tokens=50), busy=8.0)
    plain, cached = (
        bill.pricing.usd_of(row) for row in (answer(), answer(cached_tokens=50))
    )
    busy_usd = 72.0 / 3600 * 8
    assert plain == pytest.approx(busy_usd * 90 / 160)
    assert cached == pytest.approx(busy_usd * 70 / 160)
    assert bill.idle == pytest.approx(72.0 / 3600 * 2)


def test_failed_requests_are_paid_for() -> None:
    """One that broke off after 20 events had its prompt prefilled, and took its share.

    One that was refused at the door took nothing.
    """
    broken = answer(
        outcome=Outcome.FAILED, input_tokens=0, output_tokens=0, events=20,
        asked_input_tokens=100,
    )  # fmt: skip
    refused = answer(
        outcome=Outcome.THROTTLED, input_tokens=0, output_tokens=0, first_s=None,
        last_s=None, asked_input_tokens=100,
    )  # fmt: skip
    bill = billed(RENTED, answer(), broken, refused)
    assert bill.failed == pytest.approx(72.0 / 3600 * 5 * 60 / 150)
    assert bill.pricing.usd_of(refused) == 0.0
    assert bill.total == pytest.approx(0.2)


def test_time_that_nobody_used_is_idle() -> None:
    """All failed at the door: something was in flight, and nobody took the time."""
    refused = answer(
        outcome=Outcome.FAILED, input_tokens=0, output_tokens=0, first_s=None
    )
    bill = billed(RENTED, refused)
    assert (bill.answered, bill.failed) == (0.0, 0.0)
    assert bill.idle == pytest.approx(0.2)


def test_token_list_by_hand() -> None:
    """$1, $0.1 cached, $4 a million; idle time is not the buyer's."""
    row = answer(cached_tokens=40, reasoning_tokens=20, received_bytes=2_000_000)
    bill = billed(WHOLE_LIST, row)
    assert bill.total == pytest.approx(
        (60 * 1.0 + 40 * 0.1 + 30 * 4.0 + 20 * 4.0) / 1e6 + 0.002 * 0.05
    )
    assert bill.idle == 0.0
    assert bill.missing == ()
    assert set(bill.parts) == {"input", "cached", "output", "reasoning", "egress"}


def test_provisioned_units_by_hand() -> None:
    """50 units at $2 are $100 an hour, used or not."""
    bill = billed(UNITS, answer(), vms=0)
    assert bill.total == pytest.approx(100.0 / 360)
    assert bill.idle == pytest.approx(50.0 / 360)
    assert energy_of(tariff(UNITS), 0, bill) is None


def test_retrieval_and_egress_beside_rent() -> None:
    """Exact parts are each request's own, on top of its share of the rent."""
    text = RENTED + "usd_per_million_retrievals = 10.0\n"
    row = answer(stages=(("retrieve", 0.1), ("generate", 1.9)), received_bytes=10**9)
    bill = billed(text, row)
    assert bill.parts["retrieval"] == pytest.approx(1e-5)
    assert bill.parts["egress"] == pytest.approx(0.087)
    assert bill.total == pytest.approx(0.2 + 0.087 + 1e-5)
    assert bill.pricing.usd_of(row) == pytest.approx(0.1 + 0.087 + 1e-5)


# ----------------------------------------------------------------- what is missing


def test_missing_price_is_counted_and_never_zero() -> None:
    """A request with cached tokens has no figure under a list that prices none."""
    rows = (answer(), answer(cached_tokens=40))
    bill = billed(TOKENS, *rows)
    assert bill.pricing.usd_of(rows[1]) is None
    assert bill.total == pytest.approx(300e-6)
    assert bill.unpriced == 1
    (cached,) = (m for m in bill.missing if m.what == "cached tokens")
    assert (cached.amount, cached.unit) == (40, "tokens")
    block = cost_block(used(*rows), Fleet(tariff(TOKENS), 0), window_s=10.0)
    # The one that has a price is divided by itself alone.
    assert block["usd_per_request"] == pytest.approx(300e-6)
    assert block["per_request_usd"]["n"] == 1
    assert block["unpriced_requests"] == 1
    assert any("usd_per_million_cached_tokens" in m["text"] for m in block["missing"])
    assert any("missing: cached tokens" in said for said in block["assumptions"])


def test_tokens_that_nobody_counted_have_no_price() -> None:
    """Without usage there is nothing to lay a list over; rent is due all the same."""
    row = answer(tokens_source=TokensSource.NONE, input_tokens=0, output_tokens=0)
    assert billed(TOKENS, row).unpriced == 1
    block = cost_block(used(row), Fleet(tariff(TOKENS), 0), window_s=10.0)
    assert block["usd_per_request"] is None
    assert billed(RENTED, row).unpriced == 0


def test_unmeasured_bytes_are_told() -> None:
    """Egress has a price and no bytes, or bytes and no price."""
    assert "not counted" in str(billed(RENTED, answer()).missing[0])
    own = 'like = "gb300-reserved-3y"\n'
    assert "no usd_per_gb_egress" in str(
        billed(own, answer(received_bytes=5)).missing[0]
    )
    assert billed(RENTED, answer(received_bytes=5)).missing == ()


def test_without_a_price_there_are_no_figures_but_a_reason() -> None:
    """The fields that everybody reads are there."""
    block = cost_block(used(answer()), Fleet(tariff(RENTED), 2), window_s=10.0)
    bare = no_price("unknown machine")
    assert set(bare) < set(block)
    assert bare["assumptions"] == ["unknown machine"]
    assert {bare[k] for k in bare if k.startswith("usd")} == {None}


def test_power_that_nobody_published_is_told() -> None:
    """An H100 rack's rest is left out of its energy, and the block says so."""
    h100 = load_tariff("azure-nd-h100-v5")
    energy = cost_block(used(answer()), Fleet(h100, 1), window_s=10.0)["energy"]
    assert energy["left_out"]
    assert energy["avg_power_w"] < 8 * 700
    assert Power.of(tariff(UNITS), 3) is None


# ----------------------------------------------------------------------- properties

COUNTS = st.integers(0, 100_000)


@st.composite
def rows(draw: st.DrawFn) -> RequestRecord:
    """Draw a request of any fate."""
    sent = draw(st.floats(0, 50))
    n_in, n_out = draw(COUNTS), draw(COUNTS)
    return answer(
        sent_s=sent,
        intended_s=sent,
        end_s=sent + draw(st.floats(0, 50)),
        first_s=draw(st.none() | st.just(sent)),
        outcome=draw(st.sampled_from(Outcome)),
        input_tokens=n_in,
        output_tokens=n_out,
        cached_tokens=draw(st.integers(0, n_in)),
        reasoning_tokens=draw(st.integers(0, n_out)),
        received_bytes=draw(st.integers(0, 10**9)),
        tenant=draw(st.sampled_from(("a", "b"))),
        warmup=draw(st.booleans()),
        tokens_source=draw(st.sampled_from(TokensSource)),
    )


@given(
    found=st.lists(rows(), max_size=30),
    text=st.sampled_from((RENTED, TOKENS, WHOLE_LIST, UNITS, 'like = "own-gb300"\n')),
    vms=st.integers(1, 1000),
    busy=st.floats(0, 1),
)
def test_requests_and_idle_time_add_up_to_the_bill(
    found: list[RequestRecord], text: str, vms: int, busy: float
) -> None:
    """To a cent, under any way to pay: nothing is lost and nothing is paid twice."""
    window = 3600.0
    usage, own = used(*found), tariff(text)
    bill = bill_of(
        usage, own, vms=vms, window_s=window, busy=Busy(busy * window, "drawn")
    )
    each = [usd for row in found if (usd := bill.pricing.usd_of(row)) is not None]
    assert len(found) - len(each) == bill.unpriced
    assert all(usd >= 0 for usd in each)
    assert abs(fsum(each) + bill.idle - bill.total) < CENT
    assert abs(fsum(bill.parts.values()) - bill.total) < CENT
    block = cost_block(
        usage, Fleet(own, vms), window_s=window, busy=Busy(busy * window, "drawn")
    )
    for lines in block["by"].values():
        shares = fsum(line["usd"] for line in lines.values())
        assert abs(shares + bill.idle - bill.total) < CENT
    if own.by_time:
        by_use = fsum(bill.parts.get(name, 0.0) for name in ("egress", "retrieval"))
        rates = whole(rates_of(own, vms))
        low, high = sorted((rates.busy * window, rates.idle * window))
        assert low - CENT <= bill.total - by_use <= high + CENT


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 30)), max_size=20))
def test_time_in_flight_is_that_of_the_union(spans: list[tuple[int, int]]) -> None:
    """Counted second by second, naively."""
    usage = used(*(answer(sent_s=float(at), end_s=float(at + n)) for at, n in spans))
    seconds = {s for at, n in spans for s in range(at, at + n)}
    assert usage.in_flight_s() == pytest.approx(len(seconds))


# ------------------------------------------------------------------------- the block


def test_busy_time_is_the_rows_unless_it_was_measured() -> None:
    """And the block says which."""
    usage, fleet = (
        used(answer(), answer(sent_s=5.0, end_s=6.0)),
        Fleet(tariff(RENTED), 2),
    )
    rows_say = cost_block(usage, fleet, window_s=10.0)["allocation"]
    assert rows_say["busy_share"] == pytest.approx(0.3)
    assert rows_say["busy_source"] == IN_FLIGHT
    told = cost_block(usage, fleet, window_s=10.0, busy=Busy(99.0, "meter"))
    assert told["allocation"]["busy_share"] == 1.0
    assert told["allocation"]["busy_source"] == "meter"


def test_tail_is_of_answers_outside_the_warm_up() -> None:
    """Nearest rank of each answer's own share."""
    found = [
        answer(output_tokens=n, warmup=n > 100, input_tokens=0) for n in range(1, 111)
    ]
    block = cost_block(used(*found), Fleet(tariff(TOKENS), 0), window_s=10.0)
    tail = block["per_request_usd"]
    assert (tail["n"], tail["p50"], tail["p99"]) == pytest.approx((100, 200e-6, 396e-6))


def test_goodput_pays_for_all() -> None:
    """One of two answers keeps the objective, so it costs the whole bill."""
    slos = (Slo("ttft_s", "p99", 0.6),)
    usage = used(answer(), answer(first_s=2.5), slos=slos)
    block = cost_block(usage, Fleet(tariff(RENTED), 2), window_s=10.0)
    assert block["usd_per_good_request"] == pytest.approx(0.2)
    without = cost_block(used(answer()), Fleet(tariff(RENTED), 2), window_s=10.0)
    assert without["usd_per_good_request"] is None


def test_an_empty_run_has_a_block() -> None:
    """No figure where there is nothing to divide by."""
    block = cost_block(Usage(), Fleet(tariff(RENTED), 2), window_s=0.0)
    assert (block["usd_total"], block["usd_per_request"]) == (0.0, None)
    assert block["per_request_usd"]["n"] == 0


def test_tariff_survives_its_json() -> None:
    """A folder has its own price list with every certificate."""
    own = tariff(WHOLE_LIST)
    assert Tariff.from_json(own.to_json()) == own
    listed = load_tariff("azure-nd-h200-v5")
    assert Tariff.from_json(listed.to_json()) == listed


def test_running_cost_by_hand() -> None:
    """A tenth of an hour of two VMs; a million tokens in and two out."""
    assert usd_so_far(Fleet(tariff(RENTED), 2), 360.0, 0, 0) == pytest.approx(7.2)
    tokens = usd_so_far(Fleet(tariff(TOKENS), 0), 360.0, 1_000_000, 2_000_000)
    assert tokens == pytest.approx(9.0)
