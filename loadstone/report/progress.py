"""What is seen during a run: a line a second to a log, a live panel on a terminal."""

from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from .table import duration, number, usd

_WINDOW_S: Final = 5.0
"""Rates shown are over this long."""
_LOG_EVERY_S: Final = 5.0


class Progress:
    """Shows the `progress` facts that a run tells; use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, transient=True, auto_refresh=False)
        self._seen: deque[Mapping[str, Any]] = deque()
        self._logged_s = float("-inf")

    def __enter__(self) -> Self:
        """Take the terminal over, if it is one."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give it back."""
        self._live.stop()

    def show(self, facts: Mapping[str, Any]) -> None:
        """Show the newest facts."""
        self._seen.append(facts)
        while facts["elapsed_s"] - self._seen[0]["elapsed_s"] > _WINDOW_S:
            self._seen.popleft()
        row = self._row(facts)
        if self._console.is_terminal:
            self._live.update(_grid(row), refresh=True)
        elif facts["elapsed_s"] - self._logged_s >= _LOG_EVERY_S:
            self._logged_s = facts["elapsed_s"]
            self._console.print(
                " | ".join(f"{k} {v}" for k, v in row.items()), soft_wrap=True
            )

    def _row(self, facts: Mapping[str, Any]) -> dict[str, str]:
        outcomes = facts["outcomes"]
        errors = outcomes["failed"] + outcomes["throttled"] + outcomes["incomplete"]
        asked = self._rate("scheduled")
        sent = self._rate("sent")
        return {
            "left": _left(facts),
            "asked/s": number(asked)
            if facts["scheduled"] is not None
            else "closed loop",
            "sent/s": number(sent),
            "in flight": number(facts["in_flight"], 0),
            "tokens/s": number(self._rate("output_tokens"), 0),
            "TTFT p50": duration(facts["ttft_p50_s"]),
            "TTFT p99": duration(facts["ttft_p99_s"]),
            "errors": number(errors, 0),
            "cost": usd(facts["usd"]),
        }

    def _rate(self, name: str) -> float | None:
        first, last = self._seen[0], self._seen[-1]
        span = last["elapsed_s"] - first["elapsed_s"]
        if span <= 0 or last[name] is None:
            return None
        return float((last[name] - first[name]) / span)


def _left(facts: Mapping[str, Any]) -> str:
    left = facts["duration_s"] - facts["elapsed_s"]
    if left > 0:
        return f"{left:.0f} s"
    return f"draining, {max(0.0, left + facts['drain_s']):.0f} s at most"


def _grid(row: Mapping[str, str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in row:
        table.add_column(name, justify="right", style="bold", header_style="dim")
    table.add_row(*row.values())
    return table
