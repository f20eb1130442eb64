"""Run the mock server until it is told to stop."""

import asyncio
import errno
import gc
import resource
import signal
import ssl
from collections.abc import Callable
from typing import Final

from aiohttp import web

from loadstone.engine.fleet import Fleet
from loadstone.engine.virtual import JournalEntry
from loadstone.errors import LoadstoneError, UsageError
from loadstone.observers import Observers
from loadstone.units import Seconds

from .app import Metrics, build_app
from .canary import Canary
from .config import LengthDistribution, ServerConfig
from .driver import Driver
from .stats import ServerStats

BACKLOG: Final = 4096
"""Connections that may wait to be accepted. With the usual 128 a burst of clients
retries a second later, which would pass for latency. The kernel may allow fewer."""
_AFTER_GRACE_S: Final[Seconds] = 2.0
"""What handlers have to end in once their answers were cut off."""


async def serve(
    config: ServerConfig,
    fleet: Fleet,
    *,
    stats: ServerStats,
    lengths: LengthDistribution,
    metrics: Metrics,
    announce: Callable[[str], None] = print,
    journal: list[JournalEntry] | None = None,
    observers: Observers | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve until SIGINT, SIGTERM or `stop`; then running answers have `grace_s`.

    `announce` is given one line, with the URL, once connections are accepted. A second
    signal cuts the grace short. Raises `LoadstoneError` when the address cannot be had.
    """
    raise_descriptor_limit()
    loop = asyncio.get_running_loop()
    stop = stop or asyncio.Event()
    driver = Driver(
        fleet,
        stats,
        loop,
        interval=config.stream_interval,
        journal=journal,
        observers=observers,
    )
    runner = web.AppRunner(
        build_app(config, driver, lengths=lengths, metrics=metrics),
        access_log=None,
        # A client that goes away cancels its handler, and that frees its KV blocks.
        handler_cancellation=True,
        shutdown_timeout=config.grace_s + _AFTER_GRACE_S,
    )
    await runner.setup()
    restore = _stop_on_signals(loop, stop, driver)
    canary = Canary(loop, stats.loop_lag)
    try:
        await _listen(config, runner)
        canary.start()
        announce(f"listening on {_url(config, runner)}")
        # What lives now lives as long as the server: full collections need not walk it.
        gc.collect()
        gc.freeze()
        await stop.wait()
    finally:
        loop.call_later(config.grace_s, driver.abort)
        await runner.cleanup()
        canary.stop()
        driver.stop()
        restore()


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


async def _listen(config: ServerConfig, runner: web.AppRunner) -> None:
    context = tls_context(config)
    site: web.BaseSite
    if config.uds is not None:
        site = web.UnixSite(runner, config.uds, ssl_context=context, backlog=BACKLOG)
    else:
        site = web.TCPSite(
            runner, config.host, config.port, ssl_context=context, backlog=BACKLOG
        )
    try:
        await site.start()
    except OSError as error:
        raise _cannot_listen(config, error) from error


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


def _stop_on_signals(
    loop: asyncio.AbstractEventLoop, stop: asyncio.Event, driver: Driver
) -> Callable[[], None]:
    """Let the first signal stop the server and the next one cut its answers off."""

    def on_signal() -> None:
        if stop.is_set():
            driver.abort()
        stop.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    try:
        for number in numbers:
            loop.add_signal_handler(number, on_signal)
    except (NotImplementedError, RuntimeError, ValueError):
        # Not on Windows, and only in the main thread; elsewhere `stop` is the way.
        return lambda: None

    def restore() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)

    return restore
