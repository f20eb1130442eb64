"""Flows in virtual time: local work takes the time that its step names.

A source whose requests have flows gives what the flows ask instead, when they ask it.
"""

from dataclasses import replace
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Final

from ..units import Seconds
from .flow import Answer, Ask, Course, Flows, Stages
from .request import Request
from .source import Source


class Coursing:
    """A source that follows the flows of another one's requests."""

    def __init__(self, source: Source, flows: Flows) -> None:
        self._source = source
        self._flows: Final = flows
        self._asked: list[tuple[Seconds, int, Request]] = []
        self._order = count()
        self._courses: dict[str, tuple[Request, Course]] = {}
        self._stages: dict[str, tuple[Stages, Stages]] = {}

    def __repr__(self) -> str:
        return f"<Coursing {len(self._courses)} flows of {self._source!r}>"

    @property
    def undue(self) -> int:
        """Requests of turns that will never be due."""
        return self._source.undue

    @property
    def next_at(self) -> Seconds:
        """When the next request is asked."""
        # What is due goes through its first local work before it is known when it asks.
        while self._source.next_at <= self._asked_at:
            due = self._source.next_at
            if due == inf:
                return inf
            request = self._source.take()
            course = Course(request, self._flows)
            self._go_on(request, course, due, None)
        return self._asked_at

    @property
    def _asked_at(self) -> Seconds:
        return self._asked[0][0] if self._asked else inf

    def take(self) -> Request:
        """Take it."""
        assert self.next_at < inf
        return heappop(self._asked)[2]

    def ended(self, request: Request, at: Seconds) -> None:
        """Let the flow go on that asked it."""
        planned, course = self._courses.pop(request.id)
        answer = Answer(ok=True, output_tokens=request.output_tokens)
        self._go_on(planned, course, at, answer, request)

    def stages_of(self, request: Request) -> tuple[Stages, Stages]:
        """Return the local work before and after a request that ended, once."""
        return self._stages.pop(request.id, ((), ()))

    def _go_on(
        self,
        planned: Request,
        course: Course,
        at: Seconds,
        came: Answer | None,
        before: Request | None = None,
    ) -> None:
        step = course.go_on(came)
        while step is not None and not isinstance(step, Ask):
            found = step.work()
            at += step.takes_s
            course.stages.append((step.stage, step.takes_s))
            step = course.go_on(found)
        stages = course.take_stages()
        if step is None:
            if before is not None and stages:
                first, _ = self._stages.get(before.id, ((), ()))
                self._stages[before.id] = first, stages
            self._source.ended(planned, at)
            return
        asked = step.request
        if asked.extra:
            asked = replace(asked, intended_s=at)
        self._courses[asked.id] = planned, course
        if stages:
            self._stages[asked.id] = stages, ()
        heappush(self._asked, (at, next(self._order), asked))
