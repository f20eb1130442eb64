"""Where an answer goes: onto a connection token by token, or into one body.

A `StreamSink` bypasses the HTTP library's writer. The library sends the headers; from
then on the sink writes whole framed events to the transport, and its last write ends
the body. It is told steps, not tokens: a running sequence gets one token in each, so
which tokens are owed follows from the step's index, and a driver that woke late pays
them in one write.
"""

from asyncio import Future, Transport
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from loadstone.engine.sequence import Sequence
from loadstone.traffic.record import Truth
from loadstone.units import Seconds, Tokens
from loadstone.wire.answer import RING_MASK, Answer, FinishReason
from loadstone.wire.openai_error import ApiError
from loadstone.wire.openai_reply import Usage
from loadstone.wire.script import Script
from loadstone.wire.tokens import RING
from loadstone.wire.traceparent import TraceParent

from .stats import Operation


class ServerClock(Protocol):
    """Tells engine time, and what an instant of it is on the clock of the world."""

    def now(self) -> Seconds:
        """Return the instant, in seconds since the server's start."""
        ...

    def epoch(self, instant: Seconds) -> Seconds:
        """Return `instant` in seconds since the epoch."""
        ...


@dataclass(slots=True, eq=False, kw_only=True)
class Ticket:
    """A request while it is served, whichever way it is answered.

    `received_s` is the engine time at which its handler began; `engine` is set when it
    is routed. `done` gets its result when the last token was given. `max_tokens` is
    what the answer might have had, for the statistics; `parent` is the caller's span.
    """

    sequence: Sequence
    answer: Answer
    received_s: Seconds
    done: Future[None]
    slowdown: float = 1.0
    wants_truth: bool = False
    engine: int = -1
    max_tokens: Tokens = 0
    n: int = 1
    """How many answers its request has, if this is the longest; else 0."""
    operation: Operation = "chat"
    parent: TraceParent | None = None
    sent_s: Seconds | None = None
    """When the end of its stream was handed to the kernel."""

    @property
    def trace_id(self) -> str | None:
        """The caller's trace, if it is recorded: the statistics' exemplar."""
        return self.parent.trace_hex if self.parent and self.parent.sampled else None

    def usage(self) -> Usage:
        """Return the token counts of the whole answer."""
        return Usage(
            self.sequence.prompt_tokens,
            self.answer.tokens,
            self.sequence.cached_tokens or 0,
            self.answer.reasoning_tokens,
        )

    def truth(
        self, clock: ServerClock, first_sent: Seconds, last_sent: Seconds
    ) -> Truth | None:
        """Return the stamps on the world's clock, None if they were not asked for."""
        if not self.wants_truth:
            return None
        scheduled = self.sequence.first_s
        return Truth(
            received_s=clock.epoch(self.received_s),
            scheduled_first_s=clock.epoch(
                first_sent if scheduled is None else scheduled
            ),
            first_sent_s=clock.epoch(first_sent),
            last_sent_s=clock.epoch(last_sent),
            engine=self.engine,
            slowdown=self.slowdown,
        )


class StreamForm(Protocol):
    """The bytes around the events of one answer.

    `opening` goes out with the first token; a token of filler is `head + token + tail`.
    """

    @property
    def opening(self) -> bytes:
        """What comes before the first token."""
        ...

    @property
    def head(self) -> bytes:
        """What stands before a token of filler."""
        ...

    @property
    def tail(self) -> bytes:
        """What stands behind it."""
        ...

    def closing(self, reason: FinishReason, usage: Usage, truth: Truth | None) -> bytes:
        """Write what follows the last token."""
        ...


class Sink(Protocol):
    """Takes one answer. Calls come in the order of the engine's steps."""

    ticket: Ticket
    streams: bool
    """Whether it wants `write` after every step it is in."""

    def begin(self, step: int) -> None:
        """Take the token of `step`: the first one, or one after a preemption."""
        ...

    def write(self, step: int) -> None:
        """Take every token owed, up to the one of `step`."""
        ...

    def end(self, step: int) -> None:
        """Take what is owed up to `step`, which gave the last token."""
        ...

    def abort(self) -> None:
        """End without the rest of the answer, because the server stops."""
        ...


class StreamSink:
    """Writes an answer as server-sent events to `transport`.

    An answer that is more than filler has a `script`, which makes its events.

    A client that does not read lets the transport's buffer grow; above `limit_bytes`
    its connection is cut and `on_cut` called. Nothing is written to a closing
    transport.
    """

    __slots__ = (
        "_clock", "_first_sent_s", "_format", "_head", "_limit", "_next", "_on_cut",
        "_script", "_shift", "_tail", "_transport", "ticket",
    )  # fmt: skip
    streams = True

    def __init__(
        self,
        ticket: Ticket,
        transport: Transport,
        form: StreamForm,
        *,
        clock: ServerClock,
        limit_bytes: int,
        on_cut: Callable[[], None],
        script: Script | None = None,
    ) -> None:
        self.ticket = ticket
        self._script = script
        self._transport = transport
        self._format = form
        self._head, self._tail = form.head, form.tail
        self._clock = clock
        self._limit = limit_bytes
        self._on_cut = on_cut
        self._first_sent_s: Seconds | None = None
        self._next = 0
        """The step whose token is owed next."""
        self._shift = ticket.answer.offset
        """Added to a step's index it gives the place of its token on the ring."""

    def __repr__(self) -> str:
        return f"<StreamSink {self.ticket.sequence.id} next step {self._next}>"

    def begin(self, step: int) -> None:
        """Take the token of `step`; the first goes out with the role, in one write."""
        self._shift += self._next - step
        self._next = step
        if self._first_sent_s is not None:
            self.write(step)
            return
        self._next = step + 1
        data = self._format.opening + self._events(step, step + 1)
        self._first_sent_s = self._clock.now()
        if not self._transport.is_closing():
            self._transport.write(data)

    def write(self, step: int) -> None:
        """Write every token owed, up to that of `step`: the hot path of the server."""
        transport = self._transport
        if step < self._next or transport.is_closing():
            return
        if transport.get_write_buffer_size() > self._limit:
            transport.abort()
            self._on_cut()
            return
        if step == self._next and self._script is None:
            # NOTE: not `_events`, which takes 0.4 us more; an event is 4-5 us in all.
            data = self._head + RING[(self._shift + step) & RING_MASK] + self._tail
        else:
            data = self._events(self._next, step + 1)
        self._next = step + 1
        transport.write(data)

    def end(self, step: int) -> None:
        """Write the last token and all that closes the stream, in one write."""
        owed = self._events(self._next, step + 1)
        self._next = step + 1
        now = self._clock.now()
        ticket = self.ticket
        first = now if self._first_sent_s is None else self._first_sent_s
        truth = ticket.truth(self._clock, first, now)
        closing = self._format.closing(ticket.answer.reason, ticket.usage(), truth)
        if not self._transport.is_closing():
            self._transport.write(owed + closing)
        ticket.sent_s = now
        if not ticket.done.done():
            ticket.done.set_result(None)

    def abort(self) -> None:
        """Cut the connection: a stream that stops half-way must not look complete."""
        self._transport.abort()

    def _events(self, start: int, stop: int) -> bytes:
        if self._script is not None:
            return b"".join([self._script.event(1) for _ in range(start, stop)])
        head, tail, shift = self._head, self._tail, self._shift
        return b"".join(
            [head + RING[(shift + n) & RING_MASK] + tail for n in range(start, stop)]
        )


class CollectSink:
    """Waits for the whole answer; its handler then writes the body."""

    __slots__ = ("ticket",)
    streams = False

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket

    def __repr__(self) -> str:
        return f"<CollectSink {self.ticket.sequence.id}>"

    def begin(self, step: int) -> None:
        """Do nothing: the body has all tokens at once."""

    def write(self, step: int) -> None:
        """Do nothing: the body has all tokens at once."""

    def end(self, step: int) -> None:  # noqa: ARG002 - a sink's signature
        """Let the handler write the body."""
        if not self.ticket.done.done():
            self.ticket.done.set_result(None)

    def abort(self) -> None:
        """Let the handler answer that the server stops."""
        if not self.ticket.done.done():
            self.ticket.done.set_exception(
                ApiError(
                    "The server is shutting down.", status=503, kind="server_error"
                )
            )
