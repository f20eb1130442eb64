"""The driver under a hand-moved clock: who gets which token, however late it wakes."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loadstone.engine.fleet import Fleet
from loadstone.engine.sequence import Sequence
from loadstone.engine.virtual import JournalEntry, replay
from loadstone.physics.speculation import Speculation
from loadstone.wire.openai_reply import ReplyFormat, Usage
from loadstone.wire.tokens import RING
from mock_server.driver import CHECK_EVERY, Driver
from mock_server.filler import RING_MASK, Answer
from mock_server.sinks import CollectSink, StreamSink, Ticket
from mock_server.stats import ServerStats

Maker = Callable[..., Any]
FORM = ReplyFormat("x", 1, "m").stream(include_usage=False)
STEP_S = 0.01


class Wire(asyncio.Transport):
    """A transport that keeps what is written, and buffers what the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.buffered = 0
        self.closing = False

    def write(self, data: Any) -> None:
        """Keep the data."""
        assert not self.closing
        self.writes.append(data)

    def get_write_buffer_size(self) -> int:
        """Return what the test set."""
        return self.buffered

    def is_closing(self) -> bool:
        """Return whether it was aborted."""
        return self.closing

    def abort(self) -> None:
        """Close at once."""
        self.closing = True


class Rig:
    """A driver on a hand-moved loop, and the streams it was given."""

    def __init__(
        self, fleet: Fleet, loop: Any, futures: Maker, interval: int = 1
    ) -> None:
        self.fleet = fleet
        self.loop = loop
        self.stats = ServerStats(len(fleet.engines))
        self.journal: list[JournalEntry] = []
        self.driver = Driver(
            fleet, self.stats, loop, interval=interval, journal=self.journal
        )
        self.cuts = 0
        self._futures = futures

    def ticket(self, tokens: int, prompt: int, offset: int = 0) -> Ticket:
        """Make the ticket of a request for `tokens` tokens, received now."""
        return Ticket(
            sequence=Sequence(f"r{len(self.journal)}", prompt, tokens),
            answer=Answer(offset, tokens, "length"),
            received_s=self.driver.clock.now(),
            done=self._futures(),
        )

    def stream(
        self, tokens: int, prompt: int = 8, offset: int = 0
    ) -> tuple[Ticket, Wire]:
        """Submit a stream."""
        ticket, wire = self.ticket(tokens, prompt, offset), Wire()
        sink = StreamSink(
            ticket,
            wire,
            FORM,
            clock=self.driver.clock,
            limit_bytes=1000,
            on_cut=self._cut,
            interval=self.driver.interval,
        )
        self.driver.submit(sink)
        return ticket, wire

    def at(self, seconds: float) -> None:
        """Jump to an engine time."""
        self.loop.move_to(self.driver.clock.t0 + seconds)

    def _cut(self) -> None:
        self.cuts += 1


@pytest.fixture
def rig(fleet_of: Maker, hand_loop: Any, futures: Maker) -> Maker:
    """Give a maker of rigs with steps of 10 ms."""
    return lambda interval=1, **limits: Rig(
        fleet_of(step_ms=STEP_S * 1e3, **limits), hand_loop, futures, interval
    )


def whole(tokens: int, offset: int = 0, interval: int = 1) -> bytes:
    """Return the bytes of a complete stream of filler from `offset`."""
    ring = [RING[(offset + i) & RING_MASK] for i in range(tokens)]
    later = range(1, tokens, interval)
    texts = [ring[0], *(b"".join(ring[i : i + interval]) for i in later)]
    size, _, head = FORM.head.partition(b"\r\n")
    longer = int(size, 16) - len(ring[0])
    events = (
        b"%x\r\n%b%b%b" % (longer + len(text), head, text, FORM.tail) for text in texts
    )
    return FORM.opening + b"".join(events) + closing(tokens)


def closing(tokens: int, prompt: int = 8) -> bytes:
    """Return the bytes that close a stream."""
    return FORM.closing("length", Usage(prompt, tokens), None)


def test_a_stream_is_one_write_per_token(rig: Maker) -> None:
    """The role goes with the first token, and all that closes goes with the last."""
    r = rig()
    ticket, wire = r.stream(4, offset=RING_MASK)
    r.loop.run()
    assert len(wire.writes) == 4
    assert b"".join(wire.writes) == whole(4, offset=RING_MASK)
    assert wire.writes[0].startswith(FORM.opening)
    assert wire.writes[-1].endswith(closing(4))
    assert ticket.done.done()
    assert r.driver.live == 0


def test_a_single_token_answer_is_whole(rig: Maker) -> None:
    """First and last token may be the same: role, token and end are one write."""
    r = rig()
    _, wire = r.stream(1)
    r.loop.run()
    assert wire.writes == [whole(1)]


def test_a_late_driver_pays_all_it_owes_in_one_write(rig: Maker) -> None:
    """Five steps are due at once: one write of five tokens, and a lag for each."""
    r = rig()
    _, wire = r.stream(100)
    r.at(STEP_S)
    assert len(wire.writes) == 1
    r.at(6 * STEP_S)
    assert len(wire.writes) == 2
    assert wire.writes[1].count(FORM.head) == 5
    lag = r.stats.engines[0].lag
    assert lag.count == 6
    assert lag.total == pytest.approx((4 + 3 + 2 + 1) * STEP_S, abs=1e-5)


def test_what_is_due_need_not_wait_for_a_busy_loop(rig: Maker) -> None:
    """Settling writes what the timer is late for, once, and nothing before it is due.

    Timers go on from there as if the late one had fired.
    """
    r = rig()
    _, wire = r.stream(5)
    r.at(STEP_S)
    r.loop.stall_to(r.driver.clock.t0 + 1.5 * STEP_S)
    r.driver.settle()
    assert len(wire.writes) == 1
    r.loop.stall_to(r.driver.clock.t0 + 2.5 * STEP_S)
    assert len(wire.writes) == 1
    r.driver.settle()
    r.driver.settle()
    assert len(wire.writes) == 2
    assert wire.writes[1].count(FORM.head) == 1
    r.loop.run()
    assert len(wire.writes) == 5
    assert b"".join(wire.writes) == whole(5)


def test_later_tokens_share_events(rig: Maker) -> None:
    """The first token is alone, then four to an event, and the rest in the last."""
    r = rig(interval=4)
    _, wire = r.stream(11, offset=RING_MASK)
    r.loop.run()
    assert [write.count(b"data: {") for write in wire.writes] == [2, 1, 1, 2]
    assert b"".join(wire.writes) == whole(11, RING_MASK, 4)


def test_a_stream_that_ends_with_an_event_has_no_rest(rig: Maker) -> None:
    """1 + 4 + 4 tokens: three events and what closes."""
    r = rig(interval=4)
    _, wire = r.stream(9)
    r.loop.run()
    assert b"".join(wire.writes) == whole(9, 0, 4)


def test_an_interval_coalesces_per_stream(rig: Maker) -> None:
    """Streams that began at different steps are written to at different steps."""
    r = rig(interval=3)
    _, one = r.stream(20)
    r.at(1.5 * STEP_S)
    _, two = r.stream(20)
    r.at(5.5 * STEP_S)
    # Tokens at steps 1 to 5 of the one, 3 to 5 of the other (admitted at step 3).
    assert [len(one.writes), len(two.writes)] == [2, 1]
    r.at(6.5 * STEP_S)
    assert [len(one.writes), len(two.writes)] == [2, 2]


def test_a_late_driver_keeps_the_size_of_events(rig: Maker) -> None:
    """What is owed goes out in one write, as the events it would have been."""
    r = rig(interval=4)
    _, wire = r.stream(100)
    r.at(STEP_S)
    r.at(11 * STEP_S)
    assert [write.count(b"data: {") for write in wire.writes] == [2, 2]
    r.loop.run()
    assert b"".join(wire.writes) == whole(100, 0, 4)


def test_a_very_late_driver_still_writes_whole_streams(rig: Maker) -> None:
    """The whole life of two streams lies in the past when the driver wakes."""
    r = rig()
    wires = [r.stream(n)[1] for n in (3, 9)]
    r.at(60.0)
    assert [b"".join(w.writes) for w in wires] == [whole(3), whole(9)]


def test_lateness_does_not_change_the_schedule(rig: Maker, fleet_of: Maker) -> None:
    """A driver that sleeps through steps gives the times of a punctual one."""
    r = rig()
    first, _ = r.stream(50)
    r.at(0.217)
    second, _ = r.stream(10)
    r.at(3.0)
    assert first.sequence.first_s == pytest.approx(STEP_S)
    assert first.sequence.last_s == pytest.approx(50 * STEP_S)
    # Arrived at 217 ms, in the step that began at 210 ms; prefilled in the next.
    assert second.sequence.first_s == pytest.approx(0.230)


def test_a_preempted_stream_goes_on_where_it_was(rig: Maker) -> None:
    """Too few KV blocks for both: one waits, and its tokens still come in order."""
    r = rig(kv_blocks=12, block_size=4, max_model_len=48)
    wires = [r.stream(30, offset=5)[1] for _ in range(2)]
    r.loop.run()
    assert r.fleet.engines[0].preemptions > 0
    assert [b"".join(wire.writes) for wire in wires] == [whole(30, offset=5)] * 2
    assert r.stats.engines[0].ttft.count == 2


def test_a_speculating_stream_gets_the_tokens_of_a_step_in_one_write(
    rig: Maker,
) -> None:
    """One with the prefill, then 3, 2, 3, 2 of the clock; the last step is clipped."""
    r = rig(speculation=Speculation(2.5, 3))
    _, wire = r.stream(11, offset=5)
    r.loop.run()
    assert b"".join(wire.writes) == whole(11, offset=5)
    assert [w.count(FORM.head) for w in wire.writes[:-1]] == [1, 3, 2, 3]
    assert r.fleet.engines[0].generated_tokens == 11


def test_speculating_streams_are_whole_after_preemption_and_late(rig: Maker) -> None:
    """Whatever is owed at once, of however many steps: every token, once, in order."""
    setup = {"kv_blocks": 14, "block_size": 4, "max_model_len": 48}
    for late in (False, True):
        r = rig(speculation=Speculation(2.5, 3), **setup)
        wires = [r.stream(n, offset=5)[1] for n in (30, 29)]
        if late:
            r.at(0.07)
        r.loop.run()
        assert r.fleet.engines[0].preemptions > 0
        got = [b"".join(wire.writes) for wire in wires]
        assert got == [whole(30, offset=5), whole(29, offset=5)]


def test_a_cancelled_stream_gets_nothing_more(rig: Maker) -> None:
    """Its KV is freed at the next step, and the others do not notice."""
    r = rig()
    (gone, gone_wire), (_, wire) = r.stream(50), r.stream(5)
    r.at(2.5 * STEP_S)
    r.driver.cancel(gone)
    written = len(gone_wire.writes)
    assert r.driver.live == 1
    r.driver.cancel(gone)  # once is enough
    r.loop.run()
    assert len(gone_wire.writes) == written
    assert b"".join(wire.writes) == whole(5)
    assert r.fleet.engines[0].kv_usage == 0
    ends = r.stats.engines[0].finished
    assert (ends["length"], ends["abort"], sum(ends.values())) == (1, 1, 2)
    assert [entry.kind for entry in r.journal] == ["submit", "submit", "cancel"]


def test_cancelling_what_never_began_or_has_ended_is_nothing(rig: Maker) -> None:
    """A handler may always cancel on its way out."""
    r = rig()
    r.driver.cancel(r.ticket(5, 8))
    ended, _ = r.stream(2)
    r.loop.run()
    r.driver.cancel(ended)
    assert r.stats.engines[0].finished["abort"] == 0
    assert len(r.journal) == 1


def test_a_slow_reader_is_cut_and_counted_once(rig: Maker) -> None:
    """A stream whose client does not read is not buffered without end."""
    r = rig()
    _, slow = r.stream(50)
    _, quick = r.stream(50)
    r.at(STEP_S)
    slow.buffered = 1001
    r.loop.run()
    assert slow.closing
    assert len(slow.writes) <= CHECK_EVERY
    assert r.cuts == 1
    assert b"".join(quick.writes) == whole(50)


def test_a_collected_answer_is_done_at_its_last_token(rig: Maker) -> None:
    """Nothing is written; the handler is told."""
    r = rig()
    ticket = r.ticket(5, 8)
    r.driver.submit(CollectSink(ticket))
    r.at(4.5 * STEP_S)
    assert not ticket.done.done()
    r.loop.run()
    assert ticket.done.done()
    assert r.stats.engines[0].ttft.count == 1


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
    max_examples=40,
)
@given(seed=st.integers(min_value=0, max_value=10_000), interval=st.integers(1, 9))
def test_a_live_run_replays_to_the_identical_steps(
    *,
    seed: int,
    interval: int,
    fleet_of: Maker,
    hand_loop: Any,
    futures: Maker,
    step_log: Maker,
) -> None:
    """Random arrivals, cancellations and lateness: the journal tells it all.

    And whatever happened, a stream's bytes are the same: the answer and the interval
    alone say which events there are.
    """
    rng = Random(seed)
    build = {"engines": 2, "sigma": 0.3, "kv_blocks": 40, "max_model_len": 400}
    live = Rig(fleet_of(**build), hand_loop, futures, interval)
    log = step_log(live.fleet)
    streams: list[tuple[Ticket, Wire]] = []
    gone: set[Ticket] = set()
    for _ in range(rng.randint(1, 60)):
        go = rng.choice([hand_loop.move_to, hand_loop.run, hand_loop.stall_to])
        go(hand_loop.time() + rng.expovariate(50))
        if rng.random() < 0.5:
            live.driver.settle()
        if streams and rng.random() < 0.25:
            ticket, _ = rng.choice(streams)
            gone.add(ticket)
            live.driver.cancel(ticket)
        else:
            streams.append(live.stream(rng.randint(1, 60), rng.randint(1, 300), seed))
    hand_loop.run()

    again: dict[int, list[str]] = {0: [], 1: []}
    fresh = fleet_of(**build)
    replay(fresh.engines, live.journal, lambda i, step: again[i].append(step.line()))
    assert again == log
    for ticket, wire in streams:
        n, prompt = ticket.answer.tokens, ticket.sequence.prompt_tokens
        bare = whole(n, seed, interval).removesuffix(closing(n))
        expected = bare + closing(n, prompt)
        if ticket in gone:
            assert expected.startswith(b"".join(wire.writes))
        else:
            assert b"".join(wire.writes) == expected
    assert live.driver.live == 0
    assert all(engine.kv_usage == 0 for engine in live.fleet.engines)
