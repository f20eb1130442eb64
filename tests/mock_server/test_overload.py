"""More than the engine can take: what is shed, what clients are told, what is left."""

import asyncio
import gc
from collections import Counter
from collections.abc import Callable
from math import ceil
from typing import Any

import aiohttp
import pytest

from loadstone.engine.sequence import Sequence

Maker = Callable[..., Any]
pytestmark = pytest.mark.timeout(60)

CHAT = "/v1/chat/completions"
SEATS, TOKENS, STEP_S = 4, 40, 0.002
RATE = SEATS / (TOKENS * STEP_S)
"""Requests a second that the engine can take: 50."""
MAX_WAITING = 20
SECONDS = 1.5


def sequences() -> int:
    """Count the requests that anything still holds."""
    gc.collect()
    return sum(isinstance(each, Sequence) for each in gc.get_objects())


@pytest.mark.parametrize("times", [2, 5])
def test_overload_is_shed(
    mock: Maker, fleet_of: Maker, body: Maker, until: Maker, times: int
) -> None:
    """Some are served, the rest get 429 at once; then it is as if nothing had been."""

    async def scenario() -> None:
        fleet = fleet_of(step_ms=STEP_S * 1e3, max_num_seqs=SEATS)
        (engine,) = fleet.engines
        before = sequences()
        async with (
            mock(fleet, max_waiting=MAX_WAITING) as server,
            aiohttp.ClientSession(
                server.url, connector=aiohttp.TCPConnector(limit=0)
            ) as client,
        ):
            server_stats = server.stats
            crowd: list[int] = []

            async def ask() -> int:
                asked = body(max_tokens=TOKENS, ignore_eos=True)
                async with client.post(CHAT, json=asked) as answer:
                    if answer.status == 429:
                        # One request more than may wait, at most, is 0.4 s of work.
                        assert answer.headers["Retry-After"] == "1"
                    await answer.read()
                    crowd.append(engine.waiting)
                    return answer.status

            loop = asyncio.get_running_loop()
            began, asking = loop.time(), []
            n = int(times * RATE * SECONDS)
            for i in range(n):
                await asyncio.sleep(began + i / (times * RATE) - loop.time())
                asking.append(asyncio.create_task(ask()))
            held = sequences() - before
            statuses = Counter(await asyncio.gather(*asking))
            server.journal.clear()

            assert set(statuses) == {200, 429}
            assert statuses[429] == server_stats.rejected["max_num_queued_reqs"]
            assert statuses[200] + statuses[429] == n
            # No more than the engine can do, and not much less: it never idled. The
            # machine may be slow, but a queue was there all the time.
            possible = RATE * (loop.time() - began) + SEATS
            assert statuses[200] <= possible
            assert statuses[200] >= MAX_WAITING + SEATS
            assert max(crowd) <= MAX_WAITING
            # Requests that were refused are forgotten; those inside have a bound.
            assert held <= MAX_WAITING + SEATS + 2
            await until(lambda: engine.due is None)
            assert (engine.running, engine.waiting, engine.kv_usage) == (0, 0, 0)
            assert engine.waiting_output_tokens == 0

            # Back to normal: whoever comes now waits for no more than a step.
            stats = server_stats.engines[0]
            waited = stats.queue.total
            assert await ask() == 200
            assert stats.queue.total - waited <= STEP_S
            del asking
        assert sequences() <= before + 2

    asyncio.run(scenario())


def test_retry_after_is_when_the_queue_is_worked_off(
    mock: Maker, fleet_of: Maker, body: Maker, until: Maker
) -> None:
    """To the second: earlier the queue would still be there, later is idle waiting."""
    waiting = 120

    async def scenario() -> tuple[int, float, int]:
        fleet = fleet_of(step_ms=STEP_S * 1e3, max_num_seqs=SEATS)
        (engine,) = fleet.engines
        async with (
            mock(fleet, max_waiting=waiting) as server,
            aiohttp.ClientSession(
                server.url, connector=aiohttp.TCPConnector(limit=0)
            ) as client,
        ):

            async def ask(tokens: int = TOKENS) -> tuple[int, int]:
                asked = body(max_tokens=tokens, ignore_eos=True)
                async with client.post(CHAT, json=asked) as answer:
                    await answer.read()
                    return answer.status, int(answer.headers.get("Retry-After", 0))

            # The queue stands still until all are in it.
            crowd = [asyncio.create_task(ask(400)) for _ in range(SEATS)]
            await until(lambda: engine.running == SEATS)
            crowd += [asyncio.create_task(ask()) for _ in range(waiting)]
            await until(lambda: engine.waiting == waiting)
            status, told = await ask()
            assert status == 429
            refused_at = engine.start_s
            await until(lambda: engine.waiting == 0)
            drained = engine.start_s - refused_at
            await asyncio.gather(*crowd)
            await until(lambda: engine.due is None)
            return told, drained, (await ask())[0]

    told, drained, then = asyncio.run(scenario())
    assert then == 200
    # In engine time. The prediction does not know when those in the batch will end.
    assert drained - 400 * STEP_S <= told <= ceil(drained)
