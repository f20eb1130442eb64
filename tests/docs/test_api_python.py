"""The public Python API: small, described, light to import, and its page is true."""

import doctest
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
from processes import REPOSITORY, loadstone

import loadstone as package
from loadstone import api


def test_its_page_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each example of docs/api-python.md, beside a run of virtual time."""
    made = loadstone("simulate", "--rate", "5", "--duration", "5s", cwd=tmp_path)
    assert made.returncode in {0, 4}, made.stderr
    monkeypatch.chdir(tmp_path)
    found = doctest.testfile(
        str(REPOSITORY / "docs" / "api-python.md"), module_relative=False
    )
    assert found.attempted >= 15
    assert found.failed == 0
    assert "llama-2-70b" in (tmp_path / "report.md").read_text()


def test_importing_it_costs_nothing() -> None:
    """Neither Locust, gevent, aiohttp, click nor anything of our own is loaded."""
    script = "import loadstone, sys; print(*(set(sys.modules)))"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    heavy = {"locust", "gevent", "aiohttp", "click", "rich", "opentelemetry", "pytest"}
    loaded = set(ended.stdout.split())
    assert not loaded & heavy
    assert [name for name in loaded if name.startswith("loadstone.")] == []


def test_it_patches_nothing() -> None:
    """A program that simulates keeps its own sockets; Locust is not loaded."""
    script = (
        "import loadstone, sys, socket; loadstone.simulate(rate=2, duration=2);"
        "print('locust' in sys.modules, 'gevent' in socket.socket.__module__)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == ["False", "False"]


def test_its_names_are_those_of_the_package() -> None:
    """One list, in both; every name is there, and described."""
    assert package.__all__ == api.__all__ == sorted(api.__all__)
    assert set(api.__all__) <= set(dir(package))
    for name in api.__all__:
        thing = getattr(package, name)
        assert thing is getattr(api, name)
        assert name == "Flow" or inspect.getdoc(thing), name
    with pytest.raises(AttributeError, match="simulat"):
        _ = package.simulat


def test_it_gives_what_the_command_gives(tmp_path: Path) -> None:
    """The same options, the same figures, bit for bit."""
    ended = loadstone(
        "simulate", "--users", "4", "--duration", "20s", "--no-enable-prefix-caching",
        "--json", "--no-rows", cwd=tmp_path,
    )  # fmt: skip
    assert ended.returncode in {0, 4}, ended.stderr
    told = json.loads(ended.stdout)
    mine = json.loads(
        json.dumps(package.simulate(users=4, duration=20, enable_prefix_caching=False))
    )
    for key in ("requests", "tokens", "throughput", "ttft_s", "tpot_s", "cost"):
        assert mine[key] == told[key]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rate": 1, "out": "here"}, "no out"),
        ({"rate": 1, "find_max": True}, "no find_max"),
        ({"rate": "many"}, "many"),
        ({}, "what load"),
        ({"rate": 1, "preset": "azure-nd"}, "azure-nd"),
    ],
)
def test_what_there_is_not_is_refused(options: dict[str, object], said: str) -> None:
    """As on the command line, and as an exception of ours."""
    with pytest.raises(package.LoadstoneError, match=said):
        package.simulate(**options)


def test_a_report_of_no_format_is_refused(tmp_path: Path) -> None:
    """With those there are."""
    with pytest.raises(package.UsageError, match="pdf") as wrong:
        package.write_report(package.RunFiles(tmp_path), tmp_path / "report.pdf")
    assert "html" in wrong.value.hint
