"""A connection that reads in the hub: one HTTP exchange at a time, stamped at the read.

While an exchange runs the greenlet that asked for it sleeps. An io watcher calls
`_on_readable` in the hub whenever the socket has bytes; that reads, stamps at once,
parses the framing and returns. Only when the response is complete or has failed is the
greenlet switched to: one switch per request, none per token, and no queue between the
kernel and the stamp.

A connection belongs to the thread (the hub) that opened it. Nothing here raises for
what the network does during an exchange: that is `Response.failure`. If the greenlet is
killed the socket is closed, because nobody knows what is still on the way.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

import gevent
from gevent.hub import Waiter

from loadstone.units import Seconds
from loadstone.wire.http1 import ResponseParser
from loadstone.wire.sse import MAX_BODY, EventScanner

from .dial import READ_SIZE, Address, DeadlineError, Security, dial
from .receive import CLOCK_SET_S, NOTE_SIZE, unpack_stamp, wall_offset
from .tls import TlsLayer

READS_PER_WAKE: Final = 4
"""A busy socket gives way to the others after 256 KiB; its watcher fires again."""
ALL_LAGS: Final = 16
"""The kernel is asked for the receive stamp of every read until the body has come in
so many pieces: the first token is among them."""
LAG_MASK: Final = 7
"""Afterwards of every eighth: a stamp costs 0.7 us, where reading costs 2.5."""

_READ: Final = 1
_WRITE: Final = 2


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait, in seconds, each from the instant its wait begins."""

    connect: Seconds = 10.0
    """Name lookup, TCP and TLS together."""
    first_byte: Seconds = 300.0
    """From the first byte sent to the first byte of the *body*: many servers send the
    head of a stream at once and keep the request in their queue."""
    idle: Seconds = 120.0
    """Between two reads of the body."""
    total: Seconds = 1800.0
    """From the first byte sent to the end."""


class Response:
    """What came back so far. Instants are on `time.monotonic`."""

    __slots__ = (
        "bytes_in", "bytes_out", "clock_set", "end", "failure", "handed_over",
        "lag_stamps", "lags", "parser", "scanner", "sent", "wall_offset",
    )  # fmt: skip

    def __init__(self, limit: int) -> None:
        self.parser = ResponseParser()
        self.scanner = EventScanner(limit)
        self.sent = 0.0
        """Just before the first byte was handed to the kernel."""
        self.handed_over = False
        """Whether the kernel took all of the request: else no server can have it."""
        self.end: Seconds | None = None
        """The read that completed it, or when the failure was known."""
        self.bytes_in = 0
        """As read from the socket: heads, framing and TLS included."""
        self.bytes_out = 0
        """As the kernel took them."""
        self.failure: Exception | None = None
        self.lags = array("d")
        """How long what a read brought had lain in the kernel, for the reads of which
        that is known; `lag_stamps` are the stamps of those reads."""
        self.lag_stamps = array("d")
        self.wall_offset = wall_offset()
        self.clock_set = False
        """Whether the time of day was set meanwhile, which voids the lags."""

    def __repr__(self) -> str:
        state = "running" if self.end is None else f"{self.failure or 'complete'}"
        return f"<Response {state}: {self.parser!r}, {self.scanner!r}>"

    def note_lag(self, stamp: Seconds, received: bytes) -> None:
        """Note the lag of a read, given the kernel's stamp of what it brought."""
        seconds, nanos = unpack_stamp(received)
        lag = stamp + self.wall_offset - seconds - nanos * 1e-9
        self.lags.append(max(lag, 0.0))
        self.lag_stamps.append(stamp)

    def settle_lags(self) -> None:
        """Drop the lags if the clock that the kernel stamps with was set."""
        if self.lags and abs(wall_offset() - self.wall_offset) > CLOCK_SET_S:
            self.clock_set = True
            del self.lags[:], self.lag_stamps[:]

    def fail(self, error: Exception, instant: Seconds) -> None:
        """End the response with `error`."""
        self.failure = error
        self.end = instant


class Connection:
    """A connected socket, with TLS or without, for one exchange after the other."""

    __slots__ = (
        "_address", "_exchanges", "_hub", "_recv", "_recvmsg", "_response", "_socket",
        "_timeouts", "_timer", "_tls", "_waiter", "_watcher",
    )  # fmt: skip

    def __init__(
        self, address: Address, dialled: Any, tls: TlsLayer | None = None
    ) -> None:
        self._address = address
        self._exchanges = 0
        self._hub = gevent.get_hub()
        self._recv: Callable[[int], bytes] = dialled.recv
        self._recvmsg: Callable[[int, int], tuple[bytes, list[Any], int, Any]] = (
            dialled.recvmsg
        )
        self._response: Response | None = None
        self._socket = dialled
        self._timeouts = Timeouts()
        self._timer: Any = None
        self._tls = tls
        self._waiter: Waiter[None] | None = None
        self._watcher: Any = self._hub.loop.io(dialled.fileno(), _READ)

    def __repr__(self) -> str:
        how = "closed" if self.closed else "busy" if self._response else "idle"
        tls = " with TLS" if self._tls else ""
        count = self._exchanges
        return f"<Connection to {self._address}{tls}: {how}, {count} exchanges>"

    @classmethod
    def open(
        cls,
        address: Address,
        deadline: Seconds,
        security: Security | None = None,
        *,
        tunnel: bytes | None = None,
    ) -> "Connection":
        """Connect before `deadline`; raises what `dial` does."""
        dialled, tls = dial(address, deadline, security, tunnel=tunnel)
        return cls(address, dialled, tls)

    @property
    def closed(self) -> bool:
        """Whether this side has closed it."""
        return self._watcher is None

    def close(self) -> None:
        """Close the socket and give back the watcher; the second time does nothing."""
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None
            self._socket.close()

    def alive(self) -> bool:
        """Say whether an idle connection looks usable: the server has not closed it."""
        tls = self._tls
        try:
            data = self._recv(READ_SIZE)
            # A TLS 1.3 server may send session tickets; all else is unasked for.
            if not data or tls is None:
                return False
            return not tls.decrypt(data) and not tls.closed
        except BlockingIOError:
            return True
        except OSError:
            return False

    def exchange(
        self, request: bytes, timeouts: Timeouts, limit: int = MAX_BODY
    ) -> Response:
        """Send a request; return when its response is complete or has failed."""
        self._exchanges += 1
        self._timeouts = timeouts
        response = self._response = Response(limit)
        self._watcher.start(self._on_readable)
        self._arm(min(timeouts.first_byte, timeouts.idle, timeouts.total))
        try:
            self._send(request, response)
            while response.end is None:
                self._park()
        except BaseException:
            self.close()
            raise
        finally:
            self._disarm()
            if self._watcher is not None:
                self._watcher.stop()
            self._response = None
        response.settle_lags()
        return response

    # In the greenlet.

    def _send(self, request: bytes, response: Response) -> None:
        """Hand the request to the kernel, unless the response ends before that."""
        try:
            view = memoryview(self._tls.encrypt(request) if self._tls else request)
            response.sent = monotonic()
            while view and response.end is None:
                try:
                    taken = self._socket.send(view)
                    response.bytes_out += taken
                    view = view[taken:]
                except BlockingIOError:
                    self._park_until_writable()
            response.handed_over = not view
            if view:
                response.parser.keep_alive = False
        except OSError as error:
            # A server that refuses a long body answers first and then resets.
            self._on_readable()
            response.parser.keep_alive = False
            if response.end is None or response.failure is not None:
                response.fail(error, monotonic())

    def _park(self) -> None:
        self._waiter = Waiter(self._hub)
        try:
            self._waiter.get()
        finally:
            self._waiter = None

    def _park_until_writable(self) -> None:
        writable = self._hub.loop.io(self._socket.fileno(), _WRITE)
        writable.start(self._wake)
        try:
            self._park()
        finally:
            writable.stop()
            writable.close()

    # In the hub: never waits, never raises.

    def _on_readable(self) -> None:
        response = self._response
        if response is None or response.end is not None:
            return
        try:
            if not self._read(response):
                return
        except BlockingIOError:
            return
        except Exception as error:  # noqa: BLE001 - delivered to the greenlet
            response.fail(error, monotonic())
        self._wake()

    def _read(self, response: Response) -> bool:
        """Read what there is; return whether that completed the response."""
        tls, parser, scanner = self._tls, response.parser, response.scanner
        for _ in range(READS_PER_WAKE):
            pieces = len(scanner.stamps)
            if pieces & LAG_MASK and pieces > ALL_LAGS:
                data = self._recv(READ_SIZE)
                stamp = monotonic()
            else:
                data, notes, _, _ = self._recvmsg(READ_SIZE, NOTE_SIZE)
                stamp = monotonic()
                if notes:  # one option is set that makes any, so there is one
                    response.note_lag(stamp, notes[0][2])
            response.bytes_in += len(data)
            plain = data if tls is None else tls.decrypt(data)
            if plain:
                for piece in parser.feed(plain):
                    scanner.feed(piece, stamp)
            if not data or (tls is not None and tls.closed):
                parser.eof()
            if parser.done:
                response.end = stamp
                return True
            if len(data) < READ_SIZE:
                break
        return False

    def _on_timer(self) -> None:
        response = self._response
        if response is None or response.end is not None:
            return
        now = monotonic()
        due, wait = self._deadline(response)
        if now < due:
            self._arm(min(due - now, self._timeouts.idle))
            return
        response.fail(DeadlineError.of(wait), now)
        self._wake()

    def _deadline(self, response: Response) -> tuple[Seconds, str]:
        """Return the next instant at which patience ends, and whose instant it is."""
        limits = self._timeouts
        stamps = response.scanner.stamps
        if stamps:
            wait = (stamps[-1] + limits.idle, "idle")
        else:
            wait = (response.sent + limits.first_byte, "first_byte")
        return min(wait, (response.sent + limits.total, "total"))

    def _arm(self, delay: Seconds) -> None:
        """Look at the deadlines after `delay`: one timer for all; no read moves it."""
        self._disarm()
        self._timer = self._hub.loop.timer(max(delay, 0.001))
        self._timer.start(self._on_timer)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def _wake(self) -> None:
        if self._waiter is not None:
            self._waiter.switch(None)
