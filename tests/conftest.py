"""What all tests share: how hypothesis searches, and a user with no profile.

`house` draws the same examples every time, so a failure is of the code and not of luck.
`--hypothesis-profile=deep` looks for new ones.

`make test` shares the tests out to two processes. One has all that drives a server in
real time, one after the other, so that no two runs are in each other's way; the other
has the rest, by file.
"""

import os
import signal
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import settings
from run_folders import out_of_order
from xdist.scheduler import LoadScopeScheduling

settings.register_profile(
    "house", max_examples=100, deadline=None, derandomize=True, database=None
)
settings.register_profile("deep", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile("house")

# A child takes what is installed, as the tests do, and not what lies in the folder that
# it starts in: with WHEEL=1 that is the wheel.
os.environ["PYTHONSAFEPATH"] = "1"

# A script that runs the tests in its background has them ignore Ctrl-C, and children
# would inherit that: what they do with it is tested as from a terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


IN_REAL_TIME: Final = ("e2e", "dashboards", "faults")
"""Folders whose tests wait for minutes and need little more than a core."""


def _in_real_time(path: str) -> bool:
    return path.startswith(tuple(f"tests/{name}/" for name in IN_REAL_TIME))


class Halves(LoadScopeScheduling):
    """Keeps what is in real time in one process, and else each file."""

    def _split_scope(self, nodeid: str) -> str:
        path, _, _ = nodeid.partition("::")
        return "real time" if _in_real_time(path) else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Halves:
    """Share the tests out, if there are several processes."""
    return Halves(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    items.sort(key=lambda item: not _in_real_time(item.nodeid))


@pytest.fixture(scope="session", autouse=True)
def _no_selfcheck_profile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Judge no run by the profile that the user running the tests may have."""
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    yield
    if before is None:
        del os.environ["XDG_STATE_HOME"]
    else:
        os.environ["XDG_STATE_HOME"] = before


@pytest.fixture(scope="session", autouse=True)
def _every_run_is_in_order(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Audit each run that any test has made, at the end: folders have tests' names."""
    yield
    assert not out_of_order(tmp_path_factory.getbasetemp())
