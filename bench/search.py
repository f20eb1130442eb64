"""Whether `run --find-max` finds live what `simulate --find-max` says in virtual time.

The mock is ten times as fast as the machine it emulates (`--slowdown 0.1`) and has few
places, so that answers take a third of a second and a probe of five seconds has a
hundred of them. The same search in virtual time has times ten times as long, and rates
a tenth: its schedules are the same but for the scale. Both print their probes as they
go. A machine that is busy with something else spoils probes, which costs some more.

    python bench/search.py
    python bench/search.py --seeds 3 --measured 10
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SCALE = 10.0
"""The mock is so many times as fast."""
LIMIT_S = 0.25
MACHINE = ("--vms", "1", "--max-num-seqs", "2")


def loadstone(*args: str) -> dict[str, Any]:
    """Run a verb, its progress on our stderr, and return its document."""
    ran = subprocess.run(
        [sys.executable, "-m", "loadstone", *args, "--json"],
        stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@contextmanager
def mock() -> Iterator[str]:
    """Run the mock for a `with` block; yields its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "loadstone", "serve", *MACHINE, "--port", "0",
         "--slowdown", f"{1 / SCALE:g}", "--stream-interval", "8", "--grace", "1s"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        yield next(line for line in process.stderr if "listening on" in line).split()[
            -1
        ]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


def search(out: Path, url: str | None, seed: int, measured_s: float) -> dict[str, Any]:
    """Search one of the two, at its scale."""
    scale = 1.0 if url else SCALE
    slo = out / "slo.toml"
    slo.write_text(
        '[[slo]]\nmetric = "ttft_intended_s"\nstat = "p90"\n'
        f"max_s = {LIMIT_S * scale}\n"
    )
    where = ("run", "azure-chat", "--host", url) if url else ("simulate", *MACHINE)
    return loadstone(
        *where, "--find-max", "--slo", str(slo), "--tolerance", "0.05",
        "--start-rate", f"{8 / scale:g}", "--duration", f"{measured_s * scale:g}s",
        "--warmup", f"{scale:g}s", "--seed", str(seed), "--out", str(out),
    )  # fmt: skip


def table(seeds: int, measured_s: float) -> None:
    """Print what was found for each seed."""
    lines = []
    with mock() as url, tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            virtual = search(Path(folder), None, seed, measured_s)
            live = search(Path(folder), url, seed, measured_s)
            said = (virtual["answer"]["met"] or 0.0) * SCALE
            found = live["answer"]["met"] or 0.0
            spoilt = sum(probe["trust"] != "full" for probe in live["probes"])
            lines.append(
                f"{seed:>4}{said:>12.2f}{found:>10.2f}{found / said - 1:>+9.1%}"
                f"{len(virtual['probes']):>14}{len(live['probes']):>6}{spoilt:>8}"
                f"  {live['answer']['end']}"
            )
    print(
        f"{'seed':>4}{'virtual':>12}{'live':>10}{'apart':>9}{'probes: virt.':>14}"
        f"{'live':>6}{'spoilt':>8}  live search ended"
    )
    print("\n".join(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--measured", type=float, default=5.0, help="seconds")
    given = parser.parse_args()
    table(given.seeds, given.measured)
