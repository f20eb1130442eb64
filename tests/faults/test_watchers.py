"""Who watches a run is away, hangs or comes back: the run goes on as if nobody were."""

import os
import socket
from pathlib import Path

from collector import collecting
from live import Load, mock
from processes import free_port


def test_a_collector_comes_back(tmp_path: Path) -> None:
    """What is counted is cumulative, so its first export tells the whole run so far."""
    port = free_port()
    telemetry = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_TRACES_SAMPLER": "always_off",
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
    }
    with mock() as served:
        load = Load(tmp_path, served.url, env=os.environ | telemetry)
        load.wait_for_rows()
        with collecting(port=port) as collector:
            ended = load.wait()
    assert ended.requests["ok"] == ended.requests["sent"] == 75
    durations = collector.named("gen_ai.client.operation.duration")
    durations += [p for p in collector.points.values() if p.name.endswith("duration")]
    assert max(point.count for point in durations) == 75
    log = (ended.run.path / "locust.log").read_text()
    assert log.count("does not reach its collector") == 1


def test_scrapes_that_hang(tmp_path: Path) -> None:
    """Who asks for metrics and reads none holds neither client nor mock."""
    port = free_port()
    with mock() as served:
        load = Load(tmp_path, served.url, "--metrics-port", str(port))
        load.wait_for_rows()
        hanging = []
        for url in (served.url, f"http://127.0.0.1:{port}"):
            where = url.removeprefix("http://").split(":")
            for _ in range(4):
                scrape = socket.socket()
                scrape.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
                scrape.connect((where[0], int(where[1])))
                scrape.sendall(b"GET /metrics HTTP/1.1\r\nHost: m\r\n\r\nGET /met")
                hanging.append(scrape)
        ended = load.wait()
        for scrape in hanging:
            scrape.close()
    assert ended.requests["ok"] == ended.requests["sent"] == 75
    # Held, the loop would have stood still for as long as they hang.
    assert ended.run.summary["instrument"]["loop_lag_s"]["p99"] < 0.25
    assert max(r["end_s"] - r["sent_s"] for r in ended.run.rows) < 5


def test_a_page_of_server_metrics_that_hangs(tmp_path: Path) -> None:
    """The server's own page is asked for by another process, and is said to be mute."""
    with socket.create_server(("127.0.0.1", 0)) as mute, mock() as served:
        page = f"http://127.0.0.1:{mute.getsockname()[1]}/metrics"
        load = Load(tmp_path, served.url, "--server-metrics", page, seconds=4)
        ended = load.wait()
    assert ended.requests["ok"] == ended.requests["sent"] == 100
    lines = (ended.run.path / "server_metrics.jsonl").read_text()
    assert "timeout_first_byte" in lines
