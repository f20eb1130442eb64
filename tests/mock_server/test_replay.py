"""One engine, two clocks: what a live server did, done again in virtual time."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import aiohttp

from loadstone.engine.virtual import replay

Maker = Callable[..., Any]
BUILD = {
    "engines": 3,
    "sigma": 0.3,
    "kv_blocks": 60,
    "max_model_len": 400,
    "step_ms": 3.0,
}
SEED = 11
LONG = 24


async def ask(
    client: aiohttp.ClientSession, url: str, body: Any, leave_after: int
) -> None:
    """Read a stream, or leave after some lines of it."""
    async with client.post(f"{url}/v1/chat/completions", json=body) as answer:
        for _ in range(leave_after):
            if not await answer.content.readline():
                return


def test_a_live_servers_stamps_replay_to_the_identical_step_log(
    mock: Maker, fleet_of: Maker, body: Maker, step_log: Maker, until: Maker
) -> None:
    """Real sockets, clients that leave, blocks that run out: one step log."""

    async def live() -> tuple[Any, Any]:
        rng = Random(SEED)
        fleet = fleet_of(**BUILD)
        log = step_log(fleet)
        async with mock(fleet) as server, aiohttp.ClientSession() as client:
            async with asyncio.TaskGroup() as group:
                for i in range(70):
                    # The first stay for a second and want twice the blocks there are.
                    long = i < LONG
                    n = 300 if long else rng.randint(1, 200)
                    asked = body(stream=True, max_tokens=n, ignore_eos=True)
                    leave = 10_000 if long else rng.choice((3, 40, 10_000))
                    group.create_task(ask(client, server.url, asked, leave))
                    await asyncio.sleep(0 if long else rng.expovariate(2000))
            assert sum(engine.preemptions for engine in fleet.engines) > 0
            await until(lambda: all(engine.due is None for engine in fleet.engines))
            return server.journal, log

    journal, log = asyncio.run(live())
    assert {entry.kind for entry in journal} == {"submit", "cancel"}
    again: dict[int, list[str]] = {i: [] for i in log}
    replay(
        fleet_of(**BUILD).engines, journal, lambda i, step: again[i].append(step.line())
    )
    assert again == log
