"""How far machines of one rack lie apart: a few are slow, none is much faster.

The speed of a VM is a top speed less an exponential deficit, so that the mean is 1:

    speed = 1 + tail - X,   X exponential with mean `tail`

n VMs get the n expected values of its order statistics, one each, so every rack has the
spread that a rack has on average; which VM is slow is drawn. One VM has speed 1.
"""

from collections.abc import Sequence
from random import Random


def order_statistics(n: int) -> list[float]:
    """Return the expected order statistics of `n` unit exponentials, rising.

    Renyi: the i-th is the sum of 1/j for j from n - i + 1 to n. Their mean is 1.
    """
    rising, total = [], 0.0
    for j in range(n, 0, -1):
        total += 1.0 / j
        rising.append(total)
    return rising


def vm_speeds(vms: int, tail: float, rng: Random) -> list[float]:
    """Return the speed of each of `vms` VMs over their mean; raises `ValueError`.

    A `tail` is refused under which the slowest VM would stand still.
    """
    speeds = [1.0 + tail - tail * x for x in order_statistics(vms)]
    if not (tail >= 0 and min(speeds) > 0):
        raise ValueError(f"not the tail of {vms} VMs: {tail!r}")
    rng.shuffle(speeds)
    return speeds


def fit_tail(slowest: float, median: float, fastest: float, vms: int) -> float:
    """Return the tail that is closest to a rack's figures, each over the mean VM's.

    Least squares: every one of them is 1 plus the tail times what its order says.
    """
    order = order_statistics(vms)
    middle = (order[(vms - 1) // 2] + order[vms // 2]) / 2
    rates = (1 - order[-1], 1 - middle, 1 - order[0])
    figures = (slowest - 1, median - 1, fastest - 1)
    return _dot(rates, figures) / _dot(rates, rates)


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))
