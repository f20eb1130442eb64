"""Flows in virtual time: local work takes the time that its step names.

A source whose requests have flows gives what the flows ask instead, when they ask it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Final

from ..units import Seconds
from .flow import Answer, Ask, Course, Flows, Step
from .record import RequestRecord
from .request import Request
from .source import Source


class Coursing:
    """A source that follows the flows of another one's requests."""

    def __init__(self, source: Source, flows: Flows) -> None:
        self._source = source
        self._flows: Final = flows
        self._asked: list[tuple[Seconds, int, Request]] = []
        self._order = count()
        self._courses: dict[str, _Under] = {}

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
            course = Course(request, self._flows, due)
            self._go_on(_Under(request, course), due, None)
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
        under = self._courses[request.id]
        under.passed(at)
        answer = Answer(ok=True, output_tokens=request.output_tokens)
        self._go_on(under, at, answer)

    def rows(self, request: Request, row: RequestRecord) -> Iterator[RequestRecord]:
        """Give the rows that are final, now that one of a request is there.

        That of the request that was due waits for the end of its flow.
        """
        under = self._courses.pop(request.id)
        if request.extra:
            # An embedding is a prefill; the token that the engine gave is no output.
            tokens = 0 if request.kind == "embed" else row.output_tokens
            yield row.but(beside=True, output_tokens=tokens)
        else:
            under.row = row
        if not row.ok:
            # The run is over, and nothing of the flow follows.
            under.passed(row.end_s)
            under.over = True
            under.row = under.row or _named(row, under.due)
        if under.over and under.row is not None:
            yield under.course.whole(under.row)
            under.row = None

    def _go_on(self, under: "_Under", at: Seconds, came: Answer | None) -> None:
        step = under.course.go_on(came)
        while step is not None and not isinstance(step, Ask):
            found = step.work()
            at += step.takes_s
            under.course.passed(step, at)
            step = under.course.go_on(found)
        if step is None:
            under.over = True
            self._source.ended(under.due, at)
            return
        asked = step.request
        if asked.extra:
            asked = asked.but(intended_s=at)
        under.step = step
        self._courses[asked.id] = under
        heappush(self._asked, (at, next(self._order), asked))


@dataclass(slots=True)
class _Under:
    """A flow under way."""

    due: Request
    course: Course
    step: Step | None = None
    """What it waits for, once it has asked for something."""
    over: bool = False
    row: RequestRecord | None = None
    """Of the request that was due."""

    def passed(self, at: Seconds) -> None:
        """Note that what it waits for ended."""
        assert self.step is not None
        self.course.passed(self.step, at)


def _named(row: RequestRecord, due: Request) -> RequestRecord:
    """Return the row of a request that was never asked, ended as another one did."""
    return row.but(
        id=due.id, stage=due.stage, intended_s=due.intended_s,
        asked_input_tokens=due.input_tokens, asked_output_tokens=due.output_tokens,
    )  # fmt: skip
