"""Real sockets that play exact scripts of bytes, and a client to point at them."""

import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from loadgen.client import Endpoint, Exchange, StreamingClient, Timeouts
from loadgen.dial import Address
from loadstone.wire.sse import MAX_BODY

KEY = "sk-live-0123456789"
PATH = "/v1/chat/completions"
PATIENCE_S = 20.0
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = SSE + b"Transfer-Encoding: chunked\r\n\r\n"


def event(text: str) -> bytes:
    """Return a content event."""
    return b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % text.encode()


def usage(tokens: int) -> bytes:
    """Return an event that counts output tokens and carries none."""
    return b'data: {"choices":[],"usage":{"completion_tokens":%d}}\n\n' % tokens


STOP = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def chunk(data: bytes) -> bytes:
    """Frame bytes as an HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


END = chunk(STOP) + chunk(b"")
ANSWER = CHUNKED + chunk(event("Hel")) + chunk(event("lo")) + END


def answer(
    status: str, body: bytes, *headers: str, kind: str = "application/json"
) -> bytes:
    """Return a response with a length."""
    fields = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", *headers)
    head = "\r\n".join((*fields, f"Content-Length: {len(body)}"))
    return head.encode() + b"\r\n\r\n" + body


class Peer:
    """The server's end of one connection."""

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(PATIENCE_S)
        self.socket = connected
        self.send = connected.sendall

    def request(self) -> bytes:
        """Read a whole request; empty if the client closed before it was whole."""
        data = b""
        while True:
            head, found, body = data.partition(b"\r\n\r\n")
            length = re.search(rb"Content-Length: (\d+)", head)
            if found and len(body) >= (int(length[1]) if length else 0):
                return data
            more = self.read()
            if not more:
                return b""
            data += more

    def read(self) -> bytes:
        """Read what there is; empty once the client has closed, cleanly or not."""
        try:
            return self.socket.recv(65536)
        except ConnectionError:
            return b""

    def close(self) -> None:
        """Close cleanly."""
        self.socket.close()

    def reset(self) -> None:
        """Close so that the client gets a reset."""
        linger = struct.pack("ii", 1, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.socket.close()


Script = Callable[[Peer], object]


class Server(threading.Thread):
    """Plays its scripts in turn, each on the next connection, and closes none."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(daemon=True)
        self.scripts = scripts
        self.tls = tls
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE_S)
        self.peers: list[Peer] = []
        self.fault: BaseException | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        scheme = "https" if self.tls else "http"
        return f"{scheme}://127.0.0.1:{self.listener.getsockname()[1]}"

    @property
    def address(self) -> Address:
        """Where it is, to connect to."""
        return Address(socket.AF_INET, self.listener.getsockname())

    def run(self) -> None:
        """Accept and play."""
        try:
            for script in self.scripts:
                connected, _ = self.listener.accept()
                if connected.family == socket.AF_INET:
                    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.tls is not None:
                    connected = self.tls.wrap_socket(connected, server_side=True)
                self.peers.append(Peer(connected))
                script(self.peers[-1])
        except (OSError, AssertionError) as fault:
            self.fault = fault

    def stop(self) -> None:
        """End; scripts that wait for the client are expected to have seen it close."""
        self.join(PATIENCE_S)
        self.listener.close()
        for peer in self.peers:
            peer.close()
        assert not self.is_alive()


@contextmanager
def serving(*scripts: Script, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Run a server for the scripts, all of which have to be played."""
    server = Server(*scripts, tls=tls)
    server.start()
    try:
        yield server
    finally:
        server.stop()
    assert server.fault is None or tls is not None, server.fault


@contextmanager
def client(
    url: str, *, limit: int = MAX_BODY, **settings: Any
) -> Iterator[StreamingClient]:
    """Make a client with short patience, its key set; close it afterwards."""
    names = ("connect", "first_byte", "idle", "total")
    waits = dict.fromkeys(names, PATIENCE_S) | {
        name: settings.pop(name) for name in names if name in settings
    }
    endpoint = Endpoint.parse(url, api_key=KEY, **settings)
    made = StreamingClient(endpoint, timeouts=Timeouts(**waits), limit=limit)
    try:
        yield made
    finally:
        made.close()
        assert KEY not in repr(made) + repr(endpoint) + str(endpoint)


def ask(made: StreamingClient, body: bytes = b"{}") -> Exchange:
    """Send a chat request and expect a stream."""
    exchange = made.send(body, path=PATH, stream=True)
    assert KEY not in repr(exchange)
    return exchange


def once(response: bytes, *, close: bool = False) -> Script:
    """Make a script that answers one request."""

    def script(peer: Peer) -> None:
        assert peer.request()
        peer.send(response)
        if close:
            peer.close()

    return script


def silent(*parts: bytes) -> Script:
    """Make a script that answers with `parts` and waits for the client to give up."""

    def script(peer: Peer) -> None:
        assert peer.request()
        for part in parts:
            peer.send(part)
        assert peer.read() == b""

    return script


def check(exchange: Exchange) -> None:
    """Assert that `ANSWER` came back whole."""
    reply = exchange.reply
    assert (exchange.status, exchange.error, exchange.error_text) == (200, None, "")
    assert reply is not None
    assert (reply.text, reply.events, reply.finish_reason) == ("Hello", 2, "stop")
    assert reply.first is not None
    assert reply.last is not None
    assert exchange.sent < reply.first <= reply.last <= exchange.end


def refusing_url() -> str:
    """Return a URL at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"
