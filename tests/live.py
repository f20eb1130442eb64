"""Short runs with known answers, to be disturbed while they are on."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from processes import OUTCOMES, PATIENCE_S, Results, latest, read_until, wait_for

RATE: Final = 25
"""Requests a second, evenly: when a fault was can be read off the rows."""
OUTPUT_TOKENS: Final = 30
"""Half a second of streaming on the mock."""


def trace(folder: Path, seconds: float) -> Path:
    """Write a trace of even arrivals of short questions and answers."""
    path = folder / "even.csv"
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for number in range(round(seconds * RATE)):
        at = 10.0 + number / RATE
        lines.append(f"2023-11-16 18:15:{at:010.7f},40,{OUTPUT_TOKENS}")
    path.write_text("\n".join(lines) + "\n")
    return path


def command(*arguments: str, **more: Any) -> subprocess.Popen[str]:
    """Start `loadstone` with both outputs on one pipe; `before` goes in front."""
    before = more.pop("before", ())
    return subprocess.Popen(
        [*before, sys.executable, "-m", "loadstone", *arguments],
        text=True, start_new_session=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, **more,
    )  # fmt: skip


@dataclass
class Mock:
    """A mock on a port that it keeps when it is started again."""

    process: subprocess.Popen[str]
    url: str
    again: Callable[[], subprocess.Popen[str]]

    def end(self, how: signal.Signals) -> None:
        """End it so, and wait until it has."""
        self.process.send_signal(how)
        self.process.communicate(timeout=PATIENCE_S)

    def restart(self) -> None:
        """Start it again where it was."""
        self.process = self.again()
        read_until(self.process, "listening on ")


@contextmanager
def mock(
    *arguments: str, host: str = "127.0.0.1", port: str = "0", **more: Any
) -> Iterator[Mock]:
    """Run a mock of one VM for a `with` block."""

    def start(port: str) -> subprocess.Popen[str]:
        where = ("--host", host, "--port", port)
        return command(
            "serve", *where, "--vms", "1", "--grace", "1s", *arguments, **more
        )

    process = start(port)
    url = read_until(process, "listening on ").split()[-1]
    served = Mock(process, url, lambda: start(url.rsplit(":", 1)[1]))
    try:
        yield served
    finally:
        served.end(signal.SIGTERM)


class Load:
    """A run under way, into `out`."""

    def __init__(
        self, out: Path, url: str, *arguments: str, seconds: float = 3, **more: Any
    ) -> None:
        out.mkdir(exist_ok=True)
        self.out = out
        self.process = command(
            "run", "azure-chat", "--trace", str(trace(out, seconds)), "--host", url,
            "--duration", f"{seconds}s", "--drain", "8s", "--out", str(out / "runs"),
            *arguments, **more,
        )  # fmt: skip

    @property
    def folder(self) -> Path:
        """The run's folder, once there is one."""
        return self.out / "runs" / "latest"

    def wait_for_rows(self) -> None:
        """Wait until the first rows are on disk: it is in its second second."""
        rows = self.folder / "requests.jsonl"
        wait_for(lambda: rows.exists() and rows.stat().st_size)

    def wait(self) -> "Ended":
        """Wait for its end; its accounts must be in order."""
        said, _ = self.process.communicate(timeout=PATIENCE_S)
        assert self.folder.exists(), said
        return Ended(latest(self.out / "runs"), said, self.process.returncode)


@dataclass(frozen=True)
class Ended:
    """A run that has ended: its folder, what the terminal said, and the exit code."""

    run: Results
    said: str
    code: int

    @property
    def requests(self) -> dict[str, int]:
        """How many ended how, each in exactly one way."""
        counts: dict[str, int] = self.run.summary["requests"]
        assert counts["sent"] == sum(counts[outcome] for outcome in OUTCOMES)
        return counts

    @property
    def errors(self) -> dict[str, int]:
        """How many ended by which error."""
        found: dict[str, int] = self.run.summary["errors"]
        return found

    def sent_between(self, since: float, until: float) -> list[Mapping[str, Any]]:
        """Return the rows of requests that were due then."""
        return [r for r in self.run.rows if since <= r.get("intended_s", 0.0) < until]

    def well_again_s(self, since: float) -> float:
        """Return how long after `since` the last request failed, 0 if none did."""
        ends = [r["end_s"] for r in self.run.rows if r["outcome"] != "ok"]
        return max(0.0, max(ends, default=since) - since)


class Stopwatch:
    """Measures, and prints what it measured for `pytest -rP`."""

    def __init__(self, row: str) -> None:
        self.row = row
        self._began = time.monotonic()

    def seconds(self, what: str) -> float:
        """Return how long it was since this began."""
        took = time.monotonic() - self._began
        measured(self.row, what, took)
        return took


def measured(row: str, what: str, seconds: float) -> None:
    """Print a figure of a row of the matrix."""
    print(f"measured {row}: {what} {seconds:.2f} s")  # noqa: T201 - pytest keeps it
