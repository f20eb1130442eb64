"""What all tests share: how hypothesis searches, and a user with no profile.

`house` draws the same examples every time, so a failure is of the code and not of luck.
`--hypothesis-profile=deep` looks for new ones.

`make test` shares the tests out to two processes. One has all that drives a server in
real time, one after the other, so that no two runs are in each other's way; the other
has the rest, by file.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

settings.register_profile(
    "house", max_examples=100, deadline=None, derandomize=True, database=None
)
settings.register_profile("deep", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile("house")


IN_REAL_TIME: Final = ("e2e", "dashboards")
"""Folders whose tests wait for minutes and need little more than a core."""


@pytest.hookimpl(tryfirst=True)  # the distributor reads the marks in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what stays together, and begin with what takes longest."""
    here = Path(__file__).parent
    for item in items:
        live = item.path.relative_to(here).parts[0] in IN_REAL_TIME
        group = "real time" if live else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(
        key=lambda item: item.path.relative_to(here).parts[0] not in IN_REAL_TIME
    )


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
