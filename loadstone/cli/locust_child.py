"""Runs Locust as a child process and hears from it how the run goes.

Locust patches the process it is imported into, and a display that redraws would stall
the very loop that stamps the answers. So the measuring process only tells, on a pipe,
and this one shows.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from loadgen.options import OPTIONS, TELL_FD

from ..errors import LoadstoneError, UsageError

_LOCUST: Final = ("-m", "locust", "-f")
_PATIENCE_S: Final = 30.0
_LOG_TAIL: Final = 15
_STOPPING: Final = (signal.SIGINT, signal.SIGTERM)


class LocustChild:
    """A running Locust: iterate for what it tells, as (what, facts), until it ends."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._log = tempfile.NamedTemporaryFile(  # noqa: SIM115 - kept as long as self
            prefix="loadstone-locust-", suffix=".log"
        )
        self._folder = tempfile.TemporaryDirectory(prefix="loadstone-")
        read_fd, write_fd = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", *_LOCUST, str(_locustfile()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=(write_fd,),
                env=_environment() | {TELL_FD: str(write_fd)},
                # A locust.conf that lies here is for plain Locust.
                cwd=self._folder.name,
                # Its own session: Ctrl-C comes to us alone, and we pass it on once.
                start_new_session=True,
            )
        finally:
            os.close(write_fd)
        self.interrupted = False
        """Whether it was asked to stop."""
        self._told = os.fdopen(read_fd, encoding="utf-8")

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield what the child tells until it closes its end."""
        for line in self._told:
            if line.endswith("\n"):  # a killed child may leave half a line
                what, facts = json.loads(line)
                yield what, facts

    def on_signal(self, number: int, frame: object) -> None:  # noqa: ARG002 - Python's signature
        """Stop the child gently the first time, by force the second."""
        if self.interrupted:
            self.kill()
        self.interrupt()

    def kill(self) -> None:
        """End it and its workers at once."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def interrupt(self) -> None:
        """Ask it to stop: it writes the summary of what it has and ends."""
        self.interrupted = True
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def close(self) -> int:
        """Wait until it ends, else force it and its workers to; return its code."""
        try:
            code = self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.wait()
        self._told.close()
        self._folder.cleanup()
        return code

    def keep_log(self, folder: Path) -> None:
        """Copy what Locust logged into the run's folder."""
        (folder / "locust.log").write_text(self._read_log(), encoding="utf-8")

    def log_tail(self) -> str:
        """Return the errors that Locust logged, or else its last lines."""
        lines = self._read_log().splitlines()
        errors = [line for line in lines if "/ERROR/" in line]
        return "\n".join((errors or lines)[-_LOG_TAIL:])

    def _read_log(self) -> str:
        return Path(self._log.name).read_text(encoding="utf-8", errors="replace")


def _environment() -> dict[str, str]:
    """Return our environment without what Locust would read options from.

    Every option is on its command line; others would be the shell's, not the caller's.
    """
    ours = {option.variable for option in OPTIONS}
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("LOCUST_") and name not in ours
    }
    return kept | {"PYTHONUNBUFFERED": "1"}


def _locustfile() -> Path:
    spec = find_spec("loadgen")
    if spec is None or not spec.submodule_search_locations:
        raise LoadstoneError("the package loadgen is not installed beside loadstone")
    return Path(next(iter(spec.submodule_search_locations))) / "locustfile.py"


@contextmanager
def running(arguments: Sequence[str]) -> Iterator[LocustChild]:
    """Run Locust for the length of a `with` block; leaves no process behind.

    Meanwhile SIGINT and SIGTERM ask it to stop and write what it has; a second one ends
    it by force. They do not raise here, so nothing that it still tells is lost.
    """
    child = LocustChild(arguments)
    before = {number: signal.signal(number, child.on_signal) for number in _STOPPING}
    try:
        yield child
    except BaseException:
        child.interrupt()
        raise
    finally:
        child.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def failed(facts: dict[str, Any]) -> LoadstoneError:
    """Turn what the child told of its failure into an error of the same kind."""
    kind = UsageError if facts["code"] in ("usage", "catalog") else LoadstoneError
    return kind(facts["message"], hint=facts["hint"], code=facts["code"])
