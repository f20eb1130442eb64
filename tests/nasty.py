"""A server that does to each request what its number says, on a thread of its own."""

import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count

_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
_TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
_END = (
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}\n\n'
    b"data: [DONE]\n\n"
)
_LONGEST_S = 30.0


def _json(status: str, body: object, *fields: str) -> bytes:
    text = json.dumps(body).encode()
    head = [f"HTTP/1.1 {status}", "Content-Type: application/json", *fields]
    head += [f"Content-Length: {len(text)}", "Connection: close", "", ""]
    return "\r\n".join(head).encode() + text


def well(peer: socket.socket) -> None:
    """Answer as asked."""
    peer.sendall(_STREAM + _TOKEN + _TOKEN + _END)


def trickle(peer: socket.socket) -> None:
    """Send a byte every tenth of a second, for longer than anyone waits."""
    peer.sendall(_STREAM)
    until = time.monotonic() + _LONGEST_S
    for byte in _TOKEN * 100:
        peer.sendall(bytes([byte]))
        time.sleep(0.1)
        if time.monotonic() > until:
            return


def mute(peer: socket.socket) -> None:
    """Take the request and never say a word, as a peer that is gone."""
    peer.settimeout(_LONGEST_S)
    while peer.recv(65536):
        pass


def fall_silent(peer: socket.socket) -> None:
    """Begin an answer, and say no more."""
    peer.sendall(_STREAM + _TOKEN)
    mute(peer)


def reset(peer: socket.socket) -> None:
    """Break the answer off by a reset."""
    peer.sendall(_STREAM + _TOKEN)
    time.sleep(0.05)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def throttle(peer: socket.socket) -> None:
    """Refuse, and do not say for how long."""
    said = {"error": {"message": "slow down", "type": "rate_limit", "code": "429"}}
    peer.sendall(_json("429 Too Many Requests", said))


Fault = Callable[[socket.socket], None]


@dataclass
class Nasty:
    """Where it is, and what it did how often, by the fault's name."""

    url: str
    done: Counter[str] = field(default_factory=Counter)
    calm: threading.Event = field(default_factory=threading.Event)
    """Set to have everything answered from then on."""


@contextmanager
def nasty(*faults: Fault) -> Iterator[Nasty]:
    """Do these to the requests in turn until it is calmed."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    server = Nasty(f"http://127.0.0.1:{listener.getsockname()[1]}")
    numbers = count()

    def serve(peer: socket.socket) -> None:
        with peer, suppress(OSError):
            request = _read(peer)
            if not request.startswith(b"POST"):
                peer.sendall(_json("200 OK", {"data": [{"id": "m"}]}))
                return
            fault = (
                well if server.calm.is_set() else faults[next(numbers) % len(faults)]
            )
            server.done[fault.__name__] += 1
            fault(peer)

    def accept() -> None:
        with suppress(OSError):
            while True:
                peer, _ = listener.accept()
                threading.Thread(target=serve, args=(peer,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _read(peer: socket.socket) -> bytes:
    """Read a request to the end of its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = peer.recv(65536)
        if not more:
            return data
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(
        line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line
    )
    left = int(fields.get(b"content-length", b"0")) - len(body)
    while left > 0:
        left -= len(peer.recv(65536)) or left
    return data
