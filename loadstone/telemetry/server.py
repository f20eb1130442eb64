"""What the mock exports: engine state and the server's counts, under vLLM's names."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from mock_server.app import Metrics
from mock_server.stats import EngineStats, ServerStats

from .. import __version__
from ..buckets import BucketArray
from ..engine.core import Engine
from ..engine.fleet import Fleet
from ..units import Seconds
from ..vocabulary import (
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
    """What is emulated: told in labels."""

    model: str
    preset: str
    vms: int
    cache_dtype: str


_Value = float | BucketArray
_Part = tuple[Engine, EngineStats]


def _prompt_tokens(stats: EngineStats, source: str) -> float:
    """Return where prompts came from; nothing is transferred here."""
    cached = stats.cached_tokens
    known = {"local_compute": stats.prompt_tokens - cached, "local_cache_hit": cached}
    return known.get(source, 0)


_PER_ENGINE: Final[
    tuple[tuple[MetricSpec, Callable[[Engine, EngineStats], _Value]], ...]
] = (
    (Server.RUNNING, lambda e, _: e.running),
    (Server.WAITING, lambda e, _: e.waiting),
    (Server.KV_USAGE, lambda e, _: e.kv_usage),
    (Server.PROMPT_TOKENS, lambda _, s: s.prompt_tokens),
    (Server.PROMPT_TOKENS_CACHED, lambda _, s: s.cached_tokens),
    (Server.GENERATION_TOKENS, lambda e, _: e.generated_tokens),
    (Server.PREFIX_QUERIES, lambda e, _: e.prefix_cache_queries),
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
    (Server.REQUEST_MAX_GENERATION, lambda _, s: s.longest),
    (Server.PREFILL_COMPUTED, lambda _, s: s.computed_lengths),
)
"""Metrics with one sample for each engine."""

_BY_LABEL: Final[
    tuple[tuple[MetricSpec, tuple[str, ...], Callable[[_Part, str], float]], ...]
] = (
    (Server.WAITING_BY_REASON, WAITING_REASONS,
     lambda part, reason: part[0].waiting if reason == "capacity" else 0),
    (Server.PROMPT_TOKENS_BY_SOURCE, PROMPT_SOURCES,
     lambda part, source: _prompt_tokens(part[1], source)),
    (Server.SLEEP_STATE, SLEEP_STATES, lambda _, state: state == "awake"),
    (Server.SUCCESS, FINISHED_REASONS, lambda part, reason: part[1].finished[reason]),
)  # fmt: skip
"""Metrics with one sample for each engine and each value of one more label."""


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
    facts = (__version__, about.preset, about.model, str(about.vms))
    yield Server.MOCK_INFO, [(facts, 1)]


def _engines(about: About, fleet: Fleet, stats: ServerStats) -> Iterator[Reading]:
    parts = [
        ((about.model, str(index)), part)
        for index, part in enumerate(zip(fleet.engines, stats.engines, strict=True))
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
            (_cache(index, engine, about.cache_dtype), 1)
            for index, engine in enumerate(fleet.engines)
        ],
    )
    yield Server.CLOCK_LAG, [((name[1],), part[1].lag) for name, part in parts]


def _cache(index: int, engine: Engine, dtype: str) -> tuple[str, ...]:
    blocks, size = engine.limits.kv_blocks, engine.limits.block_size
    return (
        str(index), str(size), dtype, str(engine.prefix_caching), str(blocks * size),
        str(blocks), "None"
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
    yield Server.LOOP_LAG, [((), stats.loop_lag)]
    yield Server.SLOW_READERS, [((), stats.slow_readers)]
