"""What a report of many requests costs: CPU, wall clock, memory; a bundle likewise.

Makes the folder of a run of so many rows, by repeating those of a short run in virtual
time one after the other, then runs each verb in a process of its own. The figures to
look at are the microseconds for a row and that memory does not grow with the rows, but
for the page's.

    python bench/report.py
    python bench/report.py --rows 1000000 100000 --verbs html
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from loadstone.cli.main import main
from loadstone.runs import read_rows
from loadstone.traffic.record import RequestRecord
from loadstone.traffic.summary import Fold

_INSTANTS = ("intended_s", "sent_s", "end_s", "first_s", "last_s", "first_output_s")
VERBS = {
    "html": ("report", "{run}", "--out", "{out}/x.html"),
    "killed": ("report", "{killed}", "--out", "{out}/x.html"),
    "csv": ("report", "{run}", "--format", "csv", "--out", "{out}/x.csv"),
    "bundle": ("bundle", "{run}", "--out", "{out}/x.zip"),
    "check": ("bundle", "--check", "{out}/x.zip"),
}
"""By name: the verb and its arguments. `check` is of what `bundle` wrote."""


def repeated(rows: list[RequestRecord], n: int) -> Iterator[RequestRecord]:
    """Yield `n` rows: the same run again and again, each a span later."""
    span = max(row.intended_s for row in rows) + 0.01
    for i in range(n):
        turn, at = divmod(i, len(rows))
        row, later = rows[at], turn * span
        moved = {
            name: value + later
            for name in _INSTANTS
            if (value := getattr(row, name)) is not None
        }
        gaps = ((-217, 2), (-214, 4), (-213, row.output_tokens), (-211, 4), (-180, 1))
        yield replace(row, id=f"{i:06}", icl=gaps, **moved)


def make(home: Path, n: int) -> dict[str, str]:
    """Make a run of `n` rows, and the same without a summary; return their folders."""
    with suppress(SystemExit):
        main([
            "simulate", "--vms", "1", "--rate", "50", "--duration", "60s", "--json",
            "--out", str(home / "short"),
        ])  # fmt: skip
    short = (home / "short" / "latest").resolve()
    run, killed = home / f"run-{n}", home / f"killed-{n}"
    shutil.copytree(short, run)
    fold = Fold()
    with (run / "requests.jsonl").open("w") as out:
        for row in repeated(list(read_rows(short)), n):
            out.write(row.to_line())
            fold.add(row)
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | fold.summary()))
    shutil.copytree(run, killed, copy_function=_link)
    (killed / "summary.json").unlink()
    return {"run": str(run), "killed": str(killed), "out": str(home)}


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def peak_kb() -> int:
    """Return this process's own peak; `ru_maxrss` would begin with its parent's."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)


def measure(name: str, places: dict[str, str], n: int) -> None:
    """Run a verb in a process of its own and print its line."""
    arguments = [word.format(**places) for word in VERBS[name]]
    began = time.monotonic()
    ran = subprocess.run(
        [sys.executable, __file__, "--measure", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    wall = time.monotonic() - began
    took = json.loads(ran.stderr.splitlines()[-1])
    print(
        f"{n:>10,}  {name:<8}{wall:>8.1f}{took['cpu_s']:>8.1f}"
        f"{took['cpu_s'] / n * 1e6:>9.1f}{took['rss_kb'] / 1024:>9.0f}"
    )


def table(sizes: list[int], verbs: list[str]) -> None:
    """Print a line for each number of rows and verb."""
    print(f"{len(RequestRecord.__struct_fields__)} fields a row")
    print(
        f"{'rows':>10}  {'verb':<8}{'wall s':>8}{'CPU s':>8}{'us/row':>9}{'RSS MB':>9}"
    )
    for n in sizes:
        with tempfile.TemporaryDirectory() as home:
            places = make(Path(home), n)
            for name in verbs:
                measure(name, places, n)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        with suppress(SystemExit):
            main(sys.argv[2:])
        used = resource.getrusage(resource.RUSAGE_SELF)
        took = {"cpu_s": used.ru_utime + used.ru_stime, "rss_kb": peak_kb()}
        sys.stderr.write(json.dumps(took) + "\n")
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
        parser.add_argument("--verbs", nargs="+", choices=VERBS, default=list(VERBS))
        given = parser.parse_args()
        table(given.rows, given.verbs)
