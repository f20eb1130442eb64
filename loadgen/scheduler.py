"""Hands out requests when they are due, whatever the answers do.

The dispatcher sleeps to absolute deadlines, so lateness does not add up, and puts each
due request on a queue. Whoever is free takes it from there; when nobody is (the cap on
requests in flight), it waits in the queue with its intended time kept. Requests that
answers bring about are added as the run goes.

There may be ten thousand places that wait. gevent's queues look through all of them
whenever one leaves (150 us); here the one that came last is woken, whose stack is still
in the cache, and leaving costs the same however many wait.
"""

from collections import deque
from collections.abc import Callable, Iterable

import gevent
from gevent.event import Event
from gevent.hub import Waiter
from greenlet import greenlet

from loadstone.clock import Clock
from loadstone.traffic.request import Request
from loadstone.units import Seconds


class Dispatcher:
    """Releases `requests` (sorted by intended time) on `clock`, whose zero is `t0`."""

    def __init__(
        self,
        requests: Iterable[Request],
        *,
        clock: Clock,
        t0: Seconds,
        on_due: Callable[[Request], None] = lambda _: None,
    ) -> None:
        self._requests = requests
        self._clock = clock
        self._t0 = t0
        self._on_due = on_due
        self._due: deque[Request] = deque()
        self._places: dict[Waiter[None], None] = {}
        """Who waits for a request and was not woken yet, in order of arrival."""
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self.released = 0
        self.taken = 0
        self.exhausted = Event()
        """Set when the last request of the schedule was released."""
        self._later: dict[greenlet, gevent.Greenlet[..., None]] = {}

    def __repr__(self) -> str:
        return f"<Dispatcher {self.released} due, {self.taken} taken>"

    def start(self) -> None:
        """Begin to release."""
        self._greenlet = gevent.spawn(self._release_all)

    def stop(self) -> None:
        """Release no more; harmless when it never began or is done."""
        if self._greenlet is not None:
            self._greenlet.kill()
        gevent.killall(list(self._later.values()))
        self._later.clear()

    def add(self, request: Request) -> None:
        """Release one more when it is due."""
        wait = self._t0 + request.intended_s - self._clock.now()
        if wait <= 0:
            self._release(request)
        else:
            later = gevent.Greenlet(self._release_later, request)
            self._later[later] = later
            later.start_later(wait)

    @property
    def awaited(self) -> int:
        """Requests that were added and are not due."""
        return len(self._later)

    def take(self) -> Request:
        """Return the next due request, waiting for one as long as it takes."""
        while not self._due:
            self._wait()
        self.taken += 1
        return self._due.popleft()

    @property
    def queued(self) -> int:
        """Requests that are due and not taken."""
        return self.released - self.taken

    def _release_all(self) -> None:
        for request in self._requests:
            self._wait_for(request)
            self._release(request)
        self.exhausted.set()

    def _release_later(self, request: Request) -> None:
        self._wait_for(request)
        del self._later[gevent.getcurrent()]
        self._release(request)

    def _wait_for(self, request: Request) -> None:
        due = self._t0 + request.intended_s
        # A timer may fire early by what the loop's cached time is behind: look again.
        while (wait := due - self._clock.now()) > 0:
            gevent.sleep(wait)

    def _release(self, request: Request) -> None:
        self.released += 1
        self._on_due(request)
        self._due.append(request)
        self._wake()

    def _wait(self) -> None:
        place: Waiter[None] = Waiter()
        self._places[place] = None
        try:
            place.get()
        except BaseException:
            if place in self._places:
                del self._places[place]
            else:  # it was woken for a request, which is left to another
                self._wake()
            raise

    def _wake(self) -> None:
        if self._places:
            place, _ = self._places.popitem()
            gevent.get_hub().loop.run_callback(place.switch, None)
