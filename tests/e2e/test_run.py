"""The load generator against the mock: every count agrees, whoever counted."""

import csv
import json
import subprocess
import sys
import urllib.parse
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from processes import (
    OUTCOMES,
    PATIENCE_S,
    REPOSITORY,
    TRACE,
    Results,
    fetch_when_up,
    free_port,
    latest,
    loadstone,
    mock_server,
    wait_for,
)

FALLBACK_TRACE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:47.1000000,2,9
2023-11-16 18:15:48.2224670,5879,55
2023-11-16 18:15:49.3910170,91,16
2023-11-16 18:16:59.0000000,100,10
"""


def check_accounts(run: Results) -> None:
    """Assert that rows, summary, Prometheus and Locust tell the same."""
    summary, rows = run.summary, run.rows
    requests = summary["requests"]
    assert requests["sent"] == len(rows) == sum(requests[o] for o in OUTCOMES)
    for outcome in OUTCOMES:
        assert requests[outcome] == sum(r["outcome"] == outcome for r in rows)
        name = f'loadstone_requests_total{{outcome="{outcome}"'
        assert requests[outcome] == run.metric(name)
    locust = summary["instrument"]["locust"]
    assert locust["requests"] == requests["sent"]
    assert locust["failures"] == requests["sent"] - requests["ok"]
    ok = [r for r in rows if r["outcome"] == "ok"]
    for side in ("input", "output"):
        counted = sum(r[f"{side}_tokens"] for r in ok)
        assert (
            summary["tokens"][side]
            == counted
            == run.metric(f"loadstone_{side}_tokens_total")
        )
    assert run.metric("loadstone_requests_dropped_total") == requests["dropped"]
    assert run.metric("loadstone_requests_in_flight") == 0
    assert run.metric("loadstone_ttft_seconds_count") == summary["ttft_s"]["n"]


def naive_window(text: str, seconds: float) -> list[tuple[float, int, int]]:
    """Read the first `seconds` of a trace in the plainest way."""
    rows = list(csv.reader(text.splitlines()))[1:]
    first = datetime.fromisoformat(rows[0][0][:26])
    timed = [
        ((datetime.fromisoformat(r[0][:26]) - first).total_seconds(), r) for r in rows
    ]
    return [(at, int(r[1]), int(r[2])) for at, r in timed if at < seconds]


@pytest.mark.parametrize("speedup", [1, 4])
def test_a_trace_is_replayed_with_its_own_arrivals_and_lengths(
    tmp_path: Path, speedup: int
) -> None:
    """Requests and tokens are those of the rows that fall in the window."""
    text = TRACE.read_text() if TRACE.exists() else FALLBACK_TRACE
    trace = tmp_path / "trace.csv"
    trace.write_text(text)
    with mock_server("--vms", "1") as url:
        done = loadstone(
            "run",
            "chat",
            "--trace",
            str(trace),
            "--host",
            url,
            "--duration",
            "12s",
            "--speedup",
            str(speedup),
            "--out",
            str(tmp_path),
        )
    run = latest(tmp_path)
    expected = naive_window(text, 12 * speedup)
    # Few samples make a run invalid, never wrong.
    assert done.returncode in (0, 4), done.stderr
    summary = run.summary
    assert summary["requests"]["sent"] == summary["requests"]["ok"] == len(expected)
    assert summary["tokens"]["input"] == sum(n for _, n, _ in expected)
    assert summary["tokens"]["output"] == sum(n for _, _, n in expected)
    rows = sorted(run.rows, key=lambda r: r["id"])
    for row, (at, n_in, n_out) in zip(rows, expected, strict=True):
        assert row.get("intended_s", 0.0) == pytest.approx(at / speedup, abs=2e-6)
        assert (row["input_tokens"], row["output_tokens"]) == (n_in, n_out)
        assert row["sent_s"] >= row.get("intended_s", 0.0)
    check_accounts(run)


def test_two_processes_send_the_plan_of_one(tmp_path: Path) -> None:
    """Under `locust --processes 2` the workers' rows together are the one plan."""
    options = ("--rate", "20", "--duration", "4s", "--seed", "7")
    with mock_server() as url:
        one = loadstone(
            "run", "chat", "--host", url, *options, "--out", str(tmp_path / "one")
        )
        assert one.returncode in (0, 4), one.stderr
        two = locust(
            "--headless",
            "-u",
            "200",
            "--processes",
            "2",
            *on_port(),
            "--host",
            url,
            *options,
            "--out",
            str(tmp_path / "two"),
        )
    assert two.returncode in (0, 4), two.stdout
    assert "verdict" in two.stdout
    alone, shared = latest(tmp_path / "one"), latest(tmp_path / "two")
    assert {r.get("worker", 0) for r in shared.rows} == {0, 1}
    assert planned(alone.rows) == planned(shared.rows)
    check_accounts(alone)
    check_accounts(shared)


def on_port() -> tuple[str, ...]:
    """Return options that keep Locust's master off its default port."""
    port = str(free_port())
    return ("--master-bind-port", port, "--master-port", port)


def planned(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return what was intended, in plan order."""
    keys = ("id", "intended_s", "asked_input_tokens", "asked_output_tokens")
    return sorted(tuple(r[k] for k in keys) for r in rows)


def test_closed_loop_keeps_its_population_busy(tmp_path: Path) -> None:
    """Without a rate `--users` is a population: never more in flight, no schedule."""
    with mock_server() as url:
        done = loadstone(
            "run",
            "mlperf",
            "--users",
            "4",
            "--duration",
            "6s",
            "--host",
            url,
            "--json",
            "--out",
            str(tmp_path),
        )
    summary = json.loads(done.stdout)
    run = latest(tmp_path)
    assert summary["loop"] == "closed"
    assert summary["instrument"]["scheduled"] is None
    assert most_in_flight(run.rows) == 4
    check_accounts(run)


def most_in_flight(rows: list[dict[str, Any]]) -> int:
    """Return the peak of requests that were sent and not ended."""
    edges = [(r["sent_s"], 1) for r in rows] + [(r["end_s"], -1) for r in rows]
    level = peak = 0
    for _, change in sorted(edges):
        level += change
        peak = max(peak, level)
    return peak


def test_a_cap_makes_requests_wait_and_the_run_says_so(tmp_path: Path) -> None:
    """With few places in flight intended times are kept; the verdict is not ok."""
    with mock_server() as url:
        done = loadstone(
            "run",
            "chat",
            "--rate",
            "20",
            "--users",
            "2",
            "--duration",
            "4s",
            "--drain",
            "2s",
            "--host",
            url,
            "--json",
            "--out",
            str(tmp_path),
        )
    summary = json.loads(done.stdout)
    run = latest(tmp_path)
    assert done.returncode == 4
    instrument = summary["instrument"]
    # A busy machine may have limited the client besides; the reasons are all told.
    assert instrument["verdict"] in ("rate_not_delivered", "client_limited")
    assert any("intended requests were sent" in r for r in instrument["reasons"])
    assert most_in_flight(run.rows) <= 2
    requests = summary["requests"]
    assert requests["dropped"] > 0
    assert requests["sent"] + requests["dropped"] == summary["instrument"]["scheduled"]
    assert requests["incomplete"] > 0
    assert summary["ttft_intended_s"]["p50"] > summary["ttft_s"]["p50"]
    check_accounts(run)


def test_same_seed_same_plan(tmp_path: Path) -> None:
    """The plan's hash and the rows' intentions depend on the seed alone."""
    with mock_server() as url:
        for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
            loadstone(
                "run",
                "chat",
                "--rate",
                "15",
                "--duration",
                "1500ms",
                "--drain",
                "0s",
                "--seed",
                seed,
                "--host",
                url,
                "--out",
                str(tmp_path / name),
            )
    a, b, c = (latest(tmp_path / name) for name in "abc")
    assert a.summary["plan_hash"] == b.summary["plan_hash"] != c.summary["plan_hash"]


def locust(*args: str) -> subprocess.CompletedProcess[str]:
    """Run plain Locust to its end, both outputs in `stdout`."""
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "locust",
            "-f",
            "loadgen/locustfile.py",
            "--only-summary",
            *args,
        ],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_start_stop_start_in_the_web_ui_makes_two_runs(tmp_path: Path) -> None:
    """The start form's fields make the plan; each start has a folder of its own."""
    with mock_server() as url:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "locust",
                "-f",
                "loadgen/locustfile.py",
                "--web-host",
                "127.0.0.1",
                "--web-port",
                "18089",
                "--host",
                url,
                "--out",
                str(tmp_path),
            ],
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            page = fetch_when_up("http://127.0.0.1:18089/")
            for field in ("scenario", "rate", "duration", "trace"):
                assert f'"{field}"' in page
            form = {"user_count": 50, "spawn_rate": 50, "host": url, "scenario": "chat"}
            post("swarm", form | {"rate": "10", "duration": "60s"})
            wait_for(lambda: metric_now() > 5)
            post("stop", {})
            first = latest(tmp_path)
            wait_for((first.path / "summary.json").exists)
            post("swarm", form | {"rate": "", "user_count": 3, "duration": "2s"})
            wait_for(lambda: latest(tmp_path).path != first.path)
            second = latest(tmp_path)
            wait_for((second.path / "summary.json").exists)
        finally:
            process.terminate()
            process.wait(PATIENCE_S)
    assert first.summary["loop"] == "open"
    assert first.summary["requests"]["cancelled"] > 0
    assert second.summary["loop"] == "closed"
    assert second.summary["requests"]["ok"] > 0
    check_accounts(first)
    check_accounts(second)


def post(path: str, form: dict[str, Any]) -> None:
    """Post a form to Locust's web UI."""
    data = urllib.parse.urlencode(form).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:18089/{path}", data) as answer:
        assert json.load(answer)["success"]


def metric_now() -> float:
    """Answered requests, as the web UI's own /metrics says now."""
    text = fetch_when_up("http://127.0.0.1:18089/metrics")
    ok = [line for line in text.splitlines() if 'requests_total{outcome="ok"' in line]
    return float(ok[0].split()[-1]) if ok else 0.0
