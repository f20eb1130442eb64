"""How far a statistic of a run can be trusted: 95 % confidence intervals.

A percentile's interval is a pair of order statistics: how many of n independent values
lie below the true percentile is binomial, whatever their distribution (Conover,
Practical Nonparametric Statistics, 3.2). Requests are not independent: those that met
in a queue waited together. So n is divided by `phi`, the variance of the share below
the percentile between 20 batches in order of time, over what it would be for
independent values; the mean's interval is that of the batches' means (Schmeiser 1982,
Batch size effects in the analysis of simulation output). Both assume that what one
request meets is forgotten within a batch, a twentieth of the run.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain, pairwise
from math import ceil, exp, floor, lgamma, log, sqrt
from statistics import NormalDist, fmean, variance
from typing import Final

from .quantiles import nearest_rank

CONFIDENCE: Final = 0.95
BATCHES: Final = 20
"""10 to 30 lose little against many, and long batches forget each other."""
_TAIL: Final = (1.0 - CONFIDENCE) / 2
_NORMAL: Final = NormalDist()
_FAR: Final = 12.0
"""Standard deviations beyond which a binomial has no weight that a double shows."""

Interval = tuple[float | None, float | None]
"""From, to; None for a side that the sample is too small to bound."""
NO_INTERVAL: Final[Interval] = (None, None)


def student(p: float, freedom: int) -> float:
    """Return Student's t quantile by expansion about the normal one.

    Right to 0.001 from 5 degrees of freedom on (Abramowitz and Stegun, 26.7.5).
    """
    z, v = _NORMAL.inv_cdf(p), freedom
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z)
        / (92160 * v**4)
    )


@lru_cache(maxsize=4096)
def ranks(n: int, q: float) -> tuple[int, int]:
    """Return the ranks (from 1) of the values that hold the `q` quantile, by 95 %.

    Each may be missed by 2.5 % at most. Rank 0 is below the least value and n + 1 above
    the greatest: the sample bounds that side by nothing.
    """
    mean, spread = n * q, sqrt(n * q * (1 - q))
    first = max(0, floor(mean - _FAR * spread))
    last = min(n, ceil(mean + _FAR * spread))
    log_choose = lgamma(n + 1) - lgamma(first + 1) - lgamma(n - first + 1)
    weight = exp(log_choose + first * log(q) + (n - first) * log(1 - q))
    weights = []
    for k in range(first, last + 1):
        weights.append(weight)
        weight *= (n - k) / (k + 1) * q / (1 - q)
    return (
        first + _within(weights, _TAIL),
        last + 1 - _within(reversed(weights), _TAIL),
    )


def _within(weights: Iterable[float], most: float) -> int:
    """Return how many of the weights together are at most `most`."""
    total, count = 0.0, 0
    for weight in weights:
        total += weight
        if total > most:
            break
        count += 1
    return count


class Sample:
    """Values in order of time, cut into batches and sorted: what the statistics need.

    One sort of all values serves every percentile.
    """

    def __init__(self, values: Sequence[float]) -> None:
        self.n = len(values)
        self._batches = [sorted(values[cut]) for cut in batches(self.n)]
        # Sorted runs are merged, not sorted anew.
        self.ordered = sorted(chain.from_iterable(self._batches))

    def __repr__(self) -> str:
        return f"<Sample of {self.n} in {len(self._batches)} batches>"

    @property
    def mean(self) -> float | None:
        """The mean; None without values."""
        return fmean(self.ordered) if self.n else None

    def quantile(self, q: float) -> float | None:
        """Return the nearest-rank quantile; None without values."""
        return nearest_rank(self.ordered, q)

    def mean_interval(self) -> Interval:
        """Return the mean's interval; none below 40 values."""
        if len(self._batches) < BATCHES:
            return NO_INTERVAL
        means = [fmean(batch) for batch in self._batches]
        half = student(1 - _TAIL, BATCHES - 1) * sqrt(variance(means) / BATCHES)
        return fmean(means) - half, fmean(means) + half

    def interval(self, q: float) -> Interval:
        """Return the interval of the `q` quantile, a side that is not bounded as None.

        Fewer than 40 values are taken as independent.
        """
        value = self.quantile(q)
        if value is None:
            return NO_INTERVAL
        shares = [bisect_right(batch, value) / len(batch) for batch in self._batches]
        n = max(1, floor(self.n / phi(shares, self.n)))
        low, high = ranks(n, q)
        # The ranks of n independent values, as ranks of all values, rounded outwards.
        below, above = floor(low * self.n / n), ceil(high * self.n / n)
        return (
            self.ordered[below - 1] if low > 0 else None,
            self.ordered[above - 1] if above <= self.n else None,
        )


def batches(n: int) -> list[slice]:
    """Cut n values into 20 batches as equal as can be; one batch below 40."""
    count = BATCHES if n >= 2 * BATCHES else 1
    edges = [n * i // count for i in range(count + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def phi(shares: Sequence[float], n: int) -> float:
    """Return how many of n requests say as much of a share as one independent one.

    `shares` are those of the batches. At least 1; chance in 19 differences of batches
    is allowed for as in Student's t. A single batch says nothing: 1.
    """
    if len(shares) < BATCHES:
        return 1.0
    share = fmean(shares)
    independent = share * (1 - share) * BATCHES / n
    allowance = student(1 - _TAIL, BATCHES - 1) / _NORMAL.inv_cdf(1 - _TAIL)
    return max(1.0, variance(shares) / independent * allowance**2 if independent else 0)


def share_interval(met: Sequence[int], missed: int = 0) -> Interval:
    """Return the interval of a share by Wilson's score.

    `met` is 0 or 1 of each request in order of time; `missed` more have no time.
    """
    total = len(met) + missed
    if not total:
        return NO_INTERVAL
    shares = [
        sum(batch) / len(batch) for cut in batches(len(met)) if (batch := met[cut])
    ]
    n, share = total / phi(shares, len(met)), sum(met) / total
    z = _NORMAL.inv_cdf(1 - _TAIL)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)
