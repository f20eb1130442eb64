"""What goes wrong around a run, and what is left of it."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from processes import (
    OUTCOMES,
    PATIENCE_S,
    command_of,
    descendants,
    free_port,
    latest,
    loadstone,
    mock_server,
    start,
    wait_for,
)

from loadgen.recovery import recover
from loadstone.runs import read_rows


def locust_processes(pid: int) -> list[int]:
    """Return the Locust processes below `pid`, the master first."""
    return sorted(p for p in descendants(pid) if "locust" in command_of(p))


@pytest.mark.timeout(240)
def test_a_lost_worker_ends_in_a_verdict_and_no_wait(tmp_path: Path) -> None:
    """The others finish, the run ends by itself, and nothing is counted twice."""
    with mock_server() as url:
        process = start(
            "run", "mlperf", "--rate", "20", "--duration", "8s", "--drain", "10s",
            "--processes", "2", "--host", url, "--out", str(tmp_path),
        )  # fmt: skip
        rows = tmp_path / "latest" / "requests.1.jsonl"
        wait_for(lambda: rows.exists() and rows.stat().st_size)
        # Which of the two has which rank is not known; either will do.
        os.kill(locust_processes(process.pid)[-1], signal.SIGKILL)
        output, _ = process.communicate(timeout=PATIENCE_S)
    summary = latest(tmp_path).summary
    assert process.returncode == 4, output
    instrument = summary["instrument"]
    # A machine that is busy elsewhere comes first in a verdict; the reason is there.
    assert instrument["verdict"] in ("rate_not_delivered", "client_limited")
    assert instrument["workers"] == {"expected": 2, "reported": 1}
    assert any("workers were lost" in reason for reason in instrument["reasons"])
    requests = summary["requests"]
    assert requests["sent"] == len(latest(tmp_path).rows)
    assert requests["sent"] == sum(requests[outcome] for outcome in OUTCOMES)
    fates = ("sent", "dropped", "unknown")
    assert sum(requests[fate] for fate in fates) == instrument["scheduled"]
    # What was in flight when it was killed may have been answered; nobody knows.
    assert requests["unknown"] > 0
    (lost,) = summary["distributed"]["lost"]
    assert lost["share"] == pytest.approx(0.5, abs=0.01)
    assert 0 < lost["heard_s"] < 8
    shares = {worker["rank"]: worker for worker in summary["distributed"]["workers"]}
    assert shares[1 - lost["rank"]]["unknown"] == 0
    assert shares[lost["rank"]]["unknown"] == requests["unknown"]
    assert sum(worker["planned"] for worker in shares.values()) == sum(
        requests[fate] for fate in fates
    )
    for outcome in OUTCOMES:
        name = 'loadstone_requests_total{outcome="' + outcome
        assert latest(tmp_path).metric(name) == requests[outcome]


def test_a_killed_run_says_where_its_rows_are(tmp_path: Path) -> None:
    """Code 1, and the folder with what reached the disk."""
    with mock_server() as url:
        process = start(
            "run", "azure-chat", "--rate", "20", "--duration", "60s", "--host", url,
            "--out", str(tmp_path),
        )  # fmt: skip
        rows = tmp_path / "latest" / "requests.jsonl"
        wait_for(lambda: rows.exists() and rows.stat().st_size)
        time.sleep(1.7)  # the fault: between two flushes, if they are a second apart
        killed = time.time()
        os.kill(locust_processes(process.pid)[0], signal.SIGKILL)
        # Rows come twenty times a second: what is missing is as old as the file.
        assert killed - rows.stat().st_mtime < 1.5
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "ended by force" in output
    run = latest(tmp_path)
    assert str(run.path) in output.replace("\n", "")
    told = recover(run.path, {})
    requests = told["requests"]
    assert told["complete"] is False
    assert requests["sent"] == len(list(read_rows(run.path))) > 0
    assert requests["unknown"] > 0
    fates = ("sent", "dropped", "unknown")
    assert sum(requests[fate] for fate in fates) == told["instrument"]["scheduled"]
    assert told["instrument"]["reasons"][0].startswith("the run did not end by itself")
    assert told["plan_hash"] in (run.path / "plan.toml").read_text()
    assert not list(run.path.glob("*.part"))
    assert f"loadstone report {run.path}" in output.replace("\n", "")
    made = loadstone("report", str(run.path))
    assert made.returncode == 0, made.stderr
    said = (run.path / "report.html").read_text()
    assert "Incomplete: the run was cut short" in said
    assert f"{requests['unknown']:,} requests have no row" in said


def test_a_terminal_that_stops_reading_does_not_stop_the_run(tmp_path: Path) -> None:
    """The client goes on stamping answers while whoever shows them is suspended."""
    with mock_server() as url:
        process = start(
            "run", "azure-chat", "--rate", "20", "--duration", "6s", "--host", url,
            "--out", str(tmp_path),
        )  # fmt: skip
        rows = tmp_path / "latest" / "requests.jsonl"
        wait_for(lambda: rows.exists() and rows.stat().st_size)
        os.kill(process.pid, signal.SIGSTOP)
        wait_for((tmp_path / "latest" / "summary.json").exists)
        os.kill(process.pid, signal.SIGCONT)
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert "verdict" in output
    assert latest(tmp_path).summary["complete"] is True


def test_only_the_command_line_says_what_to_do(tmp_path: Path) -> None:
    """Neither Locust's variables and files nor ours reach into `loadstone run`."""
    (tmp_path / "locust.conf").write_text("run-time = 1s\nprocesses = 2\n")
    stray = {"LOADSTONE_RATE": "7", "LOCUST_USERS": "9", "LOCUST_RUN_TIME": "1s"}
    with mock_server() as url:
        done = loadstone(
            "run", "mlperf", "--users", "3", "--duration", "2s", "--host", url,
            "--out", "here", "--json", cwd=tmp_path, env=os.environ | stray,
        )  # fmt: skip
    summary = json.loads(done.stdout)
    assert (summary["loop"], summary["complete"]) == ("closed", True)
    run = latest(tmp_path / "here")
    assert "users = 3" in (run.path / "plan.toml").read_text()
    assert (run.path / "requests.jsonl").exists()


def test_a_plan_is_run_again(tmp_path: Path) -> None:
    """`run plan.toml` sends the same requests; what is given beside it wins."""
    slo = tmp_path / "slo.toml"
    slo.write_text('[[slo]]\nmetric = "ttft_s"\nstat = "p50"\nmax_s = 30\n')
    with mock_server() as url:
        first = loadstone(
            "run", "mlperf", "--rate", "15", "--duration", "2s", "--seed", "5",
            "--drain", "1s", "--slo", str(slo), "--host", url, "--json",
            "--out", str(tmp_path / "a"),
        )  # fmt: skip
        plan = latest(tmp_path / "a").path / "plan.toml"
        again = loadstone("run", str(plan), "--out", str(tmp_path / "b"), "--json")
        other = loadstone(
            "run", str(plan), "--seed", "6", "--out", str(tmp_path / "c"), "--json"
        )
    a, b, c = (json.loads(done.stdout) for done in (first, again, other))
    assert a["plan_hash"] == b["plan_hash"] != c["plan_hash"]
    assert a["slo"][0]["max_s"] == b["slo"][0]["max_s"] == 30
    assert latest(tmp_path / "b").path.exists()
    wrong = loadstone("run", str(slo))
    assert wrong.returncode == 2
    assert "it has no [[class]]" in wrong.stderr


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """The run ends at once, with the reason."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = (
        shutil.which("mount")
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=False
        ).returncode
    )
    if not mounted:  # tests/faults fills a disk without root, by a limit
        pytest.skip("only root may mount a small disk")
    try:
        with mock_server() as url:
            done = loadstone(
                "run", "mlperf", "--rate", "60", "--duration", "30s", "--host", url,
                "--drain", "1s", "--out", str(small / "runs"),
            )  # fmt: skip
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr


class SlowModels(BaseHTTPRequestHandler):
    """An endpoint that takes its time to list its models, and counts what it gets."""

    asked = Event()
    go_on = Event()
    posts = 0

    def do_GET(self) -> None:
        """Answer late, when told to."""
        type(self).asked.set()
        type(self).go_on.wait(PATIENCE_S)
        body = b'{"data": [{"id": "m"}]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """Note that a request came."""
        type(self).posts += 1
        self.send_error(500)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.mark.timeout(200)
def test_a_stop_before_the_start_is_done_sends_nothing(tmp_path: Path) -> None:
    """Whoever stops a run that still looks for its endpoint pays for no request."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), SlowModels)
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    ui = f"http://127.0.0.1:{free_port()}"
    SlowModels.go_on.set()
    process = start(
        "run", "azure-chat", "--rate", "20", "--duration", "1s", "--host", url, "--web",
        "--web-port", ui.rsplit(":", 1)[1], "--out", str(tmp_path),
    )  # fmt: skip
    try:
        # Locust forgets a stop that comes early in any start but its first.
        wait_for((tmp_path / "latest" / "summary.json").exists)
        first = latest(tmp_path)
        posts = SlowModels.posts
        SlowModels.go_on.clear()
        SlowModels.asked.clear()
        form = {"user_count": "50", "spawn_rate": "50", "host": url, "rate": "50"}
        post(f"{ui}/swarm", form | {"duration": "5s", "scenario": "azure-chat"})
        assert SlowModels.asked.wait(PATIENCE_S)
        post(f"{ui}/stop", {})
        SlowModels.go_on.set()
        time.sleep(2.0)  # what must not happen needs a moment to happen in
    finally:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE_S)
        server.shutdown()
        server.server_close()
    assert posts > 0
    assert SlowModels.posts == posts, output
    assert latest(tmp_path).path == first.path


def post(url: str, form: dict[str, str]) -> None:
    """Post a form to Locust's web UI."""
    data = urllib.parse.urlencode(form).encode()
    with urllib.request.urlopen(url, data) as answer:
        assert json.load(answer)["success"]
