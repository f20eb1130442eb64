"""Run the mock server until it is told to stop."""

import asyncio
import signal
from collections.abc import Callable
from typing import Final

from aiohttp import web

from loadstone.engine.fleet import Fleet
from loadstone.engine.virtual import JournalEntry
from loadstone.observers import Observers
from loadstone.units import Seconds

from .app import Metrics, build_app
from .canary import Canary, LagWatch
from .capacity import find_capacity
from .collector import Collector
from .config import LengthDistribution, ServerConfig
from .driver import TICK_S, Driver, Timers
from .entrance import Entrance
from .listen import listen, remove_unix
from .stats import ServerStats

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
    timers: Timers | None = None,
    owns_process: bool = False,
) -> None:
    """Serve until SIGINT, SIGTERM or `stop`; then running answers have `grace_s`.

    Meanwhile new requests are refused with 503, on new connections too.

    Time is the event loop's, or that of `timers`; then nothing waits for a tick.
    A server that `owns_process` decides when garbage is collected.
    `announce` is given one line, with the URL, once connections are accepted. A second
    signal cuts the grace short. Raises `LoadstoneError` when the address, or as many
    connections as are expected, cannot be had.
    """
    find_capacity().check(config.expect_connections)
    loop = asyncio.get_running_loop()
    stop = stop or asyncio.Event()
    driver = Driver(
        fleet,
        stats,
        timers or loop,
        tick_s=0.0 if timers else TICK_S,
        interval=config.stream_interval,
        journal=journal,
        observers=observers,
    )
    entrance = Entrance(config.grace_s)
    runner = web.AppRunner(
        build_app(config, driver, lengths=lengths, metrics=metrics, entrance=entrance),
        access_log=None,
        # A client that goes away cancels its handler, and that frees its KV blocks.
        handler_cancellation=True,
        shutdown_timeout=_AFTER_GRACE_S,
    )
    await runner.setup()
    server = runner.server
    assert server is not None
    restore = _stop_on_signals(loop, stop, driver)
    watches: list[Canary | LagWatch | Collector] = [
        Canary(loop, stats.loop_lag),
        LagWatch(loop, stats),
    ]
    if owns_process:
        watches.append(
            Collector(
                loop,
                idle=lambda: entrance.empty,
                connections=lambda: len(server.connections),
            )
        )
    try:
        url = await listen(config, runner)
        for watch in watches:
            watch.start()
        announce(f"listening on {url}")
        await stop.wait()
        entrance.shut = True
        await entrance.emptied(config.grace_s)
    finally:
        driver.abort()
        await runner.cleanup()
        for watch in watches:
            watch.stop()
        driver.stop()
        if config.uds is not None:
            remove_unix(config.uds)
        restore()


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
