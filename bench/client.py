"""Measure the streaming client: CPU per event and per request, error of its TTFT.

A child process serves scripted streams (asyncio, one clock task, one event per write)
and puts the stamps of its own writes into the truth of the last chunk. The parent runs
the client as Locust would: a greenlet per stream on one hub. Compare within one run.
"""

import argparse
import asyncio
import gc
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

START = (
    b'data: {"id":"chatcmpl-0123456789abcdef01234567","object":"chat.completion.chunk",'
    b'"created":1760000000,"model":"llama-2-70b","choices":['
)
CHOICE = b'{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}]'
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
TTFT_S = 0.1


def framed(event: bytes) -> bytes:
    """Put an event into an HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(event), event)


ROLE = framed(
    START + CHOICE % (b'{"role":"assistant","content":""}', b"null") + b"}\n\n"
)
TOKEN = framed(START + CHOICE % (b'{"content":" the"}', b"null") + b"}\n\n")


class Server(asyncio.Protocol):
    """One connection; `due` is the heap of (instant, tie-break, connection) of all."""

    due: list[tuple[float, int, "Server"]] = []  # noqa: RUF012 (one for all on purpose)
    order = count()

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self.transport: asyncio.Transport = transport
        self.data = b""

    def data_received(self, data: bytes) -> None:
        """Start a stream once the request is whole; requests here are short."""
        self.data += data
        if not self.data.endswith(b"}"):
            return
        self.received = time.time()
        asked = json.loads(self.data.partition(b"\r\n\r\n")[2])
        self.data = b""
        self.left, self.gap = asked["tokens"], asked["gap"]
        self.first = self.last = 0.0
        self.transport.write(HEAD + ROLE)
        self.later(time.time() + TTFT_S)

    def later(self, instant: float) -> None:
        """Come back at `instant`."""
        heappush(Server.due, (instant, next(Server.order), self))

    def token(self, planned: float) -> None:
        """Write the token that was due at `planned`."""
        self.last = time.time()
        self.first = self.first or self.last
        self.left -= 1
        if self.left:
            self.transport.write(TOKEN)
            self.later(planned + self.gap)
            return
        stamps = {
            "received_s": self.received, "scheduled_first_s": self.received + TTFT_S,
            "first_sent_s": self.first, "last_sent_s": self.last, "engine": 0,
        }  # fmt: skip
        truth = b',"loadstone":%b}\n\n' % json.dumps(stamps).encode()
        end = framed(START + CHOICE % (b"{}", b'"stop"') + truth)
        self.transport.write(TOKEN + end + framed(b"data: [DONE]\n\n") + b"0\r\n\r\n")


async def serve(pipe: Pipe) -> None:
    """Serve on any port, say which, and write what is due, every millisecond."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", 0, backlog=4096)
    pipe.send(server.sockets[0].getsockname()[1])
    while True:
        now = time.time()
        while Server.due and Server.due[0][0] <= now:
            planned, _, stream = heappop(Server.due)
            stream.token(planned)
        await asyncio.sleep(0.001)


def child(pipe: Pipe) -> None:
    """Run the server until it is terminated."""
    asyncio.run(serve(pipe))


@dataclass
class Tally:
    """What one trial saw; a request without a TTFT error to its name has failed."""

    cpu_s: float = 0.0
    wall_s: float = 0.0
    requests: int = 0
    events: int = 0
    errors_ms: list[float] = field(default_factory=list)

    def quantile(self, q: float) -> float:
        """Return the nearest-rank quantile of the TTFT errors."""
        ranked = sorted(self.errors_ms)
        return ranked[int(q * (len(ranked) - 1))] if ranked else 0.0


def trial(port: int, streams: int, *, tokens: int, gap: float, seconds: float) -> Tally:
    """Keep `streams` requests in flight for `seconds`, with their starts spread."""
    import gevent  # noqa: PLC0415 - not in the child

    from loadgen.client import Endpoint, StreamingClient  # noqa: PLC0415

    client = StreamingClient(Endpoint.parse(f"http://127.0.0.1:{port}"))
    client.warm(streams)
    body = json.dumps({"tokens": tokens, "gap": gap}).encode()
    tally = Tally()
    gc.collect()
    gc.freeze()
    cpu, wall = time.process_time(), time.monotonic()

    def user(number: int) -> None:
        gevent.sleep(number / streams * (TTFT_S + tokens * gap))
        while time.monotonic() < wall + seconds:
            exchange = client.send(body, path="/v1/chat/completions", stream=True)
            reply = exchange.reply
            tally.requests += 1
            if not exchange.error and reply and reply.first and reply.truth:
                error = reply.first - exchange.sent - reply.truth.ttft_s
                tally.errors_ms.append(error * 1000)
                tally.events += reply.events

    gevent.joinall([gevent.spawn(user, number) for number in range(streams)])
    tally.cpu_s, tally.wall_s = time.process_time() - cpu, time.monotonic() - wall
    client.close()
    return tally


def rows(port: int, arguments: argparse.Namespace) -> Iterator[str]:
    """Run the trials: one-token requests first, for the cost of a request by itself."""
    seconds = arguments.seconds
    alone = trial(port, max(arguments.streams), tokens=1, gap=0.02, seconds=seconds / 2)
    request_us = alone.cpu_s / alone.requests * 1e6
    yield f"one-token request: {request_us:.0f} us of CPU, {alone.requests} requests"
    yield "streams  tok/s  events/s  us/event  core  TTFT error p50/p99 ms  failures"
    for streams in arguments.streams:
        tokens, gap = arguments.tokens, 1 / arguments.rate
        seen = trial(port, streams, tokens=tokens, gap=gap, seconds=seconds)
        event_us = (seen.cpu_s * 1e6 - seen.requests * request_us) / max(1, seen.events)
        errors = f"{seen.quantile(0.5):.2f} / {seen.quantile(0.99):.2f}"
        yield (
            f"{streams:7d} {arguments.rate:6g} {seen.events / seen.wall_s:9.0f}"
            f" {event_us:9.1f} {seen.cpu_s / seen.wall_s:5.2f}"
            f" {errors:>22} {seen.requests - len(seen.errors_ms):9d}"
        )


def main() -> None:
    """Read the options, start the server, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=int, nargs="+", default=[100, 500])
    parser.add_argument("--rate", type=float, default=50.0, help="tokens/s of a stream")
    parser.add_argument("--tokens", type=int, default=200, help="per request")
    parser.add_argument("--seconds", type=float, default=8.0, help="per trial")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=child, args=(theirs,), daemon=True)
    server.start()
    try:
        for row in rows(ours.recv(), arguments):
            print(row, flush=True)
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
