"""Where the server listens: a port or a Unix socket, plain or TLS."""

import errno
import os
import socket
import ssl
import stat
from pathlib import Path
from typing import Final

from aiohttp import web

from loadstone.errors import LoadstoneError, UsageError

from .config import ServerConfig

BACKLOG: Final = 4096
"""Connections that may wait to be accepted. With the usual 128 a burst of clients
retries a second later, which would pass for latency. The kernel may allow fewer."""
_OWNER_ONLY: Final = 0o600


async def listen(config: ServerConfig, runner: web.AppRunner) -> str:
    """Accept connections from now on; returns the URL.

    Raises `LoadstoneError` when the address cannot be had, `UsageError` for a
    certificate or a path that cannot be used.
    """
    context = tls_context(config)
    site: web.BaseSite
    try:
        if config.uds is not None:
            sock = bind_unix(config.uds)
            site = web.SockSite(runner, sock, ssl_context=context, backlog=BACKLOG)
        else:
            site = web.TCPSite(
                runner, config.host, config.port, ssl_context=context, backlog=BACKLOG
            )
        await site.start()
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


def bind_unix(path: Path) -> socket.socket:
    """Bind a Unix socket that only its owner may connect to.

    What a server that was killed left behind is removed; a path where somebody listens,
    or that is something else, is not touched. Raises `LoadstoneError`.
    """
    _clear(path)
    sock = socket.socket(socket.AF_UNIX)
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
