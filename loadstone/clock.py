"""What a clock is. Real ones live at the rim; below it, time is an argument.

All instants of one process are on one clock, and deadlines are absolute: waiting is
`deadline - now()`, so lateness never accumulates.
"""

from typing import Protocol

from .units import Seconds


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> Seconds:
        """Return the instant, in seconds on this clock; it never runs backwards."""
        ...


class ManualClock:
    """A clock that stands still until it is moved: for tests and for virtual time."""

    def __init__(self, start: Seconds = 0.0) -> None:
        self._now = start

    def __repr__(self) -> str:
        return f"<ManualClock at {self._now:.6f}s>"

    def now(self) -> Seconds:
        """Return the instant this clock was last moved to."""
        return self._now

    def advance_to(self, instant: Seconds) -> None:
        """Move to `instant`; raises `ValueError` if that lies in the past."""
        if instant < self._now:
            raise ValueError(f"clock at {self._now} cannot go back to {instant}")
        self._now = instant
