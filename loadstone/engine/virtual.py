"""The virtual driver: engines run as fast as the CPU allows, time is what they say.

At equal instants arrivals come before steps, so a request due exactly when a step ends
is admitted to the next one, as it would be under a real clock.
"""

import gc
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as SequenceOf
from contextlib import contextmanager
from functools import partial
from heapq import heappop, heappush, heapreplace
from math import inf
from typing import Final, NamedTuple

from ..traffic.request import Request
from ..traffic.source import Scheduled, Source
from ..units import Seconds, Tokens
from .core import EVENTS, MACHINE_EVENTS, Engine
from .fleet import Cluster
from .sequence import Kv, Sequence, Step

StepListener = Callable[[int, Step], None]
"""Told of every completed step and the index of its engine."""


class Served(NamedTuple):
    """A request and where it was served; `last_s` is None if it was left unfinished."""

    request: Request
    sequence: Sequence
    engine: int
    sent_s: Seconds


class JournalEntry(NamedTuple):
    """One event of a live run: what the driver told an engine, under which stamp."""

    kind: str
    """The engine's method: a key of `EVENTS` or `MACHINE_EVENTS`."""
    id: str
    engine: int
    at_s: Seconds
    prompt_tokens: int
    output_tokens: int
    max_output_tokens: int | None = None
    priority: int = 0
    prefix_ids: tuple[int, ...] = ()
    kv: str = Kv.HERE.value
    generated: int = 0
    """Output tokens that it had when it came, from an engine that was lost."""
    factor: float = 1.0
    """Of `pace`."""
    tenant: str = ""
    weight: float = 1.0

    @classmethod
    def of(
        cls, kind: str, engine: int, sequence: Sequence, stamp: Seconds
    ) -> "JournalEntry":
        """Write down that an engine was told something of a sequence."""
        return cls(
            kind, sequence.id, engine, stamp, sequence.prompt_tokens,
            sequence.output_tokens, sequence.max_output_tokens, sequence.priority,
            sequence.prefix_ids, sequence.kv.value, sequence.generated,
            tenant=sequence.tenant, weight=sequence.weight,
        )  # fmt: skip

    @classmethod
    def of_machine(
        cls, kind: str, engine: int, stamp: Seconds, factor: float = 1.0
    ) -> "JournalEntry":
        """Write down that an engine was told something of itself."""
        return cls(kind, "", engine, stamp, 0, 0, factor=factor)


class _Agenda:
    """When each actor is due: a heap with at most one entry for each."""

    def __init__(self, cluster: Cluster, on_step: StepListener | None) -> None:
        self._cluster = cluster
        self._actors = cluster.actors
        self._on_step = on_step
        self._heap: list[tuple[Seconds, int]] = []
        self._awake = [False] * len(self._actors)

    def wake(self, index: int) -> None:
        """Note that an actor was told something: if it was idle it now is due."""
        # One that is in the heap already cannot have become due earlier: it is inside a
        # step, or waits for the first stamp of its inbox, and stamps only rise.
        if not self._awake[index]:
            due = self._actors[index].due
            if due is not None:
                self._awake[index] = True
                heappush(self._heap, (due, index))

    @property
    def next_at(self) -> Seconds:
        """When the next step ends or begins; infinity while all are idle."""
        return self._heap[0][0] if self._heap else inf

    def step(self) -> tuple[int, SequenceOf[Sequence]]:
        """Let the actor that is due go on; return its index and who ended by it."""
        index = self._heap[0][1]
        actor = self._actors[index]
        step = actor.step()
        due = actor.due
        if due is None:
            heappop(self._heap)
            self._awake[index] = False
        else:
            heapreplace(self._heap, (due, index))
        if step is not None and self._on_step is not None:
            self._on_step(index, step)
        touched, ended = self._cluster.follow(index, step)
        for other in touched:
            self.wake(other)
        return index, ended


def plain_sequence(request: Request) -> Sequence:
    """Return a sequence of the request's lengths that declares its true output."""
    return Sequence(request.id, request.input_tokens, request.output_tokens)


def whole_sequence(block_size: Tokens) -> Callable[[Request], Sequence]:
    """Return what makes sequences with all that a request declares.

    `block_size` is the engines', which a recorded prefix is split into.
    """

    def sequence(request: Request) -> Sequence:
        return Sequence(
            request.id,
            request.input_tokens,
            request.output_tokens,
            max_output_tokens=request.max_output_tokens,
            priority=request.priority,
            prefix_ids=request.block_ids(block_size),
            tenant=request.tenant,
        )

    return sequence


_COLLECT_AFTER: Final = 1_000_000
"""Objects made and not freed, after which garbage is looked for: some 100 MB of them.
With 200,000 a rack with shared prefixes spent 3 to 8 % of its time on looking through
what was in flight and in the caches, as it built up.
"""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Let Python look for garbage seldom, for the whole process.

    A run makes no cycles but where something goes wrong, and a collection goes through
    all that is in flight: with Python's threshold a fifth of the time of a rack.
    """
    before = gc.get_threshold()
    gc.set_threshold(_COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def serve(
    cluster: Cluster,
    arrivals: Iterable[Request] | Source,
    *,
    on_step: StepListener | None = None,
    sequence_of: Callable[[Request], Sequence] = plain_sequence,
    until: Seconds = inf,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Served]:
    """Run `arrivals` through a cluster; yield each request as it ends.

    Arrivals are requests in order of intended time, or a source that hears of what
    ended. `sequence_of` says what a request's prefix, priority and declared maximum
    are. What is in flight at `until`, or when `stopping()` says so, comes last,
    unfinished; what was not due by then does not come at all.

    Work is O(steps log actors + requests). Raises `UsageError` for a request that the
    engines could never serve.
    """
    source = arrivals if isinstance(arrivals, Source) else Scheduled(arrivals)
    agenda = _Agenda(cluster, on_step)
    asked: dict[Sequence, tuple[Request, int, Seconds]] = {}
    due = source.next_at
    while not stopping():
        step_at = agenda.next_at
        if due <= step_at:
            if due >= until:
                break
            request = source.take()
            sequence = sequence_of(request)
            index = cluster.submit(sequence, due)
            asked[sequence] = request, index, due
            agenda.wake(index)
            due = source.next_at
            continue
        if step_at >= until:
            break
        index, ended = agenda.step()
        if ended:
            for sequence in ended:
                request, _, sent_s = asked.pop(sequence)
                source.ended(request, step_at)
                yield Served(request, sequence, index, sent_s)
            due = source.next_at
    for sequence, (request, index, sent_s) in asked.items():
        yield Served(request, sequence, index, sent_s)


def replay(
    engines: list[Engine], journal: Iterable[JournalEntry], on_step: StepListener
) -> None:
    """Rerun a live run's journal in virtual time, on fresh engines of the same seed.

    `on_step` hears of each engine's steps in order. Engines are run one by one, each up
    to its own entries: stamps rise for one engine, but not from one engine to another.
    """
    sequences: dict[tuple[int, str], Sequence] = {}
    for entry in journal:
        engine = engines[entry.engine]
        _run_before(engine, entry.at_s, partial(on_step, entry.engine))
        if entry.kind in MACHINE_EVENTS:
            MACHINE_EVENTS[entry.kind](engine, entry.factor, entry.at_s)
            continue
        if entry.kind == "submit":
            sequence = Sequence(
                entry.id, entry.prompt_tokens, entry.output_tokens,
                max_output_tokens=entry.max_output_tokens, priority=entry.priority,
                prefix_ids=entry.prefix_ids, kv=Kv(entry.kv),
                tenant=entry.tenant, weight=entry.weight,
            )  # fmt: skip
            sequence.generated = entry.generated
            sequences[entry.engine, entry.id] = sequence
        EVENTS[entry.kind](engine, sequences[entry.engine, entry.id], entry.at_s)
    for index, engine in enumerate(engines):
        _run_before(engine, inf, partial(on_step, index))


def _run_before(
    engine: Engine, instant: Seconds, on_step: Callable[[Step], None]
) -> None:
    while engine.due is not None and engine.due < instant:
        step = engine.step()
        if step is not None:
            on_step(step)
