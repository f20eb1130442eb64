"""Collectors that are dead, dumb or not there, and telemetry that is off."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from collector import collecting, dead_url, never_answering
from processes import (
    PATIENCE_S,
    REPOSITORY,
    Results,
    latest,
    loadstone,
    mock_server,
    read_until,
    start,
)
from traced_runs import ROWS, drive, environ, sampled, watched_mock

SERVER = {
    "gen_ai.server.request.duration",
    "gen_ai.server.time_to_first_token",
    "gen_ai.server.time_per_output_token",
}


def complaints(text: str) -> list[str]:
    """Return the lines of a log that are about telemetry."""
    words = ("telemetry", "otlp", "export")
    return [line for line in text.splitlines() if any(w in line.lower() for w in words)]


def locust_log(run: Results) -> str:
    """Return what Locust logged."""
    return (run.path / "locust.log").read_text()


def test_a_dead_collector_costs_one_line(trace: Path, tmp_path: Path) -> None:
    """The run is whole, ends in time and says once that nobody listens."""
    more = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": dead_url(),
        "OTEL_TRACES_SAMPLER": "always_on",
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
    }
    with mock_server() as url:
        done = drive(url, trace, tmp_path, **more)
    run = latest(tmp_path)
    assert done.returncode in (0, 4), done.stderr
    assert run.summary["requests"]["ok"] == ROWS - 1
    (line,) = complaints(locust_log(run))
    assert "does not reach its collector" in line
    assert "Connection refused" in line


def test_a_collector_that_never_answers_stalls_nothing(
    trace: Path, tmp_path: Path
) -> None:
    """The hub reads on: its loop is on time, and the end is bounded."""
    with never_answering() as dumb, mock_server() as url:
        more = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": dumb,
            "OTEL_TRACES_SAMPLER": "always_on",
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
        }
        done = drive(url, trace, tmp_path, "--drain", "5s", **more)
        ended = time.time()
    run = latest(tmp_path)
    assert done.returncode in (0, 4), done.stderr
    summary = run.summary
    assert summary["requests"]["ok"] == ROWS - 1
    # An export that blocked the hub would block it for seconds.
    assert summary["instrument"]["loop_lag_s"]["p99"] < 0.25
    assert ended - (run.path / "summary.json").stat().st_mtime < 5
    assert len(complaints(locust_log(run))) == 1


def test_a_mock_without_its_collector_serves_and_stops(tmp_path: Path) -> None:
    """It says so once, and closing takes no longer than it may."""
    more = {"OTEL_EXPORTER_OTLP_ENDPOINT": dead_url()}
    process = start(
        "serve", "--port", "0", env=environ(OTEL_METRIC_EXPORT_INTERVAL="100", **more)
    )
    read_until(process, "listening on ")
    said = read_until(process, "does not reach its collector")
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=PATIENCE_S)
    assert time.monotonic() - began < 4
    assert process.returncode == 0
    assert "Connection refused" in said
    assert not complaints(rest)


def test_grpc_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """By every entry, as wrong usage, naming the protocol that is spoken."""
    more = environ(
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4317",
        OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
    )
    load = ("--rate", "1", "--host", "http://127.0.0.1:1")
    plain = "-m locust -f loadgen/locustfile.py --headless --host http://127.0.0.1:1"
    ended = [
        loadstone("run", "chat", *load, "--out", str(tmp_path), env=more),
        loadstone("serve", "--port", "0", env=more),
        subprocess.run(
            [sys.executable, *plain.split()],
            cwd=REPOSITORY,
            env=more,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        ),
    ]
    for done in ended:
        assert done.returncode == 2
        assert "grpc" in done.stderr
        assert "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("on", [False, True])
def test_opentelemetry_is_imported_only_when_it_is_on(
    trace: Path, tmp_path: Path, *, on: bool
) -> None:
    """On neither side does a process pay for what it does not use."""
    more = {"PYTHONPROFILEIMPORTTIME": "1"}
    if on:
        more["OTEL_EXPORTER_OTLP_ENDPOINT"] = dead_url()
    process = start("serve", "--port", "0", "--grace", "1s", env=environ(**more))
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or "listening on " not in lines[-1]:
        lines.append(process.stdout.readline())
    done = drive(lines[-1].split()[-1], trace, tmp_path, **more)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE_S)
    run = latest(tmp_path)
    assert done.returncode in (0, 4), done.stderr
    for told, ours in (
        ("".join(lines), "mock_server.serve"),
        (locust_log(run), "loadgen.session"),
    ):
        assert ours in told
        assert ("opentelemetry.sdk" in told) is on
        assert ("opentelemetry.exporter" in told) is on


def test_without_telemetry_nothing_is_sampled(trace: Path, tmp_path: Path) -> None:
    """Rows have no trace, and the mock is told not to record any."""
    with collecting() as collector:
        more = collector.environ(OTEL_METRIC_EXPORT_INTERVAL="100")
        with watched_mock(**more) as url:
            done = drive(url, trace, tmp_path)
    assert done.returncode in (0, 4), done.stderr
    assert sampled(latest(tmp_path)) == 0
    assert not collector.spans
    assert collector.names() >= SERVER


def test_zero_ratio_leaves_the_metrics(trace: Path, tmp_path: Path) -> None:
    """No spans, every count."""
    with collecting() as collector, mock_server() as url:
        more = collector.environ(OTEL_TRACES_SAMPLER_ARG="0")
        done = drive(url, trace, tmp_path, "--json", **more)
    assert json.loads(done.stdout)["requests"]["sent"] == ROWS
    assert sampled(latest(tmp_path)) == 0
    assert not collector.spans
    points = collector.named("gen_ai.client.inference.duration")
    assert sum(p.count for p in points) == ROWS


def test_headers_and_resource_are_the_users(trace: Path, tmp_path: Path) -> None:
    """A key for the collector and a name for the service come from the environment."""
    with collecting() as collector, mock_server() as url:
        more = collector.environ(
            OTEL_EXPORTER_OTLP_HEADERS="x-key=secret",
            OTEL_SERVICE_NAME="rehearsal",
            OTEL_RESOURCE_ATTRIBUTES="service.version=9",
        )
        drive(url, trace, tmp_path, **more)
    assert {p.service for p in collector.points.values()} == {"rehearsal"}
    assert {h["x-key"] for h in collector.headers} == {"secret"}
