"""Whether one run is better or worse than another, and how sure that is.

Each figure is compared as the logarithm of B over A, so that twice and half are as far
apart. How much it would differ by chance is seen from runs that are drawn from the
stretches of A and of B (`traffic.tape`). Where both ran the same schedule, the same
stretches are drawn of both: what a burst did to both is then no difference.

The intervals hold together: with 95 % confidence all of them do, since their half width
is the 95 % quantile, over the draws, of the *largest* deviation of any figure in its
own standard deviations. Someone who looks at twelve figures and picks the worst is not
misled by it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, exp, inf, log
from random import Random
from statistics import NormalDist, stdev
from typing import Any, Final

from ..units import MILLION, Seconds
from .intervals import CONFIDENCE, student
from .quantiles import LEAST, QUANTILES
from .tape import BLOCKS, WHOLE, Cut, Weights

DRAWS: Final = 1000
TAIL_FROM: Final = 6
"""Stretches that values above a percentile must come from. A tail that is one burst was
met once, and no drawing again tells how often such a burst comes."""
SAME_TIME_S: Final = 1e-3
"""Requests that were due within a millisecond of each other were due together."""
PAIRED: Final = 0.99
"""Share of the requests that both runs must have had at the same time."""
_TAIL: Final = (1.0 - CONFIDENCE) / 2
_FEW: Final = student(1 - _TAIL, BLOCKS - 1) / NormalDist().inv_cdf(1 - _TAIL)
"""Allows for a standard deviation that is known from twenty stretches only."""


@dataclass(frozen=True, slots=True)
class Priced:
    """A run's stretches, and what a second of it cost, where that is known."""

    cut: Cut
    usd_per_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Something that is compared."""

    name: str
    unit: str
    lower_is_better: bool
    of: Callable[[Priced, Weights], float]
    """Its value in a run, or in one drawn from its stretches; 0 where there is none."""
    lacks: Callable[[Priced], str | None]
    """Why a run is no ground to judge it on, if so."""


def _quantile(metric: str, name: str) -> Figure:
    return Figure(
        name=f"{metric}.{name}",
        unit="s",
        lower_is_better=True,
        of=lambda run, w: run.cut.quantile(metric, QUANTILES[name], w),
        lacks=lambda run: _thin(run.cut, metric, name),
    )


def _thin(cut: Cut, metric: str, name: str) -> str | None:
    """Say why a percentile rests on too little, if it does."""
    if cut.offline:
        return "all was due at once: it is the queue's"
    n = cut.count(metric)
    if n < LEAST[name]:
        return f"n={n} < {LEAST[name]}"
    tail = cut.tail(metric, QUANTILES[name])
    if tail < TAIL_FROM:
        return f"what lies above it is from {tail} of {BLOCKS} stretches of the run"
    return None


def _rate(name: str, unit: str, top: str, bottom: str = "seconds") -> Figure:
    return Figure(
        name=name,
        unit=unit,
        lower_is_better=False,
        of=lambda run, w: run.cut.ratio(top, bottom, w),
        lacks=lambda run: _nothing(
            run.cut.ratio(top, bottom), "offline" if run.cut.offline else "none"
        ),
    )


def _cost(name: str, unit: str, bottom: str, scale: float) -> Figure:
    return Figure(
        name=name,
        unit=unit,
        lower_is_better=True,
        of=lambda run, w: (
            scale * (run.usd_per_s or 0.0) * run.cut.ratio("seconds", bottom, w)
        ),
        lacks=lambda run: _nothing(
            (run.usd_per_s or 0.0) * run.cut.ratio(bottom, "seconds"), "no price"
        ),
    )


def _nothing(value: float, why: str) -> str | None:
    return None if value > 0 else why


FIGURES: Final = (
    *(
        _quantile(metric, name)
        for metric in ("ttft_s", "tpot_s", "e2e_s", "response_time_s")
        for name in ("p50", "p99")
    ),
    _rate("output_tok_s", "tokens/s", "tokens"),
    _rate("req_s", "requests/s", "done"),
    _rate("answered", "share", "answered", "asked"),
    _rate("goodput_req_s", "requests/s", "good"),
    _cost("usd_per_request", "USD", "done", 1.0),
    _cost("usd_per_million_output_tokens", "USD", "tokens", MILLION),
)
AT_SAME_PRICE: Final = ("usd_per_request", "usd_per_million_output_tokens")
"""Compared once more with a second of B at the price of A's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """B against A in one figure; relative differences, 0.05 for 5 % more."""

    name: str
    unit: str
    a: float
    b: float
    relative: float
    low: float
    high: float
    lower_is_better: bool
    failed: bool = False
    """One of the values is that of requests that got no answer."""

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `no difference shown`."""
        if self.low <= 0 <= self.high:
            return "no difference shown"
        return "better" if (self.high < 0) == self.lower_is_better else "worse"

    def regressed(self, tolerance: float) -> bool:
        """Whether B is worse by more than a relative tolerance, with confidence."""
        if self.verdict != "worse":
            return False
        return self.low > tolerance if self.lower_is_better else self.high < -tolerance

    def to_json(self) -> dict[str, Any]:
        """Return its line of the document."""
        return {
            "figure": self.name,
            "unit": self.unit,
            "a": self.a,
            "b": self.b,
            "relative": self.relative,
            "interval": [self.low, self.high],
            "lower_is_better": self.lower_is_better,
            "includes_failures": self.failed,
            "verdict": self.verdict,
        }


def paired(a: Mapping[str, Seconds], b: Mapping[str, Seconds]) -> bool:
    """Say whether two runs had the same schedule, by when each request was due."""
    together = sum(1 for i, due in a.items() if abs(b.get(i, inf) - due) <= SAME_TIME_S)
    return bool(a) and together >= PAIRED * max(len(a), len(b))


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was compared, and what could not be, with the reason."""

    differences: Sequence[Difference]
    left_out: Mapping[str, str]


def compare(
    a: Priced, b: Priced, *, pairs: bool, rng: Random, goodput: bool = False,
    draws: int = DRAWS,
) -> Comparison:  # fmt: skip
    """Compare every figure that both runs are ground to judge.

    `pairs` says that they had the same schedule. Goodput is compared on request: it
    means something where both were judged by the same objectives.
    """
    asked = [f for f in FIGURES if goodput or f.name != "goodput_req_s"]
    left_out = {
        figure.name: f"{name}: {why}"
        for figure in asked
        for name, run in (("B", b), ("A", a))
        if (why := figure.lacks(run)) is not None
    }
    figures = [figure for figure in asked if figure.name not in left_out]
    values = [(figure.of(a, WHOLE), figure.of(b, WHOLE)) for figure in figures]
    weights = _draws(rng, draws, pairs=pairs)
    deviations = _deviations(figures, a, b, values, weights)
    found = [
        _difference(figure, value, half, a, b)
        for figure, value, half in zip(
            figures, values, _half_widths(deviations), strict=True
        )
    ]
    again = [_at_price_of(each, a, b) for each in found if _priced(each, a, b)]
    return Comparison([*found, *again], left_out)


def _draws(
    rng: Random, draws: int, *, pairs: bool
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield how often each stretch of A and of B is drawn: the same, where paired."""
    for _ in range(draws):
        of_a = _draw(rng)
        yield of_a, of_a if pairs else _draw(rng)


def _draw(rng: Random) -> list[int]:
    weights = [0] * BLOCKS
    for _ in range(BLOCKS):
        weights[rng.randrange(BLOCKS)] += 1
    return weights


def _deviations(
    figures: Sequence[Figure], a: Priced, b: Priced,
    values: Sequence[tuple[float, float]],
    weights: Iterable[tuple[Weights, Weights]],
) -> list[list[float]]:  # fmt: skip
    """Return of each figure how far the log ratio of each draw is from the runs' own.

    A draw in which a figure has no value says nothing of it: no deviation.
    """
    deviations: list[list[float]] = [[] for _ in figures]
    for of_a, of_b in weights:
        for figure, (x, y), out in zip(figures, values, deviations, strict=True):
            drawn_a, drawn_b = figure.of(a, of_a), figure.of(b, of_b)
            seen = drawn_a > 0 and drawn_b > 0
            out.append(log(drawn_b / drawn_a) - log(y / x) if seen else 0.0)
    return deviations


def _half_widths(deviations: Sequence[Sequence[float]]) -> list[float]:
    """Return the half widths of intervals that hold together, on the log scale."""
    spreads = [stdev(draws) for draws in deviations]
    largest = sorted(
        max(
            (
                abs(d) / spread
                for d, spread in zip(draw, spreads, strict=True)
                if spread
            ),
            default=0.0,
        )
        for draw in zip(*deviations, strict=True)
    )
    if not largest:
        return []
    reach = largest[ceil(CONFIDENCE * len(largest)) - 1]
    # Of n stretches drawn with replacement the variance is (n - 1) / n of the truth.
    return [
        reach * _FEW * (BLOCKS / (BLOCKS - 1)) ** 0.5 * spread for spread in spreads
    ]


def _difference(
    figure: Figure, value: tuple[float, float], half: float, a: Priced, b: Priced
) -> Difference:
    x, y = value
    ratio = log(y / x)
    slowest = (a.cut.slowest, b.cut.slowest)
    return Difference(
        name=figure.name, unit=figure.unit, a=x, b=y, relative=exp(ratio) - 1,
        low=exp(ratio - half) - 1, high=exp(ratio + half) - 1,
        lower_is_better=figure.lower_is_better,
        failed=figure.unit == "s" and (x == slowest[0] or y == slowest[1]),
    )  # fmt: skip


def _priced(found: Difference, a: Priced, b: Priced) -> bool:
    return found.name in AT_SAME_PRICE and a.usd_per_s != b.usd_per_s


def _at_price_of(found: Difference, a: Priced, b: Priced) -> Difference:
    """Return a cost figure with B at A's price."""
    assert a.usd_per_s
    assert b.usd_per_s
    change = a.usd_per_s / b.usd_per_s
    relative, low, high = (
        (1 + x) * change - 1 for x in (found.relative, found.low, found.high)
    )
    return Difference(
        name=f"{found.name} at A's price", unit=found.unit, a=found.a,
        b=found.b * change, relative=relative, low=low, high=high,
        lower_is_better=True,
    )  # fmt: skip
