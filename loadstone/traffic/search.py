"""The highest rate that meets its objectives: which rate to try next, when to stop.

Pure, and without a state of its own: all that was seen so far goes in, the next probe
or the answer comes out. So a search goes on after a kill as if nothing had been.

    tried: list[tuple[float, Look]] = []
    while isinstance(step := next_step(tried, goal), Probe):
        tried.append((step.rate, look_at(step.rate, seed=step.repeat)))
    answer = step

It brackets (up while the objectives seem met, down while they do not), halves the
bracket, and then asks its two ends again under other seeds until each is *shown* to be
on its side, or has been asked `repeats` times. A rate that cannot be shown to meet the
objectives counts as one that does not: the search goes on below it.

Each verdict is asked for at the level `(1 - confidence) / (most probes)`. So by the
union bound the chance that any verdict of the whole search is wrong, and with it the
answer, is at most `1 - confidence`, wherever the search went (Bonferroni; the bounds
are in `probe`). A rate that is really on the limit is never shown to be on either side:
that takes nothing from the answer, which is the rate below it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import ceil, inf, log, log2, sqrt
from typing import Final

from ..errors import UsageError
from .probe import Look, Trust, pooled

PRECISION: Final = 0.02
"""Default width of the final bracket, relative."""
REPEATS: Final = 3
"""Most times that a rate is asked, each under a seed of its own, by default."""
CONFIDENCE: Final = 0.9
"""Default chance that no verdict of the search is wrong, at least."""
MOST_PROBES: Final = 12
_LONGEST_STRIDE: Final = 2.0
"""Rates grow by no more than this from probe to probe: what is far beyond what an
endpoint bears takes it long to drain."""
_CLIENT_LOOKS: Final = 2
"""Looks that the client spoils before it, not the endpoint, is taken for the limit."""
_ROUND: Final = 1.0 + 1e-9


class End(StrEnum):
    """Why a search ended."""

    FOUND = "found"
    NEVER = "never_met"
    """Not shown to be met at the lowest rate that may be tried."""
    ALWAYS = "always_met"
    """Met at the highest rate that may be tried."""
    CLIENT = "client_limited"
    """The next rate was more than the client could drive, or measure."""
    UNSETTLED = "unsettled"
    """There were too few probes."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A rate to try, in requests/s; `repeat` counts the seeds that it had before."""

    rate: float
    repeat: int = 0
    likely: int = 0
    """A guess of how many will follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The highest rate shown to meet the objectives, and the next one that was not.

    None where there is none. If it was found, the boundary lies between the two.
    """

    end: End
    met: float | None
    missed: float | None
    missed_shown: bool = False
    """Whether `missed` was shown to miss them; else it was too close to call, or more
    than the client could drive."""
    probes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """Between which rates to search, from where, how closely and how surely.

    Ends with a bracket no wider than `precision` (0.02: 2 %), or after `most` probes.
    Raises `UsageError` for odd settings.
    """

    start: float
    low: float
    high: float
    objectives: int = 1
    precision: float = PRECISION
    confidence: float = CONFIDENCE
    repeats: int = REPEATS
    most: int = MOST_PROBES

    def __post_init__(self) -> None:
        """Refuse what cannot be searched."""
        if not 0.0 < self.low <= self.start <= self.high < inf:
            raise UsageError(
                f"a search from {self.start:g} requests/s needs a lowest rate that is"
                f" not above it ({self.low:g}) and a highest not below ({self.high:g})"
            )
        if not 0.0001 <= self.precision <= 1.0 or self.repeats < 1 or self.most < 1:
            raise UsageError(
                "a search needs a tolerance of 0.0001 to 1, and at least one probe"
            )
        if not 0.5 <= self.confidence < 1.0:
            raise UsageError("a search needs a confidence of at least 0.5 and below 1")

    @property
    def step(self) -> float:
        """The factor between the ends of the final bracket."""
        return 1.0 + self.precision

    @property
    def met_nats(self) -> float:
        """The evidence that shows that a rate meets the objectives: all of them."""
        return log(self.most / (1.0 - self.confidence))

    @property
    def missed_nats(self) -> float:
        """The evidence that shows that any of them, or the backlog, breaks it."""
        return self.met_nats + log(self.objectives + 1)


class Standing(StrEnum):
    """What is known of a rate."""

    MET = "met"
    SEEMS_MET = "seems met"
    CLOSE = "too close to call"
    SEEMS_MISSED = "seems missed"
    MISSED = "missed"
    SPOILT = "spoilt by the client"
    CLIENT = "beyond the client"


_OPEN: Final = (Standing.SEEMS_MET, Standing.SEEMS_MISSED, Standing.SPOILT)
_BELOW: Final = (Standing.MET, Standing.SEEMS_MET)


def standing(looks: Sequence[Look], goal: Goal) -> Standing:
    """Say what all looks at one rate together say of it."""
    told = [look for look in looks if look.trust is not Trust.NONE]
    sound = [look for look in told if look.trust is Trust.FULL]
    if sound and pooled(sound).missed_nats >= goal.missed_nats:
        return Standing.MISSED
    seems = any(
        pooled(some).seems_met(goal.missed_nats) for some in (told, sound) if some
    )
    if told and seems and pooled(told).met_nats >= goal.met_nats:
        return Standing.MET
    if not seems and not sound:
        spoilt = len(looks) < min(_CLIENT_LOOKS, goal.repeats)
        return Standing.SPOILT if spoilt else Standing.CLIENT
    if len(looks) >= goal.repeats:
        return Standing.CLOSE
    return Standing.SEEMS_MET if seems else Standing.SEEMS_MISSED


def next_step(tried: Sequence[tuple[float, Look]], goal: Goal) -> Probe | Answer:
    """Return what to try after all that was tried, in order, or the answer."""
    return _Chart(tried, goal).next_step()


def standings(
    tried: Sequence[tuple[float, Look]], goal: Goal
) -> Mapping[float, Standing]:
    """Return what is known of each rate, in order of the rates."""
    return _Chart(tried, goal).known


def bracket(
    tried: Sequence[tuple[float, Look]], goal: Goal
) -> tuple[float | None, float | None]:
    """Return the rates that it is now searched between: one that seems met, or is."""
    chart = _Chart(tried, goal)
    chart.next_step()  # which leaves out ends that cannot be shown
    return chart.under, chart.over


class _Chart:
    """What is known of the rates that were tried."""

    def __init__(self, tried: Sequence[tuple[float, Look]], goal: Goal) -> None:
        self._goal = goal
        self._probes = len(tried)
        self._looks: dict[float, list[Look]] = {}
        for rate, look in tried:
            self._looks.setdefault(rate, []).append(look)
        self.known = {
            rate: standing(looks, goal) for rate, looks in sorted(self._looks.items())
        }
        self._find_bracket()

    def _find_bracket(self) -> None:
        # A rate shown to be met speaks for those below it that only seem not to be,
        # unless one of them was shown to be missed.
        ceiling = self._lowest(Standing.MISSED) or inf
        self._floor = self._highest(Standing.MET, below=ceiling)
        self.over = min(
            (r for r, known in self.known.items()
             if r > (self._floor or 0.0) and known not in _BELOW),
            default=None,
        )  # fmt: skip
        self.under = self._highest(*_BELOW, below=self.over or inf)

    def _highest(self, *wanted: Standing, below: float) -> float | None:
        rates = (r for r, known in self.known.items() if known in wanted and r < below)
        return max(rates, default=None)

    def _lowest(self, wanted: Standing) -> float | None:
        return min(
            (r for r, known in self.known.items() if known is wanted), default=None
        )

    def next_step(self) -> Probe | Answer:
        rate = self._lowest(Standing.SPOILT) or self._next_rate()
        if isinstance(rate, Answer):
            return rate
        if self._probes >= self._goal.most:
            return self._answer(End.UNSETTLED, self._floor)
        return Probe(rate, self._seeds(rate), self._likely())

    def _seeds(self, rate: float) -> int:
        """Count the seeds it was tried with; one that was spoilt is tried again."""
        alone = (standing([look], self._goal) for look in self._looks.get(rate, ()))
        return sum(known is not Standing.SPOILT for known in alone)

    def _next_rate(self) -> float | Answer:
        """Return the rate to try: to bracket, to halve, to ask an end again."""
        under, over = self.under, self.over
        if under is None and over is None:
            return self._goal.start
        if over is None:
            assert under is not None
            return self._above(under)
        if under is None:
            return self._beneath(over)
        if over / under > self._goal.step * _ROUND:
            return sqrt(under * over)
        return self._settled(under, over)

    def _settled(self, under: float, over: float) -> float | Answer:
        """Return the end of a narrow bracket that is to be asked again, if one is."""
        for end in (under, over):
            if self.known[end] in _OPEN:
                if self._may_be_shown(end):
                    return end
                self.known[end] = Standing.CLOSE
                self._find_bracket()
                return self._next_rate()
        by_client = self.known[over] is Standing.CLIENT
        return self._answer(End.CLIENT if by_client else End.FOUND, under)

    def _may_be_shown(self, rate: float) -> bool:
        """Whether asking it as often as may be would do, if all looks were alike."""
        looks, goal = self._looks[rate], self._goal
        both = pooled(looks)
        sure = max(both.met_nats / goal.met_nats, both.missed_nats / goal.missed_nats)
        return sure * goal.repeats >= len(looks)

    def _above(self, under: float) -> float | Answer:
        if under < self._goal.high:
            lower = self._highest(*_BELOW, below=under)
            return min(under * self._stride(under, lower), self._goal.high)
        return under if self.known[under] in _OPEN else self._answer(End.ALWAYS, under)

    def _beneath(self, over: float) -> float | Answer:
        if over > self._goal.low:
            higher = min((r for r in self.known if r > over), default=None)
            return max(over / self._stride(over, higher), self._goal.low)
        if self.known[over] in _OPEN:
            return over
        by_client = self.known[over] is Standing.CLIENT
        return self._answer(End.CLIENT if by_client else End.NEVER, None)

    @staticmethod
    def _stride(rate: float, last: float | None) -> float:
        """Return the factor of a step onwards: the square of the last."""
        if last is None:
            return _LONGEST_STRIDE
        ratio = max(rate / last, last / rate)
        return min(ratio * ratio, _LONGEST_STRIDE)

    def _answer(self, end: End, met: float | None) -> Answer:
        missed = min(
            (r for r, known in self.known.items()
             if r > (met or 0.0) and known not in (*_BELOW, *_OPEN)),
            default=None,
        )  # fmt: skip
        shown = missed is not None and self.known[missed] is Standing.MISSED
        return Answer(
            end=end, met=met, missed=missed, missed_shown=shown, probes=self._probes
        )

    def _likely(self) -> int:
        """Guess how many probes follow this one, if the boundary is where it seems."""
        goal = self._goal
        under = self.under or goal.low
        over = self.over or min(goal.high, under * _LONGEST_STRIDE)
        width = log(max(over / under, goal.step)) / log(goal.step)
        both = sum(self.known.get(end) not in _OPEN for end in (under, over))
        guess = ceil(log2(width) - 1e-9) + (2 - both)
        return max(0, min(goal.most - self._probes, guess) - 1)
