"""How many connections this process may hold: said and checked before it starts."""

import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loadstone.errors import UsageError

RESERVED_FILES: Final = 64
"""Descriptors kept for what is no client: logs, the listener, the event loop."""
_PORT_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the system lets this process have.

    `ports` is how many connections one client address can have to one of ours; None
    where the system does not say (it is Linux that does) and on Unix sockets.
    """

    open_files: int
    ports: int | None = None

    def __str__(self) -> str:
        text = f"room for {self.connections} connections ({self.open_files} open files)"
        if self.ports is not None and self.ports < self.connections:
            text += f", {self.ports} of them from one client address"
        return text

    @property
    def connections(self) -> int:
        """Connections that descriptors allow."""
        return max(0, self.open_files - RESERVED_FILES)

    def check(self, expected: int) -> None:
        """Raise `UsageError` if `expected` connections cannot be had."""
        if expected > self.connections:
            raise UsageError(
                f"{expected} connections are more than the {self.connections} that"
                f" {self.open_files} open files allow",
                hint="raise the hard limit (`ulimit -Hn`, LimitNOFILE=), or serve from"
                " several processes",
            )


def find_capacity(*, unix: bool = False) -> Capacity:
    """Raise the limit of open files as far as the system allows, and say what it is."""
    return Capacity(raise_descriptor_limit(), None if unix else _ports())


def raise_descriptor_limit() -> int:
    """Allow this process as many open files as the system lets it have; returns that.

    Each stream is a descriptor, and the usual soft limit is 1024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # macOS says unlimited and means 10,240
        return soft
    return hard


def _ports() -> int | None:
    try:
        low, high = _PORT_RANGE.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return int(high) - int(low) + 1
