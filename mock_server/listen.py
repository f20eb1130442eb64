"""Where the server listens: a port or a Unix socket, plain or TLS."""

import asyncio
import errno
import os
import socket
import ssl
import stat
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from loadstone.errors import LoadstoneError, UsageError

from .config import ServerConfig
from .listener import Listener

BACKLOG: Final = 4096
"""Connections that may wait to be accepted. With the usual 128 a burst of clients
retries a second later, which would pass for latency. The kernel may allow fewer."""
_OWNER_ONLY: Final = 0o600
_NOT_OF_THIS_MACHINE: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
"""One of a name's addresses may fail so: `localhost` is ::1 where there is no IPv6."""


async def listen(config: ServerConfig, runner: web.AppRunner) -> str:
    """Accept connections from now on; returns the URL.

    Raises `LoadstoneError` when the address cannot be had, `UsageError` for a
    certificate or a path that cannot be used.
    """
    context = tls_context(config)
    try:
        if config.uds is not None:
            bound = [bind_unix(config.uds)]
        else:
            bound = await _bind(config.host, config.port)
        for sock in bound:
            await web.SockSite(
                runner, sock, ssl_context=context, backlog=BACKLOG
            ).start()
        if config.control is not None:
            # Never TLS: it is of this machine and its owner alone.
            await web.SockSite(runner, bind_unix(config.control)).start()
    except OSError as error:
        raise _cannot_listen(config, error) from error
    return _url(config, runner)


def tls_context(config: ServerConfig) -> ssl.SSLContext | None:
    """Load the certificate, None where TLS is off; raises `UsageError` if it is bad."""
    if config.tls_cert is None or config.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
    except OSError as error:  # ssl.SSLError is one too
        raise UsageError(
            f"cannot use certificate {config.tls_cert}"
            f" with key {config.tls_key}: {error}",
            hint="both files must be PEM, readable, and belong together",
        ) from error
    return context


async def _bind(host: str, port: int) -> list[Listener]:
    """Bind each address of this machine that the host's name stands for."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    bound: list[Listener] = []
    refused: OSError | None = None
    for family, _, _, _, address in dict.fromkeys(found):
        try:
            bound.append(_bind_one(family, address))
        except OSError as error:
            refused = error
            if error.errno not in _NOT_OF_THIS_MACHINE:
                break
    else:
        if bound:
            return bound
    for sock in bound:
        sock.close()
    assert refused is not None
    raise refused


def _bind_one(family: int, address: Any) -> Listener:
    sock = Listener(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def bind_unix(path: Path) -> Listener:
    """Bind a Unix socket that only its owner may connect to.

    What a server that was killed left behind is removed; a path where somebody listens,
    or that is something else, is not touched. Raises `LoadstoneError`.
    """
    _clear(path)
    sock = Listener(socket.AF_UNIX)
    # The mode must be right from the first moment: a later chmod would leave a gap.
    before = os.umask(0o777 & ~_OWNER_ONLY)
    try:
        sock.bind(str(path))
    except OSError as error:
        sock.close()
        # A path that is too long has no errno.
        raise UsageError(
            f"cannot make the socket {path}: {error.strerror or error}",
            hint="--uds wants a short path (107 bytes) in a directory you may write to",
        ) from error
    finally:
        os.umask(before)
    return sock


def remove_unix(path: Path) -> None:
    """Remove a socket that nobody listens on any more; anything else stays."""
    try:
        _clear(path)
    except LoadstoneError:
        return


def _clear(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise UsageError(
            f"{path} exists and is not a socket",
            hint="--uds wants a path that is free, or a socket left behind",
        )
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise LoadstoneError(
        f"somebody listens on {path} already",
        hint="stop it, or choose another path with --uds",
        code="socket_in_use",
    )


def _cannot_listen(config: ServerConfig, error: OSError) -> LoadstoneError:
    place = str(config.uds) if config.uds else f"{config.host}:{config.port}"
    if error.errno == errno.EADDRINUSE:
        return LoadstoneError(
            f"{place} is already in use",
            hint="stop what listens there, or choose another with --port"
            " (0 takes a free one)",
            code="port_in_use",
        )
    return LoadstoneError(
        f"cannot listen on {place}: {error.strerror or error}",
        hint="check --host and --port; ports below 1024 need privileges",
        code="cannot_listen",
    )


def _url(config: ServerConfig, runner: web.AppRunner) -> str:
    if config.uds is not None:
        return f"unix:{config.uds}"
    host, port = runner.addresses[0][:2]
    scheme = "https" if config.tls_cert else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
