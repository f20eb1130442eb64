"""The highest rate that meets an objective: which rates to try, and when to stop.

Pure: the search asks for probes and is told of each whether the objective was met.
Whoever drives it decides what a probe is, a simulation or a run against an endpoint.

    search = find_max(100.0, low=1.0, high=10_000.0)
    probe = next(search)
    while True:                      # until StopIteration, whose value is the Answer
        probe = search.send(is_met(probe.rate, seed=probe.repeat))

One probe is one sample of something random, and near the boundary the verdict flips
from seed to seed. So the two ends of the final bracket are asked again under other
seeds, and the majority decides; an end that falls starts the search again beyond it.
"""

from collections.abc import Generator
from dataclasses import dataclass
from enum import StrEnum
from math import ceil, inf, log, log2, sqrt
from typing import Final

from ..errors import UsageError

PRECISION: Final = 0.02
"""Default width of the final bracket, relative."""
REPEATS: Final = 3
"""Default number of seeds that decide at the boundary; odd."""
MOST_PROBES: Final = 60


class End(StrEnum):
    """Why a search ended."""

    FOUND = "found"
    NEVER = "never_met"
    """Not met at the lowest rate that may be tried."""
    ALWAYS = "always_met"
    """Met at the highest rate that may be tried."""
    UNSETTLED = "unsettled"
    """The verdicts contradict each other, or there were too few probes."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A rate to try, in requests/s; `repeat` counts the seeds it was tried with."""

    rate: float
    repeat: int = 0
    likely: int = 0
    """A guess of how many will follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The highest rate that met the objective, and the next one that did not.

    None where there is none. If it was found, the boundary lies between the two.
    """

    end: End
    met: float | None
    missed: float | None
    probes: int


Search = Generator[Probe, bool, Answer]


def find_max(
    start: float,
    *,
    low: float,
    high: float,
    precision: float = PRECISION,
    repeats: int = REPEATS,
    most: int = MOST_PROBES,
) -> Search:
    """Search between `low` and `high`, first at `start`; rates are multiplied, halved.

    Ends with a bracket no wider than `precision` (0.02: 2 %), both ends decided by
    `repeats` seeds, or after `most` probes. Raises `UsageError` for odd settings.
    """
    if not 0.0 < low <= start <= high < float("inf"):
        raise UsageError(f"a search from {start:g} needs 0 < {low:g} <= {high:g}")
    if repeats < 1 or repeats % 2 == 0:
        raise UsageError(f"a search needs an odd number of repeats, not {repeats}")
    if not 0.0001 <= precision <= 1.0 or most < 1:
        raise UsageError("a search needs a tolerance of 0.0001 to 1, and a probe")
    return _Search(low, high, precision, repeats, most).run(start)


class _EnoughError(Exception):
    """No probe is left."""


class _Search:
    def __init__(
        self, low: float, high: float, precision: float, repeats: int, most: int
    ) -> None:
        self._low, self._high = low, high
        self._step = 1.0 + precision
        self._repeats = repeats
        self._left = self._most = most
        self._votes: dict[float, list[bool]] = {}

    def run(self, start: float) -> Search:
        try:
            end = yield from self._bracketed(start)
        except _EnoughError:
            end = End.UNSETTLED
        met = self._highest_met()
        return Answer(
            end=end,
            met=met,
            missed=self._lowest_missed(met or 0.0),
            probes=self._most - self._left,
        )

    def _bracketed(self, start: float) -> Generator[Probe, bool, End]:
        """Close a bracket, ask its ends again, and move on while one of them falls."""
        met, missed = yield from self._walk(start, 2.0)
        while met is not None and missed is not None:
            while missed / met > self._step:
                middle = sqrt(met * missed)
                if (yield from self._ask(middle, 1)):
                    met = middle
                else:
                    missed = middle
            if not (yield from self._ask(met, self._repeats)):
                fallen = met
                met, missed = self._highest_met(below=fallen), fallen
                if met is None:
                    met, missed = yield from self._walk(fallen, self._step)
            elif (yield from self._ask(missed, self._repeats)):
                risen = missed
                met, missed = risen, self._lowest_missed(risen)
                if missed is None:
                    met, missed = yield from self._walk(risen, self._step)
            else:
                return End.FOUND
        edge, end = (self._low, End.NEVER) if met is None else (self._high, End.ALWAYS)
        settled = (yield from self._ask(edge, self._repeats)) is (end is End.ALWAYS)
        return end if settled else End.UNSETTLED

    def _walk(
        self, rate: float, factor: float
    ) -> Generator[Probe, bool, tuple[float | None, float | None]]:
        """Go up while the objective is met, or down while it is not, ever faster.

        Returns the last two rates, (met, missed); one of them None at the limit.
        """
        upwards = yield from self._ask(rate, 1)
        limit = self._high if upwards else self._low
        while rate != limit:
            last = rate
            rate = rate * factor if upwards else rate / factor
            rate = min(rate, limit) if upwards else max(rate, limit)
            factor *= factor
            if (yield from self._ask(rate, 1)) is not upwards:
                return (last, rate) if upwards else (rate, last)
        return (rate, None) if upwards else (None, rate)

    def _ask(self, rate: float, votes: int) -> Generator[Probe, bool, bool]:
        """Have the rate tried until it has so many votes; return what most of them say.

        A majority that the rest could not overturn is enough.
        """
        cast = self._votes.setdefault(rate, [])
        while len(cast) < votes and max(map(cast.count, (True, False))) <= votes // 2:
            if self._left == 0:
                if not cast:
                    del self._votes[rate]
                raise _EnoughError
            self._left -= 1
            cast.append((yield Probe(rate, len(cast), self._likely())))
        return self._verdict(rate)

    def _likely(self) -> int:
        """Guess how many probes are to come, if the boundary stays where it seems."""
        met = self._highest_met() or self._low
        missed = self._lowest_missed(met) or 2.0 * met
        width = log(max(missed / met, self._step)) / log(self._step)
        again = 2 * (self._repeats // 2)
        return min(self._left, ceil(log2(width)) + again)

    def _highest_met(self, below: float = inf) -> float | None:
        met = (r for r, cast in self._votes.items() if cast and self._verdict(r))
        return max((rate for rate in met if rate < below), default=None)

    def _lowest_missed(self, above: float) -> float | None:
        missed = (r for r, cast in self._votes.items() if cast and not self._verdict(r))
        return min((rate for rate in missed if rate > above), default=None)

    def _verdict(self, rate: float) -> bool:
        cast = self._votes[rate]
        return cast.count(True) * 2 > len(cast)
