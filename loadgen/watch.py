"""The instrument watches itself: how late its loop runs, how long collections stop it.

The process's one gevent hub reads every socket and fires every timer. A timer that is
late says that, for that long, nothing was read either.
"""

import gc
import time

import gevent

from .stats import ClientStats

PERIOD_S = 0.02
"""Between two looks at the loop. Half of this is the least pause that is sure to be
seen."""


class Watch:
    """Feeds this process's loop lag and collection pauses to `stats` until stopped."""

    def __init__(self, stats: ClientStats) -> None:
        self._stats = stats
        self._began = 0.0
        self._greenlet: gevent.Greenlet[..., None] | None = None

    def start(self) -> None:
        """Begin. What was allocated so far is taken out of the collector's sight first.

        A collection over the start-up's objects stalled trial clients for 50-170 ms.
        """
        gc.collect()
        gc.freeze()
        gc.callbacks.append(self._on_gc)
        self._greenlet = gevent.spawn(self._look)

    def stop(self) -> None:
        """End; harmless when it never began."""
        if self._greenlet is not None:
            self._greenlet.kill()
            self._greenlet = None
            gc.callbacks.remove(self._on_gc)
            gc.unfreeze()

    def _look(self) -> None:
        due = time.monotonic()
        while True:
            due += PERIOD_S
            gevent.sleep(max(0.0, due - time.monotonic()))
            lag = time.monotonic() - due
            # The looks that were missed were late too, each by a period less than the
            # one before.
            while lag > PERIOD_S:
                self._stats.loop_lag.add(lag)
                due += PERIOD_S
                lag -= PERIOD_S
            self._stats.loop_lag.add(max(lag, 0.0))

    def _on_gc(self, phase: str, info: dict[str, int]) -> None:  # noqa: ARG002 - gc's signature
        if phase == "start":
            self._began = time.monotonic()
        else:
            pause = time.monotonic() - self._began
            self._stats.worst_pause_s = max(self._stats.worst_pause_s, pause)
