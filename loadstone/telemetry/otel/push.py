"""A thread that pushes, and the queue it pushes from. No SDK here.

Under Locust the thread is a greenlet, like every thread there: it gives way while it
waits for the network. A collector that is slow or dead can fill the queue, and nothing
else: what comes then is counted and dropped.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from ...units import Seconds

Item = TypeVar("Item")

MOST_WAITING: Final = 2048
"""Requests that may wait for their export: the SDK's own figure, for spans."""


class BoundedQueue(Generic[Item]):
    """Takes items from one thread and gives them to another, as many as it can hold."""

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._items: deque[Item] = deque()
        self._most = most
        self.dropped = 0
        """Items that found no room."""

    def __repr__(self) -> str:
        return f"<BoundedQueue {len(self)}/{self._most} dropped={self.dropped}>"

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Item) -> None:
        """Add an item, or count it as dropped."""
        if len(self._items) >= self._most:
            self.dropped += 1
        else:
            self._items.append(item)

    def take(self, most: int) -> list[Item]:
        """Take the oldest items, `most` of them or as many as there are."""
        return [self._items.popleft() for _ in range(min(most, len(self._items)))]


class Pusher:
    """Calls `push` every `period_s` in a thread of its own, and once more at the end.

    `push` is given a question: whether it should stop early, because time is up.
    """

    def __init__(
        self,
        name: str,
        push: Callable[[Callable[[], bool]], None],
        *,
        period_s: Seconds,
    ) -> None:
        self._push = push
        self._period_s = period_s
        self._closing = threading.Event()
        self._ends_at = float("inf")
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        state = "running" if self._thread.is_alive() else "ended"
        return f"<Pusher {self._thread.name} {state} every {self._period_s:g}s>"

    def finish(self, ends_at: Seconds) -> None:
        """Ask for the last push, to be over by `ends_at` on `time.monotonic`."""
        self._ends_at = ends_at
        self._closing.set()

    def join(self, until: Seconds) -> bool:
        """Wait for the end until then; return whether it came."""
        self._thread.join(max(0.0, until - time.monotonic()))
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._closing.wait(self._period_s):
            self._push(self._late)
        self._push(self._late)

    def _late(self) -> bool:
        return time.monotonic() >= self._ends_at
