"""What `/metrics` says, against what was asked of a real server."""

import asyncio
from dataclasses import dataclass
from typing import Final

import pytest
from scraped import MODEL, PROMPT, STEP_S, UTF8, Page, running, until

from loadstone import __version__
from loadstone.catalog.boards import load_board
from loadstone.catalog.presets import load_preset
from loadstone.engine.fleet import build_fleet
from loadstone.engine.sequence import Step
from loadstone.telemetry.gpus import GpuFacts, Gpus
from loadstone.telemetry.server import About, read_server
from loadstone.vocabulary import (
    FAULT_KINDS,
    FINISHED_REASONS,
    GENAI_OTHER_MODEL,
    GENAI_PROVIDER,
    MetricSpec,
    Server,
)
from mock_server.stats import ServerStats

pytestmark = pytest.mark.timeout(30)

SPECS: Final = {
    spec.name: spec for spec in vars(Server).values() if isinstance(spec, MetricSpec)
}
CHAT: Final = "/v1/chat/completions"
TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT: Final = f"00-{TRACE}-00f067aa0ba902b7-01"
OUTPUTS: Final = (3, 9, 5, 7, 1)
"""Tokens of the answers that are read to their end."""
ANSWERED: Final = len(OUTPUTS)
BEGUN: Final = ANSWERED + 1
"""Requests that got a first token: one was given up."""
MAX_MODEL_LEN: Final = 10_000


@dataclass
class Seen:
    """Scrapes before, amid and after the requests, and what the engine says itself."""

    before: Page
    amid: Page
    after: Page
    modern: Page
    generated: int
    steps: int
    busy_s: float


async def visit() -> Seen:
    """Ask for answers of every kind, on one engine that serves one at a time.

    A long one is given up; another waits behind it; a third is refused. Then a stream,
    a body, one that ends by itself, one of a single token, a wrong model, a wrong path,
    and probes, which do not count.
    """
    limits = {"max_num_seqs": 1, "max_waiting": 1, "max_model_len": MAX_MODEL_LEN}
    async with running(length=OUTPUTS[3], **limits) as live:
        (engine,) = live.fleet.engines
        before = await live.scrape()
        async with live.post(stream=True, ignore_eos=True, max_tokens=9000) as long:
            await long.content.readline()
            queued = asyncio.create_task(
                live.answer(stream=True, ignore_eos=True, max_tokens=OUTPUTS[0])
            )
            await until(lambda: engine.waiting == 1)
            assert await live.answer(max_tokens=1) == 429
            amid = await live.scrape()
            long.close()
        statuses = [
            await queued,
            await live.answer(
                stream=True, ignore_eos=True, max_tokens=OUTPUTS[1],
                headers={"traceparent": PARENT},
            ),
            await live.answer(ignore_eos=True, max_tokens=OUTPUTS[2]),
            await live.answer(),
            await live.answer(ignore_eos=True, max_tokens=OUTPUTS[4]),
            await live.answer(model="gpt"),
            *[await live.get(path) for path in ("/nowhere", "/health", "/version")],
        ]  # fmt: skip
        assert statuses == [200] * 5 + [404, 404, 200, 200]
        await until(lambda: engine.due is None)
        live.stats.slow_readers += (
            1  # tests/mock_server/test_lifecycle.py has real ones
        )
        return Seen(
            before,
            amid,
            await live.scrape(),
            await live.scrape(UTF8),
            engine.generated_tokens,
            engine.steps,
            engine.busy_s(1e9),
        )


@pytest.fixture(scope="module")
def seen() -> Seen:
    """Scrape a server that was visited."""
    return asyncio.run(visit())


def bounds_of(spec: MetricSpec) -> set[str]:
    """Give the bounds as they are written; token counts end at `max_model_len`."""
    most = MAX_MODEL_LEN if spec.name.endswith("_tokens") else float("inf")
    return {str(bound) for bound in spec.bounds if bound <= most} | {"+Inf"}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("format_", ["classic", "openmetrics"])
def test_every_metric_is_on_the_wire(seen: Seen, name: str, format_: str) -> None:
    """With its type, its labels and its bounds, in both formats."""
    spec = SPECS[name]
    page = seen.after if format_ == "classic" else seen.modern
    family = page.families[name]
    unknown = spec.bare and format_ == "openmetrics"
    assert family.type == ("unknown" if unknown else spec.kind)
    assert family.documentation == spec.text
    assert family.samples
    for sample in family.samples:
        extra = {"le"} if sample.name == f"{name}_bucket" else set()
        assert set(sample.labels) == {*spec.labels, *extra}
    if spec.kind == "histogram":
        found = {labels["le"] for labels, _ in page.samples(f"{name}_bucket")}
        assert found == bounds_of(spec)
    else:
        assert f"\n{spec.wire_name}" in page.text


def test_nothing_else_is_on_the_wire(seen: Seen) -> None:
    """What is exported is in the vocabulary, and each format says its name."""
    assert set(seen.after.families) == set(seen.modern.families) == set(SPECS)
    assert seen.after.content_type.startswith("text/plain; version=0.0.4")
    assert seen.modern.content_type.startswith("application/openmetrics-text")


COUNTERS: Final = [
    (Server.PROMPT_TOKENS, {}, BEGUN * PROMPT),
    (Server.PROMPT_TOKENS_BY_SOURCE, {"source": "local_compute"}, BEGUN * PROMPT),
    (Server.PROMPT_TOKENS_BY_SOURCE, {"source": "local_cache_hit"}, 0),
    (Server.PROMPT_TOKENS_BY_SOURCE, {"source": "external_kv_transfer"}, 0),
    (Server.PROMPT_TOKENS_CACHED, {}, 0),
    (Server.PREFIX_QUERIES, {}, BEGUN * PROMPT),
    (Server.PREFIX_HITS, {}, 0),
    (Server.PREEMPTIONS, {}, 0),  # there are some in a test of their own
    (Server.SUCCESS, {"finished_reason": "length"}, ANSWERED - 1),
    (Server.SUCCESS, {"finished_reason": "stop"}, 1),
    (Server.SUCCESS, {"finished_reason": "abort"}, 1),
    (Server.SUCCESS, {"finished_reason": "error"}, 0),
    (Server.SUCCESS, {"finished_reason": "repetition"}, 0),
    (Server.REJECTIONS, {"reason": "max_num_queued_reqs"}, 1),
    (Server.REJECTIONS, {"reason": "max_num_queued_tokens"}, 0),
    (Server.HTTP_REQUESTS, {}, ANSWERED + 4),
    (Server.HTTP_REQUESTS, {"handler": CHAT, "status": "2xx"}, ANSWERED),
    (Server.HTTP_REQUESTS, {"handler": CHAT, "status": "4xx"}, 3),
    (Server.HTTP_REQUESTS, {"handler": "none", "status": "4xx", "method": "GET"}, 1),
    (Server.SLOW_READERS, {}, 1),
    (Server.TENANT_REQUESTS, {"admission": "admitted"}, BEGUN),
    (Server.TENANT_REQUESTS, {"tenant": "default", "admission": "queue"}, 1),
    (Server.TENANT_REQUESTS, {"admission": "tokens"}, 0),
    (Server.TENANT_REQUESTS, {"admission": "requests"}, 0),
]


@pytest.mark.parametrize(
    ("spec", "labels", "expected"),
    COUNTERS,
    ids=[f"{s.name}{list(labels.values())}" for s, labels, _ in COUNTERS],
)
def test_counters_count_exactly(
    seen: Seen, spec: MetricSpec, labels: dict[str, str], expected: int
) -> None:
    """What was asked, and nothing before it."""
    assert seen.before.total(spec.wire_name, **labels) == 0
    assert seen.after.total(spec.wire_name, **labels) == expected


def test_generated_tokens_are_the_engines(seen: Seen) -> None:
    """Those of the abandoned answer too; the others are known."""
    assert seen.generated > sum(OUTPUTS)
    assert seen.after.total("vllm:generation_tokens_total") == seen.generated


OUTPUT: Final = sum(OUTPUTS)
ROOM: Final = MAX_MODEL_LEN - PROMPT
HISTOGRAMS: Final[dict[MetricSpec, tuple[int, float | None]]] = {
    Server.TTFT: (BEGUN, None),
    Server.E2E: (ANSWERED, None),
    Server.TPOT: (ANSWERED, (ANSWERED - 1) * STEP_S),
    Server.QUEUE_TIME: (ANSWERED, None),
    Server.PREFILL_TIME: (ANSWERED, ANSWERED * STEP_S),
    Server.DECODE_TIME: (ANSWERED, (OUTPUT - ANSWERED) * STEP_S),
    Server.INFERENCE_TIME: (ANSWERED, OUTPUT * STEP_S),
    Server.REQUEST_PROMPT: (ANSWERED, ANSWERED * PROMPT),
    Server.PREFILL_COMPUTED: (ANSWERED, ANSWERED * PROMPT),
    Server.REQUEST_GENERATION: (ANSWERED, OUTPUT),
    Server.REQUEST_MAX_GENERATION: (ANSWERED, OUTPUT),
    # The one that ends by itself might have had all that fits.
    Server.REQUEST_MAX_TOKENS: (ANSWERED, OUTPUT - OUTPUTS[3] + ROOM),
    Server.REQUEST_N: (ANSWERED, ANSWERED),
    Server.REQUEST_PREEMPTIONS: (ANSWERED, 0),
    Server.GENAI_TTFT: (BEGUN, None),
    Server.GENAI_TPOT: (ANSWERED - 1, (ANSWERED - 1) * STEP_S),
    Server.GENAI_DURATION: (ANSWERED + 3, None),
    Server.HTTP_DURATION: (ANSWERED + 4, None),
}


@pytest.mark.parametrize("spec", HISTOGRAMS, ids=lambda spec: spec.name)
def test_histograms_count_every_request_once(seen: Seen, spec: MetricSpec) -> None:
    """And add up to what the schedule took, where that is known."""
    count, total = HISTOGRAMS[spec]
    assert seen.before.total(f"{spec.name}_count") == 0
    assert seen.after.total(f"{spec.name}_count") == count
    measured = seen.after.total(f"{spec.name}_sum")
    if total is None:
        assert measured > 0
    else:
        assert measured == pytest.approx(total, rel=0.01)


def test_histograms_of_steps(seen: Seen) -> None:
    """One gap for each token but the first, one value for each step."""
    page = seen.after
    gaps = seen.generated - BEGUN
    assert page.total("vllm:inter_token_latency_seconds_count") == gaps
    expected = pytest.approx(gaps * STEP_S, rel=0.01)
    assert page.total("vllm:inter_token_latency_seconds_sum") == expected
    assert page.total("vllm:iteration_tokens_total_count") == seen.steps
    tokens = BEGUN * PROMPT + seen.generated
    assert page.total("vllm:iteration_tokens_total_sum") == tokens
    assert page.total("loadstone_clock_lag_seconds_count") == seen.steps
    assert page.total("loadstone_event_loop_lag_seconds_count") >= 1


def test_times_fit_together(seen: Seen) -> None:
    """What clients waited for is the schedule's phases, plus lateness."""
    total = seen.after.total
    phases = total("vllm:request_queue_time_seconds_sum") + total(
        "vllm:request_inference_time_seconds_sum"
    )
    assert total("vllm:e2e_request_latency_seconds_sum") >= phases - ANSWERED * 0.001
    genai = total("gen_ai_server_time_to_first_token_seconds_sum")
    assert genai == pytest.approx(total("vllm:time_to_first_token_seconds_sum"))


def test_errors_have_a_type_and_no_model(seen: Seen) -> None:
    """429, 404 and the client that went away; the name it asked for is not repeated."""
    name = "gen_ai_server_request_duration_seconds_count"
    by_error = {
        labels["error_type"]: (labels["gen_ai_request_model"], value)
        for labels, value in seen.after.samples(name)
    }
    assert by_error == {
        "": (MODEL, ANSWERED),
        "429": (GENAI_OTHER_MODEL, 1),
        "404": (GENAI_OTHER_MODEL, 1),
        "499": (GENAI_OTHER_MODEL, 1),
    }
    for labels, _ in seen.after.samples(name):
        assert labels["gen_ai_operation_name"] == "chat"
        assert labels["gen_ai_provider_name"] == GENAI_PROVIDER


def test_gauges_follow_the_load(seen: Seen) -> None:
    """Amid: one runs and one waits. Before and after: nothing."""
    for page, running_now, waiting in (
        (seen.before, 0, 0), (seen.amid, 1, 1), (seen.after, 0, 0),
    ):  # fmt: skip
        assert page.total("vllm:num_requests_running") == running_now
        assert page.total("vllm:num_requests_waiting") == waiting
        by_reason = "vllm:num_requests_waiting_by_reason"
        assert page.total(by_reason, reason="capacity") == waiting
        assert page.total(by_reason, reason="deferred") == 0
        used = page.total("vllm:kv_cache_usage_perc")
        assert (used > 0) == bool(running_now)
        assert used <= 1


def test_gpus_worked(seen: Seen) -> None:
    """Energy rises by idle power and by what the steps took; shares are shares."""
    name = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
    pattern = f'{name}{{Hostname="mock-vm-0",UUID="GPU-'
    assert pattern in seen.after.text
    before, after = (page.total(f"{name}_total") for page in (seen.before, seen.after))
    assert after > before + 1200.0 * seen.busy_s * 1e3
    for kind in ("GR_ENGINE", "PIPE_TENSOR", "DRAM"):
        assert 0 < seen.amid.total(f"DCGM_FI_PROF_{kind}_ACTIVE") <= 1
    busy = seen.amid.total("DCGM_FI_PROF_GR_ENGINE_ACTIVE")
    assert seen.amid.total("DCGM_FI_DEV_GPU_UTIL") == pytest.approx(100 * busy)
    power = seen.amid.total("DCGM_FI_DEV_POWER_USAGE")
    assert power == pytest.approx(200.0 + 1200.0 * busy)
    memory = ("DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE")
    assert sum(seen.after.total(part) for part in memory) == pytest.approx(1000.0)


def test_constants_say_what_is_emulated(seen: Seen) -> None:
    """Always awake, with a prefix cache, and who this is."""
    page = seen.after
    states = {
        labels["sleep_state"]: value
        for labels, value in page.samples("vllm:engine_sleep_state")
    }
    assert states == {"awake": 1, "weights_offloaded": 0, "discard_all": 0}
    ((cache, one),) = page.samples("vllm:cache_config_info")
    assert one == 1
    assert cache == {
        "engine": "0",
        "block_size": "16",
        "cache_dtype": "fp8",
        "enable_prefix_caching": "True",
        "kv_cache_size_tokens": str(16 * 16_384),
        "num_gpu_blocks": "16384",
        "sliding_window": "None",
    }
    ((info, one),) = page.samples("loadstone_mock_info")
    assert one == 1
    assert info == {
        "version": __version__, "preset": "test", "model": MODEL, "vms": "1",
        "policy": "vllm", "scheduling_policy": "fcfs",
    }  # fmt: skip


def test_exemplars_lead_to_the_callers_trace(seen: Seen) -> None:
    """Of the one request that had one, in OpenMetrics: TTFT and the whole."""
    for spec in (Server.TTFT, Server.E2E):
        found = [
            sample.exemplar
            for sample in seen.modern.families[spec.name].samples
            if sample.exemplar
        ]
        assert [exemplar.labels for exemplar in found] == [{"trace_id": TRACE}]
        assert 0 < found[0].value < 1
    assert TRACE not in seen.after.text


def test_preemptions_are_counted_and_prompts_once() -> None:
    """Two answers, KV blocks for one: recomputing a prompt does not count it again."""

    async def scenario() -> Page:
        async with running(kv_blocks=6, max_model_len=96) as live:
            fields = {"ignore_eos": True, "max_tokens": 60, "stream": True}
            await asyncio.gather(*(live.answer(**fields) for _ in range(2)))
            return await live.scrape()

    page = asyncio.run(scenario())
    times = page.total("vllm:num_preemptions_total")
    assert times > 0
    assert page.total("vllm:request_num_preemptions_sum") == times
    assert page.total("vllm:prompt_tokens_total") == 2 * PROMPT
    assert page.total("vllm:request_prompt_tokens_sum") == 2 * PROMPT
    assert page.total("vllm:generation_tokens_total") == 120


def test_every_engine_has_its_own_series() -> None:
    """Two engines, four requests in turns; the model is named on each."""

    async def scenario() -> Page:
        async with running(engines=2) as live:
            for _ in range(4):
                await live.answer(max_tokens=3, ignore_eos=True)
            return await live.scrape()

    page = asyncio.run(scenario())
    for engine in ("0", "1"):
        labels = {"engine": engine, "model_name": MODEL}
        assert page.total("vllm:generation_tokens_total", **labels) == 6
        assert page.total("vllm:request_success_total", **labels) == 2
        assert page.total("DCGM_FI_DEV_FB_USED", gpu=engine) > 0
    assert len(list(page.samples("vllm:cache_config_info"))) == 2


CLASSIC: Final = {
    "vllm:e2e_request_latency_seconds_bucket": ("le", "model_name"),
    "vllm:e2e_request_latency_seconds_sum": ("model_name",),
    "vllm:e2e_request_latency_seconds_count": ("model_name",),
    "vllm:prompt_tokens_total": ("model_name",),
    "vllm:generation_tokens_total": ("model_name",),
    "vllm:inter_token_latency_seconds_bucket": ("le", "model_name"),
    "vllm:inter_token_latency_seconds_sum": ("model_name",),
    "vllm:inter_token_latency_seconds_count": ("model_name",),
    "vllm:num_requests_running": ("model_name",),
    "vllm:num_requests_waiting": ("model_name",),
    "vllm:time_to_first_token_seconds_bucket": ("le", "model_name"),
    "vllm:time_to_first_token_seconds_sum": ("model_name",),
    "vllm:time_to_first_token_seconds_count": ("model_name",),
    "vllm:kv_cache_usage_perc": ("model_name",),
    "vllm:request_prompt_tokens_bucket": ("le", "model_name"),
    "vllm:request_generation_tokens_bucket": ("le", "model_name"),
    "vllm:request_success_total": ("finished_reason", "model_name"),
    "vllm:request_queue_time_seconds_sum": ("model_name",),
    "vllm:request_prefill_time_seconds_sum": ("model_name",),
    "vllm:request_decode_time_seconds_sum": ("model_name",),
    "vllm:request_max_num_generation_tokens_sum": ("model_name",),
}
"""What vLLM's classic dashboard asks for: examples/observability/prometheus_grafana."""

OVERVIEW: Final = {
    "vllm:request_success_total": ("model_name", "finished_reason"),
    "vllm:prompt_tokens_total": ("model_name",),
    "vllm:generation_tokens_total": ("model_name",),
    "http_requests_total": ("status", "handler"),
    "http_request_duration_seconds_sum": ("handler",),
    "http_request_duration_seconds_count": ("handler",),
    "vllm:time_to_first_token_seconds_bucket": ("le", "model_name"),
    "vllm:time_to_first_token_seconds_sum": ("model_name",),
    "vllm:time_to_first_token_seconds_count": ("model_name",),
    "vllm:inter_token_latency_seconds_bucket": ("le", "model_name"),
    "vllm:inter_token_latency_seconds_sum": ("model_name",),
    "vllm:inter_token_latency_seconds_count": ("model_name",),
    "vllm:request_time_per_output_token_seconds_bucket": ("le", "model_name"),
    "vllm:request_time_per_output_token_seconds_sum": ("model_name",),
    "vllm:request_time_per_output_token_seconds_count": ("model_name",),
    "vllm:e2e_request_latency_seconds_bucket": ("le", "model_name"),
    "vllm:e2e_request_latency_seconds_sum": ("model_name",),
    "vllm:e2e_request_latency_seconds_count": ("model_name",),
    "vllm:request_queue_time_seconds_bucket": ("le", "model_name"),
    "vllm:request_queue_time_seconds_sum": ("model_name",),
    "vllm:request_queue_time_seconds_count": ("model_name",),
    "vllm:request_prefill_time_seconds_sum": ("model_name",),
    "vllm:request_prefill_time_seconds_count": ("model_name",),
    "vllm:request_decode_time_seconds_sum": ("model_name",),
    "vllm:request_decode_time_seconds_count": ("model_name",),
    "vllm:num_requests_running": ("model_name",),
    "vllm:num_requests_waiting": ("model_name",),
    "vllm:num_requests_waiting_by_reason": ("model_name", "reason"),
    "vllm:kv_cache_usage_perc": ("model_name",),
    "vllm:num_preemptions_total": ("model_name",),
    "vllm:prefix_cache_hits_total": ("model_name",),
    "vllm:prefix_cache_queries_total": ("model_name",),
    "vllm:external_prefix_cache_hits_total": ("model_name",),
    "vllm:external_prefix_cache_queries_total": ("model_name",),
    "vllm:mm_cache_hits_total": ("model_name",),
    "vllm:mm_cache_queries_total": ("model_name",),
    "vllm:prompt_tokens_by_source_total": ("model_name", "source"),
    "vllm:iteration_tokens_total_bucket": ("le", "model_name"),
    "vllm:iteration_tokens_total_sum": ("model_name",),
    "vllm:iteration_tokens_total_count": ("model_name",),
    "vllm:request_prompt_tokens_bucket": ("le", "model_name"),
    "vllm:request_prompt_tokens_sum": ("model_name",),
    "vllm:request_prompt_tokens_count": ("model_name",),
    "vllm:request_generation_tokens_bucket": ("le", "model_name"),
    "vllm:request_generation_tokens_sum": ("model_name",),
    "vllm:request_generation_tokens_count": ("model_name",),
}
"""What vLLM's Overview asks for: examples/observability/dashboards/grafana."""

REFUSED: Final = {
    "vllm:external_prefix_cache_hits_total": "no KV connector, so nothing external",
    "vllm:external_prefix_cache_queries_total": "no KV connector, so nothing external",
    "vllm:mm_cache_hits_total": "images are refused",
    "vllm:mm_cache_queries_total": "images are refused",
}
"""What is absent, and why. The panels that ask for it have other series beside it."""


@pytest.mark.parametrize(
    ("name", "labels"),
    sorted({*CLASSIC.items(), *OVERVIEW.items()}),
    ids=lambda part: part if isinstance(part, str) else ",".join(part),
)
@pytest.mark.parametrize("format_", ["classic", "openmetrics"])
def test_vllms_dashboards_find_what_they_ask_for(
    seen: Seen, name: str, labels: tuple[str, ...], format_: str
) -> None:
    """Each name with each label, colon and all, unless the feature is refused."""
    page = seen.after if format_ == "classic" else seen.modern
    found = [set(present) for present, _ in page.samples(name)]
    assert bool(found) == (name not in REFUSED)
    assert all(set(labels) <= present for present in found)


def test_vllms_dashboards_find_the_values_they_select(seen: Seen) -> None:
    """Label values and SLO thresholds that a query or a variable names."""
    selected = [
        ("vllm:request_success_total", "finished_reason", FINISHED_REASONS),
        ("vllm:num_requests_waiting_by_reason", "reason", ("capacity", "deferred")),
        (
            "vllm:prompt_tokens_by_source_total",
            "source",
            ("local_compute", "local_cache_hit", "external_kv_transfer"),
        ),
        (
            "vllm:time_to_first_token_seconds_bucket",
            "le",
            ("0.1", "0.25", "0.5", "0.75", "1.0", "2.5", "5.0", "10.0"),
        ),
        (
            "vllm:request_time_per_output_token_seconds_bucket",
            "le",
            ("0.025", "0.05", "0.075", "0.1", "0.15", "0.2", "0.3", "0.5"),
        ),
    ]
    for name, label, values in selected:
        found = {labels[label] for labels, _ in seen.after.samples(name)}
        assert found >= set(values)


def test_late_steps_and_the_alarm_are_told() -> None:
    """A step is late by more than 5 ms and by more than 5 % of its own duration."""
    stats = ServerStats(1)
    for duration, lag in ((0.02, 0.0049), (0.02, 0.0051), (0.2, 0.0099), (0.2, 0.011)):
        step = Step(0, 1.0, 1.0 + duration, 1, 0, 1, 0.0, 1, 1)
        stats.engines[0].written(step, lag)
    stats.lag_alarm.on = True
    machine = load_preset("azure-nd-gb300-v6", "llama-2-70b")
    fleet = build_fleet(machine.limits, machine.law, engines=1, seed=1)
    gpus = Gpus(GpuFacts.of(machine, load_board(machine.gpu)), fleet.engines)
    about = About(model="m", preset="p", vms=1, cache_dtype="fp8")
    readings = {
        spec: list(samples)
        for spec, samples in read_server(about, fleet, stats, gpus, 1.0)
    }
    assert readings[Server.LATE_STEPS] == [(("0",), 2)]
    assert readings[Server.LAG_ALARM] == [((), 1.0)]


def test_faults_and_lost_engines_are_told() -> None:
    """By kind, and by engine while it is away."""
    stats = ServerStats(2)
    stats.faults["reset"] += 3
    machine = load_preset("azure-nd-gb300-v6", "llama-2-70b")
    fleet = build_fleet(machine.limits, machine.law, engines=2, seed=1)
    fleet.mark(1, up=False)
    gpus = Gpus(GpuFacts.of(machine, load_board(machine.gpu)), fleet.engines)
    about = About(model="m", preset="p", vms=1, cache_dtype="fp8")
    readings = {
        spec: list(samples)
        for spec, samples in read_server(about, fleet, stats, gpus, 1.0)
    }
    assert dict(readings[Server.FAULTS]) == {
        (kind,): 3 * (kind == "reset") for kind in FAULT_KINDS
    }
    assert readings[Server.ENGINE_UP] == [(("0",), 1), (("1",), 0)]


def test_every_metric_is_looked_at_for_its_value() -> None:
    """A new one has to be put into a table or a test above."""
    elsewhere = {
        Server.GENERATION_TOKENS, Server.ITL, Server.STEP_TOKENS, Server.CLOCK_LAG,
        Server.LOOP_LAG, Server.RUNNING, Server.WAITING, Server.WAITING_BY_REASON,
        Server.KV_USAGE, Server.SLEEP_STATE, Server.CACHE_CONFIG, Server.MOCK_INFO,
        Server.ENGINE_GPUS, Server.POWER, Server.ENERGY,
        Server.PUBLISHED, Server.PUBLISHED_ENERGY,
        Server.LATE_STEPS, Server.LAG_ALARM, Server.FAULTS, Server.ENGINE_UP,
    }  # fmt: skip
    gpus = {spec for spec in SPECS.values() if spec.name.startswith("DCGM_")}
    counted = {spec for spec, _, _ in COUNTERS}
    assert {*counted, *HISTOGRAMS, *elsewhere, *gpus} == set(SPECS.values())
