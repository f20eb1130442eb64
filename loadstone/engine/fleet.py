"""Engines behind a router.

A router sees what a real one sees: how many requests wait and run on each engine, and
the first block of the prompt.
"""

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from random import Random
from typing import Final, Protocol

from ..errors import LoadstoneError, UsageError
from ..physics.limits import EngineLimits
from ..physics.pipeline import DIRECT, Pipeline
from ..physics.speculation import PLAIN, Speculation
from ..physics.steplaw import StepLaw
from ..units import Seconds
from .core import Engine
from .sequence import Sequence, Step

Router = Callable[[SequenceOf[Engine], Sequence | None], int]
"""Chooses the engine, by index, for the next arrival."""


class Actor(Protocol):
    """Something with a time of its own: `step` it when it is due."""

    @property
    def due(self) -> Seconds | None:
        """When `step` is to be called next; None while there is nothing to do."""
        ...

    def step(self) -> Step | None:
        """Do what is due; returns the step that an engine completed by it, if any."""
        ...


Followed = tuple[SequenceOf[int], SequenceOf[Sequence]]
"""What one actor's `step` led to: the actors, by index, that were told something and
may be due earlier for it, and the requests that have all their tokens."""


class Cluster(Protocol):
    """What a driver needs of whatever serves a model.

    A request enters by `submit`. Whenever an actor was stepped, `follow` is called with
    its index and what it returned, and passes things on. Indices may be negative: the
    lower one goes first at equal instants.
    """

    @property
    def actors(self) -> SequenceOf[Actor]:
        """Everything that is to be stepped, engines first."""
        ...

    def submit(self, sequence: Sequence, at: Seconds) -> int:
        """Let a request arrive; returns the index of the actor that took it."""
        ...

    def follow(self, index: int, step: Step | None) -> Followed:
        """Pass on what a call of `actors[index].step()` gave."""
        ...


QUEUE_WEIGHT: Final = 4
"""A waiting request counts as this many running ones, as in vLLM's data-parallel
balancer."""

AFFINITY_BOUND: Final = 1.25
"""An engine takes its own prefixes up to this many times the mean load, and one waiting
request more. The factor is that of consistent hashing with bounded loads; assumed."""

_SPREAD: Final = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio: neighbouring ids land far from each other."""


def _load(engine: Engine) -> int:
    return QUEUE_WEIGHT * engine.waiting + engine.running


def _round_robin() -> Router:
    turn = -1

    def choose(engines: SequenceOf[Engine], _: Sequence | None) -> int:
        nonlocal turn
        turn = (turn + 1) % len(engines)
        return turn

    return choose


def _least_loaded() -> Router:
    # Equal loads take turns: without that, engine 0 would get every request of an idle
    # rack. Counts fall when a step ends, so what comes next goes to who has just begun
    # one, and waits for most of it: that is what such a router does, not its fault.
    last = -1

    def choose(engines: SequenceOf[Engine], _: Sequence | None) -> int:
        nonlocal last
        # NOTE: plain lists; with a key function a rack of 72 engines took a tenth
        # longer to simulate, for every request looks at every engine.
        loads = [QUEUE_WEIGHT * engine.waiting + engine.running for engine in engines]
        in_turn = loads[last + 1 :] + loads[: last + 1]
        last = (last + 1 + in_turn.index(min(in_turn))) % len(loads)
        return last

    return choose


def _prefix_affine() -> Router:
    # The same first block goes to the same engine, where it is cached, unless that one
    # is overloaded; without a whole block there is nothing to be near to.
    least_loaded = _least_loaded()

    def choose(engines: SequenceOf[Engine], sequence: Sequence | None) -> int:
        if sequence is None or not sequence.prefix_ids:
            return least_loaded(engines, sequence)
        mixed = sequence.prefix_ids[0] * _SPREAD % (1 << 64) >> 32
        home = mixed % len(engines)
        mean = sum(map(_load, engines)) / len(engines)
        if _load(engines[home]) > AFFINITY_BOUND * mean + QUEUE_WEIGHT:
            return least_loaded(engines, sequence)
        return home

    return choose


ROUTERS: Final[dict[str, Callable[[], Router]]] = {
    "round_robin": _round_robin,
    "least_loaded": _least_loaded,
    "prefix_affine": _prefix_affine,
}


class NoEngineError(LoadstoneError):
    """Every engine is lost: there is nobody to route to."""

    code = "no_engine"


class Fleet:
    """Engine replicas that serve one model, and the router before them.

    `first` is the number of the first engine, where the fleet is a part of a rack.
    """

    def __init__(
        self, engines: SequenceOf[Engine], router: str = "round_robin", first: int = 0
    ) -> None:
        if router not in ROUTERS:
            raise UsageError(
                f"no router {router!r}", hint=f"one of {', '.join(ROUTERS)}"
            )
        self.engines = list(engines)
        self.first = first
        self._choose = ROUTERS[router]()
        self._up = list(range(len(self.engines)))

    def __repr__(self) -> str:
        running = sum(e.running for e in self.engines)
        return (
            f"<Fleet of {len(self.engines)} running={running} waiting={self.waiting}>"
        )

    @property
    def waiting(self) -> int:
        """Requests waiting on all engines."""
        return sum([engine.waiting for engine in self.engines])

    @property
    def actors(self) -> SequenceOf[Actor]:
        """What a driver steps: the engines."""
        return self.engines

    @property
    def up(self) -> SequenceOf[int]:
        """The engines that are not lost, by index."""
        return self._up

    def mark(self, index: int, *, up: bool) -> None:
        """Tell the router that an engine is lost, or back."""
        others = {i for i in self._up if i != index}
        self._up = sorted(others | {index} if up else others)

    def route(self, sequence: Sequence | None = None) -> int:
        """Return the index of the engine for the next arrival, `sequence` if known.

        Raises `NoEngineError` while all are lost.
        """
        up = self._up
        if len(up) == len(self.engines):
            return self._choose(self.engines, sequence)
        if not up:
            raise NoEngineError("every engine is lost")
        return up[self._choose([self.engines[i] for i in up], sequence)]

    def submit(self, sequence: Sequence, at: Seconds) -> int:
        """Route `sequence` and let it arrive at `at`; returns its engine's index.

        Raises `UsageError` when it could never be served.
        """
        index = self.route(sequence)
        self.engines[index].submit(sequence, at)
        return index

    def follow(self, _: int, step: Step | None) -> Followed:
        """Return what a call of an engine's `step` led to: requests that ended."""
        return (), step.finished if step is not None else ()


def build_fleet(
    limits: EngineLimits,
    law: StepLaw,
    *,
    engines: int,
    seed: int,
    router: str = "round_robin",
    policy: str = "vllm",
    scheduling_policy: str = "fcfs",
    prefix_caching: bool = True,
    speculation: Speculation = PLAIN,
    pipeline: Pipeline = DIRECT,
    first: int = 0,
    speeds: SequenceOf[float] = (),
) -> Fleet:
    """Build engines, each with a random stream of its own drawn from `seed`.

    `first` is the number of the first of them, where several fleets share a seed.
    `speeds` says how fast each is over the law's; without it they are equal.
    """
    laws = [law.slowed(1 / speed) for speed in speeds] or [law] * engines
    return Fleet(
        [
            Engine(
                limits,
                own,
                Random(f"{seed}/engine/{first + i}"),
                policy=policy,
                scheduling_policy=scheduling_policy,
                prefix_caching=prefix_caching,
                speculation=speculation,
                pipeline=pipeline,
            )
            for i, own in zip(range(engines), laws, strict=True)
        ],
        router,
        first,
    )
