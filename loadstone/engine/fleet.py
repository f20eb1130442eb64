"""Engines behind a router.

A router sees what a real one sees: how many requests wait and run on each engine.
"""

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from random import Random
from typing import Final

from ..errors import UsageError
from ..physics.limits import EngineLimits
from ..physics.steplaw import StepLaw
from .core import Engine

Router = Callable[[SequenceOf[Engine]], int]
"""Chooses the engine, by index, for the next arrival."""

QUEUE_WEIGHT: Final = 4
"""A waiting request counts as this many running ones, as in vLLM's data-parallel
balancer."""


def _round_robin() -> Router:
    turn = -1

    def choose(engines: SequenceOf[Engine]) -> int:
        nonlocal turn
        turn = (turn + 1) % len(engines)
        return turn

    return choose


def _least_loaded() -> Router:
    # Equal loads take turns: without that, engine 0 would get every request of an idle
    # rack.
    last = -1

    def choose(engines: SequenceOf[Engine]) -> int:
        nonlocal last
        n = len(engines)
        order = ((last + 1 + i) % n for i in range(n))
        last = min(
            order, key=lambda i: QUEUE_WEIGHT * engines[i].waiting + engines[i].running
        )
        return last

    return choose


ROUTERS: Final[dict[str, Callable[[], Router]]] = {
    "round_robin": _round_robin,
    "least_loaded": _least_loaded,
}


class Fleet:
    """Engine replicas that serve one model, and the router before them."""

    def __init__(
        self, engines: SequenceOf[Engine], router: str = "round_robin"
    ) -> None:
        if router not in ROUTERS:
            raise UsageError(
                f"no router {router!r}", hint=f"one of {', '.join(ROUTERS)}"
            )
        self.engines = list(engines)
        self._choose = ROUTERS[router]()

    def __repr__(self) -> str:
        running = sum(e.running for e in self.engines)
        return (
            f"<Fleet of {len(self.engines)} running={running} waiting={self.waiting}>"
        )

    @property
    def waiting(self) -> int:
        """Requests waiting on all engines."""
        return sum(engine.waiting for engine in self.engines)

    def route(self) -> int:
        """Return the index of the engine for the next arrival."""
        return self._choose(self.engines)


def build_fleet(
    limits: EngineLimits,
    law: StepLaw,
    *,
    engines: int,
    seed: int,
    router: str = "round_robin",
) -> Fleet:
    """Build equal engines, each with a random stream of its own drawn from `seed`."""
    return Fleet(
        [Engine(limits, law, Random(f"{seed}/engine/{i}")) for i in range(engines)],
        router,
    )
