"""The load generator's telemetry: an observer of its hooks, with totals of its own.

Its totals hold every request of the process, warm-up and failures included, as the
conventions want; the run's statistics leave both out of the latencies.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from loadgen.endpoint import Endpoint
from loadgen.hooks import Begun
from loadgen.tracing import root_span_id

from ...buckets import BucketArray, bucket_value
from ...genai import (
    CHAT,
    CLIENT_SERVICE,
    OTHER_PROVIDER,
    PROVIDERS,
    TEXT,
    UNKNOWN,
    Attr,
    OtelClient,
    OtelMetric,
)
from ...traffic.plan import Plan
from ...traffic.record import RequestRecord, TokensSource
from .export import Telemetry
from .metrics import Point, Reading
from .settings import Settings
from .trees import Attributes, Tree, Value, client_tree, error_of

Key = tuple[tuple[str, Value], ...]
"""Attributes as a dictionary's key."""


class LoadTelemetry:
    """Observes the runs of this process and exports them until it is closed."""

    def __init__(self, settings: Settings) -> None:
        self.totals = ClientTotals(settings)
        self._begun: _Known | None = None
        self._telemetry: Telemetry[tuple[_Known, RequestRecord]] = Telemetry(
            settings, service=CLIENT_SERVICE, read=self.totals.read, tree_of=_tree_of
        )

    def __repr__(self) -> str:
        return f"<LoadTelemetry {self._telemetry!r}>"

    def run_began(self, begun: Begun) -> None:
        """Note what is the same for all requests of a run."""
        plan = begun.plan
        keys = (tuple(attributes_of(plan, host).items()) for host in plan.hosts)
        self._begun = _Known(begun, tuple(keys))

    def request_ended(self, row: RequestRecord) -> None:
        """Count a request, and have its spans exported if it was sampled."""
        known = self._begun
        assert known is not None
        self.totals.add(row, known.targets[row.host])
        if row.trace_id is not None:
            self._telemetry.put((known, row))

    def close(self) -> None:
        """Export what is left, within two seconds."""
        self._telemetry.close()


@dataclass(frozen=True, slots=True)
class _Known:
    """A run, and the attributes that all requests to the same host have, by host."""

    begun: Begun
    targets: tuple[Key, ...]


def attributes_of(plan: Plan, url: str) -> Attributes:
    """Say what is asked for and of whom, as metrics and spans have it."""
    endpoint = Endpoint.parse(url)
    host = endpoint.host
    provider = next((p for end, p in PROVIDERS if host.endswith(end)), OTHER_PROVIDER)
    common: dict[str, Value] = {
        Attr.OPERATION: CHAT,
        Attr.PROVIDER: provider,
        Attr.REQUEST_MODEL: plan.model,
        Attr.ADDRESS: endpoint.unix_path or host,
    }
    if endpoint.unix_path is None:
        common[Attr.PORT] = endpoint.port
    return common


def _tree_of(ended: tuple[_Known, RequestRecord]) -> Tree:
    known, row = ended
    assert row.trace_id is not None
    return client_tree(
        row,
        origin=known.begun.t0_epoch,
        common={**dict(known.targets[row.host]), Attr.RUN: known.begun.run},
        root=root_span_id(row.trace_id),
    )


class _Slice:
    """The bucket arrays of one slice; the duration's tell failures apart besides."""

    __slots__ = ("first_chunk", "input_each", "output_each", "per_chunk")

    def __init__(self) -> None:
        self.first_chunk = BucketArray(OtelClient.FIRST_CHUNK.bounds)
        self.per_chunk = BucketArray(OtelClient.PER_CHUNK.bounds)
        self.input_each = BucketArray(OtelClient.INPUT_EACH.bounds)
        self.output_each = BucketArray(OtelClient.OUTPUT_EACH.bounds)


_Read = Callable[[_Slice], BucketArray]

_HISTOGRAMS: Final[tuple[tuple[OtelMetric, _Read, str], ...]] = (
    (OtelClient.FIRST_CHUNK, lambda s: s.first_chunk, ""),
    (OtelClient.PER_CHUNK, lambda s: s.per_chunk, ""),
    (OtelClient.INPUT_EACH, lambda s: s.input_each, "input"),
    (OtelClient.OUTPUT_EACH, lambda s: s.output_each, "output"),
)
"""What each is read from, and the `gen_ai.token.type` that v1.41 wants of it."""
_COUNTERS: Final[tuple[tuple[OtelMetric, _Read], ...]] = (
    (OtelClient.INPUT, lambda s: s.input_each),
    (OtelClient.OUTPUT, lambda s: s.output_each),
)
"""The histogram whose sum each is."""


class ClientTotals:
    """Bucket arrays by target and slice, filled as a request ends, read at export."""

    def __init__(self, settings: Settings) -> None:
        self._typed = settings.convention == "1.41"
        self._durations: dict[Key, BucketArray] = {}
        self._slices: dict[Key, _Slice] = {}
        self._silent: set[Key] = set()
        """Slices with a request that brought no usage."""

    def __repr__(self) -> str:
        n = sum(array.count for array in self._durations.values())
        return f"<ClientTotals of {n} requests in {len(self._slices)} slices>"

    def add(self, row: RequestRecord, target: Key) -> None:
        """Count one ended request."""
        key = (
            *target, (Attr.SCENARIO, row.scenario), (Attr.TENANT, row.tenant),
            (Attr.STAGE, row.stage),
        )  # fmt: skip
        error = error_of(row)
        self._duration(key if error is None else (*key, (Attr.ERROR, error))).add(
            row.response_time_s
        )
        part = self._slice(key)
        if row.tokens_source is TokensSource.NONE:
            self._silent.add(key)
        else:
            part.input_each.add(row.input_tokens)
            part.output_each.add(row.output_tokens)
        if row.ttft_intended_s is not None:
            part.first_chunk.add(row.ttft_intended_s)
        for bucket, count in row.icl:
            part.per_chunk.add(bucket_value(bucket), count)

    def read(self) -> Iterator[Reading]:
        """Yield every metric with its points."""
        yield (
            OtelClient.DURATION,
            [(dict(key), array) for key, array in list(self._durations.items())],
        )
        slices = [(dict(key), part) for key, part in list(self._slices.items())]
        for spec, array_of, kind in _HISTOGRAMS:
            typed = {Attr.TOKEN_TYPE: kind} if kind and self._typed else {}
            yield spec, [({**key, **typed}, array_of(part)) for key, part in slices]
        silent = [dict(key) for key in list(self._silent)]
        for counter, array_of in _COUNTERS:
            points: list[Point] = [
                ({**key, Attr.MODALITY: TEXT}, round(array_of(part).total))
                for key, part in slices
            ]
            points += [({**key, Attr.MODALITY: UNKNOWN}, 0) for key in silent]
            yield counter, points

    def _duration(self, key: Key) -> BucketArray:
        found = self._durations.get(key)
        if found is None:
            found = self._durations[key] = BucketArray(OtelClient.DURATION.bounds)
        return found

    def _slice(self, key: Key) -> _Slice:
        found = self._slices.get(key)
        if found is None:
            found = self._slices[key] = _Slice()
        return found
