"""A timer that only measures how late it fires: the first to notice a busy loop."""

import asyncio
from typing import Final

from loadstone.buckets import BucketArray
from loadstone.units import Seconds

from .driver import Timers

PERIOD_S: Final[Seconds] = 0.05
"""Twenty wakings a second cost some 0.02 % of a core."""


class Canary:
    """Adds the lateness of its own timer to `lag`, twenty times a second."""

    def __init__(self, timers: Timers, lag: BucketArray) -> None:
        self._timers = timers
        self._lag = lag
        self._due: Seconds = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Canary next at {self._due:.3f}s>"

    def start(self) -> None:
        """Set the timer. The next is set when it fires: one stall counts once."""
        self._due = self._timers.time() + PERIOD_S
        self._timer = self._timers.call_at(self._due, self._sing)

    def stop(self) -> None:
        """Set no more timers."""
        if self._timer is not None:
            self._timer.cancel()

    def _sing(self) -> None:
        self._lag.add(max(0.0, self._timers.time() - self._due))
        self.start()
