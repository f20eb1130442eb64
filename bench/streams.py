"""A server of known truth: streams by the clock, with the stamps of its own writes.

    python bench/streams.py --ttft 0.02 --gap 0.005

Each chat request gets `max_tokens` events, the first `ttft` seconds after the request
was read, one more every `gap` seconds, by absolute deadlines: one task writes what is
due every millisecond. The last chunk has the truth in the mock's form; `GET /truth`
returns `[received, first_sent, last_sent, tokens]` of all requests since it was last
asked. Once it listens it says where on stdout. Standard library only, so that it runs
beside any client.
"""

import argparse
import asyncio
import json
import re
import ssl
import time
from heapq import heappop, heappush
from itertools import count
from typing import Any

START = (
    b'data: {"id":"chatcmpl-0123456789abcdef01234567","object":"chat.completion.chunk",'
    b'"created":1760000000,"model":"llama-2-70b","choices":['
)
CHOICE = b'{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}]'
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
MODELS = b'{"object":"list","data":[{"id":"llama-2-70b","object":"model"}]}'
LENGTH = re.compile(rb"(?i)content-length: *(\d+)")
TICK_S = 0.001


def framed(event: bytes) -> bytes:
    """Put an event into an HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(event), event)


ROLE = framed(
    START + CHOICE % (b'{"role":"assistant","content":""}', b"null") + b"}\n\n"
)
TOKEN = framed(START + CHOICE % (b'{"content":" the"}', b"null") + b"}\n\n")


class Streams:
    """What all connections share: the timing, what is due, and what was done."""

    def __init__(self, ttft: float, gap: float) -> None:
        self.ttft, self.gap = ttft, gap
        self.due: list[tuple[float, int, Stream]] = []
        self.order = count()
        self.done: list[tuple[float, float, float, int]] = []

    def later(self, instant: float, stream: "Stream") -> None:
        """Come back to a stream at `instant`, on the monotonic clock."""
        heappush(self.due, (instant, next(self.order), stream))

    async def write_what_is_due(self) -> None:
        """Go on for ever."""
        due = self.due
        while True:
            now = time.monotonic()
            while due and due[0][0] <= now:
                planned, _, stream = heappop(due)
                stream.token(planned)
            await asyncio.sleep(TICK_S)


class Stream(asyncio.Protocol):
    """One connection, one request after the other."""

    def __init__(self, streams: Streams) -> None:
        self.streams = streams
        self.data = b""

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self.transport: asyncio.Transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer once the request is whole."""
        self.data += data
        head, found, body = self.data.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not found or len(body) < (int(length[1]) if length else 0):
            return
        self.data = b""
        if head.startswith(b"POST"):
            self.begin(json.loads(body))
        elif b" /truth " in head:
            done, self.streams.done = self.streams.done, []
            self.whole(json.dumps(done).encode())
        else:
            self.whole(MODELS)

    def whole(self, body: bytes) -> None:
        """Answer in one piece."""
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )

    def begin(self, asked: dict[str, Any]) -> None:
        """Start a stream."""
        self.received, now = time.time(), time.monotonic()
        self.tokens = self.left = asked.get("max_tokens") or asked.get(
            "max_completion_tokens", 16
        )
        self.first = 0.0
        self.transport.write(HEAD + ROLE)
        self.streams.later(now + self.streams.ttft, self)

    def token(self, planned: float) -> None:
        """Write the token that was due at `planned`."""
        if self.transport.is_closing():
            return  # the client has had enough
        now = time.time()
        self.first = self.first or now
        self.left -= 1
        if self.left:
            self.transport.write(TOKEN)
            self.streams.later(planned + self.streams.gap, self)
            return
        stamps = {
            "received_s": self.received,
            "scheduled_first_s": self.received + self.streams.ttft,
            "first_sent_s": self.first, "last_sent_s": now, "engine": 0,
        }  # fmt: skip
        usage = {"prompt_tokens": 8, "completion_tokens": self.tokens,
                 "total_tokens": 8 + self.tokens}  # fmt: skip
        rest = b',"usage":%b,"loadstone":%b}\n\n' % (
            json.dumps(usage).encode(), json.dumps(stamps).encode(),
        )  # fmt: skip
        end = framed(START + CHOICE % (b"{}", b'"stop"') + rest)
        self.transport.write(TOKEN + end + framed(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        self.streams.done.append((self.received, self.first, now, self.tokens))


async def serve(arguments: argparse.Namespace) -> None:
    """Serve on any port until terminated."""
    streams = Streams(arguments.ttft, arguments.gap)
    loop = asyncio.get_running_loop()
    if arguments.uds:
        await loop.create_unix_server(
            lambda: Stream(streams), arguments.uds, backlog=4096
        )
        print(f"unix:{arguments.uds}", flush=True)
    else:
        tls = None
        if arguments.tls_pem:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(arguments.tls_pem)
        server = await loop.create_server(
            lambda: Stream(streams), "127.0.0.1", 0, backlog=4096, ssl=tls
        )
        port = server.sockets[0].getsockname()[1]
        print(f"http{'s' if tls else ''}://127.0.0.1:{port}", flush=True)
    await streams.write_what_is_due()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ttft", type=float, default=0.1, help="seconds")
    parser.add_argument("--gap", type=float, default=0.02, help="seconds")
    parser.add_argument("--uds", metavar="PATH", help="listen on a Unix socket")
    parser.add_argument("--tls-pem", metavar="FILE", help="speak TLS with this key")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
