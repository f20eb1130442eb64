"""Several pages of metrics as one: sums, deaths, exemplars, odd labels."""

import pytest
from scraped import Page

from loadstone.telemetry.merge import Merger


def page(requests: float, *, engine: int, running: float, lag: int = 0) -> str:
    """Write a worker's page: one series of its own, others that all workers have."""
    return f"""\
# HELP http_requests_total Requests.
# TYPE http_requests_total counter
http_requests_total{{status="2xx"}} {requests}
# HELP vllm:num_requests_running Running.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="{engine}"}} {running}
# HELP loadstone_lag_alarm Late.
# TYPE loadstone_lag_alarm gauge
loadstone_lag_alarm {lag}.0
# HELP vllm:iteration_tokens_total Tokens.
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{{le="1.0"}} {requests / 2}
vllm:iteration_tokens_total_bucket{{le="+Inf"}} {requests}
vllm:iteration_tokens_total_count {requests}
vllm:iteration_tokens_total_sum {requests * 3}
"""


def read(text: str) -> Page:
    """Read a page with prometheus_client's parser."""
    return Page(text, "text/plain; version=0.0.4")


def value(text: str, name: str, **labels: str) -> float:
    """Return the one sample of that name and labels."""
    found = [
        v for given, v in read(text).samples(name) if labels.items() <= given.items()
    ]
    assert len(found) == 1, (name, labels, found)
    return float(found[0])


def test_counters_and_histograms_add_up_and_of_gauges_the_largest_counts() -> None:
    """A series that one worker has stays as it is."""
    text = Merger(2).merge(
        [(0, page(10, engine=0, running=3)), (0, page(4, engine=1, running=5, lag=1))]
    )
    assert value(text, "http_requests_total") == 14
    assert value(text, "vllm:num_requests_running", engine="0") == 3
    assert value(text, "vllm:num_requests_running", engine="1") == 5
    assert value(text, "loadstone_lag_alarm") == 1
    assert value(text, "vllm:iteration_tokens_total_bucket", le="1.0") == 7
    assert value(text, "vllm:iteration_tokens_total_count") == 14
    assert value(text, "vllm:iteration_tokens_total_sum") == 42


def test_no_sum_falls_when_a_worker_dies() -> None:
    """Down, then back from zero, then dead once more: what was counted stays."""
    merger, other = Merger(2), page(100, engine=1, running=0)
    seen = []
    for mine in (
        (0, page(10, engine=0, running=3)),
        None,
        (1, page(1, engine=0, running=1)),
        (1, page(6, engine=0, running=1)),
        None,
        (2, page(0, engine=0, running=0)),
    ):
        text = merger.merge([mine, (0, other)])
        count = value(text, "http_requests_total")
        assert value(text, "vllm:iteration_tokens_total_count") == count
        assert value(text, "vllm:iteration_tokens_total_sum") == 3 * count
        seen.append(count)
        if mine is None:
            assert 'engine="0"' not in text
    assert seen == [110, 110, 111, 116, 116, 116]


def test_a_death_between_two_scrapes_is_seen() -> None:
    """The worker was back before anyone looked; it may even have counted more since."""
    merger = Merger(1)
    merger.merge([(0, page(10, engine=0, running=0))])
    text = merger.merge([(3, page(12, engine=0, running=0))])
    assert value(text, "http_requests_total") == 22


def test_lost_counts_come_back_in_the_other_format() -> None:
    """A scraper that asks for OpenMetrics gets what a classic one had seen."""
    merger = Merger(1)
    merger.merge([(0, page(10, engine=0, running=0))])
    modern = page(1, engine=0, running=0).replace(
        "HELP http_requests_total", "HELP http_requests"
    )
    modern = (
        modern.replace("TYPE http_requests_total", "TYPE http_requests") + "# EOF\n"
    )
    text = merger.merge([(1, modern)])
    assert 'http_requests_total{status="2xx"} 11.0\n' in text
    assert "EOF" not in text


TRACED = '# {trace_id="ab"} 0.2 1700000000.0'


@pytest.mark.parametrize(
    "label", ["m", "a b", 'say \\"hi\\" # {x', "br{ace}", "back\\\\", "line\u2028sep"]
)
def test_exemplars_and_odd_labels_survive(label: str) -> None:
    """What is in quotes is not taken for anything else."""
    head = f'ttft_bucket{{le="1.0",model="{label}"}}'
    text = f"# HELP ttft T.\n# TYPE ttft histogram\n{head} 2.0 {TRACED}\n"
    plain = f"# HELP ttft T.\n# TYPE ttft histogram\n{head} 3.0\n"
    merged = Merger(3).merge([(0, text), (0, plain), None])
    assert merged == f"# HELP ttft T.\n# TYPE ttft histogram\n{head} 5.0 {TRACED}\n"


def test_nobody_there_is_an_empty_page() -> None:
    """Nothing says what the counts would be of; they are back with the first worker."""
    merger = Merger(1)
    merger.merge([(0, page(10, engine=0, running=0))])
    assert merger.merge([None]) == ""
    text = merger.merge([(1, page(1, engine=0, running=0))])
    assert value(text, "http_requests_total") == 11
