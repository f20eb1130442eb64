"""Answers over a real connection: shape, counts, stamps, keep-alive, transports."""

import asyncio
import json
import re
import ssl
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from loadstone.traffic.record import Truth
from loadstone.wire.tokens import count, prompt_of

TRUTH = {"x-loadstone-truth": "1"}
Maker = Callable[..., Any]

pytestmark = pytest.mark.timeout(20)


async def read_events(
    response: aiohttp.ClientResponse,
) -> tuple[list[Any], list[float]]:
    """Read a stream to its end: JSON events, and when each was read (loop time)."""
    loop = asyncio.get_running_loop()
    events, stamps = [], []
    async for line in response.content:
        if line.startswith(b"data: {"):
            events.append(json.loads(line[6:]))
            stamps.append(loop.time())
    return events, stamps


async def ask(
    client: aiohttp.ClientSession, url: str, payload: dict[str, Any]
) -> tuple[list[Any], list[float]]:
    """Send one streaming request, truth asked for, and read its events."""
    async with client.post(
        f"{url}/v1/chat/completions", json=payload, headers=TRUTH
    ) as response:
        assert response.status == 200
        return await read_events(response)


def text_of(events: list[Any]) -> str:
    """Join the content of a stream."""
    return "".join(
        e["choices"][0]["delta"].get("content", "") for e in events if e["choices"]
    )


def test_stream_byte_by_byte(mock: Maker, body: Maker, raw_post: Maker) -> None:
    """One HTTP chunk per token event, then one with all that closes the stream."""

    async def scenario() -> bytes:
        async with mock() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(raw_post(body(stream=True, max_tokens=3, ignore_eos=True)))
            head = await reader.readuntil(b"\r\n\r\n")
            rest = await reader.readuntil(b"0\r\n\r\n")
            writer.close()
            await writer.wait_closed()
            return head + rest

    head, _, rest = asyncio.run(scenario()).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK"
    assert "Content-Type: text/event-stream; charset=utf-8" in lines
    assert "Transfer-Encoding: chunked" in lines

    chunks = []
    while rest != b"0\r\n\r\n":
        size, _, rest = rest.partition(b"\r\n")
        n = int(size, 16)
        chunks.append(rest[:n])
        assert rest[n : n + 2] == b"\r\n"
        rest = rest[n + 2 :]
    role, *tokens, closing = chunks
    common = (
        rb'data: \{"id":"(chatcmpl-[0-9a-f]{24})","object":"chat.completion.chunk",'
    )
    common += rb'"created":\d+,"model":"llama","choices":\[\{"index":0,"delta":'
    null = rb',"logprobs":null,"finish_reason":null\}\]\}\n\n'
    assert re.fullmatch(common + rb'\{"role":"assistant","content":""\}' + null, role)
    assert len(tokens) == 3
    for token in tokens:
        assert re.fullmatch(common + rb'\{"content":"(?P<t>[^"]*)"\}' + null, token)
    assert len({len(token) for token in tokens}) == 1
    assert re.fullmatch(
        common + rb'\{\},"logprobs":null,"finish_reason":"length"\}\]\}\n\n'
        rb"data: \[DONE\]\n\n",
        closing,
    )


@pytest.mark.parametrize(
    ("fields", "ends"),
    [
        ({"max_tokens": 7, "ignore_eos": True}, (7, "length")),
        ({"max_completion_tokens": 1, "ignore_eos": True}, (1, "length")),
        ({"max_tokens": 7}, (7, "length")),
        ({"max_tokens": 20}, (20, "stop")),
        ({}, (20, "stop")),
        ({"min_tokens": 30}, (30, "stop")),
        ({"ignore_eos": True}, (80, "length")),
    ],
)
def test_counts_are_exact(
    mock: Maker,
    fleet_of: Maker,
    body: Maker,
    fields: dict[str, Any],
    ends: tuple[int, str],
) -> None:
    """Events, text and usage agree, streamed or not, whoever ended the answer."""

    async def scenario() -> tuple[list[Any], Any]:
        fleet = fleet_of(max_model_len=100)
        payload = body(**fields)
        async with mock(fleet, length=20) as server, aiohttp.ClientSession() as client:
            usage = {"stream": True, "stream_options": {"include_usage": True}}
            events, _ = await ask(client, server.url, payload | usage)
            url = f"{server.url}/v1/chat/completions"
            async with client.post(url, json=payload, headers=TRUTH) as response:
                assert response.status == 200
                return events, await response.json()

    tokens, reason = ends
    events, whole = asyncio.run(scenario())
    _, *content, final, usage = events
    assert len(content) == tokens
    assert count(text_of(events)) == tokens
    assert final["choices"][0]["finish_reason"] == reason
    counts = {
        "prompt_tokens": 20,
        "completion_tokens": tokens,
        "total_tokens": 20 + tokens,
    }
    assert usage["usage"] == counts
    assert usage["choices"] == []

    choice = whole["choices"][0]
    # The first request left the prompt's one whole block in the prefix cache.
    assert whole["usage"].pop("prompt_tokens_details") == {"cached_tokens": 16}
    assert (choice["finish_reason"], whole["usage"]) == (reason, counts)
    # The same prompt has the same answer, whichever way it is sent.
    assert choice["message"]["content"] == text_of(events)


@pytest.mark.parametrize("interval", [1, 2, 8, 19, 20, 100])
def test_an_interval_changes_events_and_nothing_else(
    mock: Maker, body: Maker, interval: int
) -> None:
    """Text, usage and truth are of all tokens; the first is alone, then K share one."""

    async def scenario() -> list[Any]:
        payload = body(
            stream=True, max_tokens=20, ignore_eos=True,
            stream_options={"include_usage": True},
        )  # fmt: skip
        async with (
            mock(stream_interval=interval) as server,
            aiohttp.ClientSession() as client,
        ):
            events, _ = await ask(client, server.url, payload)
            async with client.get(f"{server.url}/version") as response:
                assert (await response.json())["stream_interval"] == interval
        return events

    events = asyncio.run(scenario())
    _, *content, _, usage = events
    lengths = [count(event["choices"][0]["delta"]["content"]) for event in content]
    whole, rest = divmod(19, interval)
    assert lengths == [1, *[interval] * whole, *([rest] if rest else [])]
    assert count(text_of(events)) == 20
    assert usage["usage"]["completion_tokens"] == 20
    truth = Truth(**usage["loadstone"])
    assert truth.scheduled_last_s is not None
    gaps = truth.scheduled_last_s - truth.scheduled_first_s
    assert gaps == pytest.approx(19 * 0.002, abs=2e-6)


def test_truth_is_ordered_and_agrees_with_the_client(mock: Maker, body: Maker) -> None:
    """The stamps are in order, and the client saw no token before it was sent."""

    async def scenario() -> tuple[Truth, list[float], float]:
        loop = asyncio.get_running_loop()
        async with mock() as server, aiohttp.ClientSession() as client:
            await ask(client, server.url, body(stream=True, max_tokens=1))
            sent = loop.time()
            events, stamps = await ask(
                client, server.url, body(stream=True, max_tokens=12, ignore_eos=True)
            )
        assert all("loadstone" not in event for event in events[:-1])
        return Truth(**events[-1]["loadstone"]), stamps, sent

    truth, stamps, sent = asyncio.run(scenario())
    assert truth.received_s < truth.scheduled_first_s <= truth.first_sent_s + 1e-6
    assert truth.first_sent_s < truth.last_sent_s
    assert truth.scheduled_last_s is not None
    assert truth.scheduled_last_s <= truth.last_sent_s + 1e-6
    assert (truth.engine, truth.slowdown) == (0, 1.0)
    # 12 tokens in steps of 2 ms; the client's clock is the server's, in one process.
    assert truth.last_sent_s - truth.scheduled_first_s >= 11 * 0.002 - 2e-6
    assert stamps[1] - sent >= truth.ttft_s
    assert stamps[-1] - sent >= truth.last_sent_s - truth.received_s


def test_without_the_header_there_is_no_truth(mock: Maker, body: Maker) -> None:
    """Clients that did not ask see OpenAI's fields only."""

    async def scenario() -> None:
        async with mock() as server, aiohttp.ClientSession() as client:
            url = f"{server.url}/v1/chat/completions"
            for stream in (True, False):
                payload = body(stream=stream, max_tokens=2)
                async with client.post(url, json=payload) as response:
                    assert b"loadstone" not in await response.read()

    asyncio.run(scenario())


def test_truth_of_a_body_is_one_instant(mock: Maker, body: Maker) -> None:
    """A body's tokens leave at once; the schedule says when the first was due."""

    async def scenario() -> Truth:
        async with mock() as server, aiohttp.ClientSession() as client:
            url = f"{server.url}/v1/chat/completions"
            async with client.post(
                url, json=body(max_tokens=5, ignore_eos=True), headers=TRUTH
            ) as response:
                return Truth(**(await response.json())["loadstone"])

    truth = asyncio.run(scenario())
    assert truth.first_sent_s == truth.last_sent_s
    assert truth.lag_s >= 4 * 0.002 - 2e-6


def test_a_connection_is_used_again_after_a_stream(mock: Maker, body: Maker) -> None:
    """The sink ends the body as HTTP wants it, so keep-alive works, many times over."""

    async def scenario() -> int:
        made = 0

        async def on_connect(*_: object) -> None:
            nonlocal made
            made += 1

        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(on_connect)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1), trace_configs=[trace]
        )
        async with mock() as server, session as client:
            for n in range(1, 6):
                events, _ = await ask(
                    client, server.url, body(stream=True, max_tokens=n)
                )
                assert len(events) == n + 2
                async with client.get(f"{server.url}/health") as response:
                    assert response.status == 200
        return made

    assert asyncio.run(scenario()) == 1


def test_pipelined_requests_are_answered_in_order(
    mock: Maker, body: Maker, raw_post: Maker
) -> None:
    """Two requests in one write give two whole streams, one after the other."""

    async def scenario() -> list[bytes]:
        async with mock() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            first, second = (
                raw_post(body(stream=True, max_tokens=n, ignore_eos=True))
                for n in (2, 3)
            )
            writer.write(first + second)
            answers = [await reader.readuntil(b"0\r\n\r\n") for _ in range(2)]
            writer.close()
            await writer.wait_closed()
            return answers

    sizes = [answer.count(b'"content":" ') for answer in asyncio.run(scenario())]
    assert sizes == [2, 3]


def test_http_1_0_gets_bare_events_until_the_connection_ends(
    mock: Maker, body: Maker, raw_post: Maker
) -> None:
    """A client that knows no chunks is not sent any."""

    async def scenario() -> bytes:
        async with mock() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            payload = body(stream=True, max_tokens=2, ignore_eos=True)
            writer.write(raw_post(payload, "Connection: keep-alive", version="1.0"))
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            return answer

    head, _, stream = asyncio.run(scenario()).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert stream.startswith(b"data: {")
    assert stream.endswith(b"data: [DONE]\n\n")


def test_streams_run_side_by_side_on_all_engines(
    mock: Maker, fleet_of: Maker, body: Maker
) -> None:
    """Every stream is whole, and the router used each engine."""

    async def scenario() -> tuple[list[list[Any]], Any]:
        fleet = fleet_of(engines=3, step_ms=1.0, sigma=0.2)
        async with mock(fleet) as server, aiohttp.ClientSession() as client:
            answers = await asyncio.gather(
                *(
                    ask(
                        client,
                        server.url,
                        body(stream=True, max_tokens=n, ignore_eos=True),
                    )
                    for n in range(1, 61)
                )
            )
            return [events for events, _ in answers], server

    answers, server = asyncio.run(scenario())
    assert [len(events) - 2 for events in answers] == list(range(1, 61))
    assert {events[-1]["loadstone"]["engine"] for events in answers} == {0, 1, 2}
    assert sum(e.finished["length"] for e in server.stats.engines) == 60
    assert sum(e.generated_tokens for e in server.fleet.engines) == sum(range(1, 61))
    assert not server.kv_in_use


def test_statistics_hold_what_happened(mock: Maker, body: Maker) -> None:
    """One TTFT and E2E per request, one gap per decoded token, one lag per step."""

    async def scenario() -> Any:
        async with mock() as server, aiohttp.ClientSession() as client:
            for stream in (True, False):
                payload = body(stream=stream, max_tokens=9, ignore_eos=True)
                url = f"{server.url}/v1/chat/completions"
                async with client.post(url, json=payload) as response:
                    await response.read()
            async with client.get(f"{server.url}/nowhere") as response:
                assert response.status == 404
            return server

    server = asyncio.run(scenario())
    (engine,) = server.stats.engines
    assert (engine.ttft.count, engine.e2e.count, engine.itl.count) == (2, 2, 16)
    assert engine.itl.total == pytest.approx(16 * 0.002)
    assert engine.decode.total == pytest.approx(16 * 0.002)
    assert engine.e2e.total > engine.ttft.total
    assert engine.lag.count == 18
    assert {reason for reason, n in engine.finished.items() if n} == {"length"}
    assert engine.finished["length"] == 2
    assert dict(server.stats.http_requests()) == {
        ("/v1/chat/completions", "POST", "2xx"): 2,
        ("none", "GET", "4xx"): 1,
    }


def test_streams_over_tls(
    mock: Maker, body: Maker, certificate: tuple[Path, Path]
) -> None:
    """The same bytes, encrypted."""
    cert, key = certificate

    async def scenario() -> list[Any]:
        context = ssl.create_default_context(cafile=str(cert))
        connector = aiohttp.TCPConnector(ssl=context)
        async with (
            mock(tls_cert=cert, tls_key=key) as server,
            aiohttp.ClientSession(connector=connector) as client,
        ):
            assert server.url.startswith("https://")
            payload = body(stream=True, max_tokens=5, ignore_eos=True)
            events, _ = await ask(client, server.url, payload)
            return events

    assert len(asyncio.run(scenario())) == 7


def test_streams_over_a_unix_socket(mock: Maker, body: Maker, tmp_path: Path) -> None:
    """The same bytes, cheaper."""
    path = tmp_path / "mock.sock"

    async def scenario() -> list[Any]:
        connector = aiohttp.UnixConnector(path=str(path))
        async with (
            mock(uds=path) as server,
            aiohttp.ClientSession(connector=connector) as client,
        ):
            assert server.url == f"unix:{path}"
            payload = body(stream=True, max_tokens=5, ignore_eos=True)
            events, _ = await ask(client, "http://mock", payload)
            return events

    assert len(asyncio.run(scenario())) == 7


def test_tokens_come_at_the_pace_of_the_steps(mock: Maker, fleet_of: Maker) -> None:
    """A stream is not sent in one go: the gaps are those of the emulated steps."""

    async def scenario() -> list[float]:
        message = {"role": "user", "content": prompt_of(8, 1)}
        payload = {
            "model": "llama", "messages": [message], "stream": True, "max_tokens": 11,
            "ignore_eos": True,
        }  # fmt: skip
        async with (
            mock(fleet_of(step_ms=10.0)) as server,
            aiohttp.ClientSession() as client,
        ):
            _, stamps = await ask(client, server.url, payload)
            return stamps[1:-1]

    stamps = asyncio.run(scenario())
    gaps = sorted(b - a for a, b in pairwise(stamps))
    assert gaps[len(gaps) // 2] == pytest.approx(0.010, abs=0.004)
