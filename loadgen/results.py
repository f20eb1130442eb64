"""Rows on disk, written as the run goes."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import gevent

from loadstone.traffic.accounts import PULSE_EVERY_S
from loadstone.traffic.record import RequestRecord

from .watch import Stops

FLUSH_EVERY_S: Final = PULSE_EVERY_S
"""What a kill can lose at most."""


def rows_name(rank: int, workers: int) -> str:
    """Return the name of a worker's row file; in one process it is `requests.jsonl`."""
    return "requests.jsonl" if workers == 1 else f"requests.{rank}.jsonl"


def pulse_name(rank: int, workers: int) -> str:
    """Return the name of the file that says how long a worker lived."""
    return "alive.json" if workers == 1 else f"alive.{rank}.json"


class RowWriter:
    """Appends rows to a JSON-lines file and flushes it every second.

    A disk that takes no more is told to `on_failure`, once; later rows are let go.
    `pulse(closed)` is called whenever all rows so far are on disk, at last with True.
    One that cannot be written is let go: the next comes in a second, and where there
    is no descriptor to open its file with, the rows' own has long been open.
    """

    def __init__(
        self,
        path: Path,
        on_failure: Callable[[OSError], None],
        pulse: Callable[[bool], None] = lambda closed: None,  # noqa: ARG005 - a default
    ) -> None:
        self.path = path
        self.written = 0
        self.stops = Stops()
        """How long writes held the hub: the row is written where its answer is read."""
        self._on_failure = on_failure
        self._pulse = pulse
        self._failed = False
        self._file = path.open("x", encoding="utf-8")
        self._flusher = gevent.spawn(self._flush_often)

    def __repr__(self) -> str:
        return f"<RowWriter {self.path.name} rows={self.written}>"

    def write(self, row: RequestRecord) -> None:
        """Append one row."""
        self._guarded(lambda: self._file.write(row.to_line()))
        self.written += not self._failed

    def close(self) -> None:
        """Flush, sync to disk and close."""
        self._flusher.kill()
        self._guarded(self._file.flush)
        self._guarded(lambda: os.fsync(self._file.fileno()))
        # What a full disk left in the buffer cannot be written at the close either.
        with suppress(OSError):
            self._file.close()
        self._give_pulse(closed=True)

    def _guarded(self, act: Callable[[], object]) -> None:
        if self._failed:
            return
        began = time.monotonic()
        try:
            act()
        except OSError as failed:
            self._failed = True
            self._on_failure(failed)
        self.stops.add(time.monotonic() - began)

    def _flush_often(self) -> None:
        while True:
            gevent.sleep(FLUSH_EVERY_S)
            self._guarded(self._file.flush)
            self._give_pulse(closed=False)

    def _give_pulse(self, *, closed: bool) -> None:
        if self._failed:
            return
        began = time.monotonic()
        with suppress(OSError):
            self._pulse(closed)
        self.stops.add(time.monotonic() - began)
