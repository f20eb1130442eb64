"""What a token event costs the mock server in CPU time, and how late it is written.

The server runs in a child process, with the real engine, on the last core. This process
opens raw sockets, asks each for a stream that outlasts the bench, and throws away what
arrives. CPU time is the child's own, user and system, over a window in which every
stream runs. Where the lag stays below a step, every event is a write of its own. Where
steps are too short for the machine, what is late is paid in one write: an event then
costs less, and the lag shows the price.

    python bench/server.py
    python bench/server.py --streams 100 1000 --step-ms 5 10 --seconds 4
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

from loadstone.engine.fleet import build_fleet
from loadstone.physics.limits import EngineLimits
from loadstone.physics.steplaw import StepLaw
from loadstone.wire.tokens import prompt_of
from mock_server.config import ServerConfig
from mock_server.serve import raise_descriptor_limit, serve
from mock_server.stats import ServerStats

ENGINES = 4
SPREAD = 0.05
"""Sigma of a step: it keeps the engines' phases apart, as on a real machine."""
LIMITS = EngineLimits(
    max_num_seqs=4096,
    max_num_batched_tokens=1 << 20,
    kv_blocks=1 << 22,
    block_size=32,
    max_model_len=1 << 20,
)
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
READY_S = 1.0
"""From the last request to the start of the window."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The server's counters at one instant."""

    cpu_s: float
    events: int
    lag: tuple[int, ...]


def run_server(pipe: Connection, step_ms: float) -> None:
    """Serve in this process; answer on `pipe` with the port, then with samples."""
    os.sched_setaffinity(0, {(os.cpu_count() or 1) - 1})
    law = StepLaw(
        weights_ms=step_ms, gemm_us_per_token=0, kv_ns_per_token=0, pair_ns=0,
        sigma=SPREAD,
    )  # fmt: skip
    fleet = build_fleet(LIMITS, law, engines=ENGINES, seed=1)
    stats = ServerStats(ENGINES)
    stop = asyncio.Event()

    def answer() -> None:
        if pipe.recv() == "stop":
            stop.set()
            return
        lags = zip(*(engine.lag.counts for engine in stats.engines), strict=True)
        events = sum(engine.generated_tokens for engine in fleet.engines)
        lag = tuple(sum(column) for column in lags)
        pipe.send(Sample(time.process_time(), events, lag))

    def announce(line: str) -> None:
        asyncio.get_running_loop().add_reader(pipe.fileno(), answer)
        pipe.send(int(line.rsplit(":", 1)[1]))

    asyncio.run(
        serve(
            ServerConfig(
                model="bench", preset="bench", port=0, grace_s=0, max_waiting=1 << 20
            ),
            fleet,
            stats=stats,
            lengths=lambda _: 1,
            metrics=lambda _accept, _now: (b"", "text/plain"),
            announce=announce,
            stop=stop,
        )
    )


def request(index: int) -> bytes:
    """Return the bytes of a request for an endless stream."""
    fields = {
        "model": "bench", "stream": True, "ignore_eos": True, "max_tokens": 1_000_000,
        "messages": [{"role": "user", "content": prompt_of(20, index)}],
    }  # fmt: skip
    body = json.dumps(fields).encode()
    return HEAD % len(body) + body


def drain(port: int, streams: int) -> Callable[[float], None]:
    """Open the streams; returns what reads them for a time in seconds."""
    selector = selectors.DefaultSelector()
    for index in range(streams):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(request(index))
        sock.setblocking(False)  # noqa: FBT003 - the socket's own signature
        selector.register(sock, selectors.EVENT_READ, sock.recv)

    def read(seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for key, _ in selector.select(0.01):
                if not key.data(1 << 18):
                    raise SystemExit("the server closed a stream")

    return read


def quantile(counts: tuple[int, ...], q: float) -> float:
    """Return the upper bound in ms of the bucket that holds the `q` quantile."""
    bounds = (*ServerStats(1).engines[0].lag.bounds, float("inf"))
    rest = q * sum(counts)
    for bound, n in zip(bounds, counts, strict=True):
        rest -= n
        if rest <= 0:
            return bound * 1e3
    return float("inf")


def measure(streams: int, step_ms: float, seconds: float) -> str:
    """Run one server, drain it, and return its line of the table."""
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=run_server, args=(theirs, step_ms), daemon=True)
    child.start()
    read = drain(ours.recv(), streams)

    def sample() -> Sample:
        ours.send("sample")
        while not ours.poll():
            read(0.001)
        found: Sample = ours.recv()
        return found

    read(READY_S)
    start = sample()
    read(seconds)
    end = sample()
    ours.send("stop")
    child.join(5)
    events, cpu = end.events - start.events, end.cpu_s - start.cpu_s
    lag = tuple(b - a for a, b in zip(start.lag, end.lag, strict=True))
    p50, p99 = quantile(lag, 0.5), quantile(lag, 0.99)
    return (
        f"{streams:7}  {step_ms:7g}  {events / seconds:8.0f}"
        f"  {cpu / events * 1e6:12.2f}  {cpu / seconds:4.0%}  {p50:g}/{p99:g}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--step-ms", type=float, nargs="+", default=[2, 10, 20])
    parser.add_argument("--seconds", type=float, default=4.0)
    asked = parser.parse_args()
    raise_descriptor_limit()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print("streams  step ms  events/s  CPU us/event  core  lag p50/p99 ms (at most)")
    for streams in asked.streams:
        for step_ms in asked.step_ms:
            print(measure(streams, step_ms, asked.seconds))


if __name__ == "__main__":
    main()
