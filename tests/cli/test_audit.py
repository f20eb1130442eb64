"""`loadstone audit` on folders that a simulation and a live run made, and on damage."""

import json
import shutil
from pathlib import Path

import pytest
from processes import loadstone
from run_folders import made_up, out_of_order

from loadstone.cli.audit import audited
from loadstone.errors import UsageError
from loadstone.runs import RunFiles

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
    """It has no metrics, no Locust's statistics and no server; all else holds."""
    code, states = checks_of(folder)
    assert code == 0
    assert {name for name, state in states.items() if state != "ok"} == {
        "metrics", "locust", "server",
    }  # fmt: skip


def test_a_lost_and_a_doubled_row_are_found(folder: Path, tmp_path: Path) -> None:
    """By exit code, and in words that name the request."""
    damaged = Path(shutil.copytree(folder, tmp_path / "damaged"))
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
    # And by what looks through all folders that tests leave, unless they say so.
    assert len(out_of_order(tmp_path)) == 3
    made_up(damaged)
    assert out_of_order(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", "{}"),
        ("summary.json", '{"requests": 1}'),
        ("server_counts.json", '{"servers": [1]}'),
        ("server_counts.json", "[]"),
        ("plan.toml", "[plan]\nscenario = 'azure-chat'\nrate = 'fast'"),
    ],
)
def test_a_file_that_is_none_is_an_error(
    folder: Path, tmp_path: Path, name: str, content: str
) -> None:
    """Wrong usage, and not a traceback."""
    broken = made_up(Path(shutil.copytree(folder, tmp_path / "broken")))
    (broken / name).write_text(content)
    with pytest.raises(UsageError, match="broken"):
        audited(RunFiles.open(broken))


def test_where_there_is_nothing_to_audit(folder: Path, tmp_path: Path) -> None:
    """No plan, or no rows: wrong usage, in words."""
    ended = loadstone("audit", str(tmp_path))
    assert ended.returncode == 2
    assert "not a run folder" in ended.stderr
    shutil.copy(folder / "plan.toml", tmp_path)
    ended = loadstone("audit", str(tmp_path), "--json")
    assert ended.returncode == 2
    assert "has no rows" in json.loads(ended.stdout)["error"]["message"]
