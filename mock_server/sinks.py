"""Where an answer goes: onto a connection token by token, or into one body.

A `StreamSink` bypasses the HTTP library's writer. The library sends the headers; from
then on the sink writes whole framed events to the transport, and its last write ends
the body. It is told steps, not tokens: a running sequence gets one token in each, so
which tokens are owed follows from the step's index, and a driver that woke late pays
them in one write.
"""

from asyncio import Future
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from loadstone.engine.sequence import Sequence
from loadstone.traffic.record import Truth
from loadstone.units import Seconds, Tokens
from loadstone.wire.answer import RING_MASK, Answer, FinishReason
from loadstone.wire.openai_error import ApiError
from loadstone.wire.openai_reply import Usage
from loadstone.wire.script import Script
from loadstone.wire.tokens import BYTES_PER_TOKEN, RING
from loadstone.wire.traceparent import TraceParent

from .stats import Operation

TEXT: Final = b"".join(RING) * 2
"""The filler, twice: a stretch of it that wraps is still one slice."""


class Wire(Protocol):
    """What a sink needs of a connection: an asyncio transport has it."""

    def write(self, data: bytes) -> None:
        """Send bytes."""
        ...

    def is_closing(self) -> bool:
        """Say whether nothing can be sent any more."""
        ...

    def get_write_buffer_size(self) -> int:
        """Return the bytes that the kernel has not taken yet."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class ServerClock(Protocol):
    """Tells engine time, and what an instant of it is on the clock of the world."""

    def now(self) -> Seconds:
        """Return the instant, in seconds since the server's start."""
        ...

    @property
    def lagging(self) -> bool:
        """Whether tokens are written late: the lag alarm."""
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
        scheduled, last = self.sequence.first_s, self.sequence.last_s
        return Truth(
            received_s=clock.epoch(self.received_s),
            scheduled_first_s=clock.epoch(
                first_sent if scheduled is None else scheduled
            ),
            first_sent_s=clock.epoch(first_sent),
            last_sent_s=clock.epoch(last_sent),
            engine=self.engine,
            slowdown=self.slowdown,
            scheduled_last_s=None if last is None else clock.epoch(last),
            lag_alarm=clock.lagging,
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
    """Whether it wants `write` from its `due` step on, every `interval` steps."""

    @property
    def due(self) -> int:
        """The step after which it next has an event to write."""
        ...

    def begin(self, step: int) -> None:
        """Take the token of `step`: the first one, or one after a preemption."""
        ...

    def write(self, step: int) -> None:
        """Write the events that are complete with the token of `step`."""
        ...

    def check(self) -> None:
        """Give up on a client that does not read; asked every now and then."""
        ...

    def hold(self, step: int) -> None:
        """Write as above; after `step`, no token comes until `begin`: a preemption."""
        ...

    def end(self, step: int) -> None:
        """Take what is owed up to `step`, which gave the last token."""
        ...

    def abort(self, error: ApiError) -> None:
        """End without the rest of the answer; tell why where that still can be."""
        ...


class StreamSink:
    """Writes an answer as server-sent events to `transport`.

    The first token is an event of its own, later ones share events of `interval`
    tokens, as under vLLM's `--stream-interval`, and the last event has what is left.

    A client that does not read lets the transport's buffer grow, as a real server's
    memory would; once it is above `limit_bytes` at a `check`, its connection is cut and
    `on_cut` called. Nothing is written to a closing transport.
    """

    __slots__ = (
        "_clock", "_first_sent_s", "_format", "_head", "_interval", "_limit", "_on_cut",
        "_owed", "_paid", "_shift", "_tail", "_transport", "_width", "ticket",
    )  # fmt: skip
    streams = True

    def __init__(
        self,
        ticket: Ticket,
        transport: Wire,
        form: StreamForm,
        *,
        clock: ServerClock,
        limit_bytes: int,
        on_cut: Callable[[], None],
        interval: Tokens = 1,
    ) -> None:
        self.ticket = ticket
        self._transport = transport
        self._format = form
        self._head, self._tail = _head_of(form.head, interval), form.tail
        self._interval = interval
        self._width = interval * BYTES_PER_TOKEN
        self._clock = clock
        self._limit = limit_bytes
        self._on_cut = on_cut
        self._first_sent_s: Seconds | None = None
        self._owed: Tokens = 0
        """Tokens it was given before its present stay in the batch, and not sent."""
        self._paid = 0
        """The step up to which its tokens are sent."""
        self._shift = ticket.answer.offset
        """Added to a step's index, the place of the next step's token on the ring."""

    def __repr__(self) -> str:
        return f"<StreamSink {self.ticket.sequence.id} paid to step {self._paid}>"

    @property
    def due(self) -> int:
        """The step after which it next has an event to write."""
        return self._paid + self._interval

    def begin(self, step: int) -> None:
        """Take the token of `step`; the first goes out with the role, in one write.

        If it is the last as well, it goes with all that closes the stream.
        """
        paid = step - 1 - self._owed
        self._shift += self._paid - paid
        self._paid = paid
        self._owed = 0
        if self._first_sent_s is None and self.ticket.answer.tokens > 1:
            data = self._format.opening + self._event(1)
            self._first_sent_s = self._clock.now()
            if not self._transport.is_closing():
                self._transport.write(data)

    def write(self, step: int) -> None:
        """Write the events that are complete: the hot path of the server."""
        # NOTE: a write is some 5 us, most of it the kernel's; each attribute is a cache
        # miss with ten thousand streams, each call 0.1 us. So whether the client reads
        # is asked in `check`, and `_event` is not used for what is usual.
        owed, interval, transport = step - self._paid, self._interval, self._transport
        if owed < interval or transport.is_closing():
            return
        if owed == interval:
            place = ((self._shift + self._paid) & RING_MASK) * BYTES_PER_TOKEN
            self._paid = step
            data = self._head + TEXT[place : place + self._width] + self._tail
        else:
            data = b"".join([self._event(interval) for _ in range(owed // interval)])
        transport.write(data)

    def check(self) -> None:
        """Cut the connection of a client that does not read."""
        transport = self._transport
        if (
            transport.get_write_buffer_size() > self._limit
            and not transport.is_closing()
        ):
            transport.abort()
            self._on_cut()

    def hold(self, step: int) -> None:
        """Write as above; the tokens left over wait for those to come."""
        self.write(step)
        self._owed = step - self._paid

    def end(self, step: int) -> None:
        """Write the last token and all that closes the stream, in one write."""
        now = self._clock.now()
        ticket = self.ticket
        if not self._transport.is_closing():
            self._transport.write(self._last(step, now))
        ticket.sent_s = now
        if not ticket.done.done():
            ticket.done.set_result(None)

    def _last(self, step: int, now: Seconds) -> bytes:
        events, rest = divmod(step - self._paid, self._interval)
        data = [self._format.opening] if self._first_sent_s is None else []
        data += [self._event(self._interval) for _ in range(events)]
        if rest:
            data.append(self._event(rest))
        ticket = self.ticket
        first = now if self._first_sent_s is None else self._first_sent_s
        truth = ticket.truth(self._clock, first, now)
        data.append(self._format.closing(ticket.answer.reason, ticket.usage(), truth))
        return b"".join(data)

    def abort(self, _: ApiError) -> None:
        """Cut the connection: a stream that stops half-way must not look complete."""
        self._transport.abort()

    def _event(self, tokens: Tokens) -> bytes:
        head = _head_of(self._format.head, tokens)
        place = ((self._shift + self._paid) & RING_MASK) * BYTES_PER_TOKEN
        self._paid += tokens
        return head + TEXT[place : place + tokens * BYTES_PER_TOKEN] + self._tail


class ScriptSink(StreamSink):
    """Writes an answer that is more than filler: a script makes its events."""

    __slots__ = ("_script",)

    def __init__(
        self,
        ticket: Ticket,
        transport: Wire,
        form: StreamForm,
        script: Script,
        *,
        clock: ServerClock,
        limit_bytes: int,
        on_cut: Callable[[], None],
        interval: Tokens = 1,
    ) -> None:
        super().__init__(
            ticket, transport, form, clock=clock, limit_bytes=limit_bytes,
            on_cut=on_cut, interval=interval,
        )  # fmt: skip
        self._script = script

    def write(self, step: int) -> None:
        """Write the events that are complete."""
        events = (step - self._paid) // self._interval
        if events > 0 and not self._transport.is_closing():
            self._transport.write(
                b"".join([self._event(self._interval) for _ in range(events)])
            )

    def _event(self, tokens: Tokens) -> bytes:
        self._paid += tokens
        return self._script.event(tokens)


def _head_of(head: bytes, tokens: Tokens) -> bytes:
    """Return the head of an event of `tokens`, given that of an event of one."""
    # A framed event begins with its length in hex; nothing else in it breaks a line so.
    size, framed, rest = head.partition(b"\r\n")
    if not framed or tokens == 1:
        return head
    return b"%x\r\n%b" % (int(size, 16) + (tokens - 1) * BYTES_PER_TOKEN, rest)


class CollectSink:
    """Waits for the whole answer; its handler then writes the body."""

    __slots__ = ("ticket",)
    streams = False
    due = 0

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket

    def __repr__(self) -> str:
        return f"<CollectSink {self.ticket.sequence.id}>"

    def begin(self, step: int) -> None:
        """Do nothing: the body has all tokens at once."""

    def write(self, step: int) -> None:
        """Do nothing: the body has all tokens at once."""

    def check(self) -> None:
        """Do nothing: until it is whole, there is nothing to read."""

    def hold(self, step: int) -> None:
        """Do nothing: the body has all tokens at once."""

    def end(self, step: int) -> None:  # noqa: ARG002 - a sink's signature
        """Let the handler write the body."""
        if not self.ticket.done.done():
            self.ticket.done.set_result(None)

    def abort(self, error: ApiError) -> None:
        """Let the handler answer with the error."""
        if not self.ticket.done.done():
            self.ticket.done.set_exception(error)
