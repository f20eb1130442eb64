"""What vLLM's own dashboards ask, so that the mock can be held to answer it.

Names, labels and shapes are those of vllm-project/vllm, examples/observability:
`prometheus_grafana/grafana.json` (the classic one, which much was copied from) and
`dashboards/grafana/vllm_overview.json` (2026). Written anew from these facts.
"""

from collections.abc import Iterator
from typing import Final

_CLASSIC: Final = '{model_name="$model"}'
_FLEET: Final = '{job=~"$server", model_name=~"$model", instance=~"$instance"}'
_TARGET: Final = '{job=~"$server", instance=~"$instance"}'
_LATENCIES: Final = (
    "e2e_request_latency_seconds",
    "inter_token_latency_seconds",
    "time_to_first_token_seconds",
)
_PHASES: Final = (
    "request_queue_time_seconds",
    "request_prefill_time_seconds",
    "request_decode_time_seconds",
)
_LENGTHS: Final = ("request_prompt_tokens", "request_generation_tokens")
_TPOT: Final = "request_time_per_output_token_seconds"
_LEVELS: Final = {
    "num_requests_running": "count",
    "num_requests_waiting": "sum",
    "kv_cache_usage_perc": "max",
}
_ABSENT: Final = (
    "vllm:external_prefix_cache_queries_total",
    "vllm:mm_cache_queries_total",
    "vllm:spec_decode_num_drafts_total",
)
"""Of features that the mock refuses; a vLLM that does not use them has none either."""


def classic() -> Iterator[str]:
    """Yield the queries of the classic dashboard."""
    for name in _LATENCIES:
        for q in (0.99, 0.95, 0.9, 0.5):
            rate = f"rate(vllm:{name}_bucket{_CLASSIC}[$__rate_interval])"
            yield f"histogram_quantile({q}, sum by(le) ({rate}))"
        yield (
            f"rate(vllm:{name}_sum{_CLASSIC}[$__rate_interval])"
            f" / rate(vllm:{name}_count{_CLASSIC}[$__rate_interval])"
        )
    for name in (
        "prompt_tokens_total",
        "generation_tokens_total",
        "request_max_num_generation_tokens_sum",
        *(f"{phase}_sum" for phase in _PHASES),
    ):
        yield f"rate(vllm:{name}{_CLASSIC}[$__rate_interval])"
    for name in _LEVELS:
        yield f"vllm:{name}{_CLASSIC}"
    for name in _LENGTHS:
        bucket = f"vllm:{name}_bucket{_CLASSIC}"
        yield f"sum by(le) (increase({bucket}[$__rate_interval]))"
    success = f"vllm:request_success_total{_CLASSIC}"
    yield f"sum by(finished_reason) (increase({success}[$__rate_interval]))"


def overview() -> Iterator[str]:
    """Yield the queries of the Overview, but for those of absent features."""
    yield from _rates()
    yield from _histograms()
    yield from _http()
    for name, how in _LEVELS.items():
        yield f"{how}(vllm:{name}{_FLEET})"
    waiting = _and(_FLEET, 'reason="capacity"')
    yield f"sum(vllm:num_requests_waiting_by_reason{waiting})"
    yield 'count(up{job=~"$server"} == 0) or vector(0)'


def absent() -> tuple[str, ...]:
    """Return series that the Overview asks for and the mock rightly does not have."""
    return _ABSENT


def _rates() -> Iterator[str]:
    for name in (
        "request_success_total",
        "prompt_tokens_total",
        "generation_tokens_total",
        "num_preemptions_total",
        "prompt_tokens_by_source_total",
        "prefix_cache_queries_total",
        "prefix_cache_hits_total",
    ):
        yield f"sum(rate(vllm:{name}{_FLEET}[$__rate_interval]))"
    success = f"rate(vllm:request_success_total{_FLEET}[$__rate_interval])"
    yield f"sum by (finished_reason) ({success})"


def _histograms() -> Iterator[str]:
    for name in (*_LATENCIES, _TPOT, *_PHASES, *_LENGTHS, "iteration_tokens_total"):
        rate = f"rate(vllm:{name}_bucket{_FLEET}[$__rate_interval])"
        count = f"rate(vllm:{name}_count{_FLEET}[$__rate_interval])"
        yield f"histogram_quantile(0.95, sum by (le) ({rate}))"
        total = f"rate(vllm:{name}_sum{_FLEET}[$__rate_interval])"
        yield f"sum({total}) / (sum({count}) > 0)"
    for name, bound in (("time_to_first_token_seconds", "1.0"), (_TPOT, "0.1")):
        within = _and(_FLEET, f'le="{bound}"')
        count = f"rate(vllm:{name}_count{_FLEET}[$__rate_interval])"
        yield (
            f"sum(rate(vllm:{name}_bucket{within}[$__rate_interval]))"
            f" / (sum({count}) > 0)"
        )


def _http() -> Iterator[str]:
    all_requests = f"rate(http_requests_total{_TARGET}[$__rate_interval])"
    errors = _and(_TARGET, 'status="5xx"')
    yield (
        f"(sum(rate(http_requests_total{errors}[$__rate_interval])) or vector(0))"
        f" / (sum({all_requests}) > 0)"
    )
    for label in ("status", "handler"):
        yield f"sum by ({label}) ({all_requests})"
    name = "http_request_duration_seconds"
    count = f"rate({name}_count{_TARGET}[$__rate_interval])"
    yield (
        f"sum by (handler) (rate({name}_sum{_TARGET}[$__rate_interval]))"
        f" / (sum by (handler) ({count}) > 0)"
    )


def _and(selector: str, matcher: str) -> str:
    return f"{selector[:-1]}, {matcher}}}"
