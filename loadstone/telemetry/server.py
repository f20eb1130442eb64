"""What the mock exports: engine state and the server's counts, under vLLM's names."""

from collections.abc import Callable, Iterator

from mock_server.stats import EngineStats, ServerStats

from ..buckets import BucketArray
from ..engine.core import Engine
from ..engine.fleet import Fleet
from ..vocabulary import MetricSpec, Server
from .prometheus import Reading, Sample

_ENGINE: tuple[tuple[MetricSpec, Callable[[Engine], float]], ...] = (
    (Server.RUNNING, lambda e: e.running),
    (Server.WAITING, lambda e: e.waiting),
    (Server.KV_USAGE, lambda e: e.kv_usage),
    (Server.PROMPT_TOKENS, lambda e: e.prompt_tokens_done),
    (Server.GENERATION_TOKENS, lambda e: e.generated_tokens),
    (Server.PREEMPTIONS, lambda e: e.preemptions),
)
_EDGE: tuple[tuple[MetricSpec, Callable[[EngineStats], BucketArray]], ...] = (
    (Server.TTFT, lambda s: s.ttft),
    (Server.ITL, lambda s: s.itl),
    (Server.E2E, lambda s: s.e2e),
)


def read_server(model: str, fleet: Fleet, stats: ServerStats) -> Iterator[Reading]:
    """Read the state of every engine and of the server's edge."""
    names = [(model, str(i)) for i in range(len(fleet.engines))]
    for spec, engine_value in _ENGINE:
        yield spec, _each(names, [engine_value(e) for e in fleet.engines])
    for spec, edge_value in _EDGE:
        yield spec, _each(names, [edge_value(s) for s in stats.engines])
    yield (
        Server.SUCCESS,
        [
            ((*name, reason), count)
            for name, edge in zip(names, stats.engines, strict=True)
            for reason, count in edge.finished.items()
        ],
    )
    yield (
        Server.CLOCK_LAG,
        [((name[1],), s.lag) for name, s in zip(names, stats.engines, strict=True)],
    )
    yield Server.HTTP_REQUESTS, list(stats.http_requests())


def _each(
    names: list[tuple[str, str]], values: list[float] | list[BucketArray]
) -> list[Sample]:
    return list(zip(names, values, strict=True))
