"""*Server*: what the mock, or a vLLM under the same names, says of itself.

The rows on GPUs and on the mock's own lag are empty for a vLLM; dcgm-exporter fills the
first where its job is chosen as the server.
"""

from loadstone.units import MILLIJOULES
from loadstone.vocabulary import MetricSpec, Server, Supervisor

from .grafana import Column, Panel, Query, Row, dashboard, stat, table, timeseries
from .normal import Json
from .queries import level, mean, quantile, rate, ratio, series
from .shared import (
    NO_LOOKUP,
    TOKENS,
    TOKENS_PER_S,
    parts,
    percentiles,
    scope,
    tokens,
    waiting,
)


def server() -> Json:
    """Return the dashboard's JSON."""
    return dashboard(
        "loadstone-server",
        "loadstone / Server",
        "Scheduler, requests and GPUs of the mock, or of a vLLM under the same names.",
        rows=[
            Row("", [(4, _head())]),
            Row("Scheduler", [(8, _scheduler()), (8, _steps())]),
            Row("Latency, as the server sees it", [(8, _latency())]),
            Row("Requests", [(8, _requests()), (8, _lengths())]),
            Row("GPUs (the mock's are emulated)", [(8, _gpus())]),
            Row("Is the mock on time?", [(8, _lateness())]),
            Row("What befell the mock", [(8, _events()), (8, _who())]),
        ],
        variables=[v for v in scope() if v.name in ("datasource", "server", "model")],
    )


def _head() -> list[Panel]:
    return [
        stat(
            "Engines",
            "Engines that report: one per instance, or per data-parallel rank.",
            Query(level(Server.RUNNING, how="count")),
            unit="short",
            empty="no server",
        ),
        stat(
            "Running",
            "Requests in the engines' batches.",
            Query(level(Server.RUNNING)),
            unit="short",
        ),
        waiting(),
        stat(
            "Finished",
            "Requests finished per second, for any reason.",
            Query(rate(Server.SUCCESS)),
            unit="reqps",
        ),
        stat(
            "Output tokens/s",
            "Tokens generated per second.",
            Query(rate(Server.GENERATION_TOKENS)),
            unit=TOKENS_PER_S,
        ),
        stat(
            "Server errors",
            "Share of HTTP requests that were answered with a 5xx.",
            Query(
                ratio(
                    f"({rate(Server.HTTP_REQUESTS, _status('5xx'))} or vector(0))",
                    rate(Server.HTTP_REQUESTS),
                )
            ),
            unit="percentunit",
            steps=(("green", 0.0), ("red", 0.001)),
        ),
        stat(
            "Power",
            "Power draw of all GPUs. The mock's is emulated.",
            Query(level(Server.GPU_POWER)),
            unit="watt",
            empty="not told",
        ),
        stat(
            "Energy per output token",
            "Energy of all GPUs per generated token. The mock's is emulated.",
            Query(_energy_per_token()),
            unit="joule",
        ),
    ]


def _status(status: str) -> str:
    return f'status="{status}"'


def _energy_per_token() -> str:
    joules = f"{rate(Server.GPU_ENERGY)} / {MILLIJOULES:.0f}"
    return ratio(joules, rate(Server.GENERATION_TOKENS))


def _per_engine(title: str, text: str, spec: MetricSpec, unit: str) -> Panel:
    by = "instance, engine"
    query = Query(level(spec, by=by), "{{instance}} engine {{engine}}")
    return timeseries(title, text, [query], unit=unit)


def _scheduler() -> list[Panel]:
    return [
        timeseries(
            "Running and waiting",
            "Capacity: no room in the batch or the KV cache. Deferred: held back by"
            " something that passes, such as a KV transfer; the mock has none.",
            [
                Query(level(Server.RUNNING), "running"),
                Query(level(Server.WAITING_BY_REASON, by="reason"), "{{reason}}"),
            ],
            unit="short",
        ),
        _per_engine(
            "Running per engine",
            "How evenly the router spreads the requests.",
            Server.RUNNING,
            "short",
        ),
        _per_engine(
            "KV cache per engine",
            "Share of the KV cache's blocks in use. A full one makes requests wait,"
            " then preempts.",
            Server.KV_USAGE,
            "percentunit",
        ),
    ]


def _steps() -> list[Panel]:
    return [
        timeseries(
            "Preemptions/s",
            "Running requests put back for lack of KV blocks; they are computed again.",
            [Query(rate(Server.PREEMPTIONS), "preemptions")],
            unit="cps",
        ),
        timeseries(
            "Tokens per step",
            "Tokens that an engine step prefills and generates, within power-of-two"
            " buckets; the mean is exact.",
            [
                Query(quantile(0.5, Server.STEP_TOKENS), "p50"),
                Query(quantile(0.99, Server.STEP_TOKENS), "p99"),
                Query(mean(Server.STEP_TOKENS), "mean"),
            ],
            unit=TOKENS,
        ),
        timeseries(
            "Prefix hits",
            "Share of the admitted prompts' tokens that the prefix cache had.",
            [
                Query(
                    ratio(rate(Server.PREFIX_HITS), rate(Server.PREFIX_QUERIES)), "hits"
                )
            ],
            unit="percentunit",
            empty=NO_LOOKUP,
        ),
        tokens(
            "Tokens/s",
            "Tokens prefilled and generated per second.",
            Server.GENERATION_TOKENS,
            Server.PROMPT_TOKENS,
        ),
    ]


def _latency() -> list[Panel]:
    return [
        percentiles(
            "Time to first token",
            "From the request's arrival to its first token, queueing included.",
            Server.TTFT,
        ),
        percentiles(
            "Time per output token",
            "A finished request's mean time per token after the first.",
            Server.TPOT,
        ),
        percentiles(
            "End to end",
            "From the request's arrival to its last token.",
            Server.E2E,
        ),
        percentiles(
            "Inference",
            "From first scheduled to last token: end to end without the queue.",
            Server.INFERENCE_TIME,
        ),
    ]


def _requests() -> list[Panel]:
    return [
        parts(
            "Finished by reason",
            "Stop: the model ended. Length: the limit asked for was reached. Abort: the"
            " client went away.",
            Server.SUCCESS,
            "finished_reason",
        ),
        parts(
            "Refused at the door",
            "Requests refused because too many waited already.",
            Server.REJECTIONS,
            "reason",
        ),
        parts(
            "HTTP requests by status",
            "By class of status. HTTP metrics have no model, so this follows the server"
            " alone.",
            Server.HTTP_REQUESTS,
            "status",
        ),
    ]


def _lengths() -> list[Panel]:
    return [
        percentiles(
            "Prompt length",
            "Prompt tokens of finished requests, within 1-2-5 buckets.",
            Server.REQUEST_PROMPT,
            unit=TOKENS,
        ),
        percentiles(
            "Answer length",
            "Generated tokens of finished requests, within 1-2-5 buckets.",
            Server.REQUEST_GENERATION,
            unit=TOKENS,
        ),
        timeseries(
            "HTTP duration by handler",
            "Mean time to serve an HTTP request, the whole stream included.",
            [
                Query(
                    ratio(
                        rate(Server.HTTP_DURATION, by="handler", part="sum"),
                        rate(Server.HTTP_DURATION, by="handler", part="count"),
                    ),
                    "{{handler}}",
                )
            ],
            unit="s",
        ),
    ]


def _gpus() -> list[Panel]:
    active = (
        ("in a step", Server.GPU_ENGINE_ACTIVE),
        ("tensor cores", Server.GPU_TENSOR_ACTIVE),
        ("memory", Server.GPU_DRAM_ACTIVE),
    )
    return [
        timeseries(
            "Power",
            "Power draw, by GPU.",
            [Query(level(Server.GPU_POWER, by="instance, gpu"), "GPU {{gpu}}")],
            unit="watt",
            stacked=True,
        ),
        timeseries(
            "Utilisation",
            "Share of time with any work, by GPU. It says little of how much: see the"
            " next panel.",
            [
                Query(
                    level(Server.GPU_UTIL, by="instance, gpu", how="max"), "GPU {{gpu}}"
                )
            ],
            unit="percent",
        ),
        timeseries(
            "Active",
            "Mean over GPUs of the share of time in a step, in tensor cores and of the"
            " memory's bandwidth.",
            [Query(level(spec, how="avg"), name) for name, spec in active],
            unit="percentunit",
        ),
        timeseries(
            "GPU memory",
            "Used and free memory of all GPUs.",
            [
                Query(level(Server.GPU_MEMORY_USED), "used"),
                Query(level(Server.GPU_MEMORY_FREE), "free"),
            ],
            unit="mbytes",
            stacked=True,
        ),
    ]


def _lateness() -> list[Panel]:
    return [
        percentiles(
            "Clock lag",
            "How late a step's tokens were written, against the emulated schedule. The"
            " mock is on time while this is far below a step (some 20 ms).",
            Server.CLOCK_LAG,
        ),
        percentiles(
            "Event loop lag",
            "How late the mock's event loop ran a timer that only measures that.",
            Server.LOOP_LAG,
        ),
        timeseries(
            "Late steps",
            "Steps written so far that were more than 5 ms and 5 % of a step late.",
            [Query(level(Server.LATE_STEPS), "late steps")],
            unit="short",
        ),
        timeseries(
            "Lag alarm",
            "1 while more than one step in a hundred is late: what clients read then is"
            " the mock's lateness too.",
            [Query(level(Server.LAG_ALARM, how="max"), "alarm")],
            unit="short",
            states=True,
        ),
    ]


def _events() -> list[Panel]:
    return [
        timeseries(
            "Slow readers",
            "Streams cut off so far because their client did not read.",
            [Query(level(Server.SLOW_READERS), "cut off")],
            unit="short",
        ),
        timeseries(
            "Faults on purpose",
            "Faults done so far, by kind: requests struck, engines lost or slowed.",
            [Query(level(Server.FAULTS, by="kind"), "{{kind}}")],
            unit="short",
        ),
        timeseries(
            "Engines up",
            "Engines that are not lost. The router passes the others over.",
            [Query(level(Server.ENGINE_UP), "up")],
            unit="short",
        ),
        timeseries(
            "Worker processes",
            "Of a mock in several processes: those that listen, and how often one that"
            " had died was started again.",
            [
                Query(level(Supervisor.WORKER_UP), "up"),
                Query(level(Supervisor.WORKER_RESTARTS), "restarts"),
            ],
            unit="short",
        ),
    ]


def _who() -> list[Panel]:
    info = series(Server.MOCK_INFO)
    labels = {"instance": "Instance", "version": "Version", "preset": "Preset",
              "model": "Model", "vms": "VMs", "policy": "Policy",
              "scheduling_policy": "Order"}  # fmt: skip
    return [
        timeseries(
            "Tenants",
            "Requests so far by tenant: admitted, or refused for what there was too"
            " little of.",
            [
                Query(
                    level(Server.TENANT_REQUESTS, by="tenant, admission"),
                    "{{tenant}} {{admission}}",
                )
            ],
            unit="short",
        ),
        table(
            "What is emulated",
            "The mocks that are scraped.",
            labels,
            [Column(Query(f"max by ({', '.join(labels)}) ({info})", "up"), "short")],
        ),
    ]
