"""Real processes on loopback: mock, load generator and what they leave behind."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
TRACE = REPOSITORY.parent / "shared/calibration/traces/azure_llm_2023_conv.csv"
PATIENCE_S = 90
OUTCOMES = ("ok", "failed", "throttled", "cancelled", "incomplete")


def loadstone(*args: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run `loadstone` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "loadstone", *args],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        **more,
    )


def start(*args: str, **more: Any) -> subprocess.Popen[str]:
    """Start `loadstone` in a session of its own, both outputs on one pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "loadstone", *args],
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **more,
    )


def read_until(process: subprocess.Popen[str], word: str) -> str:
    """Read a process's output up to a line that holds `word`, and return that line."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if word in line:
            return line
    raise AssertionError(f"{word!r} was never said:\n{''.join(seen)}")


@contextmanager
def mock_server(*args: str) -> Iterator[str]:
    """Run the mock on a free port; yields its URL."""
    process = start("serve", "--port", "0", "--grace", "1s", *args)
    try:
        yield read_until(process, "listening on ").split()[-1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def fetch_when_up(url: str) -> str:
    """Fetch a page once somebody answers."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(url) as page:
                text: str = page.read().decode()
                return text
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def wait_for(condition: Callable[[], object]) -> None:
    """Poll until `condition()`; fails after a while."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


@dataclass(frozen=True)
class Results:
    """A run folder, read."""

    path: Path

    @property
    def summary(self) -> dict[str, Any]:
        """`summary.json`."""
        read: dict[str, Any] = json.loads((self.path / "summary.json").read_text())
        return read

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of all workers."""
        return [
            json.loads(line)
            for path in sorted(self.path.glob("requests*.jsonl"))
            for line in path.read_text().splitlines()
        ]

    def metric(self, name: str) -> float:
        """Sum the samples in `metrics.prom` whose line begins with `name`."""
        lines = (self.path / "metrics.prom").read_text().splitlines()
        values = [
            float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name)
        ]
        assert values, name
        return sum(values)


def latest(out: Path) -> Results:
    """Return the newest run below `out`."""
    return Results((out / "latest").resolve())


def descendants(pid: int) -> list[int]:
    """Return the pids of the live processes that descend from `pid`, by /proc."""
    found: list[int] = []
    parents = {pid}
    stats = [_stat(int(p.name)) for p in Path("/proc").iterdir() if p.name.isdigit()]
    grown = True
    while grown:
        grown = False
        for child, parent, state in stats:
            if parent in parents and child not in parents and state != "Z":
                parents.add(child)
                found.append(child)
                grown = True
    return found


def command_of(pid: int) -> str:
    """Return a process's command line."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode()


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    return _stat(pid)[2] not in ("", "Z")


def _stat(pid: int) -> tuple[int, int, str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return pid, 0, ""
    state, parent = text.rsplit(")", 1)[1].split()[:2]
    return pid, int(parent), state
