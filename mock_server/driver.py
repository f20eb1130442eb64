"""The real-time driver: wake each engine when it is due, and write what its steps gave.

An engine says when its next step ends and never looks at a clock; a `Pump` sets one
timer for that absolute instant, so lateness never accumulates. A pump that wakes late
completes every step that is due, in order, before it writes: each stream then gets all
it is owed in one write, and a process short of CPU falls behind by a bounded time
instead of ever more. How late each step was is in the statistics; the emulated schedule
does not depend on it.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

from loadstone.engine.core import Engine
from loadstone.engine.fleet import Fleet
from loadstone.engine.sequence import Sequence, Step
from loadstone.engine.virtual import JournalEntry
from loadstone.observers import Observers
from loadstone.units import US, Seconds

from .sinks import Sink, Ticket
from .stats import EngineStats, ServerStats

TIMER_SLACK_S: Final[Seconds] = 1 * US
"""A timer may fire this early, by rounding; waking again for that would only spin."""


class Timers(Protocol):
    """What a pump needs of an event loop."""

    def time(self) -> float:
        """Return the loop's time, in seconds."""
        ...

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call back at an absolute time of the loop."""
        ...


class LoopClock:
    """Engine time: seconds since this clock was made, with its place in the epoch."""

    __slots__ = ("_epoch0", "_timers", "t0")

    def __init__(self, timers: Timers, epoch0: Seconds) -> None:
        self._timers = timers
        self.t0 = timers.time()
        self._epoch0 = epoch0

    def __repr__(self) -> str:
        return f"<LoopClock at {self.now():.6f}s>"

    def now(self) -> Seconds:
        """Return the instant, in seconds since the server's start."""
        return self._timers.time() - self.t0

    def epoch(self, instant: Seconds) -> Seconds:
        """Return `instant` in seconds since the epoch."""
        return self._epoch0 + instant


class Pump:
    """Drives one engine and hands its tokens to the sinks of its sequences."""

    def __init__(
        self, engine: Engine, stats: EngineStats, timers: Timers, clock: LoopClock
    ) -> None:
        self._engine = engine
        self._stats = stats
        self._timers = timers
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self.sinks: dict[Sequence, Sink] = {}
        """Of every request that is neither finished nor cancelled."""
        self._batch: dict[Sequence, Sink] = {}
        """Of those that stream and get a token in every step."""

    def __repr__(self) -> str:
        return (
            f"<Pump live={len(self.sinks)} streaming={len(self._batch)}"
            f" {self._engine!r}>"
        )

    def submit(self, sink: Sink, at: Seconds) -> Seconds:
        """Let the sink's sequence arrive at `at`; returns its effective stamp."""
        sequence = sink.ticket.sequence
        stamp = self._engine.submit(sequence, at)
        self.sinks[sequence] = sink
        self._arm()
        return stamp

    def cancel(self, sequence: Sequence, at: Seconds) -> Seconds | None:
        """Take a sequence out; returns the effective stamp, None if it had ended."""
        if self.sinks.pop(sequence, None) is None:
            return None
        self._batch.pop(sequence, None)
        stamp = self._engine.cancel(sequence, at)
        self._stats.finished["abort"] += 1
        self._arm()
        return stamp

    def stop(self) -> None:
        """Set no more timers until something is submitted."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        # What comes in cannot make an armed engine due earlier: it is inside a step, or
        # it waits for the first stamp of its inbox, and stamps only rise.
        due = self._engine.due
        if self._timer is None and due is not None:
            self._timer = self._timers.call_at(self._clock.t0 + due, self._wake)

    def _wake(self) -> None:
        self._timer = None
        try:
            self._catch_up(self._clock.now() + TIMER_SLACK_S)
        finally:
            self._arm()

    def _catch_up(self, horizon: Seconds) -> None:
        """Complete every step due by `horizon`, then write what streams are owed."""
        engine = self._engine
        done: list[Step] = []
        while (due := engine.due) is not None and due <= horizon:
            step = engine.step()
            if step is not None:
                self._apply(step)
                done.append(step)
        if not done:
            return
        index = done[-1].index
        for sink in self._batch.values():
            sink.write(index)
        now = self._clock.now()
        for step in done:
            self._stats.lag.add(max(0.0, now - step.end_s))

    def _apply(self, step: Step) -> None:
        """Follow who left and who joined; those who stay are written to later."""
        for sequence in step.preempted:
            sink = self._batch.pop(sequence, None)
            if sink is not None:
                sink.write(step.index - 1)
        for sequence in step.started:
            self._begin(sequence, step)
        for sequence in step.finished:
            self._end(sequence, step)
        self._stats.step(step)

    def _begin(self, sequence: Sequence, step: Step) -> None:
        sink = self.sinks.get(sequence)
        if sink is None:  # cancelled while the step ran
            return
        sink.begin(step.index)
        if sink.streams:
            self._batch[sequence] = sink
        if sequence.first_s == step.end_s:
            now, ticket = self._clock.now(), sink.ticket
            self._stats.first_token(
                sequence,
                now - ticket.received_s,
                operation=ticket.operation,
                at=self._clock.epoch(now),
                trace_id=ticket.trace_id,
            )

    def _end(self, sequence: Sequence, step: Step) -> None:
        sink = self.sinks.pop(sequence, None)
        if sink is None:
            return
        self._batch.pop(sequence, None)
        sink.end(step.index)
        now, ticket = self._clock.now(), sink.ticket
        self._stats.finish(
            sequence,
            ticket.answer.finish_reason,
            now - ticket.received_s,
            max_tokens=ticket.max_tokens,
            n=ticket.n,
            operation=ticket.operation,
            at=self._clock.epoch(now),
            trace_id=ticket.trace_id,
        )


class Driver:
    """Drives a fleet in real time; engine time 0 is when the driver was made.

    With a `journal` (a list to append to) every arrival and cancellation is recorded
    under its effective stamp, so that the run can be replayed in virtual time.
    """

    def __init__(
        self,
        fleet: Fleet,
        stats: ServerStats,
        timers: Timers,
        *,
        journal: list[JournalEntry] | None = None,
        observers: Observers | None = None,
    ) -> None:
        self.fleet = fleet
        self.stats = stats
        self.observers = observers or Observers(lambda *_: None)
        """Told what `mock_server.hooks` lists."""
        self.clock = LoopClock(timers, time.time())
        self._pumps = [
            Pump(engine, engine_stats, timers, self.clock)
            for engine, engine_stats in zip(fleet.engines, stats.engines, strict=True)
        ]
        self._journal = journal

    def __repr__(self) -> str:
        return f"<Driver at {self.clock.now():.3f}s live={self.live} {self.fleet!r}>"

    @property
    def live(self) -> int:
        """Requests that are neither finished nor cancelled."""
        return sum(len(pump.sinks) for pump in self._pumps)

    def submit(self, sink: Sink) -> None:
        """Route the sink's request to an engine, arriving now."""
        ticket = sink.ticket
        ticket.engine = self.fleet.route(ticket.sequence)
        stamp = self._pumps[ticket.engine].submit(sink, self.clock.now())
        self._note("submit", ticket, stamp)

    def cancel(self, ticket: Ticket) -> None:
        """Take a request out, as of now; one that ended or never began is left."""
        if ticket.engine < 0:
            return
        stamp = self._pumps[ticket.engine].cancel(ticket.sequence, self.clock.now())
        if stamp is not None:
            self._note("cancel", ticket, stamp)

    def abort(self) -> None:
        """End every live request without the rest of its answer."""
        for pump in self._pumps:
            for sink in pump.sinks.values():
                sink.abort()

    def stop(self) -> None:
        """Let go of the event loop's timers."""
        for pump in self._pumps:
            pump.stop()

    def _note(self, kind: str, ticket: Ticket, stamp: Seconds) -> None:
        if self._journal is not None:
            sequence = ticket.sequence
            entry = JournalEntry(
                kind, sequence.id, ticket.engine, stamp, sequence.prompt_tokens,
                sequence.output_tokens, sequence.max_output_tokens, sequence.priority,
                sequence.prefix_ids,
            )  # fmt: skip
            self._journal.append(entry)
