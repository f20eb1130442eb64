"""Arrows point down, and a wrong one is noticed."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = CONFIG["tool"]["importlinter"]["root_packages"]

# File to spoil, line to add to it, arrow that must be reported, contract it breaks.
FAULTS = (
    (
        "loadgen/client.py",
        "import locust",
        "loadgen.client -> locust",
        "In loadgen only user and locustfile import Locust",
    ),
    (
        "loadgen/scheduler.py",
        "import loadgen.user",
        "loadgen.scheduler -> loadgen.user",
        "Only locustfile imports user, and nothing imports locustfile",
    ),
    (
        "loadgen/results.py",
        "from . import locustfile",
        "loadgen.results -> loadgen.locustfile",
        "Only locustfile imports user, and nothing imports locustfile",
    ),
    (
        "loadgen/connection.py",
        "import aiohttp",
        "loadgen.connection -> aiohttp",
        "One event loop per process: gevent here",
    ),
    (
        "mock_server/app.py",
        "import loadgen",
        "mock_server.app -> loadgen",
        "Arrows point down",
    ),
    (
        "mock_server/driver.py",
        "import gevent",
        "mock_server.driver -> gevent",
        "One event loop per process: asyncio there",
    ),
    (
        "mock_server/stats.py",
        "import prometheus_client",
        "mock_server.stats -> prometheus_client",
        "Apps are watched; they do not report",
    ),
    (
        "loadstone/engine/core.py",
        "import asyncio",
        "loadstone.engine.core -> asyncio",
        "Below the catalog there is no I/O and no clock",
    ),
    (
        "loadstone/engine/sequence.py",
        "import datetime",
        "loadstone.engine.sequence -> datetime",
        "Of the pure packages only traffic reads dates",
    ),
    (
        "loadstone/physics/memory.py",
        "from loadstone.engine import core",
        "loadstone.physics.memory -> loadstone.engine.core",
        "Arrows point down",
    ),
    (
        "dashboards/queries.py",
        "import grafanalib",
        "dashboards.queries -> grafanalib",
        "Only the adapter knows grafanalib",
    ),
    (
        "dashboards/colours.py",
        "from loadstone.report import table",
        "dashboards.colours -> loadstone.report.table",
        "Arrows point down",
    ),
    (
        "loadstone/catalog/facts.py",
        "import locust",
        "loadstone.catalog.facts -> locust",
        "Nobody else reaches Locust, not by a detour either",
    ),
)


def lint(tree: Path) -> tuple[int, str]:
    """Run every contract over the packages in `tree`; return exit status and words."""
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [program, "--no-logo", "--no-cache"],
        cwd=tree,
        env={"PYTHONPATH": str(tree), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return what the contracts say of a copy of the tree with every fault planted."""
    tree = tmp_path_factory.mktemp("spoilt")
    shutil.copy(ROOT / "pyproject.toml", tree)
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name, line, _, _ in FAULTS:
        with (tree / name).open("a") as module:
            module.write(f"\n{line}\n")
    status, words = lint(tree)
    assert status == 1
    return words


def test_contracts_hold() -> None:
    """No module of the tree imports what it must not."""
    status, words = lint(ROOT)
    assert status == 0, words


@pytest.mark.parametrize(
    ("arrow", "contract"), [(fault[2], fault[3]) for fault in FAULTS]
)
def test_wrong_arrow_is_reported(verdict: str, arrow: str, contract: str) -> None:
    """A planted fault is named, and so is the contract that it breaks."""
    assert f"{contract} BROKEN" in verdict
    assert f"{arrow} (l." in verdict


def test_every_contract_can_break(verdict: str) -> None:
    """No contract is there for show: each is broken by one of the planted faults."""
    names = {c["name"] for c in CONFIG["tool"]["importlinter"]["contracts"]}
    assert names == {contract for _, _, _, contract in FAULTS}
    assert "0 kept" in verdict


def test_every_module_has_a_floor() -> None:
    """A new module of loadstone must say between which arrows it stands."""
    layers = " ".join(CONFIG["tool"]["importlinter"]["contracts"][0]["layers"])
    placed = set(layers.replace("(", " ").replace(")", " ").split())
    found = {
        f"loadstone.{path.stem}"
        for path in (ROOT / "loadstone").iterdir()
        if (path.suffix == ".py" and path.stem != "__init__")
        or (path / "__init__.py").exists()
    }
    assert found <= placed, f"not in 'Arrows point down': {sorted(found - placed)}"
