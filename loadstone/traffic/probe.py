"""What one try at a rate says of it, in units of evidence that add up over tries.

An objective limits a mean: of the waits themselves, or, for a percentile, of the share
of requests that wait too long (p99 at most 0.5 s: at most 1 % are over 0.5 s). How sure
a sample is of the side its mean lies on is said in nats, the large-deviation exponent
that bounds the chance of such a sample if the truth were just the limit itself
(Chernoff 1952, Hoeffding 1963):

    P(share <= p | truth >= L) <= exp(-n KL(p || L)),  and the same above

with the Gaussian `n (mean - L)^2 / (2 s^2)` for a mean of waits. `x` nats are wrong at
most once in `e^x` tries. Waits in a queue come in clusters, so `n` is divided by how
much more the counts of stretches of the run vary than chance alone would have them
(the design effect of survey sampling; Kish 1965).

Percentiles alone do not tell whether a rate is borne. Just above its capacity an engine
first fills its batch, which takes minutes, and only then do requests queue: until then
every limit is met at a rate that nothing could sustain. So the backlog counts too.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from math import ceil, inf, log
from typing import Any, Final

from ..units import Seconds
from .quantiles import QUANTILES
from .record import RequestRecord
from .slo import Slo

STRETCHES: Final = 10
"""A probe's requests are counted in so many stretches of its time."""


def share_nats(share: float, limit: float) -> float:
    """Return `KL(share || limit)` of two chances, in nats for each sample; not signed.

    `limit` is inside 0 to 1.
    """
    over = share * log(share / limit) if share > 0.0 else 0.0
    rest = (1.0 - share) * log((1.0 - share) / (1.0 - limit)) if share < 1.0 else 0.0
    return max(0.0, over + rest)


def samples_to_show(slo: Slo, nats: float) -> int:
    """Return how many requests, none of them over, show that a percentile is met.

    0 for a mean, which no number promises.
    """
    q = QUANTILES.get(slo.stat)
    return 0 if q is None else ceil(nats / -log(q))


@dataclass(frozen=True, slots=True)
class Tally:
    """What is counted towards one objective: stretches of requests and their sums.

    Of a percentile a request adds 1 if it was over, of a mean its wait in seconds
    (infinite if it failed).
    """

    limit: float
    """The mean that is allowed."""
    share: bool
    """Whether the mean is a share of the requests."""
    stretches: tuple[tuple[int, float], ...] = ()
    """(requests, sum) of each."""
    squares: float = 0.0

    @classmethod
    def empty(cls, slo: Slo) -> "Tally":
        """Return a tally of nothing."""
        q = QUANTILES.get(slo.stat)
        if q is None:
            return cls(slo.max_s, share=False)
        return cls(1.0 - q, share=True)

    def __add__(self, other: "Tally") -> "Tally":
        """Return the tally of both samples."""
        return Tally(
            self.limit, self.share, self.stretches + other.stretches,
            self.squares + other.squares,
        )  # fmt: skip

    @property
    def n(self) -> int:
        """Requests that were judged."""
        return sum(n for n, _ in self.stretches)

    @property
    def mean(self) -> float | None:
        """Their mean; None of nothing."""
        n = self.n
        return sum(total for _, total in self.stretches) / n if n else None

    @property
    def met(self) -> bool:
        """Whether it is met as far as can be seen, however surely."""
        mean = self.mean
        # One part in a billion for 1 - 0.99, which is not quite 0.01.
        return mean is not None and mean <= self.limit * (1.0 + 1e-9)

    @property
    def nats(self) -> float:
        """How sure it is of its side of the limit, from 0 on."""
        n, mean = self.n, self.mean
        if mean is None:
            return 0.0
        if mean == inf:
            return inf
        if self.share:
            return share_nats(mean, self.limit) * n / self.clustering
        variance = self._variance(mean)
        away = (mean - self.limit) ** 2
        if n < 2 or away == 0.0:
            return 0.0
        if variance == 0.0:
            return inf
        return n / self.clustering * away / (2.0 * variance)

    @property
    def clustering(self) -> float:
        """How many times more the stretches vary than independent requests would."""
        n, mean = self.n, self.mean
        some = [(size, total) for size, total in self.stretches if size]
        variance = self._variance(mean) if mean is not None and mean < inf else 0.0
        if mean is None or len(some) < 2 or n < 2 or variance <= 0.0:
            return 1.0
        spread = sum((total - size * mean) ** 2 / size for size, total in some)
        return max(1.0, spread / variance / (len(some) - 1))

    def _variance(self, mean: float) -> float:
        return max(0.0, self.squares / self.n - mean * mean) if self.n else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        pairs = [[n, _finite(total)] for n, total in self.stretches]
        return {**asdict(self), "stretches": pairs, "squares": _finite(self.squares)}

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> "Tally":
        """Read what `to_json` wrote."""
        pairs = tuple((int(n), _number(total)) for n, total in table["stretches"])
        return cls(table["limit"], table["share"], pairs, _number(table["squares"]))


def _finite(value: float) -> float | None:
    """Return a number as JSON has it, which knows no infinity."""
    return None if value == inf else value


def _number(value: float | None) -> float:
    return inf if value is None else float(value)


class Trust(StrEnum):
    """How far the instrument's part in a look can be left out of account."""

    FULL = "full"
    CEILING = "ceiling"
    """The client was late, so latencies are at most what was read: what is met is met,
    what is missed may be the client's fault."""
    NONE = "none"
    """The load was not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one probe, or several of the same rate, say of it."""

    tallies: tuple[Tally, ...]
    """One for each objective."""
    backlog: tuple[int, int] = (0, 0)
    """Requests in flight or waiting half way between warm-up and end, and at the
    end."""
    trust: Trust = Trust.FULL

    @property
    def growth_nats(self) -> float:
        """How sure it is that the backlog grows.

        Where requests come at random and do not wait for each other, the number in
        flight is Poisson: its variance is its mean. At 4.5 nats growth is three
        standard deviations.
        """
        before, after = self.backlog
        return (after - before) ** 2 / (2 * (before + after)) if after > before else 0.0

    @property
    def met_nats(self) -> float:
        """How sure it is that every objective is met; 0 if one seems not to be."""
        return min((t.nats if t.met else 0.0 for t in self.tallies), default=inf)

    @property
    def missed_nats(self) -> float:
        """How sure it is that an objective is missed, or the rate not sustained."""
        missed = (t.nats for t in self.tallies if t.n and not t.met)
        return max(self.growth_nats, *missed, 0.0)

    def seems_met(self, nats: float) -> bool:
        """Whether it is met as far as can be seen: no growth as sure as `nats`."""
        return all(t.met for t in self.tallies) and self.growth_nats < nats

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            "tallies": [tally.to_json() for tally in self.tallies],
            "backlog": list(self.backlog),
            "trust": self.trust.value,
        }

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> "Look":
        """Read what `to_json` wrote."""
        first, last = table["backlog"]
        return cls(
            tallies=tuple(map(Tally.from_json, table["tallies"])),
            backlog=(first, last),
            trust=Trust(table["trust"]),
        )


def pooled(looks: Sequence[Look]) -> Look:
    """Return what several looks at one rate say together; at least one is needed."""
    first, *rest = looks
    tallies, (before, after) = first.tallies, first.backlog
    for look in rest:
        tallies = tuple(a + b for a, b in zip(tallies, look.tallies, strict=True))
        before, after = before + look.backlog[0], after + look.backlog[1]
    return Look(tallies=tallies, backlog=(before, after), trust=first.trust)


class Bearing:
    """Follows the rows of a run at one rate.

    `requests` are intended after the warm-up, which ends at `warmup_s`; none is after
    `duration_s`. It is `hopeless` once an objective is missed as surely as `nats`,
    whatever follows.
    """

    def __init__(
        self,
        slos: Sequence[Slo],
        *,
        requests: int,
        warmup_s: Seconds,
        duration_s: Seconds,
        nats: float,
    ) -> None:
        self.hopeless = False
        self._slos = slos
        self._tallies = [Tally.empty(slo) for slo in slos]
        self._spare = [_spare(tally, requests, nats) for tally in self._tallies]
        self._sums = [[[0, 0.0] for _ in range(STRETCHES)] for _ in slos]
        self._squares = [0.0] * len(slos)
        self._begin, self._each = warmup_s, (duration_s - warmup_s) / STRETCHES
        self._looks = (warmup_s + duration_s) / 2, duration_s
        self._inside = [0, 0]

    def __repr__(self) -> str:
        return f"<Bearing hopeless={self.hopeless} backlog={tuple(self._inside)}>"

    def add(self, row: RequestRecord) -> None:
        """Count a row."""
        for i, at in enumerate(self._looks):
            self._inside[i] += row.intended_s <= at < row.end_s
        for i, slo in enumerate(self._slos):
            wait = slo.counted_wait(row)
            if wait is not None:
                self._count(i, row.intended_s, wait)

    def add_dropped(self, intended: Iterable[Seconds]) -> None:
        """Count requests that were due at these times and never sent.

        They waited for a place in flight until the end, so they are over any limit.
        """
        for due in intended:
            for i, at in enumerate(self._looks):
                self._inside[i] += due <= at
            if due >= self._begin:
                for i in range(len(self._slos)):
                    self._count(i, due, inf)

    def _count(self, i: int, intended_s: Seconds, wait: Seconds) -> None:
        slo, tally = self._slos[i], self._tallies[i]
        value = float(wait > slo.max_s) if tally.share else wait
        stretch = int((intended_s - self._begin) / self._each)
        sums = self._sums[i][min(max(stretch, 0), STRETCHES - 1)]
        sums[0] += 1
        sums[1] += value
        self._squares[i] += value * value
        if tally.share and value:
            self._spare[i] -= 1
            self.hopeless |= self._spare[i] < 0

    def look(self, trust: Trust = Trust.FULL) -> Look:
        """Return what was seen."""
        tallies = tuple(
            Tally(
                tally.limit, tally.share,
                tuple((int(n), total) for n, total in sums), squares,
            )
            for tally, sums, squares in zip(
                self._tallies, self._sums, self._squares, strict=True
            )
        )  # fmt: skip
        return Look(
            tallies=tallies, backlog=(self._inside[0], self._inside[1]), trust=trust
        )


def _spare(tally: Tally, requests: int, nats: float) -> float:
    """Return how many of so many requests may be over before it is surely missed.

    To stop at the first beyond changes no verdict: the rest could only add to them.
    """
    if not tally.share or requests == 0:
        return inf

    def nats_of(over: int) -> float:
        share = max(over / requests, tally.limit)
        return share_nats(share, tally.limit) * requests

    if nats_of(requests) < nats:
        return inf
    return bisect_left(range(requests), nats, key=nats_of) - 1.0
