"""The wheel on the other Pythons that are on this machine (`make tools-pythons`)."""

import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from installed import Installed, try_the_verbs
from stack import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HOMES = ROOT / ".tools/pythons"
LOCKS = ("requirements.lock", "requirements-dev.lock")
OWN = "{}.{}".format(*sys.version_info)
OTHERS = sorted({"3.11", "3.12", "3.13"} - {OWN})


def test_the_supported_pythons_are_tried() -> None:
    """The classifiers, what `make` sets up and what is tried here are the same."""
    prefix = "Programming Language :: Python :: "
    told = {c.removeprefix(prefix) for c in PROJECT["classifiers"] if prefix in c}
    assert told >= {*OTHERS, OWN}
    script = (ROOT / ".ci/pythons").read_text()
    assert f"for version in {' '.join(sorted(told))}; do" in script


def is_set_up(version: str) -> bool:
    """Whether an environment is there, with what a lock says today."""
    home = HOMES / version
    locks = [home / name for name in LOCKS if (home / name).exists()]
    return any(at.read_bytes() == (ROOT / at.name).read_bytes() for at in locks)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """Build the wheel of this tree."""
    out = tmp_path / "wheel"
    build = f"-m hatchling build -t wheel -d {out}".split()
    subprocess.run([sys.executable, *build], cwd=ROOT, check=True, capture_output=True)
    (built,) = out.iterdir()
    return built


@pytest.mark.timeout(240)
def test_the_wheel_works_on_the_others(wheel: Path, tmp_path: Path) -> None:
    """Demo, serve, run, simulate, report, verify and audit, away from the tree."""
    there = [version for version in OTHERS if is_set_up(version)]
    if not there:
        pytest.skip(f"none of {', '.join(OTHERS)} is set up: `make tools-pythons`")
    install = ["install", "--no-deps", "--no-index", "--force-reinstall", "--quiet"]

    def try_it(version: str) -> None:
        bin_ = HOMES / version / "bin"
        subprocess.run([bin_ / "python", "-m", "pip", *install, wheel], check=True)
        try_the_verbs(Installed(bin_, tmp_path / version))

    # Most of it is waiting for answers, so they wait together.
    with ThreadPoolExecutor() as pool:
        list(pool.map(try_it, there))


def tried(tmp_path: Path, *pythons: str) -> subprocess.CompletedProcess[str]:
    """Run .ci/pythons in a copy of the tree where each of `pythons` is a program."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy2(ROOT / ".ci/pythons", tmp_path / ".ci")
    for name in pythons:
        program = tmp_path / "bin" / name
        program.write_text('#!/bin/sh\necho "$0 $*" >>"$LOG"\n')
        program.chmod(0o755)
    for name in ("bash", "dirname", "cmp", "cp", "ls", "sort"):
        found = shutil.which(name)
        assert found, name
        (tmp_path / "bin" / name).symlink_to(found)
    environ: dict[str, Any] = {
        "PATH": str(tmp_path / "bin"), "HOME": str(tmp_path),
        "LOG": str(tmp_path / "log"),
    }  # fmt: skip
    return subprocess.run(
        [tmp_path / ".ci/pythons", sys.executable, "requirements.lock"],
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_machine_without_other_pythons_is_told(tmp_path: Path) -> None:
    """It is no error: a developer may have one Python."""
    done = tried(tmp_path)
    assert done.returncode == 0, done.stderr
    for version in OTHERS:
        assert f"no Python {version} here: it is not tried" in done.stderr
    assert OWN not in done.stderr
    assert not (tmp_path / ".tools").exists()
