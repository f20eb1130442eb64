"""When requests are due: the whole schedule is drawn before the clock starts.

Two parts make it. A *process* says how arrivals cluster: it yields rising points with a
mean of one per unit. A *profile* says how the rate goes over the run. The due times are
the points seen through the inverse of the profile's integral, so that any process goes
with any profile, and the mean rate at each moment is exactly the profile's.

    due_i = L^-1(u_i)      L(t) = rate x integral of the profile from 0 to t

Because it is arithmetic on a seeded generator, the same seed gives the same times
anywhere.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from ..errors import UsageError
from ..units import Seconds, parse_duration
from .profile import FLAT, Profile

Points = Iterator[float]
"""Rising, without end, on average one per unit."""


def poisson(rng: Random) -> Points:
    """Arrive independently of each other: exponential gaps."""
    at = 0.0
    while True:
        at += rng.expovariate(1.0)
        yield at


def constant() -> Points:
    """Arrive like a metronome, the first at once. No error adds up."""
    i = 0
    while True:
        yield float(i)
        i += 1


def gamma(rng: Random, burstiness: float) -> Points:
    """Arrive with gamma-distributed gaps of the shape `burstiness`.

    vLLM's `--burstiness`: 1 is Poisson, less is burstier, more is more regular; the
    gaps' coefficient of variation is 1/sqrt(burstiness).
    """
    at = 0.0
    while True:
        at += rng.gammavariate(burstiness, 1.0 / burstiness)
        yield at


def bursty(rng: Random, ratio: float, burst: float, calm: float) -> Points:
    """Arrive in bursts: a Markov-modulated Poisson process of two states.

    Phases are exponential, `burst` and `calm` units long on average; inside a burst
    arrivals come `ratio` times as fast as outside. Starts in either, as likely as it is
    later on.
    """
    slow = (burst + calm) / (ratio * burst + calm)
    at, bursting = 0.0, rng.random() < burst / (burst + calm)
    phase_end = rng.expovariate(1.0 / (burst if bursting else calm))
    while True:
        following = at + rng.expovariate(slow * ratio if bursting else slow)
        if following < phase_end:
            at = following
            yield at
        else:  # the exponential forgets, so the gap is drawn anew from here on
            at, bursting = phase_end, not bursting
            phase_end += rng.expovariate(1.0 / (burst if bursting else calm))


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process by name: its parameters with defaults, and how its points are made.

    A parameter whose name ends in `_s` is a time; `points` gets it in units, that is,
    times the mean rate.
    """

    text: str
    points: Callable[..., Points]
    """Called with the generator and the parameters by position."""
    parameters: dict[str, float]


PROCESSES: Final = {
    "poisson": Process(text="independent of each other", points=poisson, parameters={}),
    "constant": Process(
        text="like a metronome", points=lambda _: constant(), parameters={}
    ),
    "gamma": Process(
        text="gamma gaps; burstiness as in vLLM: 1 is Poisson, less is burstier",
        points=gamma,
        parameters={"burstiness": 0.5},
    ),
    "bursty": Process(
        text="bursts in which arrivals come ratio times as fast",
        points=bursty,
        parameters={"ratio": 8.0, "burst_s": 2.0, "calm_s": 8.0},
    ),
}


@dataclass(frozen=True, slots=True)
class Arrivals:
    """A process with its parameters: what `gamma:burstiness=0.25` says."""

    name: str
    parameters: dict[str, float]

    @classmethod
    def parse(cls, text: str) -> "Arrivals":
        """Read `NAME` or `NAME:KEY=VALUE,...`; raises `UsageError` for what is odd."""
        name, _, given = text.partition(":")
        if name not in PROCESSES:
            raise UsageError(
                f"no arrival process {name!r}", hint=f"one of {', '.join(PROCESSES)}"
            )
        parameters = dict(PROCESSES[name].parameters)
        for part in filter(None, given.split(",")):
            key, _, value = part.partition("=")
            if key not in parameters:
                names = ", ".join(parameters) or "none"
                raise UsageError(
                    f"arrivals {text!r}: {name} has no parameter {key!r}",
                    hint=f"it has: {names}",
                )
            parameters[key] = _positive(key, value, text)
        return cls(name, parameters)

    def times(
        self, rate: float, duration: Seconds, rng: Random, profile: Profile = FLAT
    ) -> Iterator[Seconds]:
        """Yield due times since t0, rising, below `duration`.

        `rate` is in requests/s where the profile is 1.
        """
        values = (
            value * rate if key.endswith("_s") else value
            for key, value in self.parameters.items()
        )
        due_of = profile.over(rate, duration)
        for point in PROCESSES[self.name].points(rng, *values):
            due = due_of(point)
            if due is None or due >= duration:
                return
            yield due


def _positive(key: str, value: str, text: str) -> float:
    try:
        number = parse_duration(value) if key.endswith("_s") else float(value)
    except (ValueError, UsageError):
        number = 0.0
    if not 0.0 < number < float("inf"):
        raise UsageError(f"arrivals {text!r}: {key} must be more than 0, not {value!r}")
    return number
