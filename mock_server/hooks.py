"""What the mock announces; an observer has any of these methods.

They are called on the event loop that writes tokens, so an observer takes note and
returns: what takes longer is done elsewhere.
"""

from dataclasses import dataclass
from typing import Final, Protocol

from loadstone.units import Seconds
from loadstone.wire.traceparent import TraceParent

from .sinks import Ticket

CLIENT_WENT_AWAY: Final = 499
"""As nginx counts a client that closed its connection before it had an answer."""


@dataclass(slots=True, kw_only=True)
class Visit:
    """A request for an answer, from the server's door and back.

    `received_s` and `ended_s` are engine time, of which 0 is `t0_epoch` in seconds
    since the epoch. There is a ticket unless the request was refused at the door.
    """

    t0_epoch: Seconds
    received_s: Seconds
    ended_s: Seconds = 0.0
    parent: TraceParent | None = None
    ticket: Ticket | None = None
    status: int = CLIENT_WENT_AWAY


class ServerHooks(Protocol):
    """The hooks."""

    def request_served(self, visit: Visit) -> None:
        """Take note of a request that was answered, refused or abandoned."""
        ...
