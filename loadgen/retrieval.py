"""Searches in a store, made by processes of their own so that the hub never waits.

A search blocks the greenlet that asks and no other. `bench/retrieval.py` has what the
alternatives cost: on the hub a query is a stop of every stream, and in a native thread
it still takes Python's lock for what is not SQLite's own.
"""

import json
import subprocess
import sys
from contextlib import suppress
from typing import Any, Final

import gevent
from gevent import Timeout
from gevent.event import AsyncResult
from gevent.queue import SimpleQueue
from gevent.socket import socketpair

from loadstone.errors import LoadstoneError
from loadstone.retrieval.searcher import LENGTH, question
from loadstone.retrieval.store import About, Hit, checked
from loadstone.units import Seconds

SEARCHERS: Final = 2
"""Processes of a pool: with queries of 10 ms, 200 searches a second."""
_START_S: Final[Seconds] = 30.0
_SEARCH_S: Final[Seconds] = 35.0
"""Longer than the stores' own limit, which says more."""
_END_S: Final[Seconds] = 2.0

_ENDED: Final = {
    "message": "the process that searches has ended",
    "hint": "was it killed, or did it run out of memory?",
    "code": "retrieval",
}
Message = dict[str, Any]


class RetrievalError(LoadstoneError):
    """A search that brought nothing back, by the fault of the store or its process."""

    code = "retrieval"


class Searchers:
    """A pool of processes that search one store."""

    def __init__(self, address: str, count: int = SEARCHERS) -> None:
        """Start them and wait until each has the store open.

        Raises `LoadstoneError` if the store cannot be opened.
        """
        self._idle: SimpleQueue[_Searcher | None] = SimpleQueue()
        self._all = [_Searcher(checked(address), self._idle.put) for _ in range(count)]
        self._alive = count
        try:
            told: list[Any] = [one.answer.get(timeout=_START_S) for one in self._all]
        except Timeout:
            self.close()
            raise RetrievalError(f"{address} did not open in {_START_S:g} s") from None
        except BaseException:
            self.close()
            raise
        self.about = About(**told[0])

    def __repr__(self) -> str:
        return f"<Searchers {self._idle.qsize()} idle of {len(self._all)}>"

    def search(self, vector: bytes, k: int) -> list[Hit]:
        """Return the `k` passages nearest to a packed vector, the best first.

        Waits for a searcher that is free. Raises `RetrievalError`; whoever is killed
        meanwhile leaves no trace.
        """
        if len(vector) != 4 * self.about.dimensions:
            raise RetrievalError(
                f"the question has {len(vector) // 4} dimensions and the store's"
                f" passages {self.about.dimensions}",
                hint="embed both by the same model",
                code="dimensions",
            )
        answer = self._free_one().ask(question(vector, k))
        with Timeout(_SEARCH_S, RetrievalError(f"no answer in {_SEARCH_S:g} s")):
            found: Any = answer.get()
        return [Hit(*hit) for hit in found]

    def close(self) -> None:
        """End the processes."""
        for searcher in self._all:
            searcher.close()

    def _free_one(self) -> "_Searcher":
        """Wait for a searcher that is free; the dead ones drop out here."""
        while (searcher := self._idle.get()) is not None:
            if searcher.alive:
                return searcher
            self._alive -= 1
            if not self._alive:
                self._idle.put(None)
        self._idle.put(None)  # for the next one: nobody need wait any more
        raise RetrievalError("no process is left that searches")


class _Searcher:
    """One process, our end of its socket, and a greenlet that reads there.

    Only that greenlet reads, so one that waits for an answer may be killed at any time.
    """

    def __init__(self, address: str, free: Any) -> None:
        self.answer: AsyncResult[Any] = AsyncResult()
        """To come: at first what it says of the store."""
        self.alive = True
        self._busy = True
        """Whether it owes an answer; else it is among those that are free."""
        self._free = free
        self._socket, theirs = socketpair()
        with theirs:
            # A session of its own: Ctrl-C is for us, who drain before they end.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "loadstone.retrieval.searcher",
                 str(theirs.fileno()), address],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        self._reading = gevent.spawn(self._read)

    def __repr__(self) -> str:
        return f"<_Searcher {self._process.pid} {'alive' if self.alive else 'dead'}>"

    def ask(self, question: bytes) -> "AsyncResult[Any]":
        """Send a question to a searcher that is free; its answer comes later.

        It fits into the socket's empty buffer, so this never waits.
        """
        self.answer, self._busy = AsyncResult(), True
        with suppress(OSError):  # then the reader finds it dead, and says so
            self._socket.sendall(question)
        return self.answer

    def close(self) -> None:
        """End it: it goes when its socket does."""
        self._reading.kill()
        self._socket.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        """Hand answers out until the process ends."""
        while self.alive:
            try:
                told = self._message()
            except (EOFError, OSError):
                self.alive = False
                told = {"error": _ENDED}
            if not self._busy:
                return  # it died while it was free, where its death is found
            if "error" in told:
                self.answer.set_exception(RetrievalError(**told["error"]))
            else:
                self.answer.set(told["told"])
            self._busy = False
            self._free(self)

    def _message(self) -> Message:
        (size,) = LENGTH.unpack(self._exactly(LENGTH.size))
        told: Message = json.loads(self._exactly(size))
        return told

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            got = self._socket.recv(size - len(data))
            if not got:
                raise EOFError
            data += got
        return bytes(data)
