"""A run's folder, read back."""

from pathlib import Path

import pytest

from loadstone.errors import UsageError
from loadstone.runs import RunFiles


def test_a_folder_without_a_plan_is_no_run(tmp_path: Path) -> None:
    """It is told what is missing."""
    with pytest.raises(UsageError, match=r"not a run folder: no plan\.toml"):
        RunFiles.open(tmp_path)


def test_a_killed_run_has_a_plan_and_no_summary(tmp_path: Path) -> None:
    """What is not there yet is None or empty, not an error."""
    (tmp_path / "plan.toml").write_text('plan_hash = "ab"\n[plan]\nseed = 3\n')
    run = RunFiles.open(tmp_path)
    assert run.plan() == {"plan_hash": "ab", "plan": {"seed": 3}}
    assert run.summary() is None
    assert run.environment() == {}
    assert list(run.rows()) == []


def test_what_is_broken_is_named(tmp_path: Path) -> None:
    """An unreadable file is named in the error."""
    (tmp_path / "plan.toml").write_text("[plan\n")
    (tmp_path / "summary.json").write_text("{")
    (tmp_path / "environment.json").write_text("[]")
    run = RunFiles.open(tmp_path)
    for read in (run.plan, run.summary, run.environment):
        with pytest.raises(UsageError, match=str(tmp_path)):
            read()
