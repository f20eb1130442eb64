"""A worker process, as its supervisor sees it: started, heard from, started again."""

import asyncio
import json
import logging
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from loadstone.errors import LoadstoneError
from loadstone.units import Seconds

from .share import Share

_LOG: Final = logging.getLogger(__name__)

COMMAND: Final = (sys.executable, "-P", "-m", "loadstone.cli.worker")
START_S: Final[Seconds] = 60.0
"""A worker that does not listen by then is taken for dead."""
QUICK_S: Final[Seconds] = 10.0
"""A worker that dies sooner after its start has not recovered from what killed it."""
BACKOFF_S: Final[tuple[Seconds, ...]] = (0.0, 0.5, 1.0, 2.0)
"""What to wait for after the first quick death in a row, the second and so on; after
one more it is given up. A death after a longer life begins the row anew."""


class State(StrEnum):
    """What a worker is doing."""

    STARTING = "starting"
    UP = "up"
    DOWN = "down"
    STOPPED = "stopped"
    GIVEN_UP = "given_up"


class Worker:
    """One worker, kept running until it is told to stop.

    `spec` is what it is told on its standard input: not in its arguments, which anyone
    may list. That pipe stays open, and its end tells a worker that its supervisor died.
    It answers with one line, its URL. `control` is the Unix socket by which the
    supervisor asks it.
    """

    def __init__(
        self,
        share: Share,
        spec: Mapping[str, Any],
        *,
        port: int,
        control: Path,
        patience_s: Seconds,
    ) -> None:
        self.share = share
        self.control = control
        self.state = State.STARTING
        self.url = ""
        """Where its API is; the same after every restart."""
        self.deaths = 0
        self._spec = spec
        self._port = port
        self._patience_s = patience_s
        self._process: Process | None = None
        self._stop = asyncio.Event()
        self.ready = asyncio.Event()
        """Set once it listened for the first time."""

    def __repr__(self) -> str:
        return f"<Worker {self.share.worker} {self.state} {self.url}>"

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return self.deaths - (self.state in (State.DOWN, State.GIVEN_UP))

    def facts(self) -> dict[str, Any]:
        """Say what it is and how it is."""
        running = self.state in (State.STARTING, State.UP) and self._process is not None
        return {
            "worker": self.share.worker,
            "url": self.url,
            "state": self.state.value,
            "pid": self._process.pid if running and self._process else None,
            "first_vm": self.share.first_vm,
            "vms": self.share.vms,
            "restarts": self.restarts,
        }

    async def keep(self) -> None:
        """Run it, and again whenever it dies, until `stop` or until it is given up.

        Raises `LoadstoneError` if it dies before it ever listened.
        """
        loop = asyncio.get_running_loop()
        quick = 0
        while not self._stop.is_set():
            began = loop.time()
            code = await self._live()
            if self._stop.is_set():
                break
            self._mourn(code)
            quick = quick + 1 if loop.time() - began < QUICK_S else 1
            if quick > len(BACKOFF_S):
                self.state = State.GIVEN_UP
                _LOG.error(
                    "worker %d died %d times in a row within %g s of its start and is"
                    " given up; restart the server", self.share.worker, quick, QUICK_S,
                )  # fmt: skip
                return
            await self._pause(BACKOFF_S[quick - 1])
        self.state = State.STOPPED

    def stop(self) -> None:
        """Let it end: its answers have their grace, which a second call cuts short."""
        if self._stop.is_set():
            self._signal(signal.SIGTERM)
        self._stop.set()

    def _mourn(self, code: int) -> None:
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        self.state = State.DOWN
        self.deaths += 1
        if not self.ready.is_set():
            raise LoadstoneError(
                f"worker {self.share.worker} ended {how} before it listened",
                hint="it said above why",
                code="worker_failed",
            )
        _LOG.warning("worker %d ended %s", self.share.worker, how)

    async def _pause(self, delay_s: Seconds) -> None:
        try:
            async with asyncio.timeout(delay_s):
                await self._stop.wait()
        except TimeoutError:
            return

    async def _live(self) -> int:
        """Start the process and wait until it ended; returns its exit code."""
        self.state = State.STARTING
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            stdin=PIPE,
            stdout=PIPE,
            # Its own session: Ctrl-C comes to the supervisor alone, which passes it on.
            start_new_session=True,
        )
        self._process = process
        try:
            await self._tell(process)
            return await self._ended(process)
        finally:
            # Also if this task is cancelled: no worker outlives its supervisor.
            if process.returncode is None:
                process.kill()

    async def _tell(self, process: Process) -> None:
        """Give it its spec and wait until it listens; kill it if it takes too long."""
        assert process.stdin is not None
        assert process.stdout is not None
        where = {"port": self._port, "control": str(self.control)}
        process.stdin.write(json.dumps({**self._spec, **where}).encode() + b"\n")
        try:
            async with asyncio.timeout(START_S):
                line = await process.stdout.readline()
        except TimeoutError:
            _LOG.error("worker %d did not listen in time", self.share.worker)
            process.kill()
            return
        if not line:
            return
        self.url = line.decode().split()[-1]
        self._port = int(self.url.rsplit(":", 1)[1])
        self.state = State.UP
        self.ready.set()

    async def _ended(self, process: Process) -> int:
        """Wait until it ended; one that was told to stop is waited for so long."""
        ended = asyncio.ensure_future(process.wait())
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                self._signal(signal.SIGTERM)
                await asyncio.wait({ended}, timeout=self._patience_s)
            if not ended.done():
                _LOG.error("worker %d did not stop and is killed", self.share.worker)
                process.kill()
            return await ended
        finally:
            stopping.cancel()
            ended.cancel()

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)
