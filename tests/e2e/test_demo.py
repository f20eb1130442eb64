"""`loadstone demo`, as the README says it."""

import os
import signal
import socket
import time
from pathlib import Path

import pytest
from processes import alive, descendants, latest, loadstone, read_until, start


def test_demo_ends_with_a_table_and_a_run_folder(tmp_path: Path) -> None:
    """It exits 0; throughput, tails, cost, verdict and the report are told."""
    done = loadstone("demo", "--duration", "4s", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    for word in ("TTFT", "p99", "output tokens/s", "per request", "verdict"):
        assert word in done.stdout
    run = latest(tmp_path)
    assert run.summary["requests"]["ok"] == len(run.rows) > 40
    assert {p.name for p in run.path.iterdir()} >= {
        "plan.toml",
        "environment.json",
        "requests.jsonl",
        "summary.json",
        "metrics.prom",
        "report.html",
    }
    assert f"report      {run.path / 'report.html'}" in done.stdout
    assert "Emulated: the server was" in (run.path / "report.html").read_text()


def test_demo_takes_another_port_when_8000_is_taken(tmp_path: Path) -> None:
    """A port in use is said, and is no obstacle."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8000))
            taken.listen()
        except OSError:
            pass  # somebody else has it: as good
        done = loadstone("demo", "--duration", "1s", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "port 8000 is taken" in done.stdout
    assert latest(tmp_path).summary["requests"]["ok"] > 0


@pytest.mark.parametrize("to_group", [False, True], ids=["kill -INT", "Ctrl-C"])
def test_ctrl_c_leaves_a_summary_and_no_process(
    tmp_path: Path, *, to_group: bool
) -> None:
    """An interrupt ends everything and still writes the figures so far."""
    process = start("demo", "--duration", "10m", "--out", str(tmp_path))
    try:
        read_until(process, "left")
        rows = tmp_path / "latest" / "requests.jsonl"
        deadline = time.monotonic() + 60
        while rows.stat().st_size == 0 and time.monotonic() < deadline:
            time.sleep(0.1)
        children = descendants(process.pid)
        assert len(children) >= 2
        # A terminal's Ctrl-C goes to the foreground group; this process leads one.
        (os.killpg if to_group else os.kill)(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "verdict" in output
    assert not [pid for pid in children if alive(pid)]
    summary = latest(tmp_path).summary
    assert summary["complete"] is False
    requests = summary["requests"]
    assert requests["ok"] > 0
    assert requests["sent"] == sum(
        requests[o] for o in ("ok", "failed", "throttled", "cancelled", "incomplete")
    )
