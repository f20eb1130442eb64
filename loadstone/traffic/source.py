"""Where a run in virtual time gets its requests from: a schedule, or users who wait."""

from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from math import inf
from random import Random
from typing import Protocol, runtime_checkable

from ..units import Seconds, Tokens
from .plan import Plan, request_of
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


class Scheduled:
    """Requests that come whatever the answers do, drawn as they are needed."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self._rest = iter(requests)
        self._next = next(self._rest, None)

    def __repr__(self) -> str:
        return f"<Scheduled next={self._next}>"

    @property
    def next_at(self) -> Seconds:
        """When the next one is due."""
        return inf if self._next is None else self._next.intended_s

    def take(self) -> Request:
        """Take it."""
        taken = self._next
        assert taken is not None
        self._next = next(self._rest, None)
        return taken

    def ended(self, request: Request, at: Seconds) -> None:
        """Do not mind."""


class Users:
    """A closed loop: each of N asks, waits for the answer, thinks, and asks again.

    As in a live run of one process: all ask first at t0, pauses are exponential with
    the plan's mean, lengths are taken in the order of asking and pauses in the order of
    answers, and nobody asks once the duration is over.
    """

    def __init__(self, plan: Plan, lengths: Iterator[tuple[Tokens, Tokens]]) -> None:
        self._plan = plan
        self._lengths = lengths
        self._think = Random(f"{plan.seed}/think/0")
        self._due = [0.0] * plan.users
        heapify(self._due)
        self._asked = 0

    def __repr__(self) -> str:
        return f"<Users {len(self._due)} of {self._plan.users} thinking>"

    @property
    def next_at(self) -> Seconds:
        """When the first of those who think will ask."""
        due = self._due[0] if self._due else inf
        return due if due < self._plan.duration_s else inf

    def take(self) -> Request:
        """Let that one ask."""
        request = request_of(
            self._plan, self._asked, heappop(self._due), next(self._lengths)
        )
        self._asked += 1
        return request

    def ended(self, request: Request, at: Seconds) -> None:  # noqa: ARG002 - any answer will do
        """Let the one who asked think, and ask again."""
        mean = self._plan.think_s
        heappush(self._due, at + (self._think.expovariate(1 / mean) if mean else 0.0))
