"""How often what the statistics say with 95 % is so: intervals, and comparisons.

    python bench/coverage.py [--trials N] [--pairs N]

Intervals: samples of a known law, independent (lognormal) and of an M/M/1 queue in its
steady state, whose time in system is exponential; the share of 95 % intervals that hold
the true percentile, beside that of intervals which take requests as independent.
Comparisons: pairs of `loadstone simulate` runs of other seeds (two minutes on one VM),
as they are and with every answer of the second 5 % slower; the share of pairs in which
any figure is shown to differ, and in which the median TPOT and answer are found slower.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from math import exp, log
from pathlib import Path
from random import Random
from statistics import NormalDist
from typing import Any

from loadstone.cli.main import main as loadstone
from loadstone.traffic.intervals import Interval, Sample, ranks
from loadstone.traffic.quantiles import QUANTILES

LOAD = ("--vms", "1", "--rate", "20", "--duration", "2m")


def lognormal(rng: Random, n: int) -> list[float]:
    """Return independent values."""
    return [rng.lognormvariate(0, 1) for _ in range(n)]


def queue(load: float) -> Callable[[Random, int], list[float]]:
    """Return what draws times in system of a queue at that load."""

    def draw(rng: Random, n: int) -> list[float]:
        wait = rng.expovariate(1 - load) if rng.random() < load else 0.0
        times = []
        for _ in range(n):
            service = rng.expovariate(1.0)
            times.append(wait + service)
            wait = max(0.0, wait + service - rng.expovariate(load))
        return times

    return draw


def holds(interval: Interval, value: float) -> bool:
    """Whether an interval has the value in it."""
    low, high = interval
    return (low is None or low <= value) and (high is None or value <= high)


def alone(sample: Sample, q: float) -> Interval:
    """Return the interval that takes requests as independent."""
    low, high = ranks(sample.n, q)
    return (sample.ordered[low - 1] if low else None,
            sample.ordered[high - 1] if high <= sample.n else None)  # fmt: skip


def coverage(trials: int) -> None:
    """Print the table of intervals."""
    normal = NormalDist()
    cases: list[tuple[str, Any, int, Callable[[float], float]]] = [
        ("independent", lognormal, n, lambda q: exp(normal.inv_cdf(q)))
        for n in (100, 1000)
    ] + [
        (
            f"queue at {load:.0%}",
            queue(load),
            n,
            lambda q, r=load: -log(1 - q) / (1 - r),
        )
        for load, n in ((0.5, 2000), (0.8, 2000), (0.8, 10000), (0.9, 10000))
    ]
    print(f"{'values':14s} {'n':>6s}" + "".join(f" {k:>6s}" for k in QUANTILES)
          + "   as if independent")  # fmt: skip
    for name, draw, n, truth in cases:
        rng = Random(n)
        ours, naive = (dict.fromkeys(QUANTILES, 0) for _ in range(2))
        for _ in range(trials):
            sample = Sample(draw(rng, n))
            for k, q in QUANTILES.items():
                ours[k] += holds(sample.interval(q), truth(q))
                naive[k] += holds(alone(sample, q), truth(q))
        shares = (" ".join(f"{x / trials:6.1%}" for x in hits.values())
                  for hits in (ours, naive))  # fmt: skip
        print(f"{name:14s} {n:6d} " + "   ".join(shares))


def run(*args: str) -> str:
    """Run a verb in this process and return what it printed."""
    out = StringIO()
    with suppress(SystemExit), redirect_stdout(out), redirect_stderr(StringIO()):
        loadstone(list(args))
    return out.getvalue()


def slowed(folder: Path, factor: float) -> None:
    """Make every answer of a run slower from when it was sent."""
    path, lines = folder / "requests.jsonl", []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        for stamp in ("first_s", "first_output_s", "last_s", "end_s"):
            row[stamp] = row["sent_s"] + factor * (row[stamp] - row["sent_s"])
        lines.append(json.dumps(row) + "\n")
    path.write_text("".join(lines))


def comparisons(pairs: int) -> None:
    """Print how often pairs of runs are told apart."""
    shown: dict[str, int] = {}
    alarms, tpot, answer = 0, 0, 0
    with tempfile.TemporaryDirectory() as out:
        for i in range(pairs):
            folders = []
            for seed in (2 * i, 2 * i + 1):
                run("simulate", *LOAD, "--seed", str(seed), "--out", out, "--json")
                folders.append((Path(out) / "latest").resolve())
            told = json.loads(run("compare", *map(str, folders), "--json"))
            names = [f["figure"] for f in told["figures"]
                     if f["verdict"] != "no difference shown"]  # fmt: skip
            alarms += bool(names)
            for name in names:
                shown[name] = shown.get(name, 0) + 1
            slowed(folders[1], 1.05)
            told = json.loads(run("compare", *map(str, folders), "--json"))
            worse = {f["figure"] for f in told["figures"] if f["verdict"] == "worse"}
            tpot += "tpot_s.p50" in worse
            answer += "e2e_s.p50" in worse
    print(f"{pairs} pairs of the same: a difference is shown in {alarms / pairs:.1%}")
    print(f"  by figure: {shown or 'none'}")
    print(f"5 % planted: TPOT p50 in {tpot / pairs:.0%}, answer p50 in"
          f" {answer / pairs:.0%}")  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=50)
    asked = parser.parse_args()
    coverage(asked.trials)
    comparisons(asked.pairs)


if __name__ == "__main__":
    main()
