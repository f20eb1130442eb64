"""The mock's books of a run: every request once, by its end, whoever else is there."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import aiohttp
import pytest

from mock_server.runs import MOST_RUNS

RUN, OTHER = "00000000000000ab", "00000000000000cd"


def awaited(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on an event loop of its own."""

    @wraps(test)
    def run(*args: Any, **more: Any) -> None:
        asyncio.run(test(*args, **more))

    return run


def of(run: str, number: int = 1) -> dict[str, str]:
    """Return the headers of a load generator's request."""
    trace = f"00-{run}{number:016x}-{number:016x}-00"
    return {"x-loadstone-truth": "1", "traceparent": trace}


def chat(**more: Any) -> dict[str, Any]:
    """Return a question, 9 tokens long, for an answer of 4."""
    return {
        "model": "llama", "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 4, "ignore_eos": True,
    } | more  # fmt: skip


class Asking:
    """A session with a mock."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url

    async def post(self, path: str, body: Any, headers: dict[str, str]) -> int:
        """Ask, and read the answer to its end; returns the status."""
        url = self.url + path
        async with self.session.post(url, json=body, headers=headers) as response:
            await response.read()
            return response.status

    async def counts(self, run: str = RUN) -> dict[str, Any]:
        """Return a run's counts."""
        async with self.session.get(f"{self.url}/runs/{run}") as response:
            told: dict[str, Any] = json.loads(await response.read())
            return told


@awaited
async def test_each_request_of_a_run_is_counted_once_by_its_end(
    mock: Callable[..., Any],
) -> None:
    """Streams, bodies, embeddings and refusals; another run's and a stranger's not."""
    async with mock(api_key="k") as server, aiohttp.ClientSession() as session:
        asking, key = Asking(session, server.url), {"authorization": "Bearer k"}
        prompt = None
        for path, body in (
            ("/v1/chat/completions", chat()),
            ("/v1/chat/completions", chat(stream=True)),
            ("/v1/chat/completions", chat(n=2)),
        ):
            assert await asking.post(path, body, of(RUN) | key) == 200
            told = await asking.counts()
            prompt = prompt or told["input_tokens"]
        assert told["statuses"] == {"200": 3}
        assert told["unfinished"] == 0
        assert told["input_tokens"] == 3 * prompt  # a prompt is counted once
        assert told["output_tokens"] == 4 * 4  # an answer each time
        embedding = {"model": "llama", "input": ["one", "two"]}
        assert await asking.post("/v1/embeddings", embedding, of(RUN) | key) == 200
        assert await asking.post("/v1/chat/completions", chat(), of(RUN)) == 401
        nonsense = chat(max_tokens="many")
        assert await asking.post("/v1/chat/completions", nonsense, of(RUN) | key) == 400
        assert await asking.post("/v1/nothing", {}, of(RUN) | key) == 404
        assert await asking.post("/v1/chat/completions", chat(), of(OTHER) | key) == 200
        for stranger in (key, key | {"traceparent": of(RUN)["traceparent"]}):
            assert await asking.post("/v1/chat/completions", chat(), stranger) == 200
        told, other = await asking.counts(), await asking.counts(OTHER)
    assert told["statuses"] == {"200": 4, "400": 1, "401": 1, "404": 1}
    assert told["input_tokens"] > 3 * prompt
    assert told["output_tokens"] == 16
    assert other["statuses"] == {"200": 1}
    assert other["server"] == told["server"]


@awaited
async def test_a_client_that_goes_away_is_counted_as_that(
    mock: Callable[..., Any],
) -> None:
    """First as unfinished, then as 499, and its tokens not at all."""
    async with mock() as server, aiohttp.ClientSession() as session:
        asking = Asking(session, server.url)
        answer = await session.post(
            server.url + "/v1/chat/completions",
            json=chat(stream=True, max_tokens=50_000),
            headers=of(RUN),
        )
        await answer.content.readany()
        assert (await asking.counts())["unfinished"] == 1
        answer.close()
        for _ in range(1000):
            told = await asking.counts()
            if not told["unfinished"]:
                break
    assert told["statuses"] == {"499": 1}
    assert told["input_tokens"] == told["output_tokens"] == 0


@awaited
async def test_the_last_runs_are_kept_and_it_says_that_others_were_not(
    mock: Callable[..., Any],
) -> None:
    """Memory is bounded whatever clients make up; who was heard of stays."""
    async with mock() as server, aiohttp.ClientSession() as session:
        asking = Asking(session, server.url)

        async def ask(run: int) -> None:
            await asking.post("/v1/nothing", {}, of(f"{run:016x}"))

        await ask(1)
        await ask(2)
        for run in range(3, MOST_RUNS + 1):
            await ask(run)
        assert (await asking.counts())["forgotten"] == 0
        await ask(1)  # now 2 is the one that was not heard of for longest
        await ask(MOST_RUNS + 1)
        first = await asking.counts(f"{1:016x}")
        second = await asking.counts(f"{2:016x}")
    assert first["forgotten"] == 1
    assert first["statuses"] == {"404": 2}
    assert second["statuses"] == {}


@pytest.mark.parametrize("header", ["", "nonsense", "00-0-0-00", "0" * 55])
@awaited
async def test_a_header_that_is_none_is_of_no_run(
    mock: Callable[..., Any], header: str
) -> None:
    """It is served all the same."""
    headers = {"x-loadstone-truth": "1", "traceparent": header}
    async with mock() as server, aiohttp.ClientSession() as session:
        asking = Asking(session, server.url)
        assert await asking.post("/v1/chat/completions", chat(), headers) == 200
        assert (await asking.counts("0" * 16))["statuses"] == {}
