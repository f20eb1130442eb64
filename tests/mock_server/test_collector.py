"""A server's garbage is collected when nobody waits, or when there is much of it."""

import asyncio
import gc
import json
import socket
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from loadstone.garbage import IN_USE, LEAST
from mock_server.collector import IDLE_LEAST, LOOK_S, Collector

Maker = Callable[..., Any]


class Knot:
    """Garbage that only the collector can free."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture
def held() -> Iterator[list[Any]]:
    """Collect before, so that what is counted is the test's own."""
    gc.collect()
    yield []
    gc.collect()


@pytest.mark.parametrize("idle", [True, False])
def test_a_cycle_is_freed_when_its_time_has_come(
    hand_loop: Any, held: list[Any], idle: bool
) -> None:
    """At once where nobody is inside; else once there is as much as it takes."""
    least = IDLE_LEAST if idle else LEAST
    collector = Collector(hand_loop, idle=lambda: idle, connections=int)
    collector.start()
    try:
        knot = weakref.ref(Knot())
        held += [[] for _ in range(least // 2)]
        hand_loop.run(hand_loop.time() + LOOK_S)
        assert knot() is not None
        held += [[] for _ in range(least // 2)]
        hand_loop.run(hand_loop.time() + LOOK_S)
        assert knot() is None
    finally:
        collector.stop()


def test_what_it_took_over_it_gives_back(hand_loop: Any, held: list[Any]) -> None:
    """Python collects by itself before and after, and never in between."""
    assert gc.isenabled()
    collector = Collector(hand_loop, idle=lambda: False, connections=int)
    collector.start()
    assert not gc.isenabled()
    assert gc.get_freeze_count() > 0
    knots = weakref.WeakSet(Knot() for _ in range(1000))
    held += [[] for _ in range(IDLE_LEAST)]
    hand_loop.run(hand_loop.time() + 10 * LOOK_S)
    assert len(knots) == 1000
    collector.stop()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert not knots


def test_streams_are_no_reason_to_collect(
    mock: Maker, fleet_of: Maker, body: Maker, until: Maker
) -> None:
    """All that a server makes for a connection and its answer is let pass."""
    streams = 100

    async def scenario() -> None:
        fleet = fleet_of(step_ms=1000.0, max_num_seqs=streams)
        (engine,) = fleet.engines
        with ExitStack() as stack:
            async with mock(fleet) as server:
                gc.collect()
                gc.disable()
                stack.callback(gc.enable)
                before = gc.get_count()[0]
                for _ in range(streams):
                    asked = json.dumps(body(max_tokens=1000, stream=True)).encode()
                    client = socket.create_connection(("127.0.0.1", server.port))
                    stack.enter_context(client).sendall(
                        b"POST /v1/chat/completions HTTP/1.1\r\nHost: mock\r\n"
                        b"Content-Type: application/json\r\n"
                        b"Content-Length: %d\r\n\r\n%s" % (len(asked), asked)
                    )
                await until(lambda: engine.running + engine.waiting == streams)
                assert 0 < gc.get_count()[0] - before < IN_USE * streams

    asyncio.run(scenario())
