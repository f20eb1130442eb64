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
IN_USE: Final = 128
"""Objects that are let pass for each open connection: one that streams has 96."""


def is_due(grown: int, connections: int, *, idle: bool) -> bool:
    """Say whether to collect, if `grown` objects came since it was last done.

    While requests are inside, what their connections may have in use is let pass, so
    that more of them are no reason to look through them.
    """
    return grown >= (IDLE_LEAST if idle else BUSY_LEAST + IN_USE * connections)


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
        if is_due(grown, self._connections(), idle=self._idle()):
            gc.collect()
            self.collected += 1
        self._wait()
