"""`loadstone cost`: a run that is over, under other price lists."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadstone.cli.main import main
from loadstone.cost.block import IN_FLIGHT

TOKENS = """basis = "tokens"
title = "An API"
usd_per_million_input_tokens = 0.5
usd_per_million_output_tokens = 2.0
"""
Cost = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulate two VMs for a minute of virtual time."""
    out = tmp_path_factory.mktemp("priced")
    with pytest.raises(SystemExit) as left:
        main([
            "simulate", "--vms", "2", "--rate", "5", "--duration", "60s", "--out",
            str(out), "--json",
        ])  # fmt: skip
    assert not left.value.code
    return out / "latest"


@pytest.fixture
def cost(capsys: pytest.CaptureFixture[str]) -> Cost:
    """Return a function that runs the verb."""

    def run(*args: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["cost", *map(str, args)])
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    return run


def document(cost: Cost, *args: object) -> dict[str, Any]:
    """Run the verb and return its JSON."""
    code, out, err = cost(*args, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def summary_of(folder: Path) -> dict[str, Any]:
    """Return the run's own figures."""
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def test_same_list_gives_the_runs_own_bill(cost: Cost, folder: Path) -> None:
    """To the last figure: rows, price list and busy time are those of the run.

    Stamps in rows are rounded to the microsecond; nothing in the block shows it.
    """
    summary = summary_of(folder)
    again = document(cost, folder)["cost"]
    assert again == summary["cost"]
    assert again["usd_total"] == pytest.approx(
        2 * 112.48 * summary["makespan_s"] / 3600
    )
    allocation = again["allocation"]
    assert allocation["busy_source"] == "the engines' steps"
    assert 0 < allocation["busy_share"] < 1
    parts = (allocation[f"{k}_usd"] for k in ("answered", "failed", "idle"))
    assert sum(parts) == pytest.approx(again["usd_total"])


def test_token_list_charges_tokens_alone(
    cost: Cost, folder: Path, tmp_path: Path
) -> None:
    """$0.5 and $2 a million, by hand from the run's totals."""
    own = tmp_path / "api.toml"
    own.write_text(TOKENS)
    tokens = summary_of(folder)["tokens"]
    found = document(cost, folder, "--prices", own)
    charged = (tokens["input"] * 0.5 + tokens["output"] * 2.0) / 1e6
    assert found["cost"]["usd_total"] == pytest.approx(charged)
    assert found["cost"]["allocation"]["idle_usd"] == 0.0
    assert found["cost"]["energy"] is None
    names = [s["assumption"] for s in found["sensitivity"]]
    assert names == ["usd_per_million_input_tokens", "usd_per_million_output_tokens"]


def test_tornado_by_hand(cost: Cost, folder: Path) -> None:
    """Rent alone moves the price; 20 % of it are 20 % of the figure."""
    swings = document(cost, folder)["sensitivity"]
    money = [s for s in swings if s["figure"] == "usd_per_million_output_tokens"]
    assert [s["assumption"] for s in money] == ["usd_per_vm_hour"]
    assert money[0]["at_low"] == pytest.approx(0.8 * money[0]["at_base"])
    assert money[0]["at_high"] == pytest.approx(1.2 * money[0]["at_base"])
    assert money[0]["swing"] == pytest.approx(0.4)
    carbon = [s for s in swings if s["figure"] == "gco2_per_output_token"]
    assert carbon[0]["assumption"] == "gco2_per_kwh"
    assert [s["swing"] for s in carbon] == sorted(
        (s["swing"] for s in carbon), reverse=True
    )


def test_break_even_by_hand(cost: Cost, folder: Path, tmp_path: Path) -> None:
    """Reserved at $10 an hour, by the token, and $112.48 for each hour used."""
    reserved, api = tmp_path / "reserved.toml", tmp_path / "api.toml"
    reserved.write_text(
        'like = "gb300-reserved-3y"\ntitle = "reserved"\nusd_per_vm_hour = 10.0\n'
    )
    api.write_text(TOKENS)
    found = document(cost, folder, "--against", reserved, "--against", api)
    even = found["break_even"]
    by_name = {line["name"]: line for line in even["lines"]}
    assert list(by_name) == ["azure-nd-gb300-v6", "reserved", "api"]
    rent = by_name["azure-nd-gb300-v6"]
    assert (rent["fixed_usd_per_hour"], rent["by_use_usd_per_hour"]) == pytest.approx(
        (0.0, 224.96)
    )
    assert by_name["reserved"]["fixed_usd_per_hour"] == pytest.approx(20.0)
    hour = found["cost"]["window_s"] / 3600
    tokens = summary_of(folder)["tokens"]
    charged = (tokens["input"] * 0.5 + tokens["output"] * 2.0) / 1e6 / hour
    assert by_name["api"]["by_use_usd_per_hour"] == pytest.approx(charged)
    crossings = {(c["below"], c["above"]): c["use"] for c in even["crossings"]}
    assert crossings["azure-nd-gb300-v6", "reserved"] == pytest.approx(20 / 224.96)
    # Tokens are cheaper than rent at any use, and than the reserved until they are not.
    assert crossings["api", "azure-nd-gb300-v6"] is None
    use = 20 / charged
    assert crossings["api", "reserved"] == (pytest.approx(use) if use <= 1 else None)
    assert len(even["assumptions"]) == 3


def test_defaults_are_the_gpus_other_ways(cost: Cost, folder: Path) -> None:
    """Reserved and bought GB300 stand beside the rented."""
    lines = document(cost, folder)["break_even"]["lines"]
    assert [line["name"] for line in lines] == [
        "azure-nd-gb300-v6", "gb300-reserved-3y", "own-gb300",
    ]  # fmt: skip


def test_table_says_the_same(cost: Cost, folder: Path) -> None:
    """For people: bill, tail, assumptions, and what is missing."""
    code, out, _ = cost(folder)
    assert code == 0
    flat = " ".join(out.split())
    for part in (
        "idle time", "own share of a request, p99", "energy per output token",
        "112.48 USD/VM-hour (2026-09, third_party)", "missing: egress",
        "is cheaper than own-gb300 below a use of", "busy, by the engines' steps",
    ):  # fmt: skip
        assert part in flat


def test_more_machines_cost_more(cost: Cost, folder: Path) -> None:
    """`--vms` says how many are paid for, whatever the run had."""
    rack = document(cost, folder, "--vms", 18)["cost"]
    assert rack["usd_total"] == pytest.approx(
        9 * summary_of(folder)["cost"]["usd_total"]
    )
    assert rack["gpus"] == 72


def test_killed_run_is_priced_by_its_rows(
    cost: Cost, folder: Path, tmp_path: Path
) -> None:
    """Without a summary the plan has the price, and rows say how long and how busy."""
    killed = tmp_path / "killed"
    killed.mkdir()
    for name in ("plan.toml", "requests.jsonl"):
        (killed / name).write_text((folder / name).read_text())
    found = document(cost, killed)["cost"]
    own = summary_of(folder)["cost"]
    assert found["window_s"] == pytest.approx(own["window_s"], abs=1e-5)
    assert found["usd_total"] == pytest.approx(own["usd_total"], rel=1e-6)
    assert "in flight" in found["allocation"]["busy_source"]


def test_wrong_usage(cost: Cost, folder: Path, tmp_path: Path) -> None:
    """Each is told with what to do, in words and as JSON."""
    own = tmp_path / "mine.toml"
    own.write_text('like = "azure-nd-gb300-v6"\n\nusd_per_hour = 3\n')
    code, out, err = cost(folder, "--prices", own, "--json")
    assert (code, "line 3: unknown key 'usd_per_hour'" in err) == (2, True)
    assert json.loads(out)["error"]["code"] == "usage"
    for args, said in (
        ((tmp_path,), "not a run folder"),
        ((folder, "--prices", "free"), "no price 'free'"),
        ((folder, "--prices", tmp_path / "gone.toml"), "cannot read the price list"),
    ):
        code, _, err = cost(*args)
        assert (code, said in err) == (2, True), err
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "plan.toml").write_text('[plan]\nprice = "azure-nd-gb300-v6"\n')
    assert "does not say how many VMs" in cost(empty)[2]
    assert "has no rows" in cost(empty, "--vms", "1")[2]


def test_own_file_prices_a_simulation(cost: Cost, tmp_path: Path, folder: Path) -> None:
    """`simulate --prices FILE.toml` keeps the list in the folder, file or no file."""
    own = tmp_path / "mine.toml"
    own.write_text('like = "azure-nd-gb300-v6"\nusd_per_vm_hour = 36.0\n')
    with pytest.raises(SystemExit):
        main([
            "simulate", "--vms", "1", "--rate", "5", "--duration", "30s",
            "--prices", str(own), "--out", str(tmp_path), "--json",
        ])  # fmt: skip
    own.unlink()
    cost(folder)  # takes what the run printed
    found = document(cost, tmp_path / "latest")["cost"]
    assert found["usd_per_hour"] == pytest.approx(36.0)
    assert found["tariff"]["facts"]["usd_per_vm_hour"]["source"] == str(own)


def test_a_servers_own_word_on_its_gpus_is_taken(
    cost: Cost, folder: Path, tmp_path: Path
) -> None:
    """Of a live run, where its metrics were scraped: a quarter busy is idle for three.

    The price list is the run's own; the bill is the same, and its idle part is not.
    """
    live = tmp_path / "live"
    live.mkdir()
    for name in ("plan.toml", "requests.jsonl"):
        (live / name).write_text((folder / name).read_text())
    summary = summary_of(folder)
    summary["cost"]["allocation"]["busy_source"] = IN_FLIGHT
    (live / "summary.json").write_text(json.dumps(summary))
    bounded = document(cost, live)["cost"]
    summary["server"] = {"gpu_usage": {"mean": 0.25, "max": 0.5, "n": 9}}
    (live / "summary.json").write_text(json.dumps(summary))
    told = document(cost, live)["cost"]
    assert told["usd_total"] == pytest.approx(bounded["usd_total"])
    assert told["allocation"]["busy_share"] == pytest.approx(0.25)
    assert told["allocation"]["idle_usd"] == pytest.approx(0.75 * told["usd_total"])
    assert "scraped" in told["allocation"]["busy_source"]
    joules = told["energy"]["total_energy_j"], bounded["energy"]["total_energy_j"]
    assert joules[0] < joules[1]
