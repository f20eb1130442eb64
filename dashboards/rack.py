"""*Rack*: the emulated rack, from the whole over its VMs to each GPU.

Engines are found by their place, which the mock alone tells. Rack and VM figures are of
whole VMs; the variable *Engine* narrows the rows by GPU.
"""

from collections.abc import Sequence
from typing import Final

from loadstone.vocabulary import Server

from .grafana import (
    NEUTRAL,
    Column,
    Panel,
    Query,
    Row,
    Step,
    Variable,
    dashboard,
    query_variable,
    stat,
    table,
    timeseries,
)
from .normal import Json
from .queries import level, placed, rate, ratio, series
from .shared import FILLING, NO_LOOKUP, NOBODY_WAITS, TOKENS_PER_S, scope

NO_RACK: Final = "no emulated rack"
NOT_PUBLISHED: Final = "not published"
NO_CACHE: Final = ((-1.0, "no prefix cache"),)
"""What the share of prefix hits says where there is nothing to hit."""

_VM: Final = "instance, rack, vm"
_GPU: Final = "instance, vm, gpus"
_GPU_NAME: Final = "{{vm}} GPU {{gpus}}"
_CHOSEN: Final = 'engine=~"$engine"'
_COMPARED: Final = (
    " What was published is of an Offline run: all requests at once, no latency limit."
    " *Unverified*: not by MLCommons."
)


def rack() -> Json:
    """Return the dashboard's JSON."""
    return dashboard(
        "loadstone-rack",
        "loadstone / Rack",
        "The emulated rack: its throughput against the published, its VMs, its GPUs.",
        rows=[
            Row("", [(4, _throughput()), (4, _state())]),
            Row("Against the published figures", [(8, _published())]),
            Row("By VM", [(11, [_vms()]), (8, _by_vm())]),
            Row("By GPU", [(8, _batches()), (8, _work())]),
        ],
        variables=[
            *(v for v in scope() if v.name in ("datasource", "server")),
            *_places(),
        ],
    )


def _places() -> list[Variable]:
    gpus, within = Server.ENGINE_GPUS.name, ['job=~"$server"']
    variables = []
    for name, label in (("rack", "Rack"), ("vm", "VM"), ("engine", "Engine")):
        query = f"label_values({gpus}{{{', '.join(within)}}}, {name})"
        variables.append(query_variable(name, label, query))
        within.append(f'{name}=~"${name}"')
    return variables


# ----------------------------------------------------------------------------- queries


def _tokens(by: str = "") -> str:
    return placed(Server.GENERATION_TOKENS, by=by)


def _tokens_per_gpu(by: str = "") -> str:
    return f"{_tokens(by)} / {level(Server.ENGINE_GPUS, by=by)}"


def _share_of_published(by: str = "") -> str:
    return f"{_tokens_per_gpu(by)} / on () group_left () {_published_per_gpu()}"


def _published_per_gpu(by: str = "") -> str:
    return level(Server.PUBLISHED, 'per="gpu"', 'figure="mean"', by=by, how="max")


def _hits(by: str = "", *where: str) -> str:
    hits = placed(Server.PREFIX_HITS, *where, by=by)
    return ratio(hits, placed(Server.PREFIX_QUERIES, *where, by=by))


def _hits_or_none(by: str = "") -> str:
    """Return the share of hits, or -1 where no engine has a prefix cache."""
    off = 'enable_prefix_caching="False"'
    without = placed(Server.CACHE_CONFIG, off, by=by, how="group")
    return f"{_hits(by)} or -1 * {without}"


def _joules_per_token() -> str:
    return ratio(rate(Server.ENERGY), _tokens())


# ------------------------------------------------------------------------------ panels


def _tile(
    title: str,
    text: str,
    expr: str,
    unit: str,
    steps: Sequence[Step] = NEUTRAL,
) -> Panel:
    """Show a figure that is 0 when nothing happens, and missing without a mock."""
    return stat(title, text, Query(expr), unit=unit, steps=steps, empty=NO_RACK)


def _lines(title: str, text: str, *queries: Query, unit: str) -> Panel:
    """Draw what is 0 when nothing happens, and missing without a mock."""
    return timeseries(title, text, queries, unit=unit, empty=NO_RACK)


def _reference() -> Query:
    return Query(_published_per_gpu("basis"), "published ({{basis}})", reference=True)


def _throughput() -> list[Panel]:
    return [
        _tile(
            "GPUs",
            "Emulated GPUs under the engines.",
            level(Server.ENGINE_GPUS),
            "short",
        ),
        _tile(
            "Output tokens/s",
            "Tokens generated per second, all chosen VMs together.",
            _tokens(),
            TOKENS_PER_S,
        ),
        _tile(
            "Output tokens/s/GPU",
            "The same over the number of GPUs.",
            _tokens_per_gpu(),
            TOKENS_PER_S,
        ),
        stat(
            "Published tokens/s/GPU",
            f"What to compare the last tile with.{_COMPARED}",
            Query(_published_per_gpu("basis"), "{{basis}}"),
            unit=TOKENS_PER_S,
            empty=NOT_PUBLISHED,
        ),
        stat(
            "Share of the published",
            "Output tokens/s/GPU over the published figure. It is below 100 % unless"
            f" the batch is full all the time.{_COMPARED}",
            Query(_share_of_published()),
            unit="percentunit",
            empty=NOT_PUBLISHED,
        ),
        stat(
            "Energy per output token",
            "Emulated energy of the VMs per generated token; their share of the rack's"
            " rest is in it where its power was published.",
            Query(_joules_per_token()),
            unit="joule",
        ),
    ]


def _state() -> list[Panel]:
    return [
        _tile(
            "Running",
            "Requests in the engines' batches.",
            placed(Server.RUNNING),
            "short",
        ),
        _tile(
            "Waiting",
            "Requests that wait to be scheduled.",
            placed(Server.WAITING),
            "short",
            NOBODY_WAITS,
        ),
        _tile(
            "KV cache, fullest",
            "Share of the KV cache's blocks in use on the engine that has most.",
            placed(Server.KV_USAGE, how="max"),
            "percentunit",
            FILLING,
        ),
        _tile(
            "Preemptions/s",
            "Running requests put back for lack of KV blocks, per second.",
            placed(Server.PREEMPTIONS),
            "cps",
        ),
        stat(
            "Prefix hits",
            "Share of the admitted prompts' tokens that the prefix cache had.",
            Query(_hits_or_none()),
            unit="percentunit",
            words=NO_CACHE,
        ),
        _tile(
            "Power",
            "Emulated power of the VMs; their share of the rack's rest is in it where"
            " its power was published.",
            level(Server.POWER),
            "watt",
        ),
    ]


def _published() -> list[Panel]:
    per_vm = _tokens("instance, vm")
    of_vms = level(Server.PUBLISHED, 'per="vm"', by="figure, basis", how="max")
    energy = level(Server.PUBLISHED_ENERGY, by="basis", how="max")
    return [
        _lines(
            "Output tokens/s/GPU over time",
            f"Mean over the chosen VMs' GPUs, and the published mean.{_COMPARED}",
            Query(_tokens_per_gpu(), "emulated"),
            _reference(),
            unit=TOKENS_PER_S,
        ),
        _lines(
            "Spread over VMs",
            "Output tokens/s of the slowest VM, of the mean and of the fastest. The"
            f" emulated VMs are equal machines, real ones are not.{_COMPARED}",
            *(
                Query(f"{how}({per_vm})", name)
                for how, name in (("min", "min"), ("avg", "mean"), ("max", "max"))
            ),
            Query(of_vms, "published {{figure}} ({{basis}})", reference=True),
            unit=TOKENS_PER_S,
        ),
        timeseries(
            "Power by part",
            "Emulated: GPUs draw their limit inside a step, which is an upper bound."
            " The rest (CPUs, switches, fans, losses) is the VMs' share of what a full"
            " rack draws beside its GPUs, taken as constant; missing where the rack's"
            " power was not published.",
            [
                Query(level(Server.POWER, f'part="{part}"'), name)
                for part, name in (("gpus", "GPUs"), ("rest", "rest of the rack"))
            ],
            unit="watt",
            stacked=True,
            empty=NO_RACK,
        ),
        timeseries(
            "Energy per output token over time",
            "Idle time counts: the fuller the batch, the less a token takes. The"
            f" published is the rack's power over its tokens/s.{_COMPARED}",
            [
                Query(_joules_per_token(), "emulated"),
                Query(energy, "published ({{basis}})", reference=True),
            ],
            unit="joule",
        ),
    ]


def _vms() -> Panel:
    columns = (
        ("Running", placed(Server.RUNNING, by=_VM), "short"),
        ("Waiting", placed(Server.WAITING, by=_VM), "short"),
        ("KV, fullest GPU", placed(Server.KV_USAGE, by=_VM, how="max"), "percentunit"),
        ("Preemptions/s", placed(Server.PREEMPTIONS, by=_VM), "cps"),
        ("Tokens/s", _tokens(_VM), TOKENS_PER_S),
        ("Tokens/s/GPU", _tokens_per_gpu(_VM), TOKENS_PER_S),
        ("Power", level(Server.POWER, by=_VM), "watt"),
    )
    share = Query(_share_of_published(_VM), "Share of the published")
    hits = Query(_hits_or_none(_VM), "Prefix hits")
    return table(
        "VMs",
        "The present state and rates of each VM. Power includes its share of the rack's"
        f" rest where that was published.{_COMPARED}",
        {"instance": "Instance", "rack": "Rack", "vm": "VM"},
        [
            *(Column(Query(expr, name), unit) for name, expr, unit in columns),
            Column(share, "percentunit", empty=NOT_PUBLISHED),
            Column(hits, "percentunit", words=NO_CACHE),
        ],
    )


def _by_vm() -> list[Panel]:
    by = "instance, vm"
    panels = (
        (
            "Output tokens/s",
            "How evenly the work is spread.",
            _tokens(by),
            TOKENS_PER_S,
        ),
        (
            "Running",
            "Requests in the batches of a VM's engines.",
            placed(Server.RUNNING, by=by),
            "short",
        ),
        (
            "Waiting",
            "Requests that wait for one of a VM's engines.",
            placed(Server.WAITING, by=by),
            "short",
        ),
    )
    return [
        _lines(f"{title} by VM", text, Query(expr, "{{vm}}"), unit=unit)
        for title, text, expr, unit in panels
    ]


def _batches() -> list[Panel]:
    panels = (
        ("Batch", "Requests in the batch of each engine.", Server.RUNNING, "short"),
        ("Queue", "Requests that wait for each engine.", Server.WAITING, "short"),
        (
            "KV cache",
            "Share of each KV cache's blocks in use. A full one preempts.",
            Server.KV_USAGE,
            "percentunit",
        ),
        (
            "Preemptions/s",
            "Running requests put back for lack of KV blocks.",
            Server.PREEMPTIONS,
            "cps",
        ),
    )
    return [
        _lines(
            f"{title} by GPU",
            text,
            Query(placed(spec, _CHOSEN, by=_GPU), _GPU_NAME),
            unit=unit,
        )
        for title, text, spec, unit in panels
    ]


def _work() -> list[Panel]:
    tokens = placed(Server.GENERATION_TOKENS, _CHOSEN, by=_GPU, per_gpu=True)
    return [
        _lines(
            "Output tokens/s by GPU",
            f"Of each engine, over its GPUs.{_COMPARED}",
            Query(tokens, _GPU_NAME),
            _reference(),
            unit=TOKENS_PER_S,
        ),
        timeseries(
            "Prefix hits by GPU",
            "Share of the admitted prompts' tokens that an engine's prefix cache had.",
            [Query(_hits(_GPU, _CHOSEN), _GPU_NAME)],
            unit="percentunit",
            empty=NO_LOOKUP,
        ),
        _lines(
            "Power by GPU",
            "Emulated: each GPU of the VMs that the chosen engines are in.",
            Query(_watts_of_gpus(), "{{vm}} GPU {{gpu}}"),
            unit="watt",
        ),
    ]


def _watts_of_gpus() -> str:
    # dcgm-exporter knows a VM by its host name, and no rack.
    watts = f'label_join({series(Server.GPU_POWER)}, "vm", "", "Hostname")'
    place = level(Server.ENGINE_GPUS, _CHOSEN, by="job, instance, vm", how="group")
    joined = f"{watts} * on (job, instance, vm) group_left () {place}"
    return f"sum by (instance, vm, gpu) ({joined})"
