"""The garbage collector of a server that has the process for itself.

It is off, and what it would find is looked for when nobody waits, or when there may be
much of it; see `loadstone.garbage`.
"""

import gc
from collections.abc import Callable
from typing import Final

from loadstone.garbage import is_due
from loadstone.units import Seconds

from .driver import Timer, Timers

LOOK_S: Final[Seconds] = 1.0
IDLE_LEAST: Final = 5_000
"""Objects for which an idle server is looked through: what 700 closed connections
leave, and a millisecond's work."""


class Collector:
    """Collects when that holds nobody up, or when enough may have been left to free.

    What lives at the start lives as long as the process: it is not looked at again.
    """

    def __init__(
        self,
        timers: Timers,
        *,
        idle: Callable[[], bool],
        connections: Callable[[], int],
    ) -> None:
        self._timers = timers
        self._idle = idle
        self._connections = connections
        self._timer: Timer | None = None
        self.collected = 0
        """Collections so far."""

    def __repr__(self) -> str:
        return f"<Collector {self.collected} collections>"

    def start(self) -> None:
        """Take the process's collections over."""
        gc.collect()
        gc.freeze()
        gc.disable()
        self._wait()

    def stop(self) -> None:
        """Give them back."""
        if self._timer is not None:
            self._timer.cancel()
            gc.unfreeze()
            gc.enable()

    def _wait(self) -> None:
        self._timer = self._timers.call_at(self._timers.time() + LOOK_S, self._look)

    def _look(self) -> None:
        # Made and not freed since the last collection, which sets it back to 0.
        grown = gc.get_count()[0]
        idle = grown >= IDLE_LEAST and self._idle()
        if idle or is_due(grown, self._connections()):
            gc.collect()
            self.collected += 1
        self._wait()
