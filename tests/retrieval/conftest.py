"""Both stores, for the tests that hold for either."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_process import postgres


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """Run one PostgreSQL for all tests; each index replaces the one before."""
    with postgres() as address:
        yield address


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of a store, of either kind."""
    if request.param == "sqlite":
        return str(tmp_path / "corpus.db")
    found: str = request.getfixturevalue("server")
    return found
