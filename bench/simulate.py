"""What a run in virtual time costs: CPU per request, simulated seconds, memory.

Each row is a process of its own, so that its peak memory is its own. The load is
MLPerf's lengths on one VM at a steady rate, then offline, then users who wait, then a
rack at the same rate per VM. The figure to look at is the memory for a request more:
between the short and the long run of one load, divided by their difference in requests.

    python bench/simulate.py
    python bench/simulate.py --seconds 600
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import Any

from loadstone.cli.main import main

RATE = 150.0
"""Requests/s of a VM: some two thirds of what it can do."""


def measure(arguments: list[str]) -> None:
    """Run the verb in this process and print what it took as JSON."""
    with tempfile.TemporaryDirectory() as out, suppress(SystemExit):
        main(["simulate", *arguments, "--out", out])
    used = resource.getrusage(resource.RUSAGE_SELF)
    took = {"cpu_s": used.ru_utime + used.ru_stime, "rss_kb": used.ru_maxrss}
    sys.stderr.write(json.dumps(took) + "\n")


def row(name: str, *arguments: str) -> dict[str, Any]:
    """Measure one run in a process of its own and print its line."""
    given = [*arguments, "--scenario", "mlperf", "--json"]
    ran = subprocess.run(
        [sys.executable, __file__, "--measure", *given],
        capture_output=True,
        text=True,
        check=True,
    )
    summary = json.loads(ran.stdout)
    took = json.loads(ran.stderr.splitlines()[-1])
    n, span = summary["requests"]["sent"], summary["makespan_s"]
    print(
        f"{name:<22}{n:>10,}{took['cpu_s']:>9.1f}{took['cpu_s'] / n * 1e6:>12.1f}"
        f"{span / took['cpu_s']:>14.1f}{took['rss_kb'] / 1024:>10.1f}"
    )
    return {"n": n, **took}


def table(seconds: float) -> None:
    """Print all rows, and the memory for a request more."""
    print(
        f"{'run':<22}{'requests':>10}{'CPU s':>9}{'us/request':>12}"
        f"{'simulated s/s':>14}{'RSS MB':>10}"
    )
    rate = ("--rate", str(RATE))
    short = row("1 VM, short", *rate, "--duration", f"{seconds / 10}s", "--no-rows")
    long = row("1 VM", *rate, "--duration", f"{seconds}s", "--no-rows")
    row("1 VM, rows", *rate, "--duration", f"{seconds}s")
    row("1 VM, offline", "--offline", str(round(RATE * seconds)), "--no-rows")
    row("1 VM, 2,000 users", "--users", "2000", "--think", "4s", "--duration",
        f"{seconds}s", "--no-rows")  # fmt: skip
    row("a rack", "--racks", "1", "--rate", str(18 * RATE), "--duration",
        f"{seconds / 18}s", "--no-rows")  # fmt: skip
    more = (long["rss_kb"] - short["rss_kb"]) * 1024 / (long["n"] - short["n"])
    print(f"\nmemory for a request more: {more:.0f} bytes")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2:])
    else:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        parser.add_argument("--seconds", type=float, default=1800.0)
        table(parser.parse_args().seconds)
