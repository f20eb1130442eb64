"""How a request is asked where that is more than to send it: a generator of steps.

A flow is given the request that is due. It yields what is to be done and is sent what
came of it:

* `Local`: work on this side, such as a search in an index. It is sent what the work
  returned. It is timed, and is a stage of the row of the request that follows it; work
  after the last answer is a stage of that answer's row.
* `Ask`: send a request. It is sent the `Answer`. Each request asked is one row.

A flow neither waits nor looks at a clock, so that the same flow runs against an
endpoint and in virtual time, where local work takes the time that its step names.

    def looked_up(request: Request) -> Flow:
        found = yield Local("retrieve", lambda: search(request), takes_s=0.004)
        answer = yield Ask(replace(request, messages=found.messages))
        if not answer.ok:
            return
        yield Local("postprocess", lambda: check(answer.text), takes_s=0.001)
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any, NamedTuple, TypeAlias

from ..units import Seconds, Tokens
from .request import Request

Stages: TypeAlias = tuple[tuple[str, Seconds], ...]
"""Names and durations, in order."""


class Ask(NamedTuple):
    """Send a request; what a flow asks after the first is numbered."""

    request: Request


@dataclass(frozen=True, slots=True)
class Local:
    """Work on this side. `takes_s` is how long it takes in virtual time.

    In virtual time it is done all the same, since the flow needs what it returns.
    """

    stage: str
    work: Callable[[], Any]
    takes_s: Seconds = 0.0
    blocking: bool = True
    """Whether it may hold the thread; then a live run does it in another."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request that a flow asked. Virtual answers have no text."""

    ok: bool
    read: Callable[[], str] = str
    """Gives the text, which is joined only if it is wanted."""
    output_tokens: Tokens = 0

    @property
    def text(self) -> str:
        """The visible answer."""
        return self.read()


Step: TypeAlias = Ask | Local
Flow: TypeAlias = Generator[Step, Any, None]
Flows: TypeAlias = Mapping[str, Callable[[Request], Flow]]
"""Flows by the name that requests call them by."""


def plain(request: Request) -> Flow:
    """Send the request, and no more."""
    yield Ask(request)


class User:
    """Who asks, where a plan's file cannot say it: subclass it and write `ask`.

    A plan names it with `flow = "my_users.py:MyUser"`. There is one for each process.
    """

    def __init__(self, seed: int) -> None:
        """`seed` is the plan's."""
        self.seed = seed

    def rng(self, request: Request) -> Random:
        """Return a generator of the request's own, the same in every process."""
        return Random(f"{self.seed}/flow/{request.id}")

    def ask(self, request: Request) -> Flow:
        """Yield the steps for a request that is due; here, to send it."""
        yield Ask(request)


class Course:
    """One flow on its way: numbers what it asks and keeps the stages between."""

    def __init__(self, request: Request, flows: Flows) -> None:
        """Begin the flow that the request names; raises `KeyError` for none of it."""
        self._flow = flows[request.flow](request) if request.flow else plain(request)
        self._asked = 0
        self.stages: list[tuple[str, Seconds]] = []
        """Of the local work since the last request was asked."""

    def __repr__(self) -> str:
        return f"<Course of {self._asked} requests, {len(self.stages)} stages since>"

    def go_on(self, came: Any = None) -> Step | None:
        """Tell the flow what came of its last step; return the next one or None."""
        try:
            step = self._flow.send(came)
        except StopIteration:
            return None
        if isinstance(step, Ask):
            step = Ask(replace(step.request, extra=self._asked))
            self._asked += 1
        return step

    def take_stages(self) -> Stages:
        """Return the stages so far, and begin anew."""
        taken, self.stages = tuple(self.stages), []
        return taken

    def close(self) -> None:
        """Give it up."""
        self._flow.close()
