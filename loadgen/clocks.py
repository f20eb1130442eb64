"""How far another host's clock is from ours, from a few round trips, as NTP does it.

We note when we ask and when the answer is there; the other says what its clock shows in
between. If both ways took equally long it showed that at the middle; at worst one way
took no time, so half the round trip is the most that the offset can be wrong by (RFC
5905, section 8). The quickest round trip says most, and waits in queues fall away.
"""

from collections.abc import Iterable
from typing import NamedTuple

from loadstone.units import Seconds


class RoundTrip(NamedTuple):
    """Our clock before and after, and theirs in between; seconds since the epoch."""

    asked: Seconds
    shown: Seconds
    answered: Seconds

    @property
    def took_s(self) -> Seconds:
        """How long it took."""
        return self.answered - self.asked


class Offset(NamedTuple):
    """Their clock minus ours, and the most that this can be wrong by, in seconds."""

    offset_s: Seconds
    uncertainty_s: Seconds


def offset_of(trips: Iterable[RoundTrip]) -> Offset | None:
    """Return what the quickest round trip says; None without any."""
    best = min(trips, key=lambda trip: trip.took_s, default=None)
    if best is None:
        return None
    middle = (best.asked + best.answered) / 2
    return Offset(best.shown - middle, best.took_s / 2)
