"""The selfcheck's profile on disk: kept whole, found again, and whose it is."""

import json
import os
import platform
from dataclasses import replace
from pathlib import Path

import pytest

from loadgen.selfcheck import (
    default_path,
    read_profile,
    standing,
    this_machine,
    write_profile,
)
from loadstone import __version__
from loadstone.errors import LoadstoneError, UsageError
from loadstone.traffic.machine import EVENTS, REQUESTS, Bracket, Profile

PROFILE = Profile(
    this_machine(),
    "2026-01-31T12:00:00+00:00",
    {EVENTS: Bracket(9_000.5, 12_000.0), REQUESTS: Bracket(200.0, None)},
)


def test_this_machine_is_described() -> None:
    """Cores are those that this process may use."""
    here = this_machine()
    assert here == this_machine()
    assert here.cpu
    if hasattr(os, "sched_getaffinity"):
        assert here.cores == len(os.sched_getaffinity(0))
    assert here.python == platform.python_version()
    assert here.loadstone == __version__


def test_it_is_kept_in_the_users_state(tmp_path: Path) -> None:
    """XDG's folder, if it is absolute; else below the home."""
    state = {"XDG_STATE_HOME": str(tmp_path)}
    assert default_path(state) == tmp_path / "loadstone" / "selfcheck.json"
    below_home = Path.home() / ".local" / "state" / "loadstone" / "selfcheck.json"
    assert default_path({}) == below_home
    assert default_path({"XDG_STATE_HOME": "not/absolute"}) == below_home


def test_it_is_written_and_read_back(tmp_path: Path) -> None:
    """Into a folder that is made, over an older one, and leaves no other file."""
    path = tmp_path / "a" / "b" / "selfcheck.json"
    older = replace(PROFILE, made="2020-01-01T00:00:00+00:00")
    for profile in (older, PROFILE):
        write_profile(path, {**profile.to_json(), "steps": [{"asked": 50}]})
    assert read_profile(str(path)) == PROFILE
    assert json.loads(path.read_text())["steps"] == [{"asked": 50}]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    """Neither half a file nor a part of one; the error names the file."""
    path = tmp_path / "selfcheck.json"
    path.mkdir()  # cannot be replaced by a file
    with pytest.raises(LoadstoneError, match=r"cannot write .*selfcheck\.json"):
        write_profile(path, PROFILE.to_json())
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_run_finds_the_users_profile_or_the_one_it_asks_for(tmp_path: Path) -> None:
    """The one asked for comes first."""
    state = {"XDG_STATE_HOME": str(tmp_path)}
    write_profile(default_path(state), PROFILE.to_json())
    assert standing(None, state).profile == PROFILE
    other = replace(PROFILE, made="2020-01-01T00:00:00+00:00")
    path = tmp_path / "other.json"
    write_profile(path, other.to_json())
    found = standing(str(path), state)
    assert (found.profile, found.path, found.absent) == (other, str(path), "")


@pytest.mark.parametrize(
    ("fact", "value"),
    [("cpu", "abacus"), ("cores", 1000), ("python", "3.9.0"), ("loadstone", "0.0.1")],
)
def test_anothers_profile_is_not_used(tmp_path: Path, fact: str, value: object) -> None:
    """Whether it was asked for or not, and what differs is said."""
    changed = {**PROFILE.to_json()}
    changed["machine"] = {**changed["machine"], fact: value}
    state = {"XDG_STATE_HOME": str(tmp_path)}
    path = default_path(state)
    write_profile(path, changed)
    for asked in (None, str(path)):
        found = standing(asked, state)
        assert found.profile is None
        assert f"{fact} {value}, here " in found.absent
        assert str(path) in found.absent


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "[" * 100_000, "\udcff"])
def test_what_is_no_profile_is_said(tmp_path: Path, text: str) -> None:
    """A run goes on without it, unless it asked for that file."""
    state = {"XDG_STATE_HOME": str(tmp_path)}
    path = default_path(state)
    path.parent.mkdir()
    path.write_bytes(text.encode(errors="surrogateescape"))
    found = standing(None, state)
    assert found.profile is None
    assert str(path) in found.absent
    assert "`loadstone selfcheck`" in found.absent
    with pytest.raises(UsageError, match=r"selfcheck\.json"):
        standing(str(path), state)


def test_no_profile_is_said(tmp_path: Path) -> None:
    """Only one that was asked for has to be there."""
    state = {"XDG_STATE_HOME": str(tmp_path)}
    found = standing(None, state)
    assert found.profile is None
    assert found.absent == "no selfcheck profile yet: `loadstone selfcheck` makes one"
    with pytest.raises(UsageError, match=r"nowhere\.json"):
        standing(str(tmp_path / "nowhere.json"), state)
