"""The mock's own counts of a run's requests, kept in the run's folder for its audit.

They are asked for before the first request, to know the servers, and after the last.
"""

import time
from collections.abc import Sequence
from typing import Any, Final

import gevent

from loadstone.units import Seconds

from .client import Endpoint, StreamingClient, Timeouts
from .probe import object_in

_TIMEOUTS: Final = Timeouts(connect=2.0, first_byte=3.0, total=5.0)
_NO_RUN: Final = "0" * 16
"""What is asked for to know a server, and not a run."""
_PATIENCE_S: Final[Seconds] = 2.0
"""A server hears at once of a client that has gone, and not at the same instant."""
_PAUSE_S: Final[Seconds] = 0.05


class ServerBooks:
    """Asks each of a run's servers; what one of them does not tell is an `error`."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._clients = [StreamingClient(e, timeouts=_TIMEOUTS) for e in endpoints]
        self._before: list[dict[str, Any]] = [{} for _ in endpoints]

    def __repr__(self) -> str:
        return f"<ServerBooks of {len(self._clients)} servers>"

    def open(self) -> None:
        """Ask who they are. A few milliseconds, seconds where one does not answer."""
        self._before = [_ask(client, _NO_RUN) for client in self._clients]

    def close(self, run: str) -> dict[str, Any]:
        """Ask for that run's counts once all its requests have ended there, too.

        Returns what is kept; for what still has not ended there is no more patience.
        """
        deadline = time.monotonic() + _PATIENCE_S
        servers = [
            {
                "url": client.endpoint.url,
                "before": before,
                "after": _settled(client, run, deadline),
            }
            for client, before in zip(self._clients, self._before, strict=True)
        ]
        for client in self._clients:
            client.close()
        return {"run": run, "servers": servers}


def _settled(client: StreamingClient, run: str, deadline: Seconds) -> dict[str, Any]:
    told = _ask(client, run)
    while told.get("unfinished") and time.monotonic() < deadline:
        gevent.sleep(_PAUSE_S)
        told = _ask(client, run)
    return told


def _ask(client: StreamingClient, run: str) -> dict[str, Any]:
    exchange = client.send(path=f"/runs/{run}", method="GET")
    if exchange.error is not None:
        return {"error": f"{exchange.error} {exchange.error_text}".strip()}
    return object_in(exchange)
