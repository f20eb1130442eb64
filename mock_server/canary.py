"""Two watches over the loop: how late a bare timer fires, and how late tokens are."""

import logging
from typing import Final

from loadstone.buckets import BucketArray
from loadstone.units import Seconds

from .driver import Timer, Timers
from .stats import LATE_S, LATE_SHARE, ServerStats

_LOG: Final = logging.getLogger(__name__)
PERIOD_S: Final[Seconds] = 0.05
"""Twenty wakings a second cost some 0.02 % of a core."""


WINDOW_S: Final[Seconds] = 1.0
"""What the lag alarm looks back on."""
LATE_QUANTILE: Final = 0.01
"""Share of late steps from which on p99 is late."""
CLEAR_AFTER: Final = 5
"""Windows without lateness after which the alarm is taken back."""


class Canary:
    """Adds the lateness of its own timer to `lag`, twenty times a second."""

    def __init__(self, timers: Timers, lag: BucketArray) -> None:
        self._timers = timers
        self._lag = lag
        self._due: Seconds = 0.0
        self._timer: Timer | None = None

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


class LagWatch:
    """Raises the alarm when writes are late, and takes it back when they no longer are.

    Late is p99 over a window above what `EngineStats.written` allows, that is: more
    than one step in a hundred. The alarm stays on for some windows after the last late
    one, so that a server on the edge does not flicker.
    """

    def __init__(self, timers: Timers, stats: ServerStats) -> None:
        self._timers = timers
        self._stats = stats
        self._timer: Timer | None = None
        self._seen = stats.steps_written()
        self._good = 0

    def __repr__(self) -> str:
        return f"<LagWatch {'late' if self._stats.lag_alarm.on else 'in time'}>"

    def start(self) -> None:
        """Look at every window from now on."""
        self._timer = self._timers.call_at(self._timers.time() + WINDOW_S, self._look)

    def stop(self) -> None:
        """Set no more timers."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        seen, self._seen = self._seen, self._stats.steps_written()
        steps, late = (now - then for now, then in zip(self._seen, seen, strict=True))
        if late > LATE_QUANTILE * steps:
            self._good = 0
            self._raise(steps, late)
        else:
            self._good += 1
            self._take_back()
        self.start()

    def _raise(self, steps: int, late: int) -> None:
        alarm = self._stats.lag_alarm
        if not alarm.on:
            _LOG.warning(
                "clock lag: %d of %d steps were written more than %g ms or %.0f %% of a"
                " step late; timing is not the model's until this is taken back",
                late, steps, LATE_S * 1e3, LATE_SHARE * 100,
            )  # fmt: skip
        alarm.on = True
        alarm.windows += 1

    def _take_back(self) -> None:
        alarm = self._stats.lag_alarm
        if alarm.on and self._good >= CLEAR_AFTER:
            alarm.on = False
            _LOG.warning("clock lag: tokens are written in time again")
