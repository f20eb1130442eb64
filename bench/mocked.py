"""A mock server in a child process, for benchmarks: pinned to the last core, live.

The engine is the real one with a constant step, the metrics are the real ones.
"""

import asyncio
import logging
import multiprocessing
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from aiohttp import web
from aiohttp.http import StreamWriter

from loadstone.catalog.boards import load_board
from loadstone.catalog.presets import load_preset
from loadstone.engine.fleet import build_fleet
from loadstone.physics.limits import EngineLimits
from loadstone.physics.steplaw import StepLaw
from loadstone.telemetry.gpus import GpuFacts, Gpus
from loadstone.telemetry.server import About, server_metrics
from loadstone.wire.openai_reply import EVENT_STREAM, ReplyFormat, Usage
from mock_server.config import ServerConfig
from mock_server.serve import serve
from mock_server.stats import ServerStats

PRESET, MODEL = "azure-nd-gb300-v6", "llama-2-70b"
LIMITS = EngineLimits(
    max_num_seqs=4096,
    max_num_batched_tokens=1 << 20,
    kv_blocks=1 << 22,
    block_size=32,
    max_model_len=1 << 20,
)
CORE = max(range(os.cpu_count() or 1))
"""The core that servers and writers are measured on."""
Drain = Callable[[float], None]
"""Reads and throws away what arrives, for a time in seconds."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The server's counters at one instant."""

    at_s: float
    cpu_s: float
    tokens: int
    requests: int
    running: int
    lag: tuple[int, ...]
    late_steps: int
    wakings: int
    alarms: int
    rss_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What to serve with: `law` None is the preset's own."""

    law: StepLaw | None = None
    engines: int = 72
    interval: int = 1
    limits: EngineLimits = LIMITS


def constant(step_ms: float, sigma: float = 0.05) -> StepLaw:
    """Return the law of a step that takes `step_ms` whatever is in it."""
    return StepLaw(
        weights_ms=step_ms, gemm_us_per_token=0, kv_ns_per_token=0, pair_ns=0,
        sigma=sigma,
    )  # fmt: skip


def pin_driver() -> None:
    """Keep this process off the measured core, if there is another."""
    os.sched_setaffinity(0, os.sched_getaffinity(0) - {CORE} or {CORE})


def rss_bytes() -> int:
    """Return the memory that this process has resident."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _run(pipe: Connection, setup: Setup) -> None:
    """Serve in this process; answer on `pipe` with the port, then with samples."""
    os.sched_setaffinity(0, {CORE})
    logging.disable()  # the table says what the alarm would
    machine = load_preset(PRESET, MODEL)
    law = setup.law or machine.law
    machine = replace(machine, law=law, limits=setup.limits)
    fleet = build_fleet(
        setup.limits, law, engines=setup.engines, seed=1, router="least_loaded"
    )
    stats = ServerStats(setup.engines, max_model_len=machine.limits.max_model_len)
    gpus = Gpus(GpuFacts.of(machine, load_board(machine.gpu)), fleet.engines)
    about = About(model=MODEL, preset=PRESET, vms=setup.engines // 4, cache_dtype="fp8")
    stop = asyncio.Event()

    def answer() -> None:
        if pipe.recv() == "stop":
            stop.set()
            return
        lags = zip(*(engine.lag.counts for engine in stats.engines), strict=True)
        pipe.send(
            Sample(
                at_s=time.monotonic(),
                cpu_s=time.process_time(),
                tokens=sum(engine.generated_tokens for engine in fleet.engines),
                requests=sum(sum(e.finished.values()) for e in stats.engines),
                running=sum(engine.running for engine in fleet.engines),
                lag=tuple(sum(column) for column in lags),
                late_steps=stats.steps_written()[1],
                wakings=sum(engine.wakings for engine in stats.engines),
                alarms=stats.lag_alarm.windows,
                rss_bytes=rss_bytes(),
            )
        )

    def announce(line: str) -> None:
        if line.startswith("listening on "):
            asyncio.get_running_loop().add_reader(pipe.fileno(), answer)
            pipe.send(int(line.rsplit(":", 1)[1]))

    config = ServerConfig(
        model=MODEL, preset=PRESET, port=0, grace_s=0, max_waiting=1 << 20,
        stream_interval=setup.interval,
    )  # fmt: skip
    asyncio.run(
        serve(
            config,
            fleet,
            stats=stats,
            lengths=lambda _: 1,
            metrics=server_metrics(about, fleet, stats, gpus),
            announce=announce,
            stop=stop,
            owns_process=True,
        )
    )


def _run_bare(pipe: Connection) -> None:
    """Serve as `_run` does, but with what the HTTP library alone would do."""
    os.sched_setaffinity(0, {CORE})
    form = ReplyFormat("chatcmpl-" + "0" * 24, 10**9, MODEL).stream(include_usage=False)
    first = form.opening + form.head + b" one" + form.tail
    last = form.closing("length", Usage(100, 1), None)
    served = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal served
        await request.read()
        response = web.StreamResponse(headers={"Content-Type": EVENT_STREAM})
        writer = await response.prepare(request)
        assert isinstance(writer, StreamWriter)
        assert request.transport
        writer.chunked = False
        request.transport.write(first + last)
        served += 1
        return response

    async def run() -> None:
        stop = asyncio.Event()

        def answer() -> None:
            if pipe.recv() == "stop":
                stop.set()
                return
            pipe.send(
                Sample(
                    at_s=time.monotonic(),
                    cpu_s=time.process_time(),
                    tokens=served,
                    requests=served,
                    running=0,
                    lag=(),
                    late_steps=0,
                    wakings=0,
                    alarms=0,
                    rss_bytes=0,
                )
            )

        app = web.Application()
        app.add_routes([web.post("/v1/chat/completions", handle)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        asyncio.get_running_loop().add_reader(pipe.fileno(), answer)
        pipe.send(runner.addresses[0][1])
        await stop.wait()
        await runner.cleanup()

    asyncio.run(run())


class Mocked:
    """A running server: its port, and its counters when asked."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.port: int = pipe.recv()

    def sample(self, drain: Drain) -> Sample:
        """Return the counters now; what arrives in the meantime is drained."""
        self._pipe.send("sample")
        while not self._pipe.poll():
            drain(0.001)
        found: Sample = self._pipe.recv()
        return found


@contextmanager
def mocked(setup: Setup | None) -> Iterator[Mocked]:
    """Run a server for the block; with no setup, a bare one of the HTTP library."""
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    run, args = (_run, (theirs, setup)) if setup else (_run_bare, (theirs,))
    child = context.Process(target=run, args=args, daemon=True)
    child.start()
    try:
        yield Mocked(ours)
    finally:
        ours.send("stop")
        child.join(10)
        child.kill()


class Drained:
    """Connections whose bytes are read and thrown away."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._socks: dict[int, socket.socket] = {}
        self._into = bytearray(1 << 18)

    def open(self, port: int, request: bytes) -> None:
        """Connect, and send a request."""
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(request)
        sock.setblocking(False)  # noqa: FBT003 - the socket's own signature
        self._socks[sock.fileno()] = sock
        self._poll.register(sock.fileno(), select.EPOLLIN)

    def read(self, seconds: float) -> None:
        """Drain for a time."""
        end = time.perf_counter() + seconds
        socks, into = self._socks, self._into
        while time.perf_counter() < end:
            for fd, _ in self._poll.poll(0.005, 256):
                if not socks[fd].recv_into(into):
                    raise SystemExit("the server closed a stream")

    def close(self) -> None:
        """Close all."""
        self._poll.close()
        for sock in self._socks.values():
            sock.close()
