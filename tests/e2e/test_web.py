"""Locust's web UI with our part in it, in a real browser."""

import csv
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from urllib.parse import urljoin

import pytest
from processes import PATIENCE_S, REPOSITORY, fetch_when_up, free_port, mock_server

CHROMIUM = (
    "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
    "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--virtual-time-budget=6000", "--window-size=1280,900",
)  # fmt: skip


@contextmanager
def locust_ui(host: str, out: Path, *options: str) -> Iterator[str]:
    """Run Locust with its web UI, its test started, for the block; yields its URL."""
    port = free_port()
    command = [sys.executable, "-m", "locust", "-f", "loadgen/locustfile.py", "--host"]
    command += [host, "--web-host", "127.0.0.1", "--web-port", str(port), "--autostart"]
    process = subprocess.Popen(
        [*command, "--out", str(out), *options],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def page(url: str, profile: Path) -> str:
    """Return a page's DOM as Chromium has it after six seconds of its own time."""
    done = subprocess.run(
        [*CHROMIUM, f"--user-data-dir={profile}", "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    return done.stdout


def answered(url: str) -> int:
    """Return how many requests were answered, by the LLM tab's CSV."""
    rows = list(csv.DictReader(StringIO(fetch_when_up(f"{url}/llm/table.csv"))))
    return int(rows[0]["ok"]) if rows else 0


@pytest.mark.timeout(240)
def test_the_llm_tab_is_filled_and_the_charts_are_drawn(tmp_path: Path) -> None:
    """During a run the tab on `/` has figures, `/llm` has charts; the CSV agrees."""
    options = ("--rate", "20", "--duration", "120s", "-u", "200")
    with mock_server() as host, locust_ui(host, tmp_path / "runs", *options) as url:
        deadline = time.monotonic() + PATIENCE_S
        while answered(url) < 20:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        tab = page(f"{url}/?tab=llm", tmp_path / "chromium")
        charts = page(f"{url}/llm", tmp_path / "chromium")
        (row,) = csv.DictReader(StringIO(fetch_when_up(f"{url}/llm/table.csv")))
        stats = json.loads(fetch_when_up(f"{url}/stats/requests"))
    assert "TTFT p50 / p95 / p99, ms" in tab
    assert re.search(
        r">azure-chat<.*>generate<.*\d+\.\d / \d+\.\d / \d+\.\d<", tab, re.DOTALL
    )
    drawn = re.findall(r'id="(\w+)" data-points="(\d+)"', charts)
    assert {name for name, _ in drawn} == {"tokens", "ttft", "tpot", "requests"}
    assert all(int(points) > 3 for _, points in drawn)
    assert charts.count("<canvas") == 4
    assert 0 < float(row["ttft_p50_ms"]) <= float(row["ttft_p99_ms"])
    assert float(row["output_tokens_per_s"]) > 0
    assert float(row["usd_per_request"]) > 0
    (table,) = stats["extended_stats"]
    assert table["key"] == "llm"
    assert table["data"][0]["scenario"] == "azure-chat"


def test_our_pages_need_no_network(tmp_path: Path) -> None:
    """Every address in the page is relative, and everything it names is served."""
    with mock_server() as host, locust_ui(host, tmp_path, "--rate", "1") as url:
        text = fetch_when_up(f"{url}/llm")
        links = re.findall(r'(?:src|href)="([^"]+)"', text)
        assert links
        for link in links:
            assert "//" not in link
            address = urljoin(f"{url}/llm", link)
            with urllib.request.urlopen(address) as served:
                assert served.status == 200
