"""Runs the mock server as a child process: for `demo` and `selfcheck`."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Final

from ..errors import LoadstoneError
from .machine_options import DEFAULT_MODEL, DEFAULT_PRESET

_START_S: Final = 20.0
_STOP_S: Final = 15.0


@contextmanager
def mock_server(port: int, say: Callable[[str], object]) -> Iterator[str]:
    """Run the default mock for a `with` block; yields its URL.

    `port` is on 127.0.0.1, 0 for a free one. What it says until it listens goes to
    `say`, line by line. Raises `LoadstoneError` when it does not start.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "loadstone", "serve", "--preset", DEFAULT_PRESET,
         "--model", DEFAULT_MODEL, "--port", str(port), "--grace", "1s"],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        yield _await_listening(process, process.stderr, say)
    finally:
        _stop(process)


def _await_listening(
    process: subprocess.Popen[str], said: IO[str], say: Callable[[str], object]
) -> str:
    """Read what the server says until it listens; return its URL."""
    timer = threading.Timer(_START_S, process.kill)
    timer.start()
    lines = []
    try:
        for line in said:
            lines.append(line)
            before, found, url = line.strip().partition("listening on ")
            say(url if found else before)
            if found:
                # Nobody reads what it says from here on, so it must not fill a pipe.
                threading.Thread(target=said.read, daemon=True).start()
                return url
    finally:
        timer.cancel()
    raise LoadstoneError("the mock server did not start", hint="".join(lines[-5:]))


def _stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
