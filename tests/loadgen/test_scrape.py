"""Servers watched by another process: queue and KV use beside the client's TTFT."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from processes import alive, wait_for
from quirks import Quirk, endpoint_with
from sessions import constant, drive

from loadgen.endpoint import Endpoint
from loadgen.pages import metrics_url, pages_of
from loadgen.scrape import Scraper, Watch, watch_of
from loadstone.errors import UsageError
from loadstone.runs import SERVER_METRICS
from loadstone.traffic.serverside import describe_server, read_scrapes

KEY = "sk-scraped"
# As they write them, labels included; the queue is as long as questions came.
PAGES = {
    "vllm": ("/metrics", """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} {posts}
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 77
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:generation_tokens_total{engine="0",model_name="m"} {posts}0
"""),
    "sglang": ("/metrics", """# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="m",tp_rank="0"} 2.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",tp_rank="0"} {posts}
sglang:token_usage{engine_type="unified",model_name="m",tp_rank="0"} 0.25
sglang:generation_tokens_total{is_streaming="true",model_name="m"} {posts}0
"""),
    "trtllm": ("/prometheus/metrics", """# TYPE trtllm_kv_cache_utilization gauge
trtllm_num_requests_running{engine_type="undefined",model_name="m"} 2.0
trtllm_num_requests_waiting{engine_type="undefined",model_name="m"} {posts}
trtllm_kv_cache_utilization{engine_type="undefined",model_name="m"} 0.25
trtllm_generation_tokens_total{engine_type="undefined",model_name="m"} {posts}0
"""),
}  # fmt: skip


def watch(url: str, folder: Path, setting: str = "auto") -> Watch:
    """Return what a scraping process is told, with a short period."""
    endpoint = Endpoint.parse(url, api_key=KEY)
    given = {"ca_file": None, "proxy": None}
    made = watch_of(setting, [endpoint], given, t0=time.monotonic(), folder=folder)
    return replace(made, period_s=0.1)


@pytest.mark.parametrize("engine", PAGES)
def test_queue_and_kv_use_beside_ttft(engine: str, tmp_path: Path) -> None:
    """Found without being told where; for the same window as the client's figures."""
    path, text = PAGES[engine]
    quirk = Quirk(models=("m",), gap_s=0.01, pages={path: text})
    with endpoint_with(quirk) as url:
        scraper = Scraper(watch(url, tmp_path))
        try:
            done = drive(url, tmp_path / "run", constant(20, 2, 5), cap=20)
        finally:
            scraper.close()
    scrapes = read_scrapes(
        (tmp_path / SERVER_METRICS).read_text().splitlines(keepends=True)
    )
    assert {s.source for s in scrapes} == {engine}
    told = describe_server(scrapes, done.rows, (0.0, scrapes[-1].t))
    assert told["kv_usage"]["mean"] == pytest.approx(0.25)
    assert told["running"]["max"] == 2.0
    assert 0 < told["waiting"]["mean"] < told["waiting"]["max"] <= 40
    assert told["generation_tok_s"]["mean"] > 0
    both = [at for at in told["timeline"] if at["requests"] and "waiting" in at]
    assert both
    assert all(at["ttft_p50_s"] > 0 for at in both)
    assert [s["page"] for s in told["sources"]] == [url + path]
    assert f"Bearer {KEY}" in quirk.keys
    assert KEY not in (tmp_path / SERVER_METRICS).read_text()


def test_pages_that_fail_and_keys_for_others(tmp_path: Path) -> None:
    """They are told, not hidden; another server does not see the endpoint's key."""
    other = Quirk(
        pages={"/metrics": "python_gc 1\n", "/dcgm": "DCGM_FI_DEV_GPU_UTIL 50\n"}
    )
    with endpoint_with(Quirk()) as url, endpoint_with(other) as gpus:
        setting = f"{gpus}/dcgm,{gpus}/metrics,{gpus}/none,http://127.0.0.1:9/metrics"
        scraper = Scraper(watch(url, tmp_path, setting))
        lines = tmp_path / SERVER_METRICS
        wait_for(lambda: lines.exists() and len(lines.read_text().splitlines()) >= 4)
        scraper.close()
    scrapes = read_scrapes(lines.read_text().splitlines(keepends=True))[:4]
    assert [(s.source, s.error) for s in scrapes] == [
        ("dcgm", ""), ("", "no_known_metrics"), ("", "http_404"),
        ("", "connect_refused"),
    ]  # fmt: skip
    assert set(other.keys) == {""}


def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """A killed run leaves no process behind, and the key is on no command line."""
    with endpoint_with(Quirk()) as url:
        told = json.dumps(asdict(watch(url, tmp_path)))
        code = (
            "import subprocess, sys, time;"
            "p = subprocess.Popen([sys.executable, '-m', 'loadgen.scrape'],"
            " stdin=subprocess.PIPE);"
            "p.stdin.write(sys.stdin.read().encode() + b'\\n'); p.stdin.flush();"
            "print(p.pid, flush=True); time.sleep(60)"
        )
        parent = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(told)
        parent.stdin.close()
        child = int(parent.stdout.readline())
        wait_for((tmp_path / SERVER_METRICS).exists)
        assert KEY not in Path(f"/proc/{child}/cmdline").read_text()
        assert KEY.encode() not in Path(f"/proc/{child}/environ").read_bytes()
        os.kill(parent.pid, 9)
        parent.wait()
        parent.stdout.close()
        wait_for(lambda: not alive(child))


def test_pages() -> None:
    """Named, or guessed from the endpoint; its path is not theirs."""
    assert [str(p) for p in pages_of("auto", "https://h:1/openai/v1")] == [
        "https://h:1/metrics", "https://h:1/prometheus/metrics",
        "https://h:1/v1/metrics",
    ]  # fmt: skip
    assert [str(p) for p in pages_of("http://g:9400/metrics,http://x", "http://h")] == [
        "http://g:9400/metrics", "http://x/metrics",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "url",
    ["http://u:secret@h/metrics", "http://h/metrics?key=secret", "ftp://h/secret",
     "http://h:99999/secret", "http://[secret", ""],
)  # fmt: skip
def test_what_is_no_page(url: str) -> None:
    """Above all nothing with a secret in it, which would be in the plan."""
    with pytest.raises(UsageError) as caught:
        metrics_url(url)
    assert "http://" in caught.value.hint
    if "@" in url or "?" in url:
        assert "secret" not in caught.value.message
