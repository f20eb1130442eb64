"""The canary sings on time, unless the loop was busy; the lag alarm rings by then."""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from loadstone.buckets import BucketArray
from loadstone.engine.sequence import Step
from mock_server.canary import CLEAR_AFTER, PERIOD_S, WINDOW_S, Canary, LagWatch
from mock_server.stats import LATE_S, ServerStats

Maker = Callable[..., Any]
LATE, PUNCTUAL = LATE_S * 1.01, LATE_S * 0.99


def test_a_punctual_loop_has_no_lag(hand_loop: Any) -> None:
    """Twenty songs a second, none late."""
    lag = BucketArray((0.001, 1.0))
    Canary(hand_loop, lag).start()
    hand_loop.run(hand_loop.time() + 1.0 + PERIOD_S / 2)
    assert lag.counts == [20, 0, 0]
    assert lag.total == pytest.approx(0.0, abs=1e-9)


def test_a_stall_counts_once_with_its_length(hand_loop: Any) -> None:
    """However many songs it swallowed."""
    lag = BucketArray((0.001, 1.0))
    canary = Canary(hand_loop, lag)
    canary.start()
    hand_loop.move_to(hand_loop.time() + PERIOD_S + 0.4)
    assert lag.counts == [0, 1, 0]
    assert lag.total == pytest.approx(0.4)
    assert repr(canary) == f"<Canary next at {100 + 2 * PERIOD_S + 0.4:.3f}s>"


class Watched:
    """A lag watch on a hand-moved loop, and the steps it is told of."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.stats = ServerStats(2)
        LagWatch(loop, self.stats).start()

    @property
    def on(self) -> bool:
        """Whether the alarm is on."""
        return self.stats.lag_alarm.on

    def window(self, *, steps: int = 0, late: int = 0) -> bool:
        """Let a window pass in which so many steps of 20 ms were written."""
        for n in range(steps):
            step = Step(n, 1.0, 1.02, 1, 0, 1, 0.0, 1)
            lag = LATE if n < late else PUNCTUAL
            self.stats.engines[n % 2].written(step, lag)
        self.loop.run(self.loop.time() + WINDOW_S)
        return self.on


def test_the_alarm_is_p99_over_a_window(hand_loop: Any) -> None:
    """One late step in a hundred is p99 in time; one more is not."""
    assert not Watched(hand_loop).window(steps=200, late=2)
    assert Watched(hand_loop).window(steps=200, late=3)
    assert not Watched(hand_loop).window()


def test_the_alarm_stays_until_windows_were_good(
    hand_loop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once when it begins and once when it ends."""
    watched = Watched(hand_loop)
    for _ in range(3):
        assert watched.window(steps=10, late=10)
    for _ in range(CLEAR_AFTER - 1):
        assert watched.window(steps=10)
    assert not watched.window()
    assert watched.stats.lag_alarm.windows == 3
    assert [r.levelno for r in caplog.records] == [logging.WARNING] * 2
    assert "10 of 10 steps" in caplog.messages[0]
    assert "again" in caplog.messages[1]


def test_a_long_step_may_be_later() -> None:
    """5 % of it, where that is more than 5 ms."""
    engine = ServerStats(1).engines[0]
    long_step = Step(0, 1.0, 2.0, 1, 0, 1, 0.0, 1)
    engine.written(long_step, 0.049)
    assert engine.late_steps == 0
    engine.written(long_step, 0.051)
    assert (engine.late_steps, engine.lag.count) == (1, 2)


def test_a_busy_loop_rings_on_the_wire(mock: Maker, body: Maker, until: Maker) -> None:
    """What blocks the loop is in the log's, the probe's and the answer's words."""

    async def scenario() -> tuple[dict[str, Any], dict[str, Any]]:
        async with mock() as server, aiohttp.ClientSession() as client:
            url = f"{server.url}/v1/chat/completions"
            payload = body(stream=True, max_tokens=50_000, ignore_eos=True)
            async with client.post(url, json=payload) as stream:
                await until(lambda: server.kv_in_use)
                while not server.stats.lag_alarm.on:
                    time.sleep(0.02)  # noqa: ASYNC251 - the loop is to be blocked
                    await asyncio.sleep(0.001)
                async with client.get(f"{server.url}/version") as response:
                    version = await response.json()
                async with client.post(
                    url, json=body(max_tokens=1), headers={"x-loadstone-truth": "1"}
                ) as response:
                    truth = json.loads(await response.read())["loadstone"]
                stream.close()
            return version, truth

    version, truth = asyncio.run(scenario())
    assert version["lag_alarm"] is True
    assert truth["lag_alarm"] is True
