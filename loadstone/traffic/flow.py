"""How a request is asked where that is more than to send it: a generator of steps.

A flow is given the request that is due. It yields what is to be done and is sent what
came of it:

* `Local`: work on this side, such as a search in an index. It is sent what the work
  returned.
* `Ask`: send a request. It is sent the `Answer`. Each request asked is one row: the
  first that is not `beside` is the request which is due, the others are beside it.

What it returns goes into the row of the request that is due: `hits`, `recall`. If it
does local work that row has its stages, one for each step, local or asked, and is then
about all of it: sent when the first stage began, ended when the last one did. Stages
leave no gap, so that they add up to the row's `e2e_s`. A flow that cannot go on raises
`LoadstoneError`: the request has failed, by the error's code.

A flow neither waits nor looks at a clock, so that the same flow runs against an
endpoint and in virtual time, where local work takes the time that its step names.

    def looked_up(request: Request) -> Flow:
        found = yield Local("retrieve", lambda: search(request), takes_s=0.004)
        answer = yield Ask(request.but(messages=found.messages))
        if answer.ok:
            yield Local("postprocess", lambda: check(answer.text), takes_s=0.001)
        return {"hits": len(found)}
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple, TypeAlias

import msgspec

from ..units import Seconds, Tokens
from .record import RequestRecord
from .request import Request


class Ask(NamedTuple):
    """Send a request: the one that is due, or one `beside` it, which is numbered."""

    request: Request
    beside: bool = False

    @property
    def stage(self) -> str:
        """What its time is a stage of."""
        return self.request.stage


@dataclass(frozen=True, slots=True)
class Local:
    """Work on this side. `takes_s` is how long it takes in virtual time.

    In virtual time it is done all the same, since the flow needs what it returns.
    """

    stage: str
    work: Callable[[], Any]
    takes_s: Seconds = 0.0
    blocking: bool = True
    """Whether it may hold the thread; then a live run does it in another. What has no
    need of that is quicker without, and does not wait for a free thread."""


class Answer(msgspec.Struct, frozen=True):
    """What came of a request that a flow asked. Virtual answers have no text."""

    ok: bool
    read: Callable[[], str] = str
    """Gives the text, which is joined only if it is wanted."""
    output_tokens: Tokens = 0
    body: bytes = b""
    """What came, if it was not a stream; empty in virtual time."""

    @property
    def text(self) -> str:
        """The visible answer."""
        return self.read()


Step: TypeAlias = Ask | Local
Told: TypeAlias = Mapping[str, Any]
"""Fields of the row of the request that is due."""
Flow: TypeAlias = Generator[Step, Any, Told | None]
Flows: TypeAlias = Mapping[str, Callable[[Request], Flow]]
"""Flows by the name that requests call them by."""


def plain(request: Request) -> Flow:
    """Send the request, and no more."""
    yield Ask(request)
    return None


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
        return None


class Course:
    """One flow on its way: numbers what it asks, and stamps where its stages end."""

    def __init__(self, request: Request, flows: Flows, at: Seconds) -> None:
        """Begin the flow that the request names; raises `KeyError` for none of it."""
        self._flow = flows[request.flow](request) if request.flow else plain(request)
        self._beside = 0
        self._asked = False
        """Whether the request that is due was asked: what follows is beside it."""
        self._began = self._stamp = at
        self._stages: list[tuple[str, Seconds]] = []
        self._staged = False
        self._told: Told = {}

    def __repr__(self) -> str:
        return f"<Course after {len(self._stages)} stages>"

    def go_on(self, came: Any = None) -> Step | None:
        """Tell the flow what came of its last step; return the next one or None."""
        try:
            step = self._flow.send(came)
        except StopIteration as end:
            self._told = end.value or {}
            return None
        if isinstance(step, Local):
            self._staged = True
        elif step.beside or self._asked:
            self._beside += 1
            step = Ask(step.request.but(extra=self._beside), beside=True)
        else:
            self._asked = True
        return step

    def passed(self, step: Step, at: Seconds) -> None:
        """Note that a step ended; the next stage begins at the same instant."""
        self._stages.append((step.stage, at - self._stamp))
        self._stamp = at

    def whole(self, row: RequestRecord) -> RequestRecord:
        """Return the row of the request that is due, made about all of the flow."""
        if self._staged:
            row = row.but(
                sent_s=self._began, end_s=self._stamp, stages=tuple(self._stages)
            )
        return row.but(**self._told) if self._told else row

    def close(self) -> None:
        """Give it up."""
        self._flow.close()
