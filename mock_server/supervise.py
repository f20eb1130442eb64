"""Run several workers and the front before them, until told to stop."""

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from typing import Any, Final

from aiohttp import web

from loadstone.errors import LoadstoneError

from .config import ServerConfig
from .front import Front, Merge
from .listen import listen
from .worker import Worker

_LOG: Final = logging.getLogger(__name__)


async def supervise(
    config: ServerConfig,
    workers: Sequence[Worker],
    *,
    merge: Merge,
    announce: Callable[[str], None],
) -> None:
    """Serve the front, and keep the workers alive, until SIGINT or SIGTERM.

    Then the workers' answers have their grace; a second signal cuts it short.
    `announce` is given a line for each worker that listens for the first time and, when
    all do, one with the front's own URL. Raises `LoadstoneError` when the address
    cannot be had, when a worker does not start, and when all of them were given up.
    """
    loop = asyncio.get_running_loop()
    runner = web.AppRunner(Front(config, workers, merge).app(), access_log=None)
    await runner.setup()
    told_to_stop = asyncio.Event()

    def stop() -> None:
        told_to_stop.set()
        for worker in workers:
            worker.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    keeping: list[asyncio.Task[None]] = []
    try:
        url = await listen(config, runner)
        keeping = [asyncio.create_task(worker.keep()) for worker in workers]
        if await _all_ready(workers, keeping):
            for worker in workers:
                announce(f"worker {worker.share.worker}: {worker.url}")
            announce(f"listening on {url}")
        await asyncio.gather(*keeping)
        if not told_to_stop.is_set():
            raise LoadstoneError(
                "every worker died again and again and was given up",
                hint="it says above how they ended",
                code="worker_failed",
            )
    finally:
        if not told_to_stop.is_set():
            stop()
        await asyncio.gather(*keeping, return_exceptions=True)
        await runner.cleanup()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _all_ready(
    workers: Sequence[Worker], keeping: Sequence[asyncio.Task[None]]
) -> bool:
    """Wait until all listen; returns False if one ended before, in whatever way."""

    async def wait() -> None:
        for worker in workers:
            await worker.ready.wait()

    ready = asyncio.create_task(wait())
    either: set[asyncio.Future[Any]] = {ready, *keeping}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if ready.done():
        return True
    ready.cancel()
    return False
