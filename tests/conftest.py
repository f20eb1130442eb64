"""What all tests share: how hypothesis searches, and a user with no profile.

`house` draws the same examples every time, so a failure is of the code and not of luck.
`--hypothesis-profile=deep` looks for new ones.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile(
    "house", max_examples=100, deadline=None, derandomize=True, database=None
)
settings.register_profile("deep", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile("house")


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
