"""A system whose truth is known: the chance of a slow request grows with the rate."""

from dataclasses import dataclass
from math import inf
from random import Random

from loadstone.traffic.probe import STRETCHES, Look, Tally, Trust
from loadstone.traffic.search import Answer, Goal, Probe, next_step

Tried = list[tuple[float, Look]]


@dataclass
class Planted:
    """At `threshold` requests/s a request is slow with exactly the chance allowed.

    The odds grow with the rate to the power of `steepness`. Slow requests come
    `clustered` at a time, and only every so many requests is drawn apart.
    """

    threshold: float
    steepness: float
    seed: int = 0
    allowed: float = 0.1
    requests: int = 500
    clustered: int = 1
    client_limit: float = inf
    """Rates from here on are more than the client can drive."""

    def __post_init__(self) -> None:
        self._rng = Random(self.seed)

    def chance(self, rate: float) -> float:
        """How likely a request is slow."""
        if self.steepness == inf:
            return float(rate > self.threshold)
        odds = self.allowed / (1 - self.allowed)
        odds *= (rate / self.threshold) ** self.steepness
        return odds / (1 + odds)

    def look(self, rate: float) -> Look:
        """Send the requests and count the slow ones."""
        if rate >= self.client_limit:
            return look_of(self.requests, self.requests, trust=Trust.NONE)
        groups = self.requests // STRETCHES // self.clustered
        chance = self.chance(rate)
        stretches = []
        for _ in range(STRETCHES):
            slow = sum(self._rng.random() < chance for _ in range(groups))
            stretches.append((groups * self.clustered, float(slow * self.clustered)))
        over = sum(slow for _, slow in stretches)
        tally = Tally(
            self.allowed, share=True, stretches=tuple(stretches), squares=over
        )
        return Look(tallies=(tally,))

    def wrong(self, answer: Answer) -> bool:
        """Whether a claim of the answer is not so."""
        met, missed = answer.met, answer.missed
        claims = met is not None and self.chance(met) > self.allowed * (1 + 1e-9)
        shown = answer.missed_shown and missed is not None
        return claims or (
            shown and missed is not None and self.chance(missed) <= self.allowed
        )


def look_of(
    over: float,
    of: int,
    *,
    allowed: float = 0.1,
    backlog: tuple[int, int] = (0, 0),
    trust: Trust = Trust.FULL,
) -> Look:
    """Return a look at `of` requests, `over` of them slow, in one stretch."""
    tally = Tally(allowed, share=True, stretches=((of, float(over)),), squares=over)
    return Look(tallies=(tally,), backlog=backlog, trust=trust)


def search(system: Planted, goal: Goal) -> tuple[Answer, Tried]:
    """Search it to the end."""
    tried: Tried = []
    while isinstance(step := next_step(tried, goal), Probe):
        tried.append((step.rate, system.look(step.rate)))
    return step, tried
