"""Queries name what is exported, and compute what they say."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from panels import RULES, chosen, filled, panel_queries
from prometheus_process import tool

from dashboards import queries, shared
from loadstone.errors import UsageError
from loadstone.vocabulary import Client, MetricSpec, Server

PANELS = list(panel_queries())
LEFT_FOR_LATER = {
    Client.VERDICT_REASONS: "how many; the verdict's panel shows what they came to",
    Server.SLEEP_STATE: "constant: the emulated engine is always awake",
    Server.PROMPT_TOKENS_BY_SOURCE: "computed or cached: the prefix hits tell",
    Server.PROMPT_TOKENS_CACHED: "the prefix hits, of requests that began to answer",
    Server.REQUEST_MAX_GENERATION: "equal to the answer's length: n is 1",
    Server.REQUEST_MAX_TOKENS: "what was asked for; a run's plan has it",
    Server.PREFILL_COMPUTED: "the prompt's length less its prefix hits",
    Server.REQUEST_N: "constant: more than one answer is refused",
    Server.REQUEST_PREEMPTIONS: "the panel of preemptions counts the same",
    Server.GENAI_DURATION: "the same as vLLM's, under OpenTelemetry's name",
    Server.GENAI_TTFT: "the same as vLLM's, under OpenTelemetry's name",
    Server.GENAI_TPOT: "the same as vLLM's, under OpenTelemetry's name",
}
"""Metrics that are on no panel, and why not."""


def exported() -> set[MetricSpec]:
    """Return every metric of both sides."""
    return {*queries.CLIENT.values(), *queries.SERVER.values()}


def drawn() -> set[MetricSpec | str]:
    """Return what the panels ask for: specs, or names that nobody exports."""
    return {metric for panel in PANELS for metric in queries.metrics_in(panel.expr)}


def test_every_query_names_a_metric() -> None:
    """Nothing is asked for that is not in the vocabulary."""
    assert {metric for metric in drawn() if isinstance(metric, str)} == set()
    for panel in PANELS:
        assert list(queries.metrics_in(panel.expr)), panel


def test_every_metric_is_on_a_panel_or_has_a_reason() -> None:
    """What is exported can be seen; a new metric asks for a panel or for a reason."""
    assert exported() - drawn() == set(LEFT_FOR_LATER)


def test_an_unknown_name_is_seen() -> None:
    """The check above sees a name that nobody exports, and a histogram's bare name."""
    found = list(
        queries.metrics_in('rate(nobody{a="b"}[5m]) + loadstone_ttft_seconds{}')
    )
    assert found == ["nobody", "loadstone_ttft_seconds"]


def test_rules_name_metrics() -> None:
    """Recording and alerting rules ask for what is exported."""
    text = RULES.read_text()
    asked = list(queries.metrics_in(text))
    asked += [m for name in re.findall(r"vllm:\w+", text)
              for m in queries.metrics_in(f"{name}{{")]  # fmt: skip
    assert len(asked) > 10
    assert {metric for metric in asked if isinstance(metric, str)} == set()


def test_every_histogram_has_the_bounds_of_its_slo() -> None:
    """The SLO variables and the rules count at bounds, as they are exported."""
    for limits, spec in (
        (shared.TTFT_SLO, Client.TTFT_INTENDED),
        (shared.TPOT_SLO, Client.TPOT),
        (shared.RESPONSE_SLO, Client.RESPONSE_TIME),
    ):
        assert set(limits) <= set(spec.bounds)
    used = set(re.findall(r'le="([^"]+)"', RULES.read_text()))
    assert used <= {queries.bound(Client.TTFT_INTENDED, b) for b in shared.TTFT_SLO}


def test_a_limit_between_bounds_is_refused() -> None:
    """An attainment there would be a guess."""
    with pytest.raises(UsageError, match="no bound"):
        queries.bound(Client.TTFT, 0.3)


# Five minutes of steady traffic, a sample every 5 s: 100 requests, of which 90 are
# answered, at $0.02 and 9,000 tokens, with TTFT within 0.25, 0.5 and 1 s. Then nothing.
STEADY = "0+{}x60 {}x120"
SERIES = {
    'loadstone_requests_total{outcome="ok"}': 90,
    'loadstone_requests_total{outcome="failed"}': 10,
    "loadstone_requests_scheduled_total": 110,
    'loadstone_output_tokens_total{tenant="a"}': 9000,
    'loadstone_input_tokens_total{tenant="a"}': 5000,
    "loadstone_energy_joules_total": 1800,
    "vllm:generation_tokens_total": 9000,
    "loadstone_cost_usd_total": 0.02,
    'loadstone_ttft_intended_seconds_bucket{le="0.25"}': 45,
    'loadstone_ttft_intended_seconds_bucket{le="0.5"}': 81,
    'loadstone_ttft_intended_seconds_bucket{le="1.0"}': 90,
    'loadstone_ttft_intended_seconds_bucket{le="+Inf"}': 90,
    "loadstone_ttft_intended_seconds_count": 90,
    "loadstone_ttft_intended_seconds_sum": 27,
}
MEANINGS = [
    ("overview.json", "Success", 0.9),
    ("overview.json", "Not answered", 0.1),
    ("overview.json", "TTFT within SLO", 0.9),
    ("overview.json", "TTFT p99", 0.95),
    ("overview.json", "Output tokens/s", 1800),
    ("overview.json", "Output tokens/s/GPU", 450),
    ("overview.json", "USD per request", 0.02 / 90),
    ("overview.json", "USD per 1M output tok", 0.02 / 9000 * 1e6),
    ("cost.json", "USD per hour", 0.02 / 5 * 3600),
    ("cost.json", "USD per request", 0.02 / 90),
    ("cost.json", "USD per 1M output tok", 0.02 / 9000 * 1e6),
    ("cost.json", "Energy per output token", 0.2),
    ("cost.json", "gCO2 per 1M output tok", 0.2 * 1.12 / 3.6e6 * 366 * 1e6),
    ("cost.json", "Idle share", 0.75),
    ("load.json", "Asked", 22),
    ("load.json", "Sent", 20.4),
    ("load.json", "Due and not sent", 110 * 60 - 100 * 60 - 120 - 5),
]
"""What tiles show of that; the first query of the first panel with that title."""


def query_of(board: str, panel: str) -> str:
    """Return the first query of a panel, with the variables' first choices."""
    expr = next(p.expr for p in PANELS if (p.board, p.panel) == (board, panel))
    return filled(expr, chosen() | {"__rate_interval": "20s"})


def test_tiles_compute_what_they_say(tmp_path: Path) -> None:
    """Of made series each tile shows the figure worked out by hand; idle is nothing."""
    series = [
        {"series": name, "values": STEADY.format(step, 60 * step)}
        for name, step in SERIES.items()
    ]
    series += [
        {"series": "loadstone_requests_in_flight", "values": "0+2x60 120x120"},
        {"series": "loadstone_requests_dropped_total", "values": "5x180"},
        {"series": "DCGM_FI_PROF_GR_ENGINE_ACTIVE", "values": "0.25x180"},
    ]
    busy = [
        {
            # promtool compares to the last bit, so the millionths are rounded off.
            "expr": f"round(({query_of(board, panel)}) / {value!r} * 1e6)",
            "eval_time": "5m",
            "exp_samples": [{"labels": "{}", "value": 1e6}],
        }
        for board, panel, value in MEANINGS
    ]
    idle = [
        {"expr": query_of(board, panel), "eval_time": "10m", "exp_samples": []}
        for board, panel in (
            ("overview.json", "Success"),
            ("overview.json", "TTFT within SLO"),
            ("overview.json", "Cost per request"),
        )
    ]
    test = {"interval": "5s", "input_series": series, "promql_expr_test": busy + idle}
    path = tmp_path / "test.json"  # JSON is YAML
    path.write_text(json.dumps({"evaluation_interval": "5s", "tests": [test]}))
    done = subprocess.run(
        [tool("promtool"), "test", "rules", path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_tenants_cost_is_its_share_of_the_work(tmp_path: Path) -> None:
    """Of $14.4 an hour: 9,000 + 0.4 x 5,000 units against 1,000, worked out by hand."""
    series = {
        'loadstone_output_tokens_total{tenant="a"}': 9000,
        'loadstone_input_tokens_total{tenant="a"}': 5000,
        'loadstone_output_tokens_total{tenant="b"}': 1000,
        'loadstone_input_tokens_total{tenant="b"}': 0,
        "loadstone_cost_usd_total": 0.02,
    }
    asked = f"round(({query_of('cost.json', 'Cost per hour by tenant')}) * 1e3)"
    test = {
        "interval": "5s",
        "input_series": [
            {"series": name, "values": f"0+{step}x60"} for name, step in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": asked,
                "eval_time": "5m",
                "exp_samples": [
                    {"labels": '{tenant="a"}', "value": 13_200},
                    {"labels": '{tenant="b"}', "value": 1_200},
                ],
            }
        ],
    }
    path = tmp_path / "test.json"
    path.write_text(json.dumps({"evaluation_interval": "5s", "tests": [test]}))
    done = subprocess.run(
        [tool("promtool"), "test", "rules", path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
