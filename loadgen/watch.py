"""The instrument watches itself: its loop, its stops, its share of the machine.

The process's one gevent hub reads every socket and fires every timer. A timer that is
late says that, for that long, nothing was read either. What else can hold the hub is
watched where it happens: garbage collections, writes of rows, and the core, which other
processes and other virtual machines may have.
"""

import gc
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import gevent

from loadstone.garbage import is_due
from loadstone.traffic.verdict import MAX_LOOP_LAG_S
from loadstone.units import Seconds

from .stats import ClientStats

PERIOD_S: Final = 0.02
"""Between two looks at the loop. Half of this is the least pause that is sure to be
seen."""
_TALLY_EVERY: Final = 50
"""Looks between two tallies of the machine: a second."""
_SCHEDSTAT: Final = Path("/proc/self/schedstat")
_STAT: Final = Path("/proc/stat")


@dataclass(slots=True)
class Stops:
    """How often and how long something held the whole process, in seconds.

    Counted is what is longer than the loop may lag: shorter stops harm no stamp by more
    than that.
    """

    worst_s: Seconds = 0.0
    total_s: Seconds = 0.0

    def add(self, seconds: Seconds) -> None:
        """Note a stop."""
        self.worst_s = max(self.worst_s, seconds)
        if seconds > MAX_LOOP_LAG_S:
            self.total_s += seconds


@dataclass(frozen=True, slots=True)
class Machine:
    """What this process and its machine have spent so far, in seconds.

    What a system does not tell is None.
    """

    wall: Seconds
    cpu: Seconds
    """User and system time of the process."""
    waited: Seconds | None
    """How long the main thread was ready to run while others had the core."""
    stolen: Seconds | None
    """How long the hypervisor gave a core that was wanted to others, over all cores."""

    @classmethod
    def now(cls) -> "Machine":
        """Read it."""
        waited = stolen = None
        with suppress(OSError, ValueError, IndexError):
            waited = int(_SCHEDSTAT.read_text().split()[1]) * 1e-9
        with suppress(OSError, ValueError, IndexError):
            # proc(5): cpu user nice system idle iowait irq softirq steal
            ticks = int(_STAT.read_text().split("\n", 1)[0].split()[8])
            stolen = ticks / os.sysconf("SC_CLK_TCK")
        return cls(time.monotonic(), time.process_time(), waited, stolen)

    def shares_since(self, before: "Machine") -> dict[str, float]:
        """Return what part of the time since `before` each was; cores count singly."""
        wall = max(self.wall - before.wall, 1e-9)
        shares = {"cpu_share": (self.cpu - before.cpu) / wall}
        if self.waited is not None and before.waited is not None:
            shares["cpu_wait_share"] = (self.waited - before.waited) / wall
        if self.stolen is not None and before.stolen is not None:
            cores = os.cpu_count() or 1
            shares["steal_share"] = (self.stolen - before.stolen) / wall / cores
        return shares


@dataclass(slots=True)
class Vitals:
    """Figures of one process since its watch began, as the verdict takes them."""

    began: Machine = field(default_factory=Machine.now)
    gc: Stops = field(default_factory=Stops)
    disk: Stops = field(default_factory=Stops)

    def tally(self) -> dict[str, float]:
        """Return shares of the time so far, and the longest stops in seconds."""
        now = Machine.now()
        wall = max(now.wall - self.began.wall, 1e-9)
        return {
            **now.shares_since(self.began),
            "gc_share": self.gc.total_s / wall,
            "disk_share": self.disk.total_s / wall,
            "worst_disk_stop_s": self.disk.worst_s,
        }


class Watch:
    """Feeds loop lag, stops and shares of this process to `stats` until stopped.

    `disk` is where the writer of rows notes how long it held the hub. How the loop lags
    before `since`, on the monotonic clock, is not counted: places are made then, by the
    thousand, and no request is sent. `places` is how many requests may be in flight.
    """

    def __init__(
        self,
        stats: ClientStats,
        disk: Stops | None = None,
        since: Seconds = 0.0,
        places: int = 0,
    ) -> None:
        self._stats = stats
        self._since = since
        self._places = places
        self._disk = disk or Stops()
        self._vitals = Vitals(disk=self._disk)
        self._began = 0.0
        self._greenlet: gevent.Greenlet[..., None] | None = None

    def start(self) -> None:
        """Begin. What was allocated so far is taken out of the collector's sight first.

        Then it is turned off, and what it would find is looked for when it is due: with
        6,500 answers in flight a full collection took 66 to 156 ms.
        """
        gc.collect()
        gc.freeze()
        gc.disable()
        gc.callbacks.append(self._on_gc)
        self._vitals = Vitals(disk=self._disk)
        self._greenlet = gevent.spawn(self._look)

    def stop(self) -> None:
        """End; harmless when it never began."""
        if self._greenlet is not None:
            self._stats.vitals = self._vitals.tally()
            self._greenlet.kill()
            self._greenlet = None
            gc.callbacks.remove(self._on_gc)
            gc.unfreeze()
            gc.enable()

    def _look(self) -> None:
        due, looks = max(time.monotonic(), self._since), 0
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
            looks += 1
            if looks % _TALLY_EVERY == 0:
                self._stats.vitals = self._vitals.tally()
                self._collect()

    def _collect(self) -> None:
        """Look for garbage if there may be enough of it."""
        if is_due(gc.get_count()[0], self._places):
            gc.collect()

    def _on_gc(self, phase: str, info: dict[str, int]) -> None:  # noqa: ARG002 - gc's signature
        if phase == "start":
            self._began = time.monotonic()
        else:
            pauses = self._vitals.gc
            pauses.add(time.monotonic() - self._began)
            self._stats.worst_pause_s = max(self._stats.worst_pause_s, pauses.worst_s)
