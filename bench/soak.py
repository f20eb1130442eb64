"""Hours of load with clients that come and go: what may grow, and does it.

    python bench/soak.py                    an hour
    python bench/soak.py --minutes 1 --every 5 --rate 50

A mock of one VM gets 60 % of the rate that the same engine serves in virtual time.
Beside the load generator a crowd opens connections and drops them: before the request
is whole, before the first token, in the middle of the stream. The table has a line for
each interval: memory,
descriptors and threads of the mock and of the load generator, and the lag that each
states of itself. At the end, what grew from the second quarter to the last, what the
mock still holds when everybody has left, and whether the run's accounts are in order.
Exit code 1 if something grew or was lost; 4 if the run says that its own figures are
not to be believed, as it does where the machine has other work.
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final

SHARE: Final = 0.6
OFFLINE: Final = 20_000
CHURN_PER_S: Final = 10.0
MAY_GROW: Final = {"mib": (0.05, 4.0), "fds": (0.1, 8.0), "threads": (0.0, 1.0)}
"""By what share, and by how much besides, a mean of the last quarter may be above that
of the second. Tables of metrics and the allocator's arenas still fill up by then."""
SETTLED_SAMPLES: Final = 20
"""With fewer there are no quarters to speak of: with the default, 20 minutes."""
MAY_KEEP_MIB: Final = 64.0
"""What the mock may have more when all have left: the allocator gives little back."""
STRANGERS: Final = 32
"""Connections of the crowd, and of samples that were not taken at one instant."""
NOTICED_S: Final = 10.0
WRONG: Final = 1
LATE: Final = 4
PAGE: Final = os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@dataclass(frozen=True, slots=True)
class Held:
    """What some processes hold at an instant, together."""

    mib: float
    fds: int
    threads: int

    @classmethod
    def by(cls, pids: Sequence[int]) -> "Held":
        """Read it from /proc; a process that is gone holds nothing."""
        mib, fds, threads = 0.0, 0, 0
        for pid in pids:
            home = Path(f"/proc/{pid}")
            try:
                mib += int((home / "statm").read_text().split()[1]) * PAGE
                fds += len(list((home / "fd").iterdir()))
                threads += len(list((home / "task").iterdir()))
            except OSError:
                continue
        return cls(mib, fds, threads)


def family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    found = [pid]
    for known in found:
        for task in Path(f"/proc/{known}/task").glob("*/children"):
            found.extend(int(child) for child in task.read_text().split())
    return found


def loadstone(*args: str, **more: Any) -> subprocess.Popen[str]:
    """Start a verb."""
    return subprocess.Popen(
        [sys.executable, "-m", "loadstone", *args], text=True, **more
    )


def most_per_s() -> float:
    """Return the requests/s that the mock's engine can serve, by virtual time."""
    with tempfile.TemporaryDirectory() as out:
        child = loadstone(
            "simulate", "--vms", "1", "--offline", str(OFFLINE),
            "--scenario", "azure-chat", "--no-rows", "--out", out, "--json",
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        said, _ = child.communicate(timeout=120)
    return float(json.loads(said)["throughput"]["req_s"])


@contextmanager
def serving() -> Iterator[tuple[int, str]]:
    """Run the mock for the block; gives its pid and URL."""
    child = loadstone(
        "serve", "--port", "0", "--vms", "1",
        "--grace", "1s", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        assert child.stdout
        for line in child.stdout:
            if line.startswith("listening on "):
                break
        yield child.pid, line.split()[-1]
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(20)


class Crowd(threading.Thread):
    """Clients that connect, ask for a part of an answer or for nothing, and leave."""

    def __init__(self, url: str, seed: int = 0) -> None:
        super().__init__(daemon=True)
        host, port = url.removeprefix("http://").split(":")
        self._address = host, int(port)
        self._rng = random.Random(seed)
        self._over = threading.Event()
        self.came = 0

    def run(self) -> None:
        """Come and go until `leave`."""
        body = json.dumps(
            {"model": "llama-2-70b", "stream": True, "max_tokens": 200,
             "messages": [{"role": "user", "content": "hello"}]}
        ).encode()  # fmt: skip
        request = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: mock\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
            % (len(body), body)
        )
        while not self._over.wait(self._rng.expovariate(CHURN_PER_S)):
            part = self._rng.choice((0, len(request) // 2, len(request), len(request)))
            with socket.create_connection(self._address, timeout=20) as sock:
                sock.sendall(request[:part])
                if part == len(request) and self._rng.random() < 2 / 3:
                    sock.recv(1 << 12)
            self.came += 1

    def leave(self) -> None:
        """End it."""
        self._over.set()
        self.join(30)


def lag_p99_ms(url: str) -> float:
    """Return the mock's own lag since its start, as a bound of its histogram."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    counts: dict[float, float] = {}
    for line in lines:
        if line.startswith("loadstone_clock_lag_seconds_bucket"):
            bound = float(line.partition('le="')[2].partition('"')[0])
            counts[bound] = counts.get(bound, 0.0) + float(line.split()[-1])
    whole = max(counts.values(), default=0.0)
    reached = [bound for bound, n in sorted(counts.items()) if n >= 0.99 * whole]
    return reached[0] * 1e3 if whole else 0.0


def grown(what: str, seen: Sequence[Held]) -> list[str]:
    """Say what was more in the last quarter than in the second."""
    quarter = max(1, len(seen) // 4)
    before, after = seen[quarter : 2 * quarter], seen[-quarter:]
    found = []
    for name, (share, more) in MAY_GROW.items():
        first = fmean(getattr(held, name) for held in before)
        last = fmean(getattr(held, name) for held in after)
        if last > first * (1 + share) + more:
            found.append(f"{what}: {name} {first:.1f} -> {last:.1f}")
    return found


@dataclass(frozen=True, slots=True)
class Soaked:
    """What was held over time, and what the run said of itself at its end."""

    mocks: list[Held]
    loads: list[Held]
    before: Held
    """The mock's, before the first client came."""
    after: Held
    """And when the last one had left."""
    summary: dict[str, Any]
    audit: int
    """The exit code of an audit of the run's accounts."""

    def grew(self) -> list[str]:
        """Say what was held on to that should have been let go of."""
        # In the first minutes pools, tables and the kernel's buffers fill up.
        enough = len(self.mocks) >= SETTLED_SAMPLES
        found = [
            *(grown("mock", self.mocks) if enough else ()),
            *(grown("load generator", self.loads) if enough else ()),
        ]
        for name in ("fds", "threads"):
            before, after = getattr(self.before, name), getattr(self.after, name)
            if after > before:
                found.append(f"mock: {name} {before} before all, {after} after all")
        apart = max(
            m.fds - load.fds for m, load in zip(self.mocks, self.loads, strict=True)
        )
        if apart > self.before.fds + STRANGERS:
            found.append(f"mock: {apart} fds more than the load generator has")
        if self.after.mib > self.before.mib + MAY_KEEP_MIB:
            found.append(f"mock: {self.before.mib:.1f} MiB, {self.after.mib:.1f} after")
        return found

    def lost(self) -> list[str]:
        """Say which requests have no answer, or no account."""
        requests = self.summary["requests"]
        found = []
        if requests["ok"] != requests["sent"] or requests["dropped"]:
            found.append(f"not every request was answered: {requests}")
        if self.audit:
            found.append("the run's accounts are not in order: loadstone audit")
        return found

    def late(self) -> list[str]:
        """Say what the run says of its own figures, if they are not to be believed."""
        instrument = self.summary["instrument"]
        if instrument["verdict"] == "ok":
            return []
        return [f"{instrument['verdict']}: {why}" for why in instrument["reasons"]]


def soak(minutes: float, every_s: float, rate: float) -> Soaked:
    """Run it and print the table."""
    print(f"{minutes:g} min at {rate:.1f} requests/s, {CHURN_PER_S:g}/s come and go")
    print("    s   mock MiB  fds  threads   load MiB  fds  threads   mock lag p99 ms")
    mocks: list[Held] = []
    loads: list[Held] = []
    with serving() as (pid, url), tempfile.TemporaryDirectory() as out:
        before = Held.by([pid])
        run = loadstone(
            "run", "azure-chat", "--host", url, "--rate", f"{rate:.3f}",
            "--duration", f"{minutes * 60:.0f}s", "--out", out, "--json",
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        crowd, began = Crowd(url), time.monotonic()
        crowd.start()
        while time.monotonic() - began < minutes * 60:
            time.sleep(every_s)
            mock, load = Held.by([pid]), Held.by(family(run.pid))
            mocks.append(mock)
            loads.append(load)
            print(
                f"{time.monotonic() - began:5.0f}   {mock.mib:8.1f} {mock.fds:4}"
                f" {mock.threads:8}   {load.mib:8.1f} {load.fds:4} {load.threads:8}"
                f"   {lag_p99_ms(url):15.2f}",
                flush=True,
            )
        crowd.leave()
        said, _ = run.communicate(timeout=minutes * 60 + 120)
        audit = loadstone("audit", f"{out}/latest", stdout=subprocess.DEVNULL).wait(300)
        after = left_alone(pid, before)
    summary = json.loads(said)
    print(f"{crowd.came} came and went; requests {summary['requests']}")
    return Soaked(mocks, loads, before, after, summary, audit)


def left_alone(pid: int, before: Held) -> Held:
    """Return what the mock holds once it has noticed that everyone is gone."""
    deadline = time.monotonic() + NOTICED_S
    while (held := Held.by([pid])).fds > before.fds and time.monotonic() < deadline:
        time.sleep(0.1)
    return held


def main() -> None:
    """Print the table, and what grew, was lost or was late."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=60.0, help="seconds")
    parser.add_argument(
        "--rate", type=float, help="requests/s (default: 60 %% of the most)"
    )
    asked = parser.parse_args()
    rate = asked.rate or SHARE * most_per_s()
    soaked = soak(asked.minutes, asked.every, rate)
    wrong, late = [*soaked.grew(), *soaked.lost()], soaked.late()
    print("\n".join(wrong) or "nothing grew, nothing was lost")
    print("\n".join(late) or "the figures are to be believed: ok")
    sys.exit(WRONG if wrong else LATE if late else 0)


if __name__ == "__main__":
    main()
