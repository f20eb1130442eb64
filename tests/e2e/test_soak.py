"""A quarter of a minute of `make soak`: who comes and goes leaves nothing behind."""

import subprocess
import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import Any

import pytest
from processes import PATIENCE_S, REPOSITORY

SOAK = REPOSITORY / "bench" / "soak.py"
LATE = 4


def test_clients_that_come_and_go_leave_nothing_behind() -> None:
    """Descriptors, threads, memory, and every request answered once.

    Whether it was in time is the machine's affair, as long as it is said.
    """
    ended = subprocess.run(
        [
            sys.executable, str(SOAK),
            "--minutes", "0.25", "--every", "1", "--rate", "40",
        ],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert ended.returncode in {0, LATE}, ended.stdout + ended.stderr
    assert "nothing grew, nothing was lost" in ended.stdout
    said = ended.stdout.splitlines()[-1]
    if ended.returncode == LATE:
        assert " ms " in said or "% of the run" in said
    else:
        assert said == "the figures are to be believed: ok"


@pytest.fixture(scope="module")
def soak() -> ModuleType:
    """Load the script, which is in no package."""
    spec = spec_from_file_location("soak", SOAK)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["soak"] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("samples", "planted", "found"),
    [
        (10, {}, None),
        (10, {"after": {"fds": 21}}, "fds 20 before all, 21 after"),
        (10, {"after": {"threads": 2}}, "threads 1 before all, 2 after"),
        (10, {"after": {"mib": 120.0}}, "120.0 after"),
        (10, {"last": {"fds": 400}}, "fds more than the load generator has"),
        (40, {}, None),
        (40, {"last": {"threads": 9}}, "mock: threads"),
    ],
)
def test_what_is_not_let_go_of_is_found(
    soak: ModuleType, samples: int, planted: dict[str, Any], found: str | None
) -> None:
    """Each kind, by itself; and a steady run is in order."""
    held = soak.Held(50.0, 20, 1)
    mocks = [replace(held, fds=300)] * samples
    # What a leak of a thread a minute comes to in the last quarter.
    mocks[-samples // 4 :] = [
        replace(mock, **planted.get("last", {})) for mock in mocks[-samples // 4 :]
    ]
    soaked = soak.Soaked(
        mocks=mocks, loads=[replace(held, fds=300)] * samples, before=held,
        after=replace(held, **planted.get("after", {})), summary={}, audit=0,
    )  # fmt: skip
    grew = soaked.grew()
    assert [found in text for text in grew] == [True] if found else grew == []
