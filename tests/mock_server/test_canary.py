"""The canary sings on time, unless the loop was busy; the lag alarm rings by then."""

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable
from random import Random
from typing import Any

import aiohttp
import pytest

from loadstone.buckets import BucketArray
from loadstone.engine.sequence import Step
from loadstone.traffic.record import Truth
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
            step = Step(n, 1.0, 1.02, 1, 0, 1, 0.0, 1, n + 1)
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
    long_step = Step(0, 1.0, 2.0, 1, 0, 1, 0.0, 1, 1)
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


def test_no_late_token_goes_uncounted(
    mock: Maker, fleet_of: Maker, body: Maker
) -> None:
    """Where clients get a first token late, the truth and the late steps say so.

    That holds on any machine, so it is asked of one whose loop is blocked at random.
    """
    rng = Random(5)

    async def ask(client: aiohttp.ClientSession, url: str) -> tuple[Truth, float]:
        loop = asyncio.get_running_loop()
        payload = body(stream=True, max_tokens=rng.randint(1, 30), ignore_eos=True)
        sent, first, data = loop.time(), 0.0, b""
        async with client.post(
            url, json=payload, headers={"x-loadstone-truth": "1"}
        ) as response:
            async for chunk in response.content.iter_any():
                first = first or loop.time()
                data += chunk
        found = re.search(rb'"loadstone":({[^}]*})', data)
        assert found
        return Truth(**json.loads(found[1])), first - sent

    async def scenario() -> tuple[list[tuple[Truth, float]], ServerStats]:
        async with mock(fleet_of(engines=3)) as server, aiohttp.ClientSession() as c:
            url = f"{server.url}/v1/chat/completions"
            asking = [asyncio.create_task(ask(c, url)) for _ in range(60)]
            while not all(task.done() for task in asking):
                time.sleep(rng.choice((0.0, 0.001, 0.004, 0.02)))  # noqa: ASYNC251 - the loop is to be blocked
                await asyncio.sleep(0)
            return [task.result() for task in asking], server.stats

    answers, stats = asyncio.run(scenario())
    late = {t.scheduled_first_s for t, _ in answers if t.lag_s > LATE_S + 2e-6}
    assert late
    assert stats.steps_written()[1] >= len(late)
    for truth, ttft in answers:
        # What a client waited is what the server says it made it wait, or more.
        assert ttft >= truth.ttft_s - 2e-6
        assert truth.lag_s >= -2e-6
        assert truth.scheduled_last_s is not None
        assert truth.last_sent_s >= truth.scheduled_last_s - 2e-6
