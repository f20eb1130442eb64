"""Hands out requests when they are due, whatever the answers do.

The dispatcher sleeps to absolute deadlines, so lateness does not add up, and puts each
due request on a queue. Whoever is free takes it from there; when nobody is (the cap on
requests in flight), it waits in the queue with its intended time kept.
"""

from collections.abc import Callable, Sequence

import gevent
from gevent.event import Event
from gevent.queue import SimpleQueue

from loadstone.clock import Clock
from loadstone.traffic.request import Request
from loadstone.units import Seconds


class Dispatcher:
    """Releases `requests` (sorted by intended time) on `clock`, whose zero is `t0`."""

    def __init__(
        self,
        requests: Sequence[Request],
        *,
        clock: Clock,
        t0: Seconds,
        on_due: Callable[[Request], None] = lambda _: None,
    ) -> None:
        self._requests = requests
        self._clock = clock
        self._t0 = t0
        self._on_due = on_due
        self._queue: SimpleQueue[Request] = SimpleQueue()
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self.released = 0
        self.taken = 0
        self.exhausted = Event()
        """Set when the last request was released."""

    def __repr__(self) -> str:
        due = len(self._requests)
        return f"<Dispatcher {self.released} of {due} due, {self.taken} taken>"

    def start(self) -> None:
        """Begin to release."""
        self._greenlet = gevent.spawn(self._release)

    def stop(self) -> None:
        """Release no more; harmless when it never began or is done."""
        if self._greenlet is not None:
            self._greenlet.kill()

    def take(self) -> Request:
        """Return the next due request, waiting for one as long as it takes."""
        request: Request = self._queue.get()
        self.taken += 1
        return request

    @property
    def queued(self) -> int:
        """Requests that are due and not taken."""
        return self.released - self.taken

    def _release(self) -> None:
        for request in self._requests:
            due = self._t0 + request.intended_s
            # A timer may fire early by what the loop's cached time is behind: look
            # again.
            while (wait := due - self._clock.now()) > 0:
                gevent.sleep(wait)
            self.released += 1
            self._on_due(request)
            self._queue.put(request)
        self.exhausted.set()
