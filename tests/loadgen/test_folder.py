"""A run's folder: its own, whole files, and `latest` that always points at one."""

import json
import tomllib
from pathlib import Path

import pytest

from loadgen.folder import RunFolder
from loadstone import __version__
from loadstone.errors import LoadstoneError
from loadstone.runs import ENVIRONMENT, PLAN
from loadstone.traffic.plan import Plan


def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path: Path) -> None:
    """The scenario is in the name, and `latest` is the last of them."""
    folders = [RunFolder.create(tmp_path / "runs", "chat").path for _ in range(3)]
    assert len(set(folders)) == 3
    assert all(path.is_dir() and "-chat" in path.name for path in folders)
    latest = tmp_path / "runs" / "latest"
    assert latest.resolve() == folders[-1]
    assert not latest.readlink().is_absolute()
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        "latest",
        *(path.name for path in folders),
    }


def test_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    """A file is in the way, say: the error names it and the option."""
    (tmp_path / "runs").write_text("")
    with pytest.raises(
        LoadstoneError, match=r"cannot make a run folder in .*runs"
    ) as no:
        RunFolder.create(tmp_path / "runs", "chat")
    assert "--out" in no.value.hint


def test_plan_can_be_run_again(tmp_path: Path) -> None:
    """The settings, their hash and the version; what is None is left out."""
    plan = Plan(rate=2.5, seed=7, hosts=("http://h",))
    folder = RunFolder(tmp_path)
    folder.write_plan(plan, "abc", offline=None, engine={"vms": 2})
    table = tomllib.loads((tmp_path / PLAN).read_text())
    assert Plan.from_toml(table.pop("plan")) == plan
    assert table == {
        "loadstone": __version__,
        "plan_hash": "abc",
        "engine": {"vms": 2},
    }


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """What fails half way leaves the old file and no other."""
    folder = RunFolder(tmp_path)
    folder.write_json("summary.json", {"a": 1})
    with pytest.raises(TypeError):
        folder.write_json("summary.json", {"a": object()})
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    assert json.loads((tmp_path / "summary.json").read_text()) == {"a": 1}


def test_environment_says_what_it_ran_on(tmp_path: Path) -> None:
    """Versions, machine, workers, and the mock's own words."""
    RunFolder(tmp_path).write_environment({"preset": "p"}, workers=3)
    said = json.loads((tmp_path / ENVIRONMENT).read_text())
    assert (said["workers"], said["mock"]) == (3, {"preset": "p"})
    assert said["loadstone"] == __version__
    assert {"python", "locust", "gevent", "platform", "cpus"} <= set(said)
