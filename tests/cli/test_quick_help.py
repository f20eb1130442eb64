"""`--help` is quick, because it imports little; how quick is measured elsewhere."""

import subprocess
import sys

import pytest

from loadstone.cli.main import VERBS

HEAVY = ("aiohttp", "asyncio", "gevent", "locust", "opentelemetry", "flask", "psycopg")
"""None of them is needed to tell what there is."""
ENGINES = ("locust", "opentelemetry", "flask", "psycopg", "grafanalib")
"""Whatever a verb's options are made of, these come when it runs."""


def imported(*args: str) -> set[str]:
    """Return the top-level modules that `loadstone` has after `args`."""
    code = (
        "import sys\n"
        "from loadstone.cli.main import main\n"
        "try:\n"
        f"    main({list(args)!r})\n"
        "finally:\n"
        "    print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "Usage: loadstone" in done.stdout
    return {name.partition(".")[0] for name in done.stderr.split()}


def test_help_imports_nothing_heavy() -> None:
    """Not even a verb is imported to list the verbs."""
    assert not imported("--help") & set(HEAVY)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_starts_no_engine(verb: str) -> None:
    """Its options take the tables they are made of, and no more."""
    assert not imported(verb, "--help") & set(ENGINES)
