"""Measure what many workers send that one cannot, and what their master costs.

    python bench/distributed.py                       one worker, then four
    python bench/distributed.py --cap 0.3 --rate 80   each held to 0.3 of a core

Master and workers are plain Locust, as on hosts of their own; the server is the mock.
A machine of few cores cannot feed four workers that each want a core, so each worker is
held to the same small share of one (the kernel's bandwidth control, for which this must
run as root): what is compared is one such worker with four. Without it every process
takes what it gets, and the table says so. The CPU of a process is its user and system
time, read each second between the first and the last arrival.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CGROUPS = Path("/sys/fs/cgroup")
QUOTA_US = 2000
"""The least stretch of CPU time that a held process gets at once."""
PATIENCE_S = 120
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@contextmanager
def mock(*options: str) -> Iterator[str]:
    """Run the mock on a free port; yields its URL."""
    server = subprocess.Popen(
        [sys.executable, "-m", "loadstone", "serve", "--port", "0", *options],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        line = next(line for line in server.stdout if "listening on " in line)
        yield line.split()[-1]
    finally:
        server.kill()
        server.wait()


@contextmanager
def held(pid: int, cores: float) -> Iterator[bool]:
    """Hold a process to a share of a core; False where the kernel or we may not."""
    period = round(QUOTA_US / cores)
    one, two = CGROUPS / "cpu", CGROUPS
    base = one if one.exists() else two
    group = base / f"loadstone-bench-{pid}"
    try:
        group.mkdir()
        if one.exists():
            (group / "cpu.cfs_period_us").write_text(str(period))
            (group / "cpu.cfs_quota_us").write_text(str(QUOTA_US))
        else:
            (group / "cpu.max").write_text(f"{QUOTA_US} {period}")
        (group / "cgroup.procs").write_text(str(pid))
    except OSError:
        with suppress(OSError):
            group.rmdir()
        yield False
        return
    try:
        yield True
    finally:
        with suppress(OSError):
            (base / "cgroup.procs").write_text(str(pid))
        group.rmdir()


def cpu_s(pid: int) -> float:
    """Return user and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


@dataclass
class Trial:
    """What one run with so many workers came to."""

    workers: int
    held: bool
    summary: dict[str, Any]
    master: list[float] = field(default_factory=list)
    """Its share of a core, second by second."""
    each: list[float] = field(default_factory=list)
    """Each worker's share of a core over the run."""


def locust(*arguments: str, log: Any) -> subprocess.Popen[bytes]:
    """Start plain Locust, headless."""
    command = [sys.executable, "-m", "locust", "-f", "loadgen/locustfile.py"]
    return subprocess.Popen(
        [*command, "--headless", "--only-summary", *arguments],
        cwd=ROOT, stdout=log, stderr=log,
    )  # fmt: skip


def free_port() -> str:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def trial(url: str, workers: int, *, rate: float, seconds: float, cap: float) -> Trial:
    """Run once and look at every process each second."""
    port = free_port()
    with tempfile.TemporaryDirectory() as out, ExitStack() as stack:
        log = stack.enter_context((Path(out) / "locust.log").open("wb"))
        master = locust(
            "--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port,
            "--expect-workers", str(workers), "--host", url, "-u", "2000",
            "--rate", str(rate), "--arrivals", "constant", "--duration", f"{seconds}s",
            "--drain", "10s", "--scenario", "mlperf", "--out", out, log=log,
        )  # fmt: skip
        crew = [
            locust("--worker", "--master-host", "127.0.0.1", "--master-port", port,
                   "--out", out, log=log)
            for _ in range(workers)
        ]  # fmt: skip
        for process in (master, *crew):
            stack.callback(process.wait)
            stack.callback(process.kill)
        folder = Path(out) / "latest"
        told = folder / "environment.json"
        deadline = time.monotonic() + PATIENCE_S
        while not told.exists() and master.poll() is None:
            if time.monotonic() > deadline:
                raise SystemExit("no run began")
            time.sleep(0.05)
        t0 = json.loads(told.read_text())["t0_epoch"]
        got = [stack.enter_context(held(worker.pid, cap)) for worker in crew]
        found = Trial(workers, all(got), {})
        time.sleep(max(0.0, t0 - time.time()))
        began = {process.pid: cpu_s(process.pid) for process in (master, *crew)}
        before = began[master.pid]
        for second in range(1, int(seconds) + 1):
            time.sleep(max(0.0, t0 + second - time.time()))
            now = cpu_s(master.pid)
            found.master.append(now - before)
            before = now
        found.each = [(cpu_s(w.pid) - began[w.pid]) / seconds for w in crew]
        master.wait(PATIENCE_S)
        found.summary = json.loads((folder / "summary.json").read_text())
    return found


def show(found: Trial) -> None:
    """Print a trial's line, and why its verdict is what it is."""
    summary = found.summary
    instrument, requests = summary["instrument"], summary["requests"]
    lag = summary["send_lag_s"]
    sent = requests["sent"] / instrument["scheduled"]
    print(
        f"{found.workers:7d}  {sent:8.1%}  {lag['p50'] * 1e3:10,.1f}"
        f"  {lag['p99'] * 1e3:10,.1f}  {summary['throughput']['req_s']:7.1f}"
        f"  {max(found.each):10.0%}  {sum(found.master) / len(found.master):11.1%}"
        f"  {max(found.master):10.0%}  {instrument['verdict']}"
    )
    for reason in instrument["reasons"]:
        print(f"         - {reason}")
    if not found.held:
        print("         (not held: no right to the kernel's bandwidth control)")


def main() -> None:
    """Run the trials and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rate", type=float, default=60.0, help="requests/s")
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--cap", type=float, default=0.1, help="of a core, per worker")
    given = parser.parse_args()
    with mock("--stream-interval", "16", "--vms", "8") as url:
        load = f"{given.rate:g} requests/s for {given.seconds} s"
        print(f"{load}, each worker held to {given.cap:g} of a core")
        print(
            "workers      sent  lag p50 ms  lag p99 ms    req/s  worker CPU"
            "  master mean  master max  verdict"
        )
        for workers in given.workers:
            found = trial(
                url, workers, rate=given.rate, seconds=given.seconds, cap=given.cap
            )
            show(found)


if __name__ == "__main__":
    main()
