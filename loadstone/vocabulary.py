"""The shared words: metric, label, unit and header names, bucket bounds. Data only.

`vllm:*` names, labels and bounds are those of vLLM 0.33 (`vllm/v1/metrics/loggers.py`),
with 1-8 ms bounds added below 10 ms, where a GB300 lives; every standard bound is kept.
"""

from dataclasses import dataclass
from typing import Final, Literal

TRUTH_HEADER: Final = "x-loadstone-truth"
"""Request header: `1` asks the mock to put its own stamps into the answer."""
TRUTH_FIELD: Final = "loadstone"
"""Field of the final chunk (or body) that carries the mock's stamps."""

TTFT_BOUNDS: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0,
    7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
TPOT_BOUNDS: Final = (
    0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01, 0.025, 0.05, 0.075, 0.1,
    0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
LATENCY_BOUNDS: Final = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0,
    120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
LAG_BOUNDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01,
    0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One exported metric. `name` is as on the wire, but counters without `_total`."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


_ENGINE = ("model_name", "engine")


class Server:
    """What the mock exports."""

    RUNNING = MetricSpec(
        "vllm:num_requests_running", "gauge", "Requests in the running batch.", _ENGINE
    )
    WAITING = MetricSpec(
        "vllm:num_requests_waiting",
        "gauge",
        "Requests waiting to be scheduled.",
        _ENGINE,
    )
    KV_USAGE = MetricSpec(
        "vllm:kv_cache_usage_perc", "gauge", "KV-cache usage; 1 means full.", _ENGINE
    )
    PROMPT_TOKENS = MetricSpec(
        "vllm:prompt_tokens", "counter", "Prefill tokens processed.", _ENGINE
    )
    GENERATION_TOKENS = MetricSpec(
        "vllm:generation_tokens", "counter", "Generation tokens produced.", _ENGINE
    )
    PREEMPTIONS = MetricSpec(
        "vllm:num_preemptions", "counter", "Preemptions by lack of KV blocks.", _ENGINE
    )
    SUCCESS = MetricSpec(
        "vllm:request_success", "counter", "Requests finished, by reason.",
        (*_ENGINE, "finished_reason"),
    )  # fmt: skip
    TTFT = MetricSpec(
        "vllm:time_to_first_token_seconds", "histogram",
        "Time to first token, queueing included.", _ENGINE, TTFT_BOUNDS,
    )  # fmt: skip
    ITL = MetricSpec(
        "vllm:inter_token_latency_seconds", "histogram",
        "Time between output tokens of a request.", _ENGINE, TPOT_BOUNDS,
    )  # fmt: skip
    E2E = MetricSpec(
        "vllm:e2e_request_latency_seconds", "histogram",
        "Request latency from arrival to last token.", _ENGINE, LATENCY_BOUNDS,
    )  # fmt: skip
    HTTP_REQUESTS = MetricSpec(
        "http_requests", "counter", "HTTP requests by handler and status class.",
        ("handler", "method", "status"),
    )  # fmt: skip
    CLOCK_LAG = MetricSpec(
        "loadstone_clock_lag_seconds", "histogram",
        "How late a step's tokens were written, against the emulated schedule.",
        ("engine",), LAG_BOUNDS,
    )  # fmt: skip


_SLICE = ("scenario", "tenant", "stage")


class Client:
    """What the load generator exports."""

    SCHEDULED = MetricSpec(
        "loadstone_requests_scheduled",
        "counter",
        "Requests that were due under the schedule (none in a closed loop).",
        _SLICE,
    )
    REQUESTS = MetricSpec(
        "loadstone_requests",
        "counter",
        "Requests that were sent and ended, by outcome.",
        (*_SLICE, "outcome"),
    )
    DROPPED = MetricSpec(
        "loadstone_requests_dropped", "counter", "Requests due and never sent.", _SLICE
    )
    IN_FLIGHT = MetricSpec(
        "loadstone_requests_in_flight", "gauge", "Requests sent and not ended.", _SLICE
    )
    INPUT_TOKENS = MetricSpec(
        "loadstone_input_tokens",
        "counter",
        "Prompt tokens of answered requests.",
        _SLICE,
    )
    OUTPUT_TOKENS = MetricSpec(
        "loadstone_output_tokens",
        "counter",
        "Output tokens of answered requests.",
        _SLICE,
    )
    TTFT = MetricSpec(
        "loadstone_ttft_seconds",
        "histogram",
        "Time to first token, from the first byte sent.",
        _SLICE,
        TTFT_BOUNDS,
    )
    TTFT_INTENDED = MetricSpec(
        "loadstone_ttft_intended_seconds",
        "histogram",
        "Time to first token, from the intended time.",
        _SLICE,
        TTFT_BOUNDS,
    )
    TPOT = MetricSpec(
        "loadstone_tpot_seconds",
        "histogram",
        "Time per output token after the first event.",
        _SLICE,
        TPOT_BOUNDS,
    )
    ICL = MetricSpec(
        "loadstone_inter_chunk_latency_seconds",
        "histogram",
        "Gap between content events, pooled over requests.",
        _SLICE,
        TPOT_BOUNDS,
    )
    E2E = MetricSpec(
        "loadstone_e2e_seconds",
        "histogram",
        "End of the answer, from the first byte sent.",
        _SLICE,
        LATENCY_BOUNDS,
    )
    RESPONSE_TIME = MetricSpec(
        "loadstone_response_time_seconds",
        "histogram",
        "End of the answer, from the intended time.",
        _SLICE,
        LATENCY_BOUNDS,
    )
    SEND_LAG = MetricSpec(
        "loadstone_send_lag_seconds",
        "histogram",
        "Actual minus intended send time.",
        _SLICE,
        LAG_BOUNDS,
    )
    COST = MetricSpec(
        "loadstone_cost_usd",
        "counter",
        "Money spent since the run began, by what it was spent on.",
        ("basis",),
    )
    VERDICT = MetricSpec(
        "loadstone_verdict",
        "gauge",
        "1 for the verdict that the run would get now, 0 for the others.",
        ("verdict",),
    )
    LOOP_LAG = MetricSpec(
        "loadstone_loop_lag_seconds",
        "gauge",
        "Lateness of the client's event loop, by quantile since the run began.",
        ("quantile",),
    )
    TTFT_ERROR = MetricSpec(
        "loadstone_ttft_error_seconds",
        "gauge",
        "TTFT error against the mock's truth, by quantile since the run began.",
        ("quantile",),
    )
    GC_PAUSE = MetricSpec(
        "loadstone_gc_pause_max_seconds",
        "gauge",
        "Longest garbage collection of the client since the run began.",
    )
    WORKERS = MetricSpec(
        "loadstone_workers", "gauge", "Processes that send requests in this run."
    )
