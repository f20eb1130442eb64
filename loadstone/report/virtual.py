"""How a run in virtual time gets on: a bar on a terminal, a line now and then in a log.

Rates are per second of wall clock; the speed is simulated seconds per second.
"""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ..units import Seconds, format_duration

_LOG_EVERY_S: Final = 5.0
_REFRESH_S: Final = 0.2


class VirtualProgress:
    """Shows how far a run is; use as a context manager."""

    def __init__(
        self, console: Console, clock: Callable[[], Seconds] = time.monotonic
    ) -> None:
        self._console = console
        self._clock = clock
        self._began = clock()
        self._shown = self._began
        self._bar = Progress(
            TextColumn("simulating"), BarColumn(), TextColumn("{task.description}"),
            console=console, transient=True, auto_refresh=False,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=1.0)

    def __enter__(self) -> Self:
        """Take the terminal over, if it is one."""
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give it back."""
        self._bar.stop()

    def show(self, *, done: float, requests: int, now: Seconds) -> None:
        """Show that `requests` ended by the virtual instant `now`, `done` of it all."""
        wall = self._clock()
        every = _REFRESH_S if self._console.is_terminal else _LOG_EVERY_S
        if wall - self._shown < every:
            return
        self._shown = wall
        line = self.line(done=done, requests=requests, now=now)
        if self._console.is_terminal:
            self._bar.update(self._task, completed=done, description=line, refresh=True)
        else:
            self._console.print(f"simulating {line}", soft_wrap=True, highlight=False)

    def line(self, *, done: float, requests: int, now: Seconds) -> str:
        """Say it in words; the time left is a guess from the part that is done."""
        spent = max(self._clock() - self._began, 1e-9)
        left = spent * (1 - done) / done if done > 0 else None
        return (
            f"{done:.0%} | {requests:,} requests, {requests / spent:,.0f}/s |"
            f" {now:,.0f} s simulated, {now / spent:,.1f} s/s |"
            f" {'?' if left is None else format_duration(round(left))} left"
        )

    def last(self, *, requests: int, now: Seconds) -> str:
        """Say how fast it went, once it is over."""
        spent = max(self._clock() - self._began, 1e-9)
        return (
            f"simulated {now:,.1f} s in {spent:,.1f} s: {now / spent:,.1f} simulated"
            f" seconds per second, {requests / spent:,.0f} requests per second"
        )
