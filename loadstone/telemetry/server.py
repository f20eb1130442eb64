"""What the mock exports: engine state and the server's counts, under vLLM's names."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from mock_server.app import Metrics
from mock_server.stats import EngineStats, ServerStats
from mock_server.tenants import DEFAULT

from .. import __version__
from ..buckets import BucketArray
from ..catalog.facts import Fact
from ..catalog.presets import Preset
from ..engine.core import Engine
from ..engine.fleet import Fleet
from ..units import Seconds
from ..vocabulary import (
    ADMISSIONS,
    FINISHED_REASONS,
    GENAI_OTHER_MODEL,
    GENAI_PROVIDER,
    PROMPT_SOURCES,
    REJECTION_REASONS,
    SLEEP_STATES,
    WAITING_REASONS,
    MetricSpec,
    Server,
)
from .gpus import Gpus
from .negotiation import choose_format
from .prometheus import Reading, Sample
from .text import Text


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What is emulated, and what was published for it: told in labels."""

    model: str
    preset: str
    vms: int
    cache_dtype: str
    tenants: tuple[str, ...] = (DEFAULT,)
    published: tuple[Sample, ...] = ()
    """Samples of `Server.PUBLISHED`."""
    published_energy: tuple[Sample, ...] = ()
    """And of `Server.PUBLISHED_ENERGY`."""

    @classmethod
    def of(
        cls,
        machine: Preset,
        vms: int,
        *,
        name: str = "",
        slowdown: float = 1.0,
        tenants: tuple[str, ...] = (DEFAULT,),
    ) -> "About":
        """Take it from the catalog's; `name` is what clients call the model.

        What was published is told as a mock that is slowed down would measure it.
        """
        facts = machine.facts
        found = {of: facts[name] for name, of in _PUBLISHED.items() if name in facts}
        mean, rack_w = found.get(_VM_MEAN), facts.get("rack_it_w")
        energy: tuple[Sample, ...] = ()
        if mean and rack_w:
            joules = rack_w.value / (mean.value * machine.vms_per_rack)
            energy = (((_basis(mean, slowdown),), joules * slowdown),)
        return cls(
            model=name or machine.model,
            preset=machine.name,
            vms=vms,
            cache_dtype=machine.cache_dtype,
            tenants=tenants,
            published=tuple(
                ((*of, _basis(fact, slowdown)), fact.value / slowdown)
                for of, fact in found.items()
            ),
            published_energy=energy,
        )


_VM_MEAN: Final = ("vm", "mean")
_PUBLISHED: Final = {
    "published_tokens_per_gpu": ("gpu", "mean"),
    "published_vm_min": ("vm", "min"),
    "published_vm_mean": _VM_MEAN,
    "published_vm_max": ("vm", "max"),
}
"""Facts of a preset about a run that somebody published: of what, and which figure."""


def _basis(fact: Fact, slowdown: float) -> str:
    # `official` is what MLCommons published itself.
    checked = "verified" if fact.confidence == "official" else "unverified"
    slowed = f", slowed {slowdown:g} times" if slowdown != 1 else ""
    return f"Offline, {checked}{slowed}"


_Value = float | BucketArray
_Part = tuple[Engine, EngineStats]


_PER_ENGINE: Final[
    tuple[tuple[MetricSpec, Callable[[Engine, EngineStats], _Value]], ...]
] = (
    (Server.RUNNING, lambda e, _: e.running),
    (Server.WAITING, lambda e, _: e.waiting),
    (Server.KV_USAGE, lambda e, _: e.kv_usage),
    (Server.PROMPT_TOKENS, lambda _, s: s.prompt_tokens),
    (Server.PROMPT_TOKENS_CACHED, lambda _, s: s.cached_tokens),
    (Server.GENERATION_TOKENS, lambda e, _: e.generated_tokens),
    (Server.PREFIX_QUERIES, lambda e, _: e.prefix_cache_queries if _caches(e) else 0),
    (Server.PREFIX_HITS, lambda e, _: e.prefix_cache_hits),
    (Server.PREEMPTIONS, lambda e, _: e.preemptions),
    (Server.TTFT, lambda _, s: s.ttft),
    (Server.ITL, lambda _, s: s.itl),
    (Server.TPOT, lambda _, s: s.tpot),
    (Server.E2E, lambda _, s: s.e2e),
    (Server.QUEUE_TIME, lambda _, s: s.queue),
    (Server.PREFILL_TIME, lambda _, s: s.prefill),
    (Server.DECODE_TIME, lambda _, s: s.decode),
    (Server.INFERENCE_TIME, lambda _, s: s.inference),
    (Server.REQUEST_PROMPT, lambda _, s: s.prompt_lengths),
    (Server.REQUEST_GENERATION, lambda _, s: s.generation_lengths),
    (Server.REQUEST_MAX_TOKENS, lambda _, s: s.max_tokens),
    (Server.REQUEST_N, lambda _, s: s.n),
    (Server.REQUEST_PREEMPTIONS, lambda _, s: s.preemptions),
    (Server.STEP_TOKENS, lambda _, s: s.step_tokens),
    (Server.PREFILL_COMPUTED, lambda _, s: s.prefill_computed),
    (Server.REQUEST_MAX_GENERATION, lambda _, s: s.longest),
)
"""Metrics with one sample for each engine."""

_SOURCES: Final[dict[str, Callable[[EngineStats], float]]] = {
    "local_compute": lambda stats: stats.prompt_tokens - stats.cached_tokens,
    "local_cache_hit": lambda stats: stats.cached_tokens,
    "external_kv_transfer": lambda _: 0,
}
_BY_LABEL: Final[
    tuple[tuple[MetricSpec, tuple[str, ...], Callable[[_Part, str], float]], ...]
] = (
    (Server.WAITING_BY_REASON, WAITING_REASONS,
     lambda part, reason: part[0].waiting if reason == "capacity" else 0),
    (Server.PROMPT_TOKENS_BY_SOURCE, PROMPT_SOURCES,
     lambda part, source: _SOURCES[source](part[1])),
    (Server.SLEEP_STATE, SLEEP_STATES, lambda _, state: state == "awake"),
    (Server.SUCCESS, FINISHED_REASONS, lambda part, reason: part[1].finished[reason]),
)  # fmt: skip
"""Metrics with one sample for each engine and each value of one more label."""


def _caches(engine: Engine) -> bool:
    """Whether there is a prefix cache: it is on, and the policy has one."""
    return engine.prefix_caching and engine.policy.extras


def server_metrics(
    about: About, fleet: Fleet, stats: ServerStats, gpus: Gpus
) -> Metrics:
    """Return what answers `/metrics`."""
    text = Text()

    def render(accept: str, now: Seconds) -> tuple[bytes, str]:
        form = choose_format(accept)
        readings = read_server(about, fleet, stats, gpus, now)
        return text.render(readings, form), form.value

    return render


def read_server(
    about: About, fleet: Fleet, stats: ServerStats, gpus: Gpus, now: Seconds
) -> Iterator[Reading]:
    """Read every engine, every GPU and the server's edge at an engine time."""
    yield from _engines(about, fleet, stats)
    yield from _edge(about, stats)
    yield from gpus.read(now)
    engine = fleet.engines[0]
    facts = (
        __version__, about.preset, about.model, str(about.vms), engine.policy.name,
        engine.scheduling_policy,
    )  # fmt: skip
    yield Server.MOCK_INFO, [(facts, 1)]
    up = frozenset(fleet.up)
    yield Server.ENGINE_UP, [((str(i),), i in up) for i in range(len(fleet.engines))]
    yield Server.PUBLISHED, about.published
    yield Server.PUBLISHED_ENERGY, about.published_energy


def _engines(about: About, fleet: Fleet, stats: ServerStats) -> Iterator[Reading]:
    parts = [
        ((about.model, str(number)), part)
        for number, part in enumerate(
            zip(fleet.engines, stats.engines, strict=True), fleet.first
        )
    ]
    for spec, value in _PER_ENGINE:
        yield spec, [(name, value(*part)) for name, part in parts]
    for spec, values, count in _BY_LABEL:
        yield (
            spec,
            [((*n, label), count(p, label)) for n, p in parts for label in values],
        )
    yield (
        Server.CACHE_CONFIG,
        [
            (_cache(number, engine, about.cache_dtype), 1)
            for number, engine in enumerate(fleet.engines, fleet.first)
        ],
    )
    yield Server.CLOCK_LAG, [((name[1],), part[1].lag) for name, part in parts]
    late: list[Sample] = [((name[1],), part[1].late_steps) for name, part in parts]
    yield Server.LATE_STEPS, late


def _cache(number: int, engine: Engine, dtype: str) -> tuple[str, ...]:
    blocks, size = engine.limits.kv_blocks, engine.limits.block_size
    return (
        str(number), str(size), dtype, str(_caches(engine)), str(blocks * size),
        str(blocks), "None",
    )  # fmt: skip


def _edge(about: About, stats: ServerStats) -> Iterator[Reading]:
    yield (
        Server.REJECTIONS,
        [
            ((about.model, reason), stats.rejected[reason])
            for reason in REJECTION_REASONS
        ],
    )
    served = (GENAI_PROVIDER, about.model)
    durations: list[Sample] = [
        ((kind, GENAI_PROVIDER, GENAI_OTHER_MODEL if error else about.model, error), a)
        for (kind, error), a in stats.genai.duration.items()
    ]
    yield Server.GENAI_DURATION, durations
    yield Server.GENAI_TTFT, [((k, *served), a) for k, a in stats.genai.ttft.items()]
    yield Server.GENAI_TPOT, [((k, *served), a) for k, a in stats.genai.tpot.items()]
    yield Server.HTTP_REQUESTS, stats.http_requests()
    yield Server.HTTP_DURATION, stats.http_durations()
    yield Server.LAG_ALARM, [((), float(stats.lag_alarm.on))]
    yield Server.LOOP_LAG, [((), stats.loop_lag)]
    yield Server.SLOW_READERS, [((), stats.slow_readers)]
    yield (
        Server.TENANT_REQUESTS,
        [
            ((tenant, said), stats.tenants[tenant, said])
            for tenant in about.tenants
            for said in ADMISSIONS
        ],
    )
    yield Server.FAULTS, [((kind,), n) for kind, n in stats.faults.items()]
