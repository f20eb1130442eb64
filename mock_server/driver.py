"""The real-time driver: wake each engine when it is due, and write what its steps gave.

An engine says when its next step ends and never looks at a clock; the `Agenda` sets one
timer for the engine that is due first, at that absolute instant, so lateness never
accumulates. A pump that wakes late completes every step that is due, in order, before
it writes: each stream then gets all it is owed in one write, and a process short of CPU
falls behind by a bounded time instead of ever more. How late each step was is in the
statistics; the emulated schedule does not depend on it.

Nothing staggers the engines on purpose: an idle engine starts at the stamp of its first
arrival, so even in a burst each starts one request's handling after another, and the
spread of their steps does the rest.
"""

import time
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final, Protocol

from loadstone.engine.core import Engine
from loadstone.engine.fleet import Fleet, NoEngineError
from loadstone.engine.sequence import Sequence, Step
from loadstone.engine.virtual import JournalEntry
from loadstone.observers import Observers
from loadstone.units import MS, US, Seconds, Tokens
from loadstone.wire.openai_error import ApiError

from .sinks import Sink, Ticket
from .stats import EngineStats, LagAlarm, ServerStats

TIMER_SLACK_S: Final[Seconds] = 1 * US
"""A timer may fire this early, by rounding; waking again for that would only spin."""
TICK_S: Final[Seconds] = 1 * MS
"""Two wakings are this far apart at least. Waking costs as much as two or three writes,
and 72 engines would ask for several in a millisecond; epoll cannot wait for less."""

LOST: Final = ApiError.unavailable(
    "The engine that served this request was lost.", "engine_lost"
)
_STOPPING: Final = ApiError.unavailable("The server is shutting down.")

CHECK_EVERY: Final = 16
"""Wakings of an engine between two looks at whether its clients read."""


class Timer(Protocol):
    """A callback that is still to come."""

    def cancel(self) -> None:
        """Never call back."""
        ...


class Timers(Protocol):
    """What a driver needs of an event loop."""

    def time(self) -> float:
        """Return the loop's time, in seconds."""
        ...

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call back at an absolute time of the loop."""
        ...


class LoopClock:
    """Engine time: seconds since this clock was made, with its place in the epoch."""

    __slots__ = ("_alarm", "_epoch0", "_timers", "t0")

    def __init__(self, timers: Timers, epoch0: Seconds, alarm: LagAlarm) -> None:
        self._timers = timers
        self._alarm = alarm
        self.t0 = timers.time()
        self._epoch0 = epoch0

    def __repr__(self) -> str:
        return f"<LoopClock at {self.now():.6f}s>"

    def now(self) -> Seconds:
        """Return the instant, in seconds since the server's start."""
        return self._timers.time() - self.t0

    @property
    def lagging(self) -> bool:
        """Whether tokens are written late: the lag alarm."""
        return self._alarm.on

    def epoch(self, instant: Seconds) -> Seconds:
        """Return `instant` in seconds since the epoch."""
        return self._epoch0 + instant


class Agenda:
    """When each pump is due, and the one timer for the first of them."""

    def __init__(self, timers: Timers, clock: LoopClock, tick_s: Seconds) -> None:
        self._timers = timers
        self._clock = clock
        self._tick_s = tick_s
        self._heap: list[tuple[Seconds, int, Pump]] = []
        self._timer: Timer | None = None
        self._set_for: Seconds = 0.0
        self._woke: Seconds = -tick_s

    def __repr__(self) -> str:
        return f"<Agenda of {len(self._heap)} pumps>"

    def add(self, pump: "Pump") -> None:
        """Wake a pump when its engine is due; it must not be on the agenda yet."""
        self._push(pump)
        self._arm()

    def settle(self) -> None:
        """Wake the pumps now if the timer for them is late."""
        if self._timer is not None and self._clock.now() > self._set_for:
            self._timer.cancel()
            self._wake()

    def stop(self) -> None:
        """Set no more timers until something is added."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _push(self, pump: "Pump") -> None:
        due = pump.due
        pump.awaited = due is not None
        if due is not None:
            heappush(self._heap, (due, pump.index, pump))

    def _arm(self) -> None:
        if not self._heap:
            return
        due = max(self._heap[0][0], self._woke + self._tick_s)
        if self._timer is not None:
            if due >= self._set_for:
                return
            self._timer.cancel()
        self._set_for = due
        self._timer = self._timers.call_at(self._clock.t0 + due, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._woke = self._clock.now()
        horizon = self._woke + TIMER_SLACK_S
        heap = self._heap
        try:
            while heap and heap[0][0] <= horizon:
                pump = heappop(heap)[2]
                try:
                    pump.catch_up(horizon)
                finally:
                    self._push(pump)
        finally:
            self._arm()


class Pump:
    """Drives one engine and hands its tokens to the sinks of its sequences.

    Streams are written to every `interval` steps, each in the slot of its own phase, so
    that a step touches only those that it gives something to write.
    """

    def __init__(
        self,
        index: int,
        engine: Engine,
        stats: EngineStats,
        agenda: Agenda,
        clock: LoopClock,
        *,
        interval: Tokens = 1,
    ) -> None:
        self.index = index
        self._engine = engine
        self._stats = stats
        self._agenda = agenda
        self._clock = clock
        self.awaited = False
        """Whether it is on the agenda."""
        self.sinks: dict[Sequence, Sink] = {}
        """Of every request that is neither finished nor cancelled."""
        self._slots: list[dict[Sequence, Sink]] = [{} for _ in range(interval)]
        """Of those that stream, by the steps (modulo the interval) they write at."""

    def __repr__(self) -> str:
        streaming = sum(map(len, self._slots))
        return f"<Pump live={len(self.sinks)} streaming={streaming} {self._engine!r}>"

    @property
    def due(self) -> Seconds | None:
        """When its engine is due, None while that has nothing to do."""
        return self._engine.due

    def submit(self, sink: Sink, at: Seconds) -> Seconds:
        """Let the sink's sequence arrive at `at`; returns its effective stamp."""
        sequence = sink.ticket.sequence
        stamp = self._engine.submit(sequence, at)
        self.sinks[sequence] = sink
        self._expect()
        return stamp

    def cancel(self, sequence: Sequence, at: Seconds) -> Seconds | None:
        """Take a sequence out; returns the effective stamp, None if it had ended."""
        sink = self.sinks.pop(sequence, None)
        if sink is None:
            return None
        self._slot(sink).pop(sequence, None)
        stamp = self._engine.cancel(sequence, at)
        self._stats.finished["abort"] += 1
        self._expect()
        return stamp

    def let_go(self, at: Seconds) -> list[tuple[Sink, Tokens, Seconds]]:
        """Give up all requests, as of `at`, when every step due by then is complete.

        Returns their sinks, the tokens each was given, and the stamps under which the
        engine lets their sequences go.
        """
        self.catch_up(at)
        engine = self._engine
        gone = []
        for sequence, sink in self.sinks.items():
            if self._slot(sink).pop(sequence, None) is not None:
                sink.hold(engine.clock)
            given = engine.given(sequence)
            gone.append((sink, given, engine.cancel(sequence, at)))
        self.sinks.clear()
        self._expect()
        return gone

    def restart(self, at: Seconds) -> Seconds:
        """Let the engine come up with empty KV; returns the effective stamp."""
        stamp = self._engine.restart(at)
        self._expect()
        return stamp

    def pace(self, factor: float, at: Seconds) -> Seconds:
        """Let the engine's steps take `factor` times as long; returns the stamp."""
        stamp = self._engine.pace(factor, at)
        self._expect()
        return stamp

    def count_lost(self) -> None:
        """Count a request that ended with its engine."""
        self._stats.finished["error"] += 1

    def _expect(self) -> None:
        # What comes in cannot make an awaited engine due earlier: it is inside a step,
        # or it waits for the first stamp of its inbox, and stamps only rise.
        if not self.awaited:
            self._agenda.add(self)

    def _slot(self, sink: Sink) -> dict[Sequence, Sink]:
        return self._slots[sink.due % len(self._slots)]

    def catch_up(self, horizon: Seconds) -> None:
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
        slots, clock = self._slots, done[-1].clock
        # One write settles all that a stream is owed: each slot's last turn will do.
        begun = max(done[0].clock - done[0].advance, clock - len(slots))
        for turn in range(begun + 1, clock + 1):
            for sink in slots[turn % len(slots)].values():
                sink.write(turn)
        now = self._clock.now()
        for step in done:
            self._stats.written(step, max(0.0, now - step.end_s))
        self._stats.wakings += 1
        if self._stats.wakings % CHECK_EVERY == 0:
            for slot in slots:
                for sink in slot.values():
                    sink.check()

    def _apply(self, step: Step) -> None:
        """Follow who left and who joined; those who stay are written to later."""
        for sequence in step.preempted:
            sink = self.sinks.get(sequence)
            if sink is not None:
                self._slot(sink).pop(sequence, None)
                sink.hold(step.clock - step.advance)
        for sequence in step.started:
            self._begin(sequence, step)
        for sequence in step.finished:
            self._end(sequence)
        self._stats.step(step)

    def _begin(self, sequence: Sequence, step: Step) -> None:
        sink = self.sinks.get(sequence)
        if sink is None:  # cancelled while the step ran
            return
        sink.begin(step.clock)
        if sink.streams:
            self._slot(sink)[sequence] = sink
        if sequence.first_s == step.end_s:
            now, ticket = self._clock.now(), sink.ticket
            self._stats.first_token(
                sequence,
                now - ticket.received_s,
                operation=ticket.operation,
                at=self._clock.epoch(now),
                trace_id=ticket.trace_id,
            )

    def _end(self, sequence: Sequence) -> None:
        sink = self.sinks.pop(sequence, None)
        if sink is None:
            return
        self._slot(sink).pop(sequence, None)
        sink.end(sequence.last_clock)
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
        interval: Tokens = 1,
        tick_s: Seconds = TICK_S,
        journal: list[JournalEntry] | None = None,
        observers: Observers | None = None,
    ) -> None:
        self.fleet = fleet
        self.stats = stats
        self.observers = observers or Observers(lambda *_: None)
        """Told what `mock_server.hooks` lists."""
        self.clock = LoopClock(timers, time.time(), stats.lag_alarm)
        self.interval = interval
        """Tokens of an event, after the first: the sinks' too."""
        self._timers = timers
        self._agenda = Agenda(timers, self.clock, tick_s)
        parts = zip(fleet.engines, stats.engines, strict=True)
        self._pumps = [
            Pump(index, *part, self._agenda, self.clock, interval=interval)
            for index, part in enumerate(parts)
        ]
        self._journal = journal

    def __repr__(self) -> str:
        return f"<Driver at {self.clock.now():.3f}s live={self.live} {self.fleet!r}>"

    @property
    def live(self) -> int:
        """Requests that are neither finished nor cancelled."""
        return sum(len(pump.sinks) for pump in self._pumps)

    def settle(self) -> None:
        """Write what is already due; to be called before anything that takes its time.

        The event loop runs what it has read before timers that have come due meanwhile:
        without this, a burst of requests is handled whole before the next token goes.
        """
        self._agenda.settle()

    def submit(self, sink: Sink) -> None:
        """Route the sink's request to an engine, arriving now.

        If there is none, it is told so as an answer that breaks off is.
        """
        ticket = sink.ticket
        try:
            index = self.fleet.route(ticket.sequence)
        except NoEngineError:
            sink.abort(LOST)
            return
        ticket.engine = self.fleet.first + index
        stamp = self._pumps[index].submit(sink, self.clock.now())
        self._note("submit", ticket, stamp)

    def cancel(self, ticket: Ticket) -> None:
        """Take a request out, as of now; one that ended or never began is left."""
        if ticket.engine < 0:
            return
        index = ticket.engine - self.fleet.first
        stamp = self._pumps[index].cancel(ticket.sequence, self.clock.now())
        if stamp is not None:
            self._note("cancel", ticket, stamp)

    def lose(self, index: int, moves: Callable[[Sequence], bool]) -> None:
        """Lose an engine with its KV; nothing is routed to it until `restore`.

        A request that `moves` goes on at another engine, which computes what it had
        again; the others break off. The step that the engine was in is counted as it
        was planned, though nobody got its tokens.
        """
        now, pump = self.clock.now(), self._pumps[index]
        self.fleet.mark(index, up=False)
        gone = pump.let_go(now)
        for sink, _, stamp in gone:
            self._note("cancel", sink.ticket, stamp)
        self._note_machine("restart", index, pump.restart(now))
        for sink, given, _ in gone:
            old = sink.ticket.sequence
            if moves(old) and self.fleet.up:
                sink.ticket.sequence = old.moved(given)
                self.submit(sink)
                # Its queue time began when the client asked.
                sink.ticket.sequence.arrived_s = old.arrived_s
            else:
                pump.count_lost()
                sink.abort(LOST)

    def restore(self, index: int) -> None:
        """Route to an engine again."""
        self.fleet.mark(index, up=True)

    def pace(self, index: int, factor: float) -> None:
        """Let the steps of an engine take `factor` times as long from now on."""
        stamp = self._pumps[index].pace(factor, self.clock.now())
        self._note_machine("pace", index, stamp, factor)

    def abort(self) -> None:
        """End every live request without the rest of its answer."""
        for pump in self._pumps:
            for sink in pump.sinks.values():
                sink.abort(_STOPPING)

    def call_at(self, instant: Seconds, callback: Callable[[], None]) -> Timer:
        """Call back at an instant of engine time."""
        return self._timers.call_at(self.clock.t0 + instant, callback)

    def stop(self) -> None:
        """Let go of the event loop's timers."""
        self._agenda.stop()

    def _note(self, kind: str, ticket: Ticket, stamp: Seconds) -> None:
        if self._journal is not None:
            entry = JournalEntry.of(kind, ticket.engine, ticket.sequence, stamp)
            self._journal.append(entry)

    def _note_machine(
        self, kind: str, index: int, stamp: Seconds, factor: float = 1.0
    ) -> None:
        if self._journal is not None:
            self._journal.append(JournalEntry.of_machine(kind, index, stamp, factor))
