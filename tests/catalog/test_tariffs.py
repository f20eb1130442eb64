"""Price lists: the catalog's agree with what was collected, own ones are read."""

import pytest
from calibration_data import published

from loadstone.catalog.tariffs import (
    alternatives,
    load_tariff,
    price_names,
    read_tariff,
)
from loadstone.cost.rates import rates_of, whole
from loadstone.cost.terms import BASES, TERMS, Tariff
from loadstone.errors import CatalogError, UsageError
from loadstone.fact import Fact

PRESET = "azure-nd-gb300-v6"
LIKE = f'like = "{PRESET}"\n'


@pytest.mark.parametrize("name", price_names())
def test_every_list_of_the_catalog_is_whole(name: str) -> None:
    """It can be reckoned with: a rate, a GPU's draw, the site's figures."""
    tariff = load_tariff(name)
    assert tariff.basis in BASES
    assert whole(rates_of(tariff, 1)).busy > 0
    assert {"pue", "gco2_per_kwh", "gpu_idle_w", "gpu_load_w"} <= set(tariff.facts)
    for term, fact in tariff.facts.items():
        assert fact.unit == TERMS[term].unit
        assert fact.source in tariff.assumption(term)


def test_prices_are_those_that_were_collected() -> None:
    """Every rent of the catalog is in the calibration data, GPU and price."""
    rows = list(published("prices.csv"))
    if not rows:
        pytest.skip("no calibration data here")
    per_vm = {
        (r["accelerator"], float(r["price_usd"]))
        for r in rows
        if r["unit"] == "VM-hour"
    }
    per_gpu = {
        (r["accelerator"], float(r["price_usd"]))
        for r in rows
        if r["unit"] == "GPU-hour" and r["price_usd"]
    }
    for name in price_names():
        tariff = load_tariff(name)
        if tariff.basis == "rent":
            vm, gpu = (tariff.value(f"usd_per_{unit}_hour") for unit in ("vm", "gpu"))
            assert (tariff.gpu, vm) in per_vm or (tariff.gpu, gpu) in per_gpu, name


def test_rest_of_the_rack_is_what_136_kw_leave() -> None:
    """136 kW less 72 GPUs of 1,400 W, over 72; nobody published that of an H100's."""
    fact = load_tariff(PRESET).facts["rest_w_per_gpu"]
    assert fact.value == pytest.approx((136_000 - 72 * 1400) / 72)
    assert fact.confidence == "derived"
    assert "rest_w_per_gpu" not in load_tariff("azure-nd-h100-v5").facts


def test_provider_gives_egress() -> None:
    """Azure's lists have its price; the others leave theirs missing."""
    assert load_tariff(PRESET)["usd_per_gb_egress"] == 0.087
    assert "usd_per_gb_egress" not in load_tariff("oracle-gb300").facts


def test_alternatives_of_a_gpu() -> None:
    """Reserved and bought, and none of a GPU that is not paid for."""
    assert [t.name for t in alternatives("gb300")] == ["gb300-reserved-3y", "own-gb300"]
    assert alternatives("") == []


def test_reserved_is_due_always() -> None:
    """Pay as you go and spot are not."""
    due = {name: load_tariff(name).due_always for name in price_names()}
    assert due["gb300-reserved-3y"]
    assert due["own-gb300"]
    assert not due[PRESET]
    assert not due["azure-nd-mi300x-v5-spot"]


# ---------------------------------------------------------------------- a user's own


def test_own_list_wins_term_by_term() -> None:
    """What is not said is the catalog's, with its own certificate."""
    own = read_tariff(
        LIKE + 'source = "annex B"\ndate = "2026-11-01"\nconfidence = "vendor"\n'
        'pue = 1.25\nusd_per_kwh = { value = 0.2, source = "meter" }\n',
        "folder/mine.toml",
    )
    assert own.name == "mine"
    assert own["usd_per_vm_hour"] == 112.48
    assert own.facts["pue"] == Fact(
        value=1.25, unit="1", source="annex B", date="2026-11-01", confidence="vendor"
    )
    assert own.facts["usd_per_kwh"].source == "meter"
    assert own.facts["usd_per_kwh"].date == "2026-11-01"


def test_price_per_gpu_takes_the_place_of_one_per_vm() -> None:
    """Of two ways to say the same the user's holds."""
    own = read_tariff(LIKE + "usd_per_gpu_hour = 20\n", "mine.toml")
    assert "usd_per_vm_hour" not in own.facts
    assert whole(rates_of(own, 3)).busy * 3600 == pytest.approx(3 * 4 * 20)


def test_own_list_from_nothing() -> None:
    """A basis, GPUs and what it needs; the GPU brings its power."""
    text = 'basis = "rent"\ngpu = "h100"\ngpus = 8\nusd_per_vm_hour = 50\n'
    own = read_tariff(text, "mine.toml")
    assert own["gpu_load_w"] == 700
    assert own.facts["usd_per_vm_hour"].source == "mine.toml"
    assert "usd_per_gb_egress" not in own.facts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LIKE + "\nusd_per_hour = 3\n", "line 3: unknown key 'usd_per_hour'"),
        (LIKE + "usd_per_vm_hour = -1\n", "line 2: usd_per_vm_hour: -1 is not within"),
        (LIKE + "usd_per_vm_hour = inf\n", "line 2: usd_per_vm_hour: inf is not"),
        (LIKE + "usd_per_vm_hour = true\n", "line 2: usd_per_vm_hour: value True"),
        (LIKE + '[pue]\nvalue = 0.9\nunit = "1"\n', "line 2: pue: 0.9 is not within"),
        (LIKE + "residual_share = 1.1\n", "line 2: residual_share: 1.1"),
        (LIKE + 'pue = { value = 2, unit = "W" }\n', "line 2: pue: unit 'W' is not 1"),
        (LIKE + "pue = { value = 2, typo = 1 }\n", "line 2: pue: unknown field 'typo'"),
        (LIKE + 'confidence = "hearsay"\npue = 2\n', "line 3: pue: confidence"),
        (LIKE + "gpu_idle_w = 2000\n", "more than gpu_load_w"),
        (LIKE + 'gpu = "z80"\n', "line 2: no GPU 'z80'"),
        (LIKE + 'agreed = "handshake"\n', "not agreed as 'handshake'"),
        (LIKE + "usd_per_gpu_hour = 1\nusd_per_vm_hour = 1\n", "not both"),
        ('like = "nothing"\n', "no price 'nothing'"),
        ("like = 3\n", "line 1: like 3 is not a name"),
        ('basis = "barter"\n', "no basis 'barter'"),
        ('basis = "rent"\nusd_per_vm_hour = 1\n', "gpus must say how many"),
        ('basis = "tokens"\n', "needs usd_per_million_input_tokens"),
        ("pue = 1.2\n", "neither like nor basis"),
        ("pue = \n", "mine.toml is not TOML"),
    ],
)
def test_wrong_lists_are_refused(text: str, said: str) -> None:
    """With the file, and the line where there is one."""
    with pytest.raises(UsageError) as wrong:
        read_tariff(text, "mine.toml")
    assert said in wrong.value.message
    assert wrong.value.message.startswith("mine.toml")


def test_term_that_nobody_knows_is_refused() -> None:
    """Also where a tariff is made by a program."""
    with pytest.raises(CatalogError, match="unknown term 'tip'"):
        Tariff(
            name="x", title="x", basis="rent", gpus=1,
            facts=load_tariff(PRESET).facts | {"tip": load_tariff(PRESET).facts["pue"]},
        )  # fmt: skip
