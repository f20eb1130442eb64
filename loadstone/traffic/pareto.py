"""What may be had of throughput for what of speed: the frontier, and where it bends.

A machine that serves more users at once gives each of them less. Points are (tokens/s
that a user sees, tokens/s that a GPU gives), the two axes that NVIDIA and
SemiAnalysis's InferenceMAX plot serving by. A point is on the frontier if no other is
as good on both axes and better on one.
"""

from collections.abc import Sequence

Point = tuple[float, float]


def dominates(one: Point, other: Point) -> bool:
    """Whether `one` is nowhere worse and somewhere better."""
    return one != other and one[0] >= other[0] and one[1] >= other[1]


def frontier(points: Sequence[Point]) -> list[int]:
    """Return the indices of the points that none dominates, by falling first value.

    Of equal points all are there.
    """
    order = sorted(range(len(points)), key=lambda i: points[i], reverse=True)
    kept: list[int] = []
    for i in order:
        if (
            not kept
            or points[i][1] > points[kept[-1]][1]
            or points[i] == points[kept[-1]]
        ):
            kept.append(i)
    return kept


def knee(points: Sequence[Point]) -> int | None:
    """Return the index of the point with the largest product of both values.

    The product of throughput and speed is throughput over delay, Kleinrock's *power*
    (L. Kleinrock, "Power and deterministic rules of thumb for probabilistic problems in
    computer communications", ICC 1979): to its left one gives up more of the one, in
    per cent, than one gets of the other, and so to its right. It is on the frontier, no
    unit of either axis moves it, and unlike a distance from the chord (Kneedle,
    Satopaa et al. 2011) it does not depend on how far the sweep went beyond it.

    None without points. Of equals the first.
    """
    powers = [x * y for x, y in points]
    best = max(powers, default=None)
    if best is None:
        return None
    # Of points of equal power one may dominate another only if both have none.
    on = set(frontier(points))
    return next(i for i, power in enumerate(powers) if power == best and i in on)
