"""The shared words: metric, label, unit and header names, bucket bounds. Data only.

`vllm:*` names, labels and bounds are those of vLLM 0.33 (`vllm/v1/metrics/loggers.py`,
`buckets.py`), `gen_ai_*` those of OpenTelemetry's GenAI conventions as Prometheus shows
them, `DCGM_*` those of dcgm-exporter. Below 10 ms, where a GB300 lives, bounds of 1-8
ms are added to times per token; every standard bound is kept.
"""

from dataclasses import dataclass
from typing import Final, Literal

TRUTH_HEADER: Final = "x-loadstone-truth"
"""Request header: `1` asks the mock to put its own stamps into the answer."""
TRUTH_FIELD: Final = "loadstone"
"""Field of the final chunk (or body) that carries the mock's stamps."""
FAULT_HEADER: Final = "x-loadstone-fault"
"""Request header: asks the mock for a fault, if it was told to let requests do so."""
TRACEPARENT_HEADER: Final = "traceparent"
"""Request header of W3C Trace Context."""

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
HTTP_BOUNDS: Final = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""The first three are prometheus-fastapi-instrumentator's; an answer takes longer."""
GENAI_DURATION_BOUNDS: Final = tuple(0.01 * 2**i for i in range(14))
GENAI_TTFT_BOUNDS: Final = TTFT_BOUNDS[:16]
GENAI_TPOT_BOUNDS: Final = TPOT_BOUNDS[:20]
TOKENS_BOUNDS: Final = tuple(
    float(m * 10**e) for e in range(7) for m in (1, 2, 5) if m * 10**e <= 1_000_000
)
"""vLLM's 1-2-5 series; a server shows it up to its `max_model_len`, as vLLM does."""
STEP_TOKENS_BOUNDS: Final = (1.0, *(float(2**i) for i in range(3, 15)))
PARAMS_N_BOUNDS: Final = (1.0, 2.0, 5.0, 10.0, 20.0)
PREEMPTIONS_BOUNDS: Final = (1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0)
STAGE_BOUNDS: Final = (
    0.00001, 0.0001, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0,
    5.0, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
"""From the counting of a question's tokens to the writing of an answer."""
PASSAGES_BOUNDS: Final = (0.0, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0)
"""The first one holds the searches that found nothing."""
RECALL_BOUNDS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
LAG_BOUNDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01,
    0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One exported metric. `name` is as on the wire, but counters without `_total`.

    A `bare` counter has no `_total` on the wire either: dcgm-exporter writes none.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    bare: bool = False

    @property
    def wire_name(self) -> str:
        """The name to query: a counter's with `_total`, unless it is bare."""
        suffix = "_total" if self.kind == "counter" and not self.bare else ""
        return self.name + suffix


FINISHED_REASONS: Final = ("stop", "length", "abort", "error", "repetition")
WAITING_REASONS: Final = ("capacity", "deferred")
REJECTION_REASONS: Final = ("max_num_queued_reqs", "max_num_queued_tokens")
FAULT_KINDS: Final = (
    "error", "throttle", "slow_first_token", "stall", "truncate", "reset",
    "malformed_json", "malformed_sse", "buffer", "no_usage", "vm_lost", "gpu_lost",
    "cold_start", "power_cap",
)  # fmt: skip
ADMISSIONS: Final = ("admitted", "requests", "tokens", "queue")
"""What the door says to a request: the first, or what there is too little of."""
PROMPT_SOURCES: Final = ("local_compute", "local_cache_hit", "external_kv_transfer")
SLEEP_STATES: Final = ("awake", "weights_offloaded", "discard_all")
GENAI_PROVIDER: Final = "loadstone_mock"
GENAI_OTHER_MODEL: Final = "_OTHER"
"""Stands for the model of a request that failed: its client chose that name."""

_ENGINE: Final = ("model_name", "engine")
_GENAI: Final = (
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
)
_GPU: Final = ("gpu", "UUID", "device", "modelName", "Hostname")


def _per_engine(
    name: str,
    kind: Literal["counter", "gauge", "histogram"],
    text: str,
    *labels: str,
    bounds: tuple[float, ...] = (),
) -> MetricSpec:
    return MetricSpec(name, kind, text, (*_ENGINE, *labels), bounds)


def _phase(name: str, text: str) -> MetricSpec:
    return _per_engine(name, "histogram", text, bounds=LATENCY_BOUNDS)


def _lengths(name: str, text: str) -> MetricSpec:
    return _per_engine(name, "histogram", text, bounds=TOKENS_BOUNDS)


def _dcgm(name: str, text: str) -> MetricSpec:
    return MetricSpec(name, "gauge", text, _GPU)


class Server:
    """What the mock exports.

    All of vLLM's metrics that a text server has. What belongs to features that the mock
    refuses (LoRA, images, KV transfer) is absent, and so are counts of draft tokens:
    speculation is an acceptance length there. What the emulated engine cannot do
    otherwise is constant and says so.
    """

    RUNNING = _per_engine(
        "vllm:num_requests_running", "gauge", "Requests in the running batch."
    )
    WAITING = _per_engine(
        "vllm:num_requests_waiting", "gauge", "Requests waiting to be scheduled."
    )
    WAITING_BY_REASON = _per_engine(
        "vllm:num_requests_waiting_by_reason", "gauge",
        "Requests waiting to be scheduled; none is ever deferred.", "reason",
    )  # fmt: skip
    KV_USAGE = _per_engine(
        "vllm:kv_cache_usage_perc", "gauge", "KV-cache usage; 1 means full."
    )
    SLEEP_STATE = _per_engine(
        "vllm:engine_sleep_state", "gauge",
        "1 for the state the engine is in; it is always awake.", "sleep_state",
    )  # fmt: skip
    CACHE_CONFIG = MetricSpec(
        "vllm:cache_config_info", "gauge", "The KV cache's settings, as labels.",
        ("engine", "block_size", "cache_dtype", "enable_prefix_caching",
         "kv_cache_size_tokens", "num_gpu_blocks", "sliding_window"),
    )  # fmt: skip
    PROMPT_TOKENS = _per_engine(
        "vllm:prompt_tokens", "counter",
        "Prompt tokens, counted once, when their request's first token is given.",
    )  # fmt: skip
    PROMPT_TOKENS_BY_SOURCE = _per_engine(
        "vllm:prompt_tokens_by_source", "counter",
        "Prompt tokens by where their KV came from; none comes from elsewhere.",
        "source",
    )  # fmt: skip
    PROMPT_TOKENS_CACHED = _per_engine(
        "vllm:prompt_tokens_cached", "counter",
        "Those of the prompt tokens that were in the prefix cache.",
    )  # fmt: skip
    GENERATION_TOKENS = _per_engine(
        "vllm:generation_tokens", "counter", "Generation tokens produced."
    )
    PREFIX_QUERIES = _per_engine(
        "vllm:prefix_cache_queries", "counter",
        "Prompt tokens of admitted requests, if there is a prefix cache to look in.",
    )  # fmt: skip
    PREFIX_HITS = _per_engine(
        "vllm:prefix_cache_hits", "counter",
        "Those of them that the prefix cache had.",
    )  # fmt: skip
    PREEMPTIONS = _per_engine(
        "vllm:num_preemptions", "counter", "Preemptions by lack of KV blocks."
    )
    SUCCESS = _per_engine(
        "vllm:request_success", "counter", "Requests finished, by reason.",
        "finished_reason",
    )  # fmt: skip
    REJECTIONS = MetricSpec(
        "vllm:admission_rejections", "counter",
        "Requests refused at the door because too many waited.",
        ("model_name", "reason"),
    )  # fmt: skip
    TTFT = _per_engine(
        "vllm:time_to_first_token_seconds", "histogram",
        "Time to first token, queueing included.", bounds=TTFT_BOUNDS,
    )  # fmt: skip
    ITL = _per_engine(
        "vllm:inter_token_latency_seconds", "histogram",
        "Time between output tokens of a request.", bounds=TPOT_BOUNDS,
    )  # fmt: skip
    TPOT = _per_engine(
        "vllm:request_time_per_output_token_seconds", "histogram",
        "A finished request's mean time per token after the first; 0 for one token.",
        bounds=TPOT_BOUNDS,
    )  # fmt: skip
    E2E = _per_engine(
        "vllm:e2e_request_latency_seconds", "histogram",
        "Request latency from arrival to last token.", bounds=LATENCY_BOUNDS,
    )  # fmt: skip
    QUEUE_TIME = _phase(
        "vllm:request_queue_time_seconds",
        "From arrival to the first step it was scheduled in.",
    )
    PREFILL_TIME = _phase(
        "vllm:request_prefill_time_seconds", "From first scheduled to first token."
    )
    DECODE_TIME = _phase(
        "vllm:request_decode_time_seconds", "From first token to last token."
    )
    INFERENCE_TIME = _phase(
        "vllm:request_inference_time_seconds", "From first scheduled to last token."
    )
    REQUEST_PROMPT = _lengths(
        "vllm:request_prompt_tokens", "Prompt tokens of a finished request."
    )
    REQUEST_GENERATION = _lengths(
        "vllm:request_generation_tokens", "Generation tokens of a finished request."
    )
    REQUEST_MAX_GENERATION = _lengths(
        "vllm:request_max_num_generation_tokens",
        "Longest of a request's answers.",
    )
    REQUEST_MAX_TOKENS = _lengths(
        "vllm:request_params_max_tokens",
        "Tokens that a finished request might have had.",
    )
    PREFILL_COMPUTED = _lengths(
        "vllm:request_prefill_kv_computed_tokens",
        "Prompt tokens of a finished request that were not cached.",
    )
    REQUEST_N = _per_engine(
        "vllm:request_params_n", "histogram",
        "Answers a finished request asked for.",
        bounds=PARAMS_N_BOUNDS,
    )  # fmt: skip
    REQUEST_PREEMPTIONS = _per_engine(
        "vllm:request_num_preemptions", "histogram",
        "How often a finished request was preempted.", bounds=PREEMPTIONS_BOUNDS,
    )  # fmt: skip
    STEP_TOKENS = _per_engine(
        "vllm:iteration_tokens_total", "histogram",
        "Tokens of an engine step: prefilled and generated.", bounds=STEP_TOKENS_BOUNDS,
    )  # fmt: skip

    GENAI_DURATION = MetricSpec(
        "gen_ai_server_request_duration_seconds", "histogram",
        "Request duration up to the last byte; error_type is empty on success.",
        (*_GENAI, "error_type"), GENAI_DURATION_BOUNDS,
    )  # fmt: skip
    GENAI_TTFT = MetricSpec(
        "gen_ai_server_time_to_first_token_seconds", "histogram",
        "Time to first token.", _GENAI, GENAI_TTFT_BOUNDS,
    )  # fmt: skip
    GENAI_TPOT = MetricSpec(
        "gen_ai_server_time_per_output_token_seconds", "histogram",
        "Time per output token after the first.", _GENAI, GENAI_TPOT_BOUNDS,
    )  # fmt: skip

    HTTP_REQUESTS = MetricSpec(
        "http_requests", "counter", "HTTP requests by handler and status class.",
        ("handler", "method", "status"),
    )  # fmt: skip
    HTTP_DURATION = MetricSpec(
        "http_request_duration_seconds", "histogram",
        "Time to serve an HTTP request, the whole stream included.",
        ("handler", "method"), HTTP_BOUNDS,
    )  # fmt: skip

    GPU_UTIL = _dcgm("DCGM_FI_DEV_GPU_UTIL", "Emulated GPU utilisation (in %).")
    GPU_POWER = _dcgm("DCGM_FI_DEV_POWER_USAGE", "Emulated power draw (in W).")
    GPU_ENERGY = MetricSpec(
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "counter",
        "Emulated energy consumption since the server's start (in mJ).", _GPU,
        bare=True,
    )  # fmt: skip
    GPU_MEMORY_USED = _dcgm("DCGM_FI_DEV_FB_USED", "Emulated GPU memory used (in MiB).")
    GPU_MEMORY_FREE = _dcgm("DCGM_FI_DEV_FB_FREE", "Emulated GPU memory free (in MiB).")
    GPU_ENGINE_ACTIVE = _dcgm(
        "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
        "Share of time the emulated engine was in a step.",
    )
    GPU_TENSOR_ACTIVE = _dcgm(
        "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "Share of time in GEMMs, by the step law."
    )
    GPU_DRAM_ACTIVE = _dcgm(
        "DCGM_FI_PROF_DRAM_ACTIVE",
        "Share of the memory's bandwidth, by bytes the law reads.",
    )

    ENGINE_GPUS = MetricSpec(
        "loadstone_engine_gpus", "gauge",
        "GPUs of an engine; labels say which, in which VM, in which rack.",
        ("rack", "vm", "engine", "gpus"),
    )  # fmt: skip
    POWER = MetricSpec(
        "loadstone_power_watts", "gauge",
        "Emulated power draw of a VM: its GPUs, and its share of the rack's rest.",
        ("rack", "vm", "part"),
    )  # fmt: skip
    ENERGY = MetricSpec(
        "loadstone_energy_joules", "counter",
        "The same since the server's start, as energy.", ("rack", "vm", "part"),
    )  # fmt: skip
    PUBLISHED = MetricSpec(
        "loadstone_published_tokens_per_second", "gauge",
        "Output tokens/s that were published for the emulated machine, per VM or GPU.",
        ("per", "figure", "basis"),
    )  # fmt: skip
    PUBLISHED_ENERGY = MetricSpec(
        "loadstone_published_joules_per_token", "gauge",
        "The rack's published power over its published output tokens/s.", ("basis",),
    )  # fmt: skip

    CLOCK_LAG = MetricSpec(
        "loadstone_clock_lag_seconds", "histogram",
        "How late a step's tokens were written, against the emulated schedule.",
        ("engine",), LAG_BOUNDS,
    )  # fmt: skip
    LATE_STEPS = MetricSpec(
        "loadstone_late_steps", "counter",
        "Steps written more than 5 ms and more than 5 % of their duration late.",
        ("engine",),
    )  # fmt: skip
    LAG_ALARM = MetricSpec(
        "loadstone_clock_lag_alarm", "gauge",
        "1 while more than one step in a hundred is late: timing is not the model's.",
    )  # fmt: skip
    LOOP_LAG = MetricSpec(
        "loadstone_event_loop_lag_seconds", "histogram",
        "How late the server's event loop ran a timer that only measures that.",
        (), LAG_BOUNDS,
    )  # fmt: skip
    SLOW_READERS = MetricSpec(
        "loadstone_slow_readers", "counter",
        "Streams cut off because their client did not read.",
    )  # fmt: skip
    TENANT_REQUESTS = MetricSpec(
        "loadstone_tenant_requests", "counter",
        "Requests by tenant: admitted, or refused for what there was too little of.",
        ("tenant", "admission"),
    )  # fmt: skip
    ENGINE_UP = MetricSpec(
        "loadstone_engine_up", "gauge",
        "0 while the engine is lost and the router passes it over, else 1.",
        ("engine",),
    )  # fmt: skip
    FAULTS = MetricSpec(
        "loadstone_faults", "counter",
        "Faults done on purpose: requests struck, engines lost or slowed.", ("kind",),
    )  # fmt: skip
    MOCK_INFO = MetricSpec(
        "loadstone_mock_info", "gauge", "What is emulated, as labels; always 1.",
        ("version", "preset", "model", "vms", "policy", "scheduling_policy"),
    )  # fmt: skip


class Supervisor:
    """What the supervisor of several workers adds to the sum of their metrics."""

    WORKER_UP = MetricSpec(
        "loadstone_worker_up", "gauge", "Whether a worker process listens: 1 or 0.",
        ("worker",),
    )  # fmt: skip
    WORKER_RESTARTS = MetricSpec(
        "loadstone_worker_restarts", "counter",
        "How often a worker process that had died was started again.",
        ("worker",),
    )  # fmt: skip


_SLICE = ("scenario", "tenant", "stage")
_PIPELINE = ("scenario", "tenant")


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
    STAGE_TIME = MetricSpec(
        "loadstone_client_stage_duration_seconds",
        "histogram",
        "Time in one stage of a pipeline; the stages of a request add up to its e2e.",
        _SLICE,
        STAGE_BOUNDS,
    )
    GENERATION_TTFT = MetricSpec(
        "loadstone_generation_ttft_seconds",
        "histogram",
        "Time to first token of a pipeline's answer, from when it was asked for.",
        _PIPELINE,
        TTFT_BOUNDS,
    )
    RETRIEVED = MetricSpec(
        "loadstone_retrieved_passages",
        "histogram",
        "Passages that a search brought.",
        _PIPELINE,
        PASSAGES_BOUNDS,
    )
    RECALL = MetricSpec(
        "loadstone_retrieval_recall",
        "histogram",
        "Share of a labelled question's documents that its search brought.",
        _PIPELINE,
        RECALL_BOUNDS,
    )
    COST = MetricSpec(
        "loadstone_cost_usd",
        "counter",
        "Money spent since the run began, by what it was spent on.",
        ("basis",),
    )
    PRICE = MetricSpec(
        "loadstone_price",
        "gauge",
        "A figure of the price list that the run is reckoned with, in its unit.",
        ("price", "term", "unit", "date", "confidence"),
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
    VERDICT_REASONS = MetricSpec(
        "loadstone_verdict_reasons",
        "gauge",
        "How many reasons there are against the verdict ok now.",
    )
    RECV_LAG = MetricSpec(
        "loadstone_recv_lag_seconds",
        "gauge",
        "Time that answers lay in the client's kernel, by quantile since the run"
        " began.",
        ("quantile",),
    )
    MOCK_LAG = MetricSpec(
        "loadstone_mock_lag_seconds",
        "gauge",
        "Lateness of the mock's first tokens as its answers tell, by quantile since"
        " the run began.",
        ("quantile",),
    )
    TIME_SHARE = MetricSpec(
        "loadstone_time_share",
        "gauge",
        "Part of the run's time that went, in the worst process, into: gc and disk"
        " (the client stood still), cpu (used), cpu_wait (waited for a core), steal"
        " (taken by the hypervisor).",
        ("into",),
    )
    DISK_STOP = MetricSpec(
        "loadstone_disk_stop_max_seconds",
        "gauge",
        "Longest write of rows of the client since the run began.",
    )
    WORKERS = MetricSpec(
        "loadstone_workers", "gauge", "Processes that send requests in this run."
    )
