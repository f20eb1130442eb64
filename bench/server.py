"""What the mock server costs: CPU per event, beside what the kernel alone would cost.

The server runs alone on the last core, with the live engine and its metrics; this
process opens raw sockets on the other cores, asks each for a stream that outlasts the
bench, and throws away what arrives. The kernel's limit is a bare epoll writer of the
same records to the same sockets in the same rhythm: `epoll_writer.c` where there is a C
compiler, else the same loop in Python. CPU time is that of the writing process, user
and system, over a window in which every stream runs. Steps at once are more than 1
where the machine did not let the server write each step in time: then an event costs
less than it would, and the lag shows the price. Rounds are interleaved, the table
has medians, and a ratio is of two medians of one run.

    python bench/server.py
    python bench/server.py --only events --rounds 5
"""

import argparse
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from mocked import (
    CORE,
    MODEL,
    Drained,
    Sample,
    Setup,
    constant,
    mocked,
    pin_driver,
)

from loadstone.wire.openai_reply import ReplyFormat
from loadstone.wire.tokens import prompt_of
from mock_server.capacity import raise_descriptor_limit
from mock_server.stats import ServerStats

HERE = Path(__file__).parent
ENGINES = 72
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%b\r\n%b"
)
READY_S = 1.0
"""From the last request to the start of the window."""
CASES = {
    "1 token an event": [(1, 1000, 20.0), (1, 10_000, 200.0)],
    "16 tokens an event": [(16, 1000, 12.5), (16, 10_000, 12.5)],
}
"""Interval, streams, step in ms: 50,000 writes a second, 5,000 in the third."""


def request(index: int, n_out: int = 1_000_000, *headers: bytes) -> bytes:
    """Return the bytes of a streaming request for `n_out` tokens."""
    fields = {
        "model": MODEL, "stream": True, "ignore_eos": True, "max_tokens": n_out,
        "messages": [{"role": "user", "content": prompt_of(100, index)}],
    }  # fmt: skip
    body = json.dumps(fields).encode()
    return HEAD % (len(body), b"".join(h + b"\r\n" for h in headers), body)


def record_size(interval: int) -> int:
    """Return the bytes of one event of `interval` tokens."""
    form = ReplyFormat("chatcmpl-" + "0" * 24, 10**9, MODEL).stream(include_usage=False)
    return len(form.head) + 4 * interval + len(form.tail)


def quantile(counts: tuple[int, ...], q: float) -> float:
    """Return the upper bound in ms of the bucket that holds the `q` quantile."""
    bounds = (*ServerStats(1).engines[0].lag.bounds, float("inf"))
    rest = q * sum(counts)
    for bound, n in zip(bounds, counts, strict=True):
        rest -= n
        if rest <= 0:
            return bound * 1e3
    return float("inf")


def lag_of(start: Sample, end: Sample) -> str:
    """Say how late writes were, in ms."""
    counts = tuple(b - a for a, b in zip(start.lag, end.lag, strict=True))
    return f"{quantile(counts, 0.5):g}/{quantile(counts, 0.99):g}"


def scrape(port: int, drained: Drained) -> None:
    """Ask for the metrics once; the text is thrown away like all else."""
    drained.open(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")


def our_events(
    interval: int, streams: int, step_ms: float, seconds: float
) -> tuple[float, float, str]:
    """Return CPU us per event, events/s and lag of the mock server."""
    with mocked(Setup(law=constant(step_ms), interval=interval)) as server:
        drained = Drained()
        for index in range(streams):
            drained.open(server.port, request(index))
            if index % 50 == 0:
                drained.read(0)
        while server.sample(drained.read).running < streams:
            drained.read(0.2)
        scrape(server.port, drained)  # the first builds what later ones use
        drained.read(READY_S + step_ms / 1e3 * interval)
        start = server.sample(drained.read)
        drained.read(seconds / 2)
        scrape(server.port, drained)
        drained.read(seconds / 2)
        end = server.sample(drained.read)
        drained.close()
    made = (end.tokens - start.tokens) / interval
    cpu, took = end.cpu_s - start.cpu_s, end.at_s - start.at_s
    steps = sum(end.lag) - sum(start.lag)
    late = f"{steps / (end.wakings - start.wakings):8.2f}  {lag_of(start, end)}"
    return cpu / made * 1e6, made / took, late


@contextmanager
def bare_writer(*asked: object) -> Iterator[tuple[int, Callable[[], list[str]]]]:
    """Run the bare writer; gives its port, and what asks it for its counters."""
    with tempfile.TemporaryDirectory() as folder:
        compiler = shutil.which("cc")
        binary = Path(folder) / "epoll_writer"
        if compiler:
            source = HERE / "epoll_writer.c"
            subprocess.run([compiler, "-O2", "-o", binary, source], check=True)
            command = [str(binary)]
        else:
            command = [sys.executable, str(HERE / "epoll_writer.py")]
        child = subprocess.Popen(
            command + [str(value) for value in asked],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdin
        assert child.stdout
        stdin, stdout = child.stdin, child.stdout
        os.sched_setaffinity(child.pid, {CORE})

        def ask() -> list[str]:
            stdin.write("?\n")
            stdin.flush()
            return stdout.readline().split()

        try:
            yield int(stdout.readline()), ask
        finally:
            child.kill()
            child.communicate()


def bare_events(
    interval: int, streams: int, step_ms: float, seconds: float
) -> tuple[float, float]:
    """Return CPU us per write and writes/s of the bare writer."""
    step_us = step_ms * 1e3 * interval
    size = record_size(interval)
    with bare_writer(streams, ENGINES, step_us, size) as (port, ask):
        drained = Drained()
        for index in range(streams):
            drained.open(port, request(index))
        drained.read(READY_S + step_us / 1e6)
        start, began = ask(), time.monotonic()
        drained.read(seconds)
        end, ended = ask(), time.monotonic()
        drained.close()
    writes = int(end[1]) - int(start[1])
    return (float(end[0]) - float(start[0])) / writes * 1e6, writes / (ended - began)


def events(rounds: int, seconds: float) -> None:
    """Print what an event costs, beside the kernel's limit."""
    limit = "C" if shutil.which("cc") else "Python"
    print(f"kernel's limit: bare epoll writer in {limit}; {ENGINES} engines, TCP")
    print(
        "case                streams  step ms  events/s  us/event  limit us  of limit"
        "  tokens/CPU-s  steps at once  lag p50/p99 ms (at most)"
    )
    for name, cases in CASES.items():
        for interval, streams, step_ms in cases:
            ours, bare, lag = [], [], ""
            for _ in range(rounds):
                cost, rate, lag = our_events(interval, streams, step_ms, seconds)
                ours.append(cost)
                bare.append(bare_events(interval, streams, step_ms, seconds)[0])
            cost, least = median(ours), median(bare)
            print(
                f"{name:18}  {streams:7}  {step_ms:7g}  {rate:8.0f}  {cost:8.2f}"
                f"  {least:8.2f}  {least / cost:8.2f}  {interval / cost * 1e6:12,.0f}"
                f"       {lag}",
                flush=True,
            )


class Visitors:
    """Connections that ask for one token again and again."""

    def __init__(self, port: int, connections: int) -> None:
        self._poll = select.epoll()
        self._socks: dict[int, tuple[socket.socket, bytes]] = {}
        for index in range(connections):
            sock = socket.create_connection(("127.0.0.1", port))
            self._socks[sock.fileno()] = sock, request(index, 1)
            self._poll.register(sock.fileno(), select.EPOLLIN)
            sock.sendall(request(index, 1))

    def read(self, seconds: float) -> None:
        """Read answers for a time, and ask again."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for fd, _ in self._poll.poll(0.005, 64):
                sock, again = self._socks[fd]
                if sock.recv(1 << 16).endswith(b"\r\n0\r\n\r\n"):
                    sock.sendall(again)


def request_cost(setup: Setup | None, seconds: float) -> tuple[float, float]:
    """Return CPU us per request and requests/s."""
    with mocked(setup) as server:
        visitors = Visitors(server.port, connections=64)
        visitors.read(READY_S)
        start = server.sample(visitors.read)
        visitors.read(seconds)
        end = server.sample(visitors.read)
    done = end.requests - start.requests
    cost = (end.cpu_s - start.cpu_s) / done * 1e6
    return cost, done / (end.at_s - start.at_s)


def requests(rounds: int, seconds: float) -> None:
    """Print what a request of one token costs, over kept connections."""
    ours, bare, rate = [], [], 0.0
    for _ in range(rounds):
        cost, rate = request_cost(Setup(law=constant(20.0)), seconds)
        ours.append(cost)
        bare.append(request_cost(None, seconds)[0])
    print(
        f"a request of one token, its engine step and two writes included:"
        f" {median(ours):.0f} us of CPU at {rate:.0f}/s;"
        f" in a bare aiohttp handler {median(bare):.0f} us"
    )


def memory(streams: int = 10_000, rounds: int = 6, visits: int = 2000) -> None:
    """Print the memory of idle streams, and of connections that come and go."""
    mb = 1e-6
    with mocked(Setup(law=constant(1000.0))) as server:
        drained = Drained()
        empty = server.sample(drained.read).rss_bytes
        for index in range(streams):
            drained.open(server.port, request(index))
        drained.read(3.0)
        full = server.sample(drained.read).rss_bytes
        drained.close()
    print(
        f"{streams} idle streams: {full * mb:.0f} MB, {empty * mb:.0f} MB without,"
        f" {(full - empty) / streams / 1024:.1f} KB each"
    )
    for new, kind in ((False, "equal"), (True, "new")):
        print(
            f"after each {visits} connections that came and went with {kind} prompts,"
            " MB:",
            *(f"{held * mb:.1f}" for held in come_and_go(rounds, visits, new=new)),
        )


def come_and_go(rounds: int, visits: int, *, new: bool) -> Iterator[int]:
    """Yield what a server holds after each round of connections that are closed.

    New prompts stay in the emulated prefix cache until that is full; equal ones do not
    add to it, so with them any growth is a leak.
    """
    with mocked(Setup(law=constant(1.0))) as server:
        for turn in range(rounds):
            for visit in range(visits):
                index = turn * visits + visit if new else 0
                with socket.create_connection(("127.0.0.1", server.port)) as sock:
                    sock.sendall(request(index, 1, b"Connection: close"))
                    while sock.recv(1 << 16):
                        pass
            yield server.sample(lambda _: None).rss_bytes


def main() -> None:
    """Print the tables."""
    parts = {
        "events": lambda a: events(a.rounds, a.seconds),
        "requests": lambda a: requests(a.rounds, a.seconds),
        "memory": lambda _: memory(),
    }
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=list(parts))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    asked = parser.parse_args()
    raise_descriptor_limit()
    pin_driver()
    for name, part in parts.items():
        if asked.only in (None, name):
            part(asked)


if __name__ == "__main__":
    main()
