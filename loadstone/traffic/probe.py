"""Whether a rate was borne: objectives that can still be met, and a backlog that stays.

Percentiles alone do not tell. Just above its capacity an engine first fills its batch,
which takes minutes, and only then do requests queue: until then every limit is met at a
rate that nothing could sustain.
"""

from collections.abc import Sequence
from math import ceil, sqrt
from typing import Final

from ..units import Seconds
from .quantiles import QUANTILES
from .record import RequestRecord
from .slo import Slo

_SIGMAS: Final = 3.0
"""Growth of the backlog beyond so many standard deviations is not chance."""


class Bearing:
    """Follows the rows of a run at one rate.

    `requests` are intended after the warm-up, which ends at `warmup_s`; none is after
    `duration_s`.
    """

    def __init__(
        self,
        slos: Sequence[Slo],
        *,
        requests: int,
        warmup_s: Seconds,
        duration_s: Seconds,
    ) -> None:
        self.hopeless = False
        """An objective is missed, whatever follows."""
        self._slos = [slo for slo in slos if slo.stat in QUANTILES]
        self._spare = [
            requests - ceil(QUANTILES[slo.stat] * requests) for slo in self._slos
        ]
        self._looks = (warmup_s + duration_s) / 2, duration_s
        self._inside = [0, 0]

    def __repr__(self) -> str:
        return f"<Bearing hopeless={self.hopeless} backlog={self.backlog}>"

    @property
    def backlog(self) -> tuple[int, int]:
        """Requests in flight half way between warm-up and end, and at the end."""
        return self._inside[0], self._inside[1]

    @property
    def grows(self) -> bool:
        """Whether the backlog grew by more than chance.

        Where requests come at random and do not wait for each other, the number in
        flight is Poisson: its variance is its mean.
        """
        before, after = self._inside
        return after - before > _SIGMAS * sqrt(before + after)

    def add(self, row: RequestRecord) -> None:
        """Count a row.

        A percentile of `n` is missed once more than `n - ceil(q n)` are over the limit.
        """
        for i, at in enumerate(self._looks):
            self._inside[i] += row.intended_s <= at < row.end_s
        for i, slo in enumerate(self._slos):
            wait = slo.counted_wait(row)
            if wait is not None and wait > slo.max_s:
                self._spare[i] -= 1
                self.hopeless |= self._spare[i] < 0

    def borne(self, judged: Sequence[dict[str, object]]) -> bool:
        """Whether it was sustained within the objectives; `judged` as in a summary."""
        met = all(line["met"] for line in judged)
        return met and not self.hopeless and not self.grows
