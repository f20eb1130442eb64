"""The garbage collector of a server that has the process for itself.

A request leaves no cycles, so reference counts free it; but Python's collector counts
what is made more than what is freed, and a rack's load has it look through the young
objects several times a second and through all of them every few, find nothing, and hold
every token up meanwhile: with 7,400 answers in flight, of 96 objects each, for a
quarter of a second. Never would be wrong too: a closed transport of asyncio is a cycle,
1.6 KB with what hangs on it.
"""

import gc
from collections.abc import Callable
from typing import Final

from loadstone.units import Seconds

from .driver import Timer, Timers

LOOK_S: Final[Seconds] = 1.0
IDLE_LEAST: Final = 5_000
"""Objects for which an idle server is looked through: what 700 closed connections
leave, and a millisecond's work."""
BUSY_LEAST: Final = 100_000
"""The same of a server that has requests inside; 14,000 closed connections, 20 MB."""


def is_due(grown: int, known: int, *, idle: bool) -> bool:
    """Say whether to collect, if `grown` objects came since it was last done.

    `known` is how many there were then. As many again must have come, so that the work
    is in proportion to what was made, and garbage is never more than what is in use.
    """
    return grown >= (IDLE_LEAST if idle else max(BUSY_LEAST, known))


class Collector:
    """Collects when that holds nobody up, or when enough may have been left to free.

    What lives at the start lives as long as the process: it is not looked at again.
    """

    def __init__(self, timers: Timers, *, idle: Callable[[], bool]) -> None:
        self._timers = timers
        self._idle = idle
        self._known = 0
        self._timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<Collector {self._known} objects known>"

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
        if is_due(grown, self._known, idle=self._idle()):
            freed = gc.collect()
            self._known = max(0, self._known + grown - freed)
        self._wait()
