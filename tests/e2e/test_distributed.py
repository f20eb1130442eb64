"""Locust's master and workers as on several hosts: rows, totals, and who is missing.

A worker in a mount namespace of its own sees another disk where the master has its run
folder, as one on another host does.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from live import measured
from processes import (
    OUTCOMES,
    PATIENCE_S,
    REPOSITORY,
    Results,
    alive,
    command_of,
    descendants,
    free_port,
    latest,
    mock_server,
    start,
    wait_for,
)
from wall_clock import wall_clock

from loadgen.recovery import recover
from loadgen.stats import LATENCIES, ClientStats
from loadstone.runs import read_rows
from loadstone.traffic.quantiles import QUANTILES, nearest_rank

_APART = ("unshare", "--mount", "--map-root-user")


def can_be_apart() -> bool:
    """Whether this machine lets a process have a mount namespace of its own."""
    try:
        return subprocess.run([*_APART, "true"], check=False).returncode == 0
    except OSError:
        return False


apart = pytest.mark.skipif(not can_be_apart(), reason="no mount namespaces here")


class Terminals:
    """A master and workers under plain Locust, each as in a terminal of its own."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.port = str(free_port())
        self.processes: list[subprocess.Popen[str]] = []

    def open(self, *arguments: str, before: tuple[str, ...] = ()) -> Any:
        """Start Locust; `before` is put in front of the command."""
        process = subprocess.Popen(
            [*before, sys.executable, "-m", "locust", "-f", "loadgen/locustfile.py",
             "--only-summary", "--headless", *arguments],
            cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def master(self, url: str, *arguments: str) -> Any:
        """Start the master, which waits for two workers."""
        return self.open(
            "--master", "--master-bind-host", "127.0.0.1", "--master-bind-port",
            self.port, "--expect-workers", "2", "--host", url, "--scenario", "mlperf",
            "--rate", "30", "-u", "200", "--out", str(self.out), *arguments,
        )  # fmt: skip

    def worker(self, *arguments: str, before: tuple[str, ...] = ()) -> Any:
        """Start a worker."""
        return self.open(
            "--worker", "--master-host", "127.0.0.1", "--master-port", self.port,
            *arguments, before=before,
        )  # fmt: skip

    def worker_apart(self, out: Path) -> Any:
        """Start a worker that does not see the master's folder."""
        hide = f'mount -t tmpfs none "{self.out}" && exec "$@"'
        return self.worker("--out", str(out), before=(*_APART, "sh", "-c", hide, "sh"))

    def close(self) -> None:
        """End whoever is left."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=PATIENCE_S)


@contextmanager
def terminals(out: Path) -> Iterator[tuple[Terminals, str]]:
    """Open a mock and terminals, and leave no process behind."""
    out.mkdir()
    with ExitStack() as stack:
        url = stack.enter_context(mock_server())
        opened = Terminals(out)
        stack.callback(opened.close)
        yield opened, url


def run_apart(tmp_path: Path, *arguments: str) -> tuple[Results, Path]:
    """Run with one worker that is apart; return the folder, and the worker's own."""
    with terminals(tmp_path / "runs") as (locust, url):
        master = locust.master(url, "--duration", "3s", "--drain", "3s", *arguments)
        locust.worker()
        locust.worker_apart(tmp_path / "own")
        output, _ = master.communicate(timeout=PATIENCE_S)
    assert (tmp_path / "runs" / "latest").exists(), output
    (own,) = (tmp_path / "own").iterdir()
    # Not audited: the books of rows that stayed elsewhere cannot be compared here.
    return Results((tmp_path / "runs" / "latest").resolve()), own


def rows_by_rank(folder: Path) -> dict[int, int]:
    """Return how many rows of each worker a folder has."""
    ranks = [row.worker for row in read_rows(folder)]
    return {rank: ranks.count(rank) for rank in sorted(set(ranks))}


@apart
def test_rows_on_another_disk_are_carried_over(tmp_path: Path) -> None:
    """Byte for byte, and what the workers reported is bit for bit what rows say."""
    run, own = run_apart(tmp_path)
    assert latest(tmp_path / "runs").path == run.path
    told = run.summary["distributed"]
    assert [worker["state"] for worker in told["workers"]] == ["handed_in"] * 2
    assert {worker["rows"] for worker in told["workers"]} == {"collected", "shared"}
    (collected,) = (w["rank"] for w in told["workers"] if w["rows"] == "collected")
    name = f"requests.{collected}.jsonl"
    assert (run.path / name).read_bytes() == (own / name).read_bytes()
    assert told["merged_equals_rows"] is True
    planned = {worker["rank"]: worker["planned"] for worker in told["workers"]}
    assert rows_by_rank(run.path) == planned
    assert run.summary["requests"]["sent"] == sum(planned.values())
    assert not list(run.path.glob("*.part")) + list(run.path.glob("alive*"))
    # On one machine there is one clock, and the measured offset is said to be near 0.
    for worker in told["workers"]:
        assert abs(worker["clock_offset_s"]) <= worker["clock_uncertainty_s"] + 1e-3
    # The worker's folder is a run's too, with its share alone.
    alone = recover(own, {})["requests"]
    assert (alone["sent"], alone["unknown"]) == (planned[collected], 0)
    assert alone["dropped"] == 0


@apart
def test_rows_that_stay_elsewhere_are_told_and_totals_take_their_place(
    tmp_path: Path,
) -> None:
    """The same counts, and percentiles within the 1 % that a bucket allows."""
    run, own = run_apart(tmp_path, "--collect-mb", "0")
    summary = run.summary
    assert summary["source"] == "merged histograms"
    (place,) = (w["place"] for w in summary["distributed"]["workers"] if "place" in w)
    assert place.partition(":")[2] == str(next(own.glob("requests.*.jsonl")))
    rows = [*read_rows(run.path), *read_rows(own)]
    assert len({row.id for row in rows}) == len(rows)
    requests = summary["requests"]
    assert requests["sent"] == len(rows) == sum(requests[o] for o in OUTCOMES)
    assert requests["dropped"] == requests["unknown"] == 0
    assert summary["tokens"]["output"] == sum(r.output_tokens for r in rows if r.ok)
    union = ClientStats()
    for row in rows:
        union.add(row)
    for name in LATENCIES:
        histogram = union.whole().percentiles[name]
        assert summary[name]["n"] == histogram.count > 0
        exact = sorted(getattr(r, name) for r in rows if r.ok and name != "icl_s")
        for stat, q in QUANTILES.items():
            # Bit for bit what one process would have counted.
            assert summary[name][stat] == histogram.quantile(q)
            if exact:
                true = nearest_rank(exact, q)
                assert summary[name][stat] == pytest.approx(true, rel=0.01)


def test_a_worker_whose_clock_is_an_hour_ahead_sends_with_the_others(
    tmp_path: Path,
) -> None:
    """Its offset is measured before the start and taken off; its rows say our times."""
    with terminals(tmp_path / "runs") as (locust, url):
        ahead = wall_clock(tmp_path)
        ahead.set(3600)
        names = ("LD_PRELOAD", "STEP_FILE")
        variables = [f"{name}={ahead.environ[name]}" for name in names]
        master = locust.master(url, "--duration", "3s", "--drain", "3s")
        locust.worker()
        locust.worker(before=("env", *variables))
        output, _ = master.communicate(timeout=PATIENCE_S)
    run = latest(tmp_path / "runs")
    told = run.summary["distributed"]["workers"]
    assert [worker["state"] for worker in told] == ["handed_in"] * 2, output
    right, wrong = sorted(told, key=lambda worker: worker["clock_offset_s"])
    assert abs(right["clock_offset_s"]) <= right["clock_uncertainty_s"] + 1e-3
    assert abs(wrong["clock_offset_s"] - 3600) <= wrong["clock_uncertainty_s"] + 1e-3
    requests = run.summary["requests"]
    assert requests["sent"] == sum(w["planned"] for w in told)
    # Long answers are cut by the end of the drain, on either clock.
    assert set(run.summary["errors"]) <= {"incomplete"}
    # Both began at the same moment, and no time of any row has an hour in it.
    rows = list(read_rows(run.path))
    for rank in (0, 1):
        late = [r.sent_s - r.intended_s for r in rows if r.worker == rank]
        assert 0 <= min(late) < 1
        assert any(r.ok for r in rows if r.worker == rank)
    assert all(0 <= r.intended_s < 3 and r.end_s < 10 for r in rows)
    assert run.summary["makespan_s"] < 10


def test_a_worker_that_returns_has_no_share_and_the_run_ends(tmp_path: Path) -> None:
    """Killed and started again: lost, then late; its rows of before are counted."""
    with terminals(tmp_path / "runs") as (locust, url):
        master = locust.master(url, "--duration", "6s", "--drain", "2s")
        workers = [locust.worker(), locust.worker()]
        rows = tmp_path / "runs" / "latest" / "requests.1.jsonl"
        wait_for(lambda: rows.exists() and rows.stat().st_size)
        workers[1].kill()
        again = locust.worker()
        output, _ = master.communicate(timeout=PATIENCE_S)
        said, _ = again.communicate(timeout=PATIENCE_S)
    run = latest(tmp_path / "runs")
    told = run.summary["distributed"]
    assert (told["expected"], told["reported"]) == (2, 1), output
    assert len(told["lost"]) == len(told["late"]) == 1
    assert "no share in it" in said
    assert told["late"][0]["returned"]
    requests = run.summary["requests"]
    fates = ("sent", "dropped", "unknown")
    planned = sum(worker["planned"] for worker in told["workers"])
    assert sum(requests[fate] for fate in fates) == planned
    ids = [row.id for row in read_rows(run.path)]
    assert len(set(ids)) == len(ids) == requests["sent"]
    # Nobody took places from who stayed.
    (stayed,) = (w for w in told["workers"] if w["state"] == "handed_in")
    assert stayed["recorded"] == stayed["planned"]
    assert requests["cancelled"] == 0


def test_without_their_master_workers_end_and_leave_whole_rows(tmp_path: Path) -> None:
    """They close their shares, so nothing of what they sent is unknown."""
    with mock_server() as url:
        process = start(
            "run", "mlperf", "--rate", "20", "--duration", "60s", "--processes", "2",
            "--host", url, "--out", str(tmp_path),
        )  # fmt: skip
        folder = tmp_path / "latest"
        both = [folder / f"requests.{rank}.jsonl" for rank in (0, 1)]
        wait_for(lambda: all(path.exists() and path.stat().st_size for path in both))
        master, *workers = sorted(
            pid for pid in descendants(process.pid) if "locust" in command_of(pid)
        )
        os.kill(master, signal.SIGKILL)
        killed = time.monotonic()
        output, _ = process.communicate(timeout=PATIENCE_S)
        wait_for(lambda: not any(alive(worker) for worker in workers))
        # Far from the 60 s that were asked.
        took = time.monotonic() - killed
        measured("master-killed", "from the kill to the end of all", took)
        assert took < 30
    assert process.returncode == 1, output
    told = recover(latest(tmp_path).path, {})
    requests = told["requests"]
    assert told["complete"] is False
    assert requests["unknown"] == 0
    assert requests["sent"] == len(latest(tmp_path).rows) > 0
    assert requests["sent"] + requests["dropped"] == told["instrument"]["scheduled"]
