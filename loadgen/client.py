"""The client: an endpoint, a pool of kept connections, one blocking `send` a request.

`send` blocks the greenlet that calls it and no other. What the network or the server
does wrong is in the `Exchange`; an exception is the caller's mistake or ours.
"""

import ipaddress
import socket
import time
from collections.abc import Mapping
from typing import Final

import gevent.socket
from gevent import Timeout
from gevent.pool import Pool

from loadstone import __version__
from loadstone.units import Seconds
from loadstone.wire.http1 import WireError, complete, request_head
from loadstone.wire.sse import MAX_BODY

from .connection import Connection, Response, Timeouts
from .dial import Address, DeadlineError, Security, TunnelError
from .endpoint import Endpoint
from .exchange import Exchange, cause_of, code_of, judge, text_of
from .receive import ReceiveLags

__all__ = ["Endpoint", "Exchange", "StreamingClient", "Timeouts"]

RACE_S: Final = 0.005
"""A kept connection that dies within this time of a request, before any byte of an
answer, was closed before the request arrived: a FIN or RST under way takes a round
trip, which is less than this inside a data centre. Later than that the server may have
had the request and failed it; to send that one again would hide a failure and give the
server the work twice."""
NAME_AGE_S: Final = 30.0
"""How long the addresses of a name are kept, so that a burst does not ask for each
request."""
WARM_AT_ONCE: Final = 32
"""Connections opened side by side; a listen backlog is often 100 to 128."""
_FAULTS: Final = (OSError, DeadlineError, TunnelError, WireError)


class StreamingClient:
    """Sends requests to one endpoint over kept connections, the last used one first.

    `lags` may be shared by several clients that are measured as one.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeouts: Timeouts | None = None,
        limit: int = MAX_BODY,
        lags: ReceiveLags | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.timeouts = timeouts or Timeouts()
        self.opened = 0
        """Connections opened so far."""
        self.lags = lags or ReceiveLags()
        self._limit = limit
        self._idle: list[Connection] = []
        self._busy = 0
        self._addresses: list[Address] = []
        self._addresses_until = 0.0
        tls = endpoint.tls
        self._security = None if tls is None else Security(tls, endpoint.host)
        self._key = endpoint.api_key
        self._heads: dict[tuple[str, str, bool, bool], bytes] = {}
        """How requests begin, while the key is the same; the same for all of a kind."""
        self._common = (
            ("User-Agent", f"loadstone/{__version__}"),
            ("Accept-Encoding", "identity"),
        )

    def __repr__(self) -> str:
        counts = f"{self._busy} busy, {len(self._idle)} idle, {self.opened} opened"
        return f"<StreamingClient {self.endpoint}: {counts}>"

    def warm(self, count: int) -> int:
        """Open connections until `count` are idle; return how many are.

        A connection that cannot be opened is not an error yet: the first request will
        tell.
        """
        missing = max(0, count - len(self._idle))
        Pool(WARM_AT_ONCE).map(self._open_idle, range(missing))
        return len(self._idle)

    def close(self) -> None:
        """Close the idle connections; killing a greenlet closes the one it uses.

        Its key is renewed no more.
        """
        if self.endpoint.credential is not None:
            self.endpoint.credential.close()
        while self._idle:
            self._idle.pop().close()

    def send(
        self,
        body: bytes = b"",
        *,
        path: str,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        method: str = "POST",
    ) -> Exchange:
        """Send a request and return what became of it; `stream` if events are expected.

        Raises `UsageError` for a path or header that cannot be sent, never for the
        network.
        """
        request = self._request(body, path, headers or {}, stream=stream, method=method)
        began = time.monotonic()
        self._busy += 1
        try:
            response, connect_s, reconnects = self._exchange(request)
        except _FAULTS as error:
            return Exchange(
                sent=began,
                end=time.monotonic(),
                error=code_of(error),
                error_text=text_of(error),
                cause=cause_of(error),
            )
        finally:
            self._busy -= 1
        self.lags.clock_set += response.clock_set
        self.lags.add(response.lags)
        return judge(
            response,
            stream=stream,
            connect_s=connect_s,
            reconnects=reconnects,
            wall=time.time(),
            secrets=self.endpoint.secrets,
        )

    def _request(
        self,
        body: bytes,
        path: str,
        headers: Mapping[str, str],
        *,
        stream: bool,
        method: str,
    ) -> bytes:
        known = method, path, stream, bool(body)
        key = self.endpoint.api_key
        if key != self._key:  # it was replaced
            self._key = key
            self._heads.clear()
        head = self._heads.get(known)
        if head is None:
            head = self._heads[known] = self._head(*known)
        return complete(head, headers.items(), body)

    def _head(self, method: str, path: str, stream: bool, body: bool) -> bytes:  # noqa: FBT001 - as `_request` knows them
        """Return what requests of a kind have in common."""
        endpoint = self.endpoint
        kind = (("Content-Type", "application/json"),) if body else ()
        accept = "text/event-stream" if stream else "application/json"
        who = endpoint.headers().items()
        fields = (*self._common, *who, ("Accept", accept), *kind)
        return request_head(method, endpoint.target(path), endpoint.authority, fields)

    def _exchange(self, request: bytes) -> tuple[Response, Seconds, int]:
        """Send over a kept connection, or a new one if there is none or it was dead.

        A second attempt keeps the stamp of the first: the user waited for both.
        """
        lost: Response | None = None
        kept = self._reuse()
        if kept is not None:
            lost = self._try(kept, request)
            if not _lost_race(lost):
                return lost, 0.0, 0
        began = time.monotonic()
        connection = self._open()
        connect_s = time.monotonic() - began
        response = self._try(connection, request)
        if lost is None:
            return response, connect_s, 0
        response.sent = lost.sent
        response.bytes_out += lost.bytes_out
        return response, connect_s, 1

    def _try(self, connection: Connection, request: bytes) -> Response:
        response = connection.exchange(request, self.timeouts, self._limit)
        if response.failure is None and response.parser.keep_alive:
            self._idle.append(connection)
        else:
            connection.close()
        return response

    def _reuse(self) -> Connection | None:
        """Take the idle connection that was used last and still looks alive."""
        while self._idle:
            connection = self._idle.pop()
            if connection.alive():
                return connection
            connection.close()
        return None

    def _open_idle(self, _: int) -> None:
        try:
            self._idle.append(self._open())
        except _FAULTS:
            return

    def _open(self) -> Connection:
        """Connect to the first address that answers; raises what the last one said."""
        deadline = time.monotonic() + self.timeouts.connect
        refused: Exception | None = None
        for address in self._resolve(deadline):
            try:
                connection = Connection.open(
                    address, deadline, self._security, tunnel=self.endpoint.tunnel
                )
            except OSError as error:
                refused = error
            else:
                self.opened += 1
                return connection
        raise refused or socket.gaierror("the name has no address")

    def _resolve(self, deadline: Seconds) -> list[Address]:
        endpoint, now = self.endpoint, time.monotonic()
        if endpoint.unix_path is not None:
            return [Address(socket.AF_UNIX, endpoint.unix_path)]
        if now >= self._addresses_until:
            place = endpoint.proxy or endpoint
            self._addresses = _look_up(place.host, place.port, deadline - now)
            self._addresses_until = now + NAME_AGE_S
        return self._addresses


def _lost_race(response: Response) -> bool:
    """Say whether a kept connection had been closed before our request reached it.

    So it was if the request could not be written, and very nearly surely if the close
    came at once.
    """
    failure = response.failure
    if failure is None:
        return False
    closed = (
        isinstance(failure, ConnectionError)
        or getattr(failure, "code", "") == "closed_early"
    )
    quick = response.end is not None and response.end - response.sent < RACE_S
    return closed and not response.bytes_in and (quick or not response.handed_over)


def _look_up(host: str, port: int, timeout: Seconds) -> list[Address]:
    """Return the addresses of a host in the resolver's order; a literal asks nobody."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        pass
    else:
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        return [Address(family, (host, port))]
    with Timeout(
        timeout, DeadlineError("no answer from DNS in time", code="timeout_connect")
    ):
        found = gevent.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [Address(int(family), place) for family, _, _, _, place in found]
