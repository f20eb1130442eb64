"""When requests are due: the whole schedule is drawn before the clock starts.

An arrival process yields intended times in seconds since t0, rising, all below
`duration`. Because it is arithmetic on a seeded generator, the same seed gives the same
times anywhere.
"""

from collections.abc import Callable, Iterator
from random import Random
from typing import Final

from ..units import Seconds

ArrivalProcess = Callable[[float, Seconds, Random], Iterator[Seconds]]
"""(requests per second, duration, generator) -> intended times."""


def poisson(rate: float, duration: Seconds, rng: Random) -> Iterator[Seconds]:
    """Arrive independently of each other: exponential gaps with mean 1/rate."""
    due = rng.expovariate(rate)
    while due < duration:
        yield due
        due += rng.expovariate(rate)


def constant(rate: float, duration: Seconds, rng: Random) -> Iterator[Seconds]:  # noqa: ARG001 - one signature for all
    """Arrive like a metronome, first at t0. Each time is i/rate: no error adds up."""
    i = 0
    while i / rate < duration:
        yield i / rate
        i += 1


PROCESSES: Final[dict[str, ArrivalProcess]] = {"poisson": poisson, "constant": constant}
