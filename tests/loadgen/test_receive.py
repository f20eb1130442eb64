"""How long bytes lay in the kernel: what it says, and when it says nothing."""

import socket
import sys
import threading
import time
from array import array
from itertools import count
from pathlib import Path
from typing import Any

import gevent
import pytest
from authority import Authority
from hypothesis import example, given
from hypothesis import strategies as st
from scripted import (
    ANSWER,
    CHUNKED,
    END,
    PATIENCE_S,
    Peer,
    Server,
    ask,
    check,
    chunk,
    client,
    event,
    serving,
)

from loadgen.client import Exchange, StreamingClient
from loadgen.connection import ALL_LAGS, LAG_MASK
from loadgen.receive import (
    CLOCK_SET_S,
    LAG_BOUNDS,
    ReceiveLags,
    lag_at,
    wall_offset,
    why_absent,
)
from loadstone.buckets import BucketArray
from loadstone.traffic.verdict import MAX_RECV_LAG_S
from loadstone.wire.sse import EventScanner

linux = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has receive stamps"
)


def answering(peer: Peer) -> None:
    """Answer until the client closes."""
    while peer.request():
        peer.send(ANSWER)


def stamped(made: StreamingClient) -> Exchange:
    """Ask until the kernel stamps: it lets the first segments of all pass without."""
    deadline = time.monotonic() + PATIENCE_S
    while (answered := ask(made)).recv_lag_s is None:
        check(answered)
        assert time.monotonic() < deadline
    return answered


@linux
def test_the_lag_of_the_first_token_is_known() -> None:
    """It is a part of the TTFT, and the run's histogram has it."""
    with serving(answering) as server, client(server.url) as made:
        answered = stamped(made)
        check(answered)
        first, lag = answered.reply and answered.reply.first, answered.recv_lag_s
        assert first is not None
        assert lag is not None
        assert answered.worst_recv_lag_s is not None
        assert 0.0 <= lag <= first - answered.sent
        assert lag <= answered.worst_recv_lag_s
        assert made.lags.histogram.count >= 1
        made.close()


@linux
def test_under_tls_the_lag_is_that_of_the_record(tmp_path: Path) -> None:
    """Bytes are stamped before they are decrypted, by the kernel and by us."""
    authority = Authority(tmp_path)
    with serving(answering, tls=authority.server("127.0.0.1")) as server, \
            client(server.url, ca_file=authority.file) as made:  # fmt: skip
        answered = stamped(made)
        assert answered.reply is not None
        first, lag = answered.reply.first, answered.recv_lag_s
        made.close()
    assert first is not None
    assert lag is not None
    assert 0.0 <= lag <= first - answered.sent


@linux
def test_a_hub_that_stands_still_is_seen_in_the_lag() -> None:
    """Bytes that came in while nothing was read have lain for as long."""
    still_s = 0.05
    asked, still, wrote = threading.Event(), threading.Event(), threading.Event()
    still.set()

    def script(peer: Peer) -> None:
        while peer.request():
            asked.set()
            assert still.wait(PATIENCE_S)
            peer.send(ANSWER)
            wrote.set()

    with serving(script) as server, client(server.url) as made:
        stamped(made)
        asked.clear()
        still.clear()
        asking = gevent.spawn(ask, made)
        while not asked.is_set():
            gevent.sleep(0.001)
        wrote.clear()
        still.set()
        assert wrote.wait(PATIENCE_S)  # not gevent's: this holds the hub already
        time.sleep(still_s)  # the fault itself
        answered = asking.get(timeout=PATIENCE_S)
        made.close()
    assert answered.recv_lag_s is not None
    assert answered.recv_lag_s >= still_s
    assert made.lags.p99 is not None
    assert made.lags.p99 >= still_s


def test_a_long_stream_is_sampled() -> None:
    """Every read until the body has come in so many pieces, then every eighth."""
    tokens = ALL_LAGS + 10 * (LAG_MASK + 1)
    read = threading.Semaphore(0)

    def script(peer: Peer) -> None:
        assert peer.request()
        peer.send(ANSWER)
        assert peer.request()
        peer.send(CHUNKED)
        for _ in range(tokens):
            peer.send(chunk(event("a")))
            assert read.acquire(timeout=PATIENCE_S)
        peer.send(END)

    asked = count()
    with serving(script) as server, client(server.url) as made, \
            pytest.MonkeyPatch.context() as patch:  # fmt: skip
        check(ask(made))
        kept, feed = made._idle[0], EventScanner.feed
        receive = kept._recvmsg

        def recvmsg(size: int, room: int) -> tuple[bytes, list[Any], int, Any]:
            got = receive(size, room)
            next(asked)
            return got

        def fed(scanner: EventScanner, data: bytes, stamp: float) -> None:
            feed(scanner, data, stamp)
            read.release()

        kept._recvmsg = recvmsg
        patch.setattr(EventScanner, "feed", fed)
        assert ask(made).error is None
    # The head may come alone, and so may the end.
    assert 0 <= next(asked) - (1 + ALL_LAGS + 10) <= 2


@linux
def test_a_clock_that_is_set_voids_the_lags(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second of time that never passed is in no figure."""
    with serving(answering) as server, client(server.url) as made:
        stamped(made)
        known = made.lags.histogram.count
        readings = count()
        monkeypatch.setattr(
            "loadgen.connection.wall_offset",
            lambda: wall_offset() + 0.5 * next(readings),
        )
        answered = ask(made)
        check(answered)
        made.close()
    assert (answered.recv_lag_s, answered.worst_recv_lag_s) == (None, None)
    assert (made.lags.histogram.count, made.lags.clock_set) == (known, 1)


def test_a_unix_socket_has_no_stamps(tmp_path: Path) -> None:
    """The figure is absent, not zero."""
    server = Server(answering)
    server.listener.close()
    server.listener = socket.socket(socket.AF_UNIX)
    server.listener.bind(str(tmp_path / "s"))
    server.listener.listen()
    server.start()
    with client(f"unix:{tmp_path / 's'}") as made:
        for _ in range(3):
            answered = ask(made)
            check(answered)
            assert (answered.recv_lag_s, answered.worst_recv_lag_s) == (None, None)
        assert made.lags.p99 is None
        made.close()
    server.stop()


def test_why_a_figure_is_absent_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """In words that tell the three causes apart."""
    monkeypatch.setattr(sys, "platform", "linux")
    assert "Unix" in why_absent(unix=True)
    assert "no answer" in why_absent(unix=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "only Linux" in why_absent(unix=False)


def test_elsewhere_no_stamps_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of the option means something else there."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with serving(answering) as server, client(server.url) as made:
        answered = ask(made)
        check(answered)
        made.close()
    assert answered.recv_lag_s is None


def test_the_offset_stands_still() -> None:
    """Two readings agree to much less than what is taken for a set clock."""
    pairs = [abs(wall_offset() - wall_offset()) for _ in range(20)]
    assert min(pairs) < CLOCK_SET_S / 10
    assert abs(time.monotonic() + wall_offset() - time.time()) < PATIENCE_S


def test_the_lag_of_an_instant() -> None:
    """Only of the very read; without a token there is none."""
    stamps, lags = [1.0, 2.0, 4.0], [0.1, 0.2, 0.4]
    assert [lag_at(stamps, lags, at) for at in (1.0, 2.0, 4.0)] == lags
    assert [lag_at(stamps, lags, at) for at in (None, 0.5, 3.0, 5.0)] == [None] * 4


def test_the_verdicts_limit_is_a_bound() -> None:
    """So that its p99 is on one side or the other for sure."""
    assert MAX_RECV_LAG_S in LAG_BOUNDS


@given(st.lists(st.floats(0, 100), max_size=60))
@example([0.0, 5e-5, 0.005, 50.0, 51.0] * 5)
def test_lags_are_counted_as_one_by_one(lags: list[float]) -> None:
    """Sorting first is quicker and the same."""
    slow, quick = BucketArray(LAG_BOUNDS), ReceiveLags()
    for lag in lags:
        slow.add(lag)
    quick.add(array("d", lags))
    assert quick.histogram.counts == slow.counts
    assert quick.histogram.total == pytest.approx(slow.total)
    whole = ReceiveLags()
    whole.merge(quick.snapshot())
    assert whole.snapshot() == quick.snapshot()
