"""A run, the mock and a real Prometheus: every query of every dashboard finds data.

No Grafana is here; this asks what Grafana would ask, through the same HTTP API.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from math import ceil
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest
import vllm_dashboards
from panels import (
    RULES,
    LabelValues,
    PanelQuery,
    chosen,
    filled,
    panel_queries,
    variable_queries,
)
from processes import Results, fetch_when_up, latest, mock_server, read_until, start
from prometheus_process import Prometheus, finite, prometheus

from dashboards.queries import CLIENT, metrics_in
from loadstone.telemetry.prometheus import CONTENT_TYPE
from loadstone.vocabulary import Client

RATE, DURATION_S = 20, 14
ELSEWHERE = ("rag.json",)
"""Boards that a chat leaves empty; `test_rag.py` has a run for them."""
AFTERWARDS = "final"
"""The job under which the run's last state is scraped, from a file."""


@dataclass(frozen=True)
class Observed:
    """A run that is over, and the Prometheus that saw it."""

    prometheus: Prometheus
    began: float
    """When the load generator was scraped for the first time."""
    ended: float
    results: Results

    @property
    def amid(self) -> float:
        """A moment at which requests came and ended."""
        return self.began + DURATION_S - 2


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """Drive a mock of two workers, watched; then show the run's last state."""
    folder = tmp_path_factory.mktemp("watched")
    rack = ("--vms", "2", "--workers", "2")
    with prometheus(folder, [RULES]) as server, mock_server(*rack) as url:
        mock = f"{url}/metrics"
        workers = json.loads(fetch_when_up(f"{url}/workers"))["workers"]
        hosts = [part for worker in workers for part in ("--host", worker["url"])]
        process = start(
            "run", "azure-chat", "--rate", str(RATE), "--duration", f"{DURATION_S}s",
            "--metrics-port", "0", "--out", str(folder), *hosts,
        )  # fmt: skip
        try:
            client = read_until(process, "metrics  ").split()[-1]
            server.scrape(mock=mock, loadgen=client)
            server.wait_for('loadstone_requests_total{job="loadgen"} > 0')
            began = time.time()
            said, _ = process.communicate(timeout=90)
        finally:
            process.kill()
        ended = time.time()
        results = latest(folder)
        assert (results.path / "metrics.prom").exists(), said
        with served(results.path) as files:
            server.scrape(mock=mock, **{AFTERWARDS: f"{files}/metrics.prom"})
            server.wait_for('loadstone_requests_total{job="final"}')
            server.wait_for("sum(vllm:num_requests_running) == 0")
            yield Observed(server, began, ended, results)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder's files over HTTP."""

    class Quiet(SimpleHTTPRequestHandler):
        """Says nothing of what it serves, but for its type."""

        extensions_map: ClassVar = {
            ".prom": CONTENT_TYPE
        }  # Prometheus 3 insists on one

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    handler = partial(Quiet, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(observed: Observed, query: PanelQuery, values: dict[str, str]) -> list[float]:
    """Ask a panel's query as Grafana would, and return the numbers found."""
    expr = filled(query.expr, values)
    if query.instant:
        return finite(observed.prometheus.instant(expr, observed.amid))
    return finite(observed.prometheus.range(expr, observed.began, observed.ended))


def values_of(
    observed: Observed, query: LabelValues, values: dict[str, str]
) -> list[str]:
    """Return what a variable offers, asked as Grafana does."""
    found: list[str] = observed.prometheus.get(
        f"label/{query.label}/values",
        **{"match[]": filled(query.series, values)},
        start=observed.began,
        end=observed.ended,
    )
    return found


def some_of_each(observed: Observed) -> dict[str, str]:
    """Choose one value for each variable, each within the choices before it."""
    values = chosen()
    for query in variable_queries():
        found = values_of(observed, query, values)
        offered = [value for value in found if value != AFTERWARDS]
        assert offered, f"{query.board}: ${query.variable} offers nothing"
        values[query.variable] = offered[0]
    return values


def test_every_variable_offers_what_there_is(observed: Observed) -> None:
    """The chain of variables leads from the data source to what was run."""
    values = some_of_each(observed)
    assert (values["job"], values["server"]) == ("loadgen", "mock")
    assert (values["scenario"], values["tenant"]) == ("azure-chat", "default")
    assert values["model"] == observed.results.summary["model"]


@pytest.mark.parametrize("choice", ["all", "one of each"])
def test_every_panel_shows_something(observed: Observed, choice: str) -> None:
    """Each query finds numbers, with everything chosen and with one of each.

    No query is excused: what did not happen here (errors, preemptions) is counted as 0.
    """
    values = chosen() if choice == "all" else some_of_each(observed)
    queries = [q for q in panel_queries() if q.board not in ELSEWHERE]
    empty = {str(q): q.expr for q in queries if not ask(observed, q, values)}
    assert len(queries) > 100
    assert empty == {}


def test_a_real_endpoint_leaves_only_the_servers_panels_empty(
    observed: Observed,
) -> None:
    """What asks for the load generator's metrics shows something without a server's."""
    values = chosen() | {"server": "nobody", "model": "nobody"}
    of_client = set(CLIENT.values())
    queries = [
        q
        for q in panel_queries()
        if q.board not in ELSEWHERE and of_client & set(metrics_in(q.expr))
    ]
    assert {q.board for q in queries} == {
        "overview.json", "latency.json", "load.json", "cost.json",
    }  # fmt: skip
    empty = {str(q): q.expr for q in queries if not ask(observed, q, values)}
    assert empty == {}


def test_prometheus_has_what_the_rows_have(observed: Observed) -> None:
    """Outcomes, tokens and TTFT of the run are those of its rows, to the last one."""
    results, value = observed.results, observed.prometheus.value
    rows, summary = results.rows, results.summary
    ok = [row for row in rows if row["outcome"] == "ok"]
    assert len(ok) > RATE * DURATION_S / 2
    for outcome, n in (Counter(row["outcome"] for row in rows)).items():
        series = f'loadstone_requests_total{{job="final", outcome="{outcome}"}}'
        assert value(series) == n == summary["requests"][outcome]
    for side in ("input", "output"):
        counted = sum(row[f"{side}_tokens"] for row in ok)
        name = f'loadstone_{side}_tokens_total{{job="final"}}'
        assert value(name) == counted == summary["tokens"][side]
    ttft = sorted(row["first_s"] - row["sent_s"] for row in ok)
    assert value('loadstone_ttft_seconds_count{job="final"}') == len(ttft)
    # Stamps in rows are rounded to the microsecond.
    assert value('loadstone_ttft_seconds_sum{job="final"}') == pytest.approx(
        sum(ttft), abs=1e-6 * len(ttft)
    )
    for bound in ("0.06", "0.1", "0.25"):
        within = f'loadstone_ttft_seconds_bucket{{job="final", le="{bound}"}}'
        assert value(within) == sum(t <= float(bound) for t in ttft)
    # The quantile that a panel shows lies in the bucket of the rows' own.
    p50 = value('histogram_quantile(0.5, loadstone_ttft_seconds_bucket{job="final"})')
    true = ttft[ceil(len(ttft) / 2) - 1]
    bounds = (0.0, *Client.TTFT.bounds)
    low = max(b for b in bounds if b < true)
    assert low <= p50 <= min(b for b in bounds if b >= true)


def test_the_mock_counted_what_the_client_counted(observed: Observed) -> None:
    """Requests and tokens agree on both sides, scraped live from the mock."""
    value, rows = observed.prometheus.value, observed.results.rows
    assert {row["outcome"] for row in rows} == {"ok"}
    tokens = {
        "vllm:prompt_tokens_total": sum(row["input_tokens"] for row in rows),
        "vllm:generation_tokens_total": sum(row["output_tokens"] for row in rows),
        "vllm:request_success_total": len(rows),
        "vllm:time_to_first_token_seconds_count": len(rows),
        "vllm:e2e_request_latency_seconds_count": len(rows),
    }
    assert {name: value(f'sum({name}{{job="mock"}})') for name in tokens} == tokens
    chat = 'handler="/v1/chat/completions", status="2xx"'
    assert value(f"sum(http_requests_total{{{chat}}})") == len(rows)


def test_live_figures_are_those_of_the_run(observed: Observed) -> None:
    """While it went, what was scraped grew up to what the run ended with."""
    live = observed.prometheus.range(
        'sum(loadstone_requests_total{job="loadgen"})', observed.began, observed.ended
    )
    values = finite(live)
    assert values == sorted(values)
    assert len(values) >= DURATION_S - 4
    assert 0.8 * len(observed.results.rows) <= values[-1] <= len(observed.results.rows)


def test_rules_are_evaluated_without_an_error(observed: Observed) -> None:
    """Prometheus runs every rule, and the records have values."""
    groups = observed.prometheus.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(re.findall(r"- (?:record|alert): ", RULES.read_text()))
    assert {rule["health"] for rule in rules} == {"ok"}
    for rule in rules:
        if rule["type"] == "recording":
            found = observed.prometheus.range(
                rule["name"], observed.began, observed.ended
            )
            assert finite(found), rule["name"]


def test_vllms_own_dashboards_find_the_mock(observed: Observed) -> None:
    """Queries of vLLM's public dashboards are answered, but for absent features."""
    (mock, *_) = observed.prometheus.instant("vllm:num_requests_running")
    values = some_of_each(observed) | {"instance": mock["metric"]["instance"]}
    asked = [*vllm_dashboards.classic(), *vllm_dashboards.overview()]
    assert len(asked) > 50
    queries = [PanelQuery("vLLM", "", "A", expr, instant=False) for expr in asked]
    assert [q.expr for q in queries if not ask(observed, q, values)] == []
    for series in vllm_dashboards.absent():
        assert observed.prometheus.instant(series) == []


def test_vllms_own_variables_find_the_mock(observed: Observed) -> None:
    """`label_values(model_name)` without a metric, as the classic dashboard asks."""
    model = observed.results.summary["model"]
    assert observed.prometheus.get("label/model_name/values") == [model]
    for label in ("job", "instance", "engine"):
        found = LabelValues("vLLM", label, "vllm:num_requests_running", label)
        assert values_of(observed, found, {})
