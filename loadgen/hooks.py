"""What the load generator announces; an observer has any of these methods.

They are called on the hub that stamps the answers, so an observer takes note and
returns: what takes longer is done elsewhere.
"""

from dataclasses import dataclass
from typing import Protocol

from loadstone.traffic.plan import Plan
from loadstone.traffic.record import RequestRecord
from loadstone.units import Seconds


@dataclass(frozen=True, slots=True)
class Begun:
    """A run whose share in this process begins; rows count from `t0_epoch`."""

    run: str
    plan: Plan
    t0_epoch: Seconds


class LoadHooks(Protocol):
    """The hooks, in the order they are called."""

    def run_began(self, begun: Begun) -> None:
        """Take note of a run, before its first request."""
        ...

    def request_ended(self, row: RequestRecord) -> None:
        """Take note of a request of that run that was sent and ended."""
        ...
