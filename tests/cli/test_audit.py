"""`loadstone audit` on folders that a simulation and a live run made, and on damage."""

import json
import shutil
from pathlib import Path

import pytest
from processes import loadstone

SIMULATED = ("simulate", "--rate", "20", "--duration", "3s", "--vms", "1", "--json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a run folder in virtual time."""
    out = tmp_path_factory.mktemp("audited")
    ended = loadstone(*SIMULATED, "--out", str(out))
    assert ended.returncode in {0, 4}, ended.stderr
    return (out / "latest").resolve()


def checks_of(folder: Path) -> tuple[int, dict[str, str]]:
    """Audit a folder; returns the exit code and each check's state."""
    ended = loadstone("audit", str(folder), "--json")
    told = json.loads(ended.stdout)
    return ended.returncode, {c["check"]: c["state"] for c in told["checks"]}


def test_a_simulation_is_in_order(folder: Path) -> None:
    """It has neither metrics nor Locust's statistics; all else holds."""
    code, states = checks_of(folder)
    assert code == 0
    assert {name for name, state in states.items() if state != "ok"} == {
        "metrics", "locust",
    }  # fmt: skip


def test_a_lost_and_a_doubled_row_are_found(folder: Path, tmp_path: Path) -> None:
    """By exit code, and in words that name the request."""
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    rows = (damaged / "requests.jsonl").read_text().splitlines(keepends=True)
    lost, doubled = json.loads(rows[1])["id"], json.loads(rows[4])["id"]
    (damaged / "requests.jsonl").write_text("".join([*rows[:1], *rows[2:], rows[4]]))
    code, states = checks_of(damaged)
    assert code == 4
    assert states["one_outcome"] == states["none_lost"] == "wrong"
    said = loadstone("audit", str(damaged))
    assert said.returncode == 4
    assert f"request {doubled} has two rows" in said.stdout
    assert lost in said.stdout


def test_where_there_is_nothing_to_audit(folder: Path, tmp_path: Path) -> None:
    """No plan, or no rows: wrong usage, in words."""
    ended = loadstone("audit", str(tmp_path))
    assert ended.returncode == 2
    assert "not a run folder" in ended.stderr
    shutil.copy(folder / "plan.toml", tmp_path)
    ended = loadstone("audit", str(tmp_path), "--json")
    assert ended.returncode == 2
    assert "has no rows" in json.loads(ended.stdout)["error"]["message"]
