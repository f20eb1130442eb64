"""Money, claims, contracts, sweeps and stages on the page."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from run_folders import made_up

from loadstone.catalog.claims import load_claim
from loadstone.cli.main import main
from loadstone.cost.usage import Usage
from loadstone.errors import UsageError
from loadstone.report.bundle import pack
from loadstone.report.document import gather
from loadstone.report.html import page
from loadstone.report.proof import CONTEXT, Asked, money
from loadstone.report.written import rendered
from loadstone.runs import RunFiles
from loadstone.verify.contract import read_clause


def changed(run_folder: Path, to: Path, **changes: Any) -> Path:
    """Copy a run and change keys of its summary; None leaves one out."""
    folder = made_up(Path(shutil.copytree(run_folder, to)))
    summary = json.loads((folder / "summary.json").read_text()) | changes
    kept = {key: value for key, value in summary.items() if value is not None}
    (folder / "summary.json").write_text(json.dumps(kept))
    return folder


def test_the_claim_of_a_machine_is_shown_as_context(run_folder: Path) -> None:
    """Per GPU, with what was other; nobody asked the run to reproduce it."""
    document = gather(RunFiles.open(run_folder))
    assert document.claim is not None
    assert document.claim["claim"]["name"] == CONTEXT["azure-nd-gb300-v6"]
    said = page(document).decode()
    assert "The claim that this machine is known by" in said
    assert "this run was not asked to reproduce it" in said
    assert "15,291" in said
    assert "unverified, Offline, no latency limit" in said


def test_a_claim_that_was_asked_for_is_judged(run_folder: Path) -> None:
    """Whatever the machine; and not where the run cannot say how many GPUs it had."""
    asked = Asked(load_claim("gb300-gpu-15200"))
    said = page(gather(RunFiles.open(run_folder), asked)).decode()
    assert "<h2>The claim</h2>" in said
    assert "Not reproduced." in said


def test_another_machine_has_no_claim_to_its_name(
    run_folder: Path, tmp_path: Path
) -> None:
    """Only an emulation says what it is."""
    folder = changed(run_folder, tmp_path / "run", preset="h100-8")
    document = gather(RunFiles.open(folder))
    assert document.claim is None
    assert "claim" not in page(document).decode().split("glossary")[0]


def test_each_clause_of_a_contract_is_shown(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Passed, failed, and told by the verb from a file."""
    clauses = [
        {"metric": "ttft_intended_s", "stat": "p50", "max": 60.0},
        {"metric": "output_tok_s", "min": 1e9},
    ]
    asked = Asked(clauses=tuple(map(read_clause, clauses)))
    document = gather(RunFiles.open(run_folder), asked)
    assert [c["status"] for c in document.contract] == ["pass", "fail"]
    (tmp_path / "contract.toml").write_text(
        '[[clause]]\nmetric = "output_tok_s"\nmin = 1e9\n'
    )
    with pytest.raises(SystemExit):
        main([
            "report", str(run_folder), "--contract", str(tmp_path / "contract.toml"),
            "--out", "-",
        ])  # fmt: skip
    said = capsys.readouterr().out
    assert "output_tok_s &gt;= 1e+09" in said
    assert '<td class="mark bad">fail' in said


def test_the_bill_and_what_it_hangs_on_are_shown(run_folder: Path) -> None:
    """The total is the summary's, and a fifth less rent is a fifth less money."""
    document = gather(RunFiles.open(run_folder))
    assert document.money is not None
    rent = next(
        s for s in document.money["sensitivity"] if s["assumption"] == "usd_per_vm_hour"
    )
    assert rent["at_low"] == pytest.approx(0.8 * rent["at_base"])
    assert rent["at_base"] == pytest.approx(
        document.summary["cost"]["usd_per_million_output_tokens"]
    )
    said = page(document).decode()
    for words in (
        "The bill of", "for idle time", "If an assumption is 20 % off",
        "by how much of the time it is used", "energy per output token",
    ):  # fmt: skip
        assert words in said


def test_without_a_price_there_is_no_bill(run_folder: Path, tmp_path: Path) -> None:
    """And one that cannot be read is named."""
    folder = changed(run_folder, tmp_path / "run", cost=None)
    document = gather(RunFiles.open(folder))
    assert document.money is None
    assert "The bill of" not in page(document).decode()
    usage = Usage(())
    for row in RunFiles.open(run_folder).rows():
        usage.add(row)
    broken = {"cost": {"tariff": {"name": 3}, "vms": 1}, "makespan_s": 1.0}
    with pytest.raises(UsageError, match="price list that cannot be read"):
        money(usage, broken)


def test_stages_are_drawn_one_after_the_other(run_folder: Path, tmp_path: Path) -> None:
    """Their means add up to where the next begins."""
    folder = made_up(Path(shutil.copytree(run_folder, tmp_path / "run")))
    rows = [
        json.loads(line) | {"stages": [["embed", 0.1], ["generate", 0.3]]}
        for line in (folder / "requests.jsonl").read_text().splitlines()
    ]
    (folder / "requests.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    document = gather(RunFiles.open(folder))
    assert [s["stage"] for s in document.stages] == ["embed", "generate"]
    assert document.stages[0]["mean_s"] == pytest.approx(0.1)
    assert document.stages[1]["p99_s"] == pytest.approx(0.3, rel=0.01)
    said = page(document).decode()
    table = b"".join(rendered(RunFiles.open(folder), "csv")).decode()
    assert table.splitlines()[1].endswith(",embed=0.1;generate=0.3")
    assert 'data-chart="stages"' in said
    assert "<title>embed: 100.0 ms" in said


def test_a_sweep_is_reported_by_the_run_at_its_knee(
    run_folder: Path, tmp_path: Path
) -> None:
    """With the frontier beside it; a folder that leads out of the sweep is none."""
    (tmp_path / "probes").mkdir()
    shutil.copytree(run_folder, tmp_path / "probes" / "02")
    (tmp_path / "plan.toml").write_text((run_folder / "plan.toml").read_text())
    step = {
        "trusted": True, "grows": False, "output_tok_s": 10.0, "tok_s_per_gpu": 5.0,
        "tok_s_per_user": 40.0, "gpus": 2, "load": "1 requests/s",
        "folder": "probes/01",
    }  # fmt: skip
    knee = step | {
        "tok_s_per_gpu": 50.0, "tok_s_per_user": 30.0, "load": "9 requests/s",
        "folder": "probes/02",
    }  # fmt: skip
    sweep = {"steps": [step, knee], "knee": {"load": knee["load"]}}
    sweep["notes"] = ["<b>"]
    (tmp_path / "sweep.json").write_text(json.dumps(sweep))
    document = gather(RunFiles.open(tmp_path))
    assert document.rows > 100
    said = page(document).decode()
    assert 'data-chart="pareto"' in said
    assert "the knee, 9 requests/s, is this run" in said
    assert "&lt;b&gt;" in said
    with pytest.raises(UsageError, match="is a sweep"):
        pack(RunFiles.open(tmp_path), tmp_path / "x.zip")
    (tmp_path / "sweep.json").write_text(json.dumps(sweep | {"steps": [{}]}))
    with pytest.raises(UsageError, match=r"sweep\.json is not what .*load"):
        gather(RunFiles.open(tmp_path))
    sweep["steps"] = [knee | {"folder": "../.."}]
    (tmp_path / "sweep.json").write_text(json.dumps(sweep))
    with pytest.raises(UsageError, match="has no knee"):
        gather(RunFiles.open(tmp_path))
