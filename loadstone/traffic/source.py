"""Where a run in virtual time gets its requests from: a schedule, or users who wait."""

from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from random import Random
from typing import Protocol, runtime_checkable

from ..units import Seconds
from .journey import Journey, Journeys, journeys_of
from .plan import Plan
from .request import Request


@runtime_checkable
class Source(Protocol):
    """Gives requests in order of time, and hears of those that ended."""

    @property
    def next_at(self) -> Seconds:
        """When the next request is due, as far as is known; infinity where none is."""
        ...

    def take(self) -> Request:
        """Take the next request."""
        ...

    def ended(self, request: Request, at: Seconds) -> None:
        """Hear that an answer ended; what it brings about is due at `at` or later."""
        ...

    @property
    def undue(self) -> int:
        """Requests of turns that will never be due, as far as is known."""
        ...


class _Due:
    """Requests by when they are due; at one instant first come, first taken."""

    def __init__(self) -> None:
        self._heap: list[tuple[Seconds, int, Request]] = []
        self._order = count()

    def __repr__(self) -> str:
        return f"<_Due {len(self._heap)}>"

    def add(self, requests: Iterable[Request]) -> None:
        for each in requests:
            heappush(self._heap, (each.intended_s, next(self._order), each))

    @property
    def next_at(self) -> Seconds:
        return self._heap[0][0] if self._heap else inf

    def pop(self) -> Request:
        return heappop(self._heap)[2]


class Scheduled:
    """Arrivals that come whatever the answers do, drawn as they are needed.

    Later turns of a conversation come after its answers, and not after `until`.
    """

    def __init__(self, requests: Iterable[Request], until: Seconds = inf) -> None:
        self._arrivals = journeys_of(requests)
        self._next = next(self._arrivals, None)
        self._due = _Due()
        self._journeys = Journeys(until)
        self.next_at = self._first_of_both()
        """When the next one is due."""

    def __repr__(self) -> str:
        return f"<Scheduled next={self._next} {self._journeys!r}>"

    @property
    def undue(self) -> int:
        """Of later turns, those that will never be due."""
        return self._journeys.undue

    def _first_of_both(self) -> Seconds:
        arrival = inf if self._next is None else self._next[0].intended_s
        return min(arrival, self._due.next_at)

    def take(self) -> Request:
        """Take it."""
        taken = self._next
        if taken is not None and taken[0].intended_s <= self._due.next_at:
            first = taken[0]
            if first.conversation:
                first, *beside = self._journeys.begin(taken)
                self._due.add(beside)
            self._next = next(self._arrivals, None)
        else:
            first = self._due.pop()
        self.next_at = self._first_of_both()
        return first

    def ended(self, request: Request, at: Seconds) -> None:
        """Let what follows in its conversation be due."""
        if request.conversation:
            self._due.add(self._journeys.ended(request, at))
            self.next_at = self._first_of_both()


class Users:
    """A closed loop: each of N asks, waits for the answer, thinks, and asks again.

    As in a live run of one process: all ask first at t0, pauses are exponential with
    the plan's mean, lengths are taken in the order of asking and pauses in the order of
    answers, and nobody asks once the duration is over. Who is in a conversation goes on
    with it first.
    """

    def __init__(self, plan: Plan, drawn: Iterator[Journey]) -> None:
        self._plan = plan
        self._drawn = drawn
        self._think = Random(f"{plan.seed}/think/0")
        self._ready = [0.0] * plan.users
        heapify(self._ready)
        self._due = _Due()
        self._journeys = Journeys(plan.duration_s)

    def __repr__(self) -> str:
        return f"<Users {len(self._ready)} of {self._plan.users} between journeys>"

    @property
    def undue(self) -> int:
        """Of later turns, those that will never be due."""
        return self._journeys.undue

    @property
    def next_at(self) -> Seconds:
        """When the first of those who think will ask."""
        ready = self._ready[0] if self._ready else inf
        return min(ready if ready < self._plan.duration_s else inf, self._due.next_at)

    def take(self) -> Request:
        """Let that one ask."""
        if self._ready and self._ready[0] <= self._due.next_at:
            now = heappop(self._ready)
            journey = tuple(r.but(intended_s=now) for r in next(self._drawn))
            first, *beside = self._journeys.begin(journey)
            self._due.add(beside)
            return first
        return self._due.pop()

    def ended(self, request: Request, at: Seconds) -> None:
        """Let the one who asked think, and ask again."""
        if request.conversation:
            self._due.add(self._journeys.ended(request, at))
            if self._journeys.under_way(request):
                return
        mean = self._plan.think_s
        pause = self._think.expovariate(1 / mean) if mean else 0.0
        heappush(self._ready, at + pause)
