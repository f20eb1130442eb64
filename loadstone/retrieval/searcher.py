"""A process that searches a store for another.

It is `python -m loadstone.retrieval.searcher SOCKET STORE`.

The load generator may not search by itself: what holds its one thread, or Python's one
lock, for the 10 ms of a query delays the stamps of every stream that is open. So
searches are made by processes of their own, each behind a socket pair.

A message is a length of four bytes and as many bytes. The searcher says first what is
in its store, and from then on answers each question (`QUESTION`: how many passages, and
the vector) by the hits, one after another: as `{"told": ...}`, or `{"error": ...}`. It
ends when its peer does.
"""

import json
import socket
import struct
import sys
from dataclasses import asdict
from typing import Any, Final

from ..errors import LoadstoneError
from .store import Store, open_store

LENGTH: Final = struct.Struct("!I")
QUESTION: Final = struct.Struct("!H")


def framed(message: bytes) -> bytes:
    """Return a message as it goes over the socket."""
    return LENGTH.pack(len(message)) + message


def question(vector: bytes, k: int) -> bytes:
    """Return the message that asks for the `k` passages nearest to a vector."""
    return framed(QUESTION.pack(k) + vector)


def main(arguments: list[str]) -> None:
    """Search the store `arguments[1]` for who is behind the socket `arguments[0]`."""
    with socket.socket(fileno=int(arguments[0])) as peer:
        peer.settimeout(None)  # who made it may not have wanted to wait
        try:
            store = open_store(arguments[1])
        except LoadstoneError as wrong:
            _tell(peer, _error(wrong))
            return
        try:
            _tell(peer, {"told": asdict(store.about)})
            _serve(peer, store)
        except (BrokenPipeError, ConnectionResetError):
            return  # who asked is gone
        finally:
            store.close()


def _serve(peer: socket.socket, store: Store) -> None:
    with peer.makefile("rb") as stream:
        while len(head := stream.read(LENGTH.size)) == LENGTH.size:
            (size,) = LENGTH.unpack(head)
            message = stream.read(size)
            if len(message) < size:
                return
            (k,) = QUESTION.unpack_from(message)
            try:
                hits = store.search(message[QUESTION.size :], k)
            except LoadstoneError as wrong:
                _tell(peer, _error(wrong))
            else:
                _tell(peer, {"told": hits})


def _error(wrong: LoadstoneError) -> dict[str, Any]:
    told = {"code": wrong.code, "message": wrong.message, "hint": wrong.hint}
    return {"error": told}


def _tell(peer: socket.socket, what: dict[str, Any]) -> None:
    peer.sendall(framed(json.dumps(what).encode()))


if __name__ == "__main__":
    main(sys.argv[1:])
