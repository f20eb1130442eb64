"""The server's figures over a run: what each engine calls them, and sums by hand."""

import pytest

from loadstone.traffic.engines import COUNTERS, ENGINES, SHARES, WANTED, read_engines
from loadstone.traffic.record import Outcome, RequestRecord
from loadstone.traffic.serverside import Scrape, describe_server, read_scrapes

# A few lines of each, with two replicas or GPUs.
PAGES = {
    "vllm": [
        ("vllm:num_requests_running", 3.0), ("vllm:num_requests_running", 5.0),
        ("vllm:num_requests_waiting", 2.0), ("vllm:kv_cache_usage_perc", 0.2),
        ("vllm:kv_cache_usage_perc", 0.4), ("vllm:generation_tokens_total", 1e6),
    ],
    "sglang": [
        ("sglang:num_running_reqs", 8.0), ("sglang:num_queue_reqs", 2.0),
        ("sglang:token_usage", 0.3), ("sglang:generation_tokens_total", 1e6),
    ],
    "trtllm": [
        ("trtllm_num_requests_running", 8.0), ("trtllm_num_requests_waiting", 2.0),
        ("trtllm_kv_cache_utilization", 0.3), ("trtllm_generation_tokens_total", 1e6),
    ],
    "nim": [
        ("num_requests_running", 8.0), ("num_requests_waiting", 2.0),
        ("gpu_cache_usage_perc", 0.3), ("generation_tokens_total", 1e6),
    ],
}  # fmt: skip


@pytest.mark.parametrize("source", PAGES)
def test_engines_by_our_words(source: str) -> None:
    """Whatever they are called there; replicas add up, shares are averaged."""
    found = read_engines([*PAGES[source], ("python_gc", 4.0)])
    assert found == {
        source: {
            "running": 8.0, "waiting": 2.0, "kv_usage": pytest.approx(0.3),
            "generation_tokens": 1e6,
        }
    }  # fmt: skip


def test_gpus_in_our_units() -> None:
    """Watts add up, millijoules become joules, percent a share; two names, one word."""
    found = read_engines([
        ("DCGM_FI_DEV_POWER_USAGE", 700.0), ("DCGM_FI_DEV_POWER_USAGE", 500.0),
        ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 5000.0),
        ("DCGM_FI_DEV_GPU_UTIL", 50.0), ("DCGM_FI_DEV_GPU_UTIL", 100.0),
        ("vllm:gpu_cache_usage_perc", 0.5), ("vllm:num_requests_running", float("nan")),
    ])  # fmt: skip
    assert found == {
        "vllm": {"kv_usage": 0.5},
        "dcgm": {"power_w": 1200.0, "energy_j": 5.0, "gpu_usage": 0.75},
    }


def test_the_table() -> None:
    """No name has two meanings, and every engine has a queue and its KV use."""
    names = [name for rows in ENGINES.values() for row in rows for name in row.names]
    assert len(names) == len(set(names)) == len(WANTED)
    assert not set(COUNTERS) & set(SHARES)
    for source, rows in ENGINES.items():
        words = [row.word for row in rows]
        assert len(words) == len(set(words))
        if source != "dcgm":
            assert {"running", "waiting", "kv_usage", "generation_tokens"} <= set(words)


def row(sent: float, ttft: float) -> RequestRecord:
    """Return an answered request."""
    return RequestRecord(
        id="1", scenario="chat", intended_s=sent, sent_s=sent, first_s=sent + ttft,
        last_s=sent + ttft, end_s=sent + ttft, outcome=Outcome.OK,
    )  # fmt: skip


def scrape(t: float, page: str = "a", **values: float) -> Scrape:
    """Return a scrape of a vLLM."""
    return Scrape(t, "vllm", page, values)


def test_figures_by_hand() -> None:
    """Levels have mean and maximum, counters a rate, over the window alone."""
    scrapes = [
        scrape(-1, waiting=99, generation_tokens=0),
        scrape(0, waiting=0, kv_usage=0.1, generation_tokens=100, energy_j=0),
        scrape(1, waiting=4, kv_usage=0.3, generation_tokens=400, energy_j=600),
        scrape(2, waiting=2, kv_usage=0.2, generation_tokens=700, energy_j=1200),
        scrape(3, waiting=99, generation_tokens=9999),
        Scrape(2, "", "b", {}, "connect_refused"),
    ]
    rows = [row(0.5, 0.02), row(1.5, 0.3), row(1.6, 0.1), row(2.5, 9.0)]
    told = describe_server(scrapes, rows, (0.0, 2.0))
    assert told["waiting"] == {"mean": 2.0, "max": 4, "n": 3}
    assert told["kv_usage"]["mean"] == pytest.approx(0.2)
    assert told["generation_tok_s"] == {"mean": 300.0}
    assert (told["energy_j"], told["power_from_energy_w"]) == (1200, 600.0)
    assert told["window"] == {"begin_s": 0.0, "end_s": 2.0}
    assert told["sources"] == [
        {"page": "a", "source": "vllm", "scrapes": 5, "failed": 0},
        {"page": "b", "source": "", "scrapes": 0, "failed": 1,
         "error": "connect_refused"},
    ]  # fmt: skip
    line = {at["t"]: at for at in told["timeline"]}
    assert (line[0.0]["waiting"], line[0.0]["ttft_p50_s"]) == (0, pytest.approx(0.02))
    assert (line[1.0]["waiting"], line[1.0]["requests"]) == (4, 2)
    assert line[1.0]["ttft_p99_s"] == pytest.approx(0.3)
    assert line[2.0]["ttft_p50_s"] is None


def test_servers_add_up() -> None:
    """Two pages read at one time are one level; shares are averaged, rates added."""
    scrapes = [
        scrape(t, page, running=n * (t + 1), kv_usage=n / 10, prompt_tokens=n * t * 100)
        for t in (0, 1, 2)
        for page, n in (("a", 1), ("b", 3))
    ]
    told = describe_server(scrapes, [], (0.0, 2.0))
    assert told["running"] == {"mean": 8.0, "max": 12, "n": 3}
    assert told["kv_usage"]["mean"] == pytest.approx(0.2)
    assert told["prompt_tok_s"]["mean"] == pytest.approx(400.0)


def test_a_counter_that_begins_again() -> None:
    """A server that was restarted counts from 0."""
    counts = [100, 200, 50, 150]
    scrapes = [scrape(t, generation_tokens=n) for t, n in enumerate(counts)]
    told = describe_server(scrapes, [], (0.0, 9.0))
    assert told["generation_tok_s"]["mean"] == pytest.approx((100 + 50 + 100) / 3)


def test_nothing_was_read() -> None:
    """Then there are sources that failed, and no figures."""
    told = describe_server([Scrape(1, "", "p", {}, "http_404")], [], (0.0, 2.0))
    assert set(told) == {"window", "sources", "timeline"}
    assert told["timeline"] == []


def test_lines_are_read_again() -> None:
    """As they were written; what a kill cut off is left out."""
    scrapes = [scrape(0.5, waiting=3.0), Scrape(1.5, "", "p", {}, "http_404")]
    lines = [s.to_line() for s in scrapes]
    assert read_scrapes([*lines, '{"t": 2.5, "sou']) == scrapes
