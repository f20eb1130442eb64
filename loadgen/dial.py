"""Opening a connection: TCP or a Unix socket, then TLS, before a deadline.

This part waits in the greenlet; nothing is measured yet but how long it takes.
"""

import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from errno import EAGAIN, EINPROGRESS
from time import monotonic
from typing import Any, Final

import gevent
from gevent.monkey import get_original
from gevent.socket import wait_read, wait_write

from loadstone.errors import LoadstoneError
from loadstone.units import Seconds
from loadstone.wire.http1 import ResponseParser

from .receive import stamp_reads
from .tls import TlsLayer

READ_SIZE: Final = 64 * 1024
"""NOTE: recv(256 KiB) takes 9 us, 64 KiB 1.2: above 128 KiB malloc maps pages anew."""

_RawSocket: Final = get_original("socket", "socket")
"""The socket without gevent's waiting, patched or not: our watchers wait."""


class DeadlineError(LoadstoneError):
    """The peer took longer than the caller allows; the code says for what."""

    code = "timeout_total"

    @classmethod
    def of(cls, wait: str) -> "DeadlineError":
        """Make the error of one of the `Timeouts`, by its name."""
        what = wait.replace("_", " ")
        return cls(f"gave up waiting ({what} timeout)", code=f"timeout_{wait}")


class TunnelError(LoadstoneError):
    """The proxy makes no tunnel to the endpoint."""

    code = "proxy"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect: a family with its socket address; a path for a Unix socket."""

    family: int
    place: Any

    def __str__(self) -> str:
        place = self.place
        return place if isinstance(place, str) else f"{place[0]}:{place[1]}"


@dataclass(frozen=True, slots=True)
class Security:
    """The TLS a connection needs: a context, and the name the certificate must have."""

    context: ssl.SSLContext
    server_name: str


def dial(
    address: Address,
    deadline: Seconds,
    security: Security | None = None,
    *,
    tunnel: bytes | None = None,
) -> tuple[Any, TlsLayer | None]:
    """Return a connected non-blocking socket and, if asked for, its TLS layer.

    `tunnel` is said first, to a proxy, which has to agree. Raises `OSError`
    (`ssl.SSLError` among them), `DeadlineError`, `TunnelError` or `WireError`.
    """
    dialled = _RawSocket(address.family, socket.SOCK_STREAM)
    try:
        dialled.setblocking(False)  # noqa: FBT003 - the socket has no other name for it
        if address.family != socket.AF_UNIX:
            dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stamp_reads(dialled)
        _connect(dialled, address, deadline)
        if tunnel is not None:
            _dig(dialled, tunnel, deadline)
        if security is None:
            return dialled, None
        tls = TlsLayer(security.context, security.server_name)
        _shake_hands(dialled, tls, deadline)
    except BaseException:
        dialled.close()
        raise
    return dialled, tls


def _connect(dialled: Any, address: Address, deadline: Seconds) -> None:
    error = dialled.connect_ex(address.place)
    while error == EAGAIN and monotonic() < deadline:  # a Unix socket's full backlog
        gevent.sleep(0.001)
        error = dialled.connect_ex(address.place)
    if error == EINPROGRESS:
        _wait(wait_write, dialled, deadline)
        error = dialled.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))


def _dig(dialled: Any, tunnel: bytes, deadline: Seconds) -> None:
    """Ask a proxy for a tunnel; the bytes after its agreement are the endpoint's."""
    _send(dialled, tunnel, deadline)
    parser = ResponseParser()
    while not parser.head_complete:
        _wait(wait_read, dialled, deadline)
        data = dialled.recv(READ_SIZE)
        if not data:
            raise TunnelError("the proxy closed the connection")
        parser.feed(data)
    if not 200 <= parser.status < 300:
        raise TunnelError(f"the proxy answered HTTP {parser.status}")


def _send(dialled: Any, data: bytes, deadline: Seconds) -> None:
    view = memoryview(data)
    while view:
        _wait(wait_write, dialled, deadline)
        view = view[dialled.send(view) :]


def _shake_hands(dialled: Any, tls: TlsLayer, deadline: Seconds) -> None:
    finished = tls.shake()
    while True:
        _send(dialled, tls.to_send(), deadline)
        if finished:
            return
        _wait(wait_read, dialled, deadline)
        data = dialled.recv(READ_SIZE)
        if not data:
            raise ssl.SSLEOFError("the server closed during the TLS handshake")
        finished = tls.shake(data)


def _wait(until: Callable[..., object], dialled: Any, deadline: Seconds) -> None:
    """Wait until the socket is ready; raises `DeadlineError`."""
    late = DeadlineError.of("connect")
    left = deadline - monotonic()
    if left <= 0:
        raise late
    until(dialled.fileno(), timeout=left, timeout_exc=late)
