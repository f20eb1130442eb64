"""Time that jumps: to whatever is due next, as soon as the event loop has nothing else.

A driver on these timers answers at once, and its engines still go through every step
with the instants that the model gives. Time stands still while no engine has anything
to do, so requests sent one after another see the same instants in every run. Requests
in flight together do so only if they arrive at one instant: `hold` the time until all
are there.
"""

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

from loadstone.units import Seconds


class JumpTimer:
    """A callback that waits for its instant."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def __repr__(self) -> str:
        return f"<JumpTimer {'waiting' if self.callback else 'cancelled'}>"

    def cancel(self) -> None:
        """Never call back."""
        self.callback = None


class JumpingTimers:
    """Timers for a `Driver`, on `loop`; to be used in its thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._now: Seconds = 0.0
        self._due: list[tuple[Seconds, int, JumpTimer]] = []
        self._numbers = count()
        self._held = False
        self._asked = False

    def __repr__(self) -> str:
        return f"<JumpingTimers at {self._now:.6f}s{' held' * self._held}>"

    def time(self) -> Seconds:
        """Return the instant it jumped to last."""
        return self._now

    def call_at(self, when: Seconds, callback: Callable[[], None]) -> JumpTimer:
        """Call back once everything before `when` has happened."""
        timer = JumpTimer(callback)
        heapq.heappush(self._due, (when, next(self._numbers), timer))
        self._ask()
        return timer

    def hold(self) -> None:
        """Stand still until `release`."""
        self._held = True

    def release(self) -> None:
        """Go on jumping."""
        self._held = False
        self._ask()

    def _ask(self) -> None:
        # One jump for each turn of the loop: what arrived meanwhile is read first.
        if self._due and not (self._asked or self._held):
            self._asked = True
            self._loop.call_soon(self._jump)

    def _jump(self) -> None:
        self._asked = False
        if self._held:
            return
        when, _, timer = heapq.heappop(self._due)
        if timer.callback is not None:
            self._now = max(self._now, when)
            timer.callback()
        self._ask()
