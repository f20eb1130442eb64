"""Each fault of the door and the wire, as a client's socket sees it; and afterwards."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from loadstone.wire.sse import EventScanner
from mock_server.faults import KINDS, Place, read_fault

Maker = Callable[..., Any]
pytestmark = pytest.mark.timeout(20)

TOKENS = 6
STEP_S = 0.002


class Seen:
    """What came over a raw socket: bytes, when, and how it ended."""

    def __init__(self) -> None:
        self.data = b""
        self.stamps: list[tuple[float, int]] = []
        self.reset = False

    @property
    def head(self) -> str:
        """The status line and the headers."""
        return self.data.partition(b"\r\n\r\n")[0].decode()

    @property
    def body(self) -> bytes:
        """The body, taken out of its chunks as far as they came."""
        raw = self.data.partition(b"\r\n\r\n")[2]
        if "chunked" not in self.head:
            return raw
        out = b""
        while raw:
            size, _, rest = raw.partition(b"\r\n")
            n = int(size or b"0", 16)
            out += rest[:n]
            raw = rest[n + 2 :]
        return out

    @property
    def whole(self) -> bool:
        """Whether the body came to its proper end."""
        return self.data.endswith(b"\r\n0\r\n\r\n")

    def events(self) -> list[bytes]:
        """Return the payloads as the house's own client splits them."""
        scanner = EventScanner()
        scanner.feed(self.body, 0.0)
        events = scanner.events()
        return [events.payload(i) for i in range(len(events))]


async def read_all(reader: asyncio.StreamReader, seen: Seen) -> Seen:
    """Read until the server closes, or until the body's end."""
    loop = asyncio.get_running_loop()
    try:
        while not seen.whole and (data := await reader.read(1 << 16)):
            seen.data += data
            seen.stamps.append((loop.time(), len(seen.data)))
    except ConnectionResetError:
        seen.reset = True
    return seen


@pytest.fixture
def struck(
    mock: Maker, body: Maker, raw_post: Maker, until: Maker
) -> Callable[..., Any]:
    """Give what sends one request to a server with one fault.

    Returns what was seen and checks that the server is none the worse for it: nothing
    in the queue, the batch or the KV cache, and the fault is counted, once.
    """

    def run(kind: str, *, stream: bool = True, **fields: Any) -> Seen:
        fault = read_fault({"kind": kind, "until": 1000} | fields)

        async def scenario() -> Seen:
            async with mock(faults=(fault,)) as server:
                address = "127.0.0.1", server.port
                reader, writer = await asyncio.open_connection(*address)
                asked = body(
                    stream=stream, max_tokens=TOKENS, ignore_eos=True,
                    **({"stream_options": {"include_usage": True}} if stream else {}),
                )  # fmt: skip
                writer.write(raw_post(asked, "Connection: close"))
                seen = await read_all(reader, Seen())
                writer.close()
                with suppress(ConnectionResetError):
                    await writer.wait_closed()
                (engine,) = server.fleet.engines
                await until(lambda: not engine.running and not server.kv_in_use)
                assert engine.waiting == 0
                assert engine.waiting_output_tokens == 0
                assert server.stats.faults[kind] == 1
                assert sum(server.stats.faults.values()) == 1
                return seen

        return asyncio.run(scenario())

    return run


def plain_events(events: list[bytes]) -> list[Any]:
    """Parse all events but `[DONE]`."""
    assert events[-1] == b"[DONE]"
    return [json.loads(event) for event in events[:-1]]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [400, 500, 503])
def test_error(struck: Maker, *, status: int, stream: bool) -> None:
    """The status and OpenAI's error object; no engine ever hears of it."""
    seen = struck("error", status=status, stream=stream)
    assert seen.head.startswith(f"HTTP/1.1 {status} ")
    error = json.loads(seen.body)["error"]
    assert error["code"] == "injected_fault"
    assert (error["type"] == "server_error") == (status >= 500)


def test_throttle_says_when_the_storm_is_over(struck: Maker) -> None:
    """Retry-After is what is left of it."""
    seen = struck("throttle", until=30)
    assert seen.head.startswith("HTTP/1.1 429 ")
    assert "\r\nRetry-After: 30" in seen.head
    assert json.loads(seen.body)["error"]["code"] == "rate_limit_exceeded"


def test_throttle_after_the_storm_is_over(mock: Maker, body: Maker) -> None:
    """A client that waits as long as it was told is served."""
    fault = read_fault({"kind": "throttle", "until": 0.7})

    async def scenario() -> list[int]:
        async with (
            mock(faults=(fault,)) as server,
            aiohttp.ClientSession(server.url) as client,
        ):
            statuses = []
            for _ in range(2):
                async with client.post("/v1/chat/completions", json=body()) as answer:
                    statuses.append(answer.status)
                    wait = int(answer.headers.get("Retry-After", 0))
                await asyncio.sleep(wait)
            return statuses

    assert asyncio.run(scenario()) == [429, 200]


def test_slow_first_token(struck: Maker) -> None:
    """The headers are there at once, the first token late, and all of it is whole."""
    seen = struck("slow_first_token", delay=0.2)
    assert seen.whole
    assert len(plain_events(seen.events())) == TOKENS + 3
    body_at = len(seen.head) + 4
    headers = next(at for at, size in seen.stamps if size >= body_at)
    first = next(at for at, size in seen.stamps if size > body_at)
    assert first - headers >= 0.2 - TOKENS * STEP_S


def test_slow_first_token_of_a_body(mock: Maker, body: Maker) -> None:
    """Without a stream the whole answer is late."""
    fault = read_fault({"kind": "slow_first_token", "delay": 0.2})

    async def scenario() -> None:
        async with (
            mock(faults=(fault,)) as server,
            aiohttp.ClientSession(server.url) as client,
        ):
            began = asyncio.get_running_loop().time()
            async with client.post("/v1/chat/completions", json=body()) as answer:
                assert (await answer.json())["usage"]["completion_tokens"] == 20
            assert asyncio.get_running_loop().time() - began >= 0.2

    asyncio.run(scenario())


def test_stall(struck: Maker) -> None:
    """So many events, silence, and then the rest in one go: nothing is lost."""
    seen = struck("stall", after=3, delay=0.2)
    assert seen.whole
    assert len(plain_events(seen.events())) == TOKENS + 3
    gaps = [b[0] - a[0] for a, b in zip(seen.stamps, seen.stamps[1:], strict=False)]
    longest = gaps.index(max(gaps))
    assert gaps[longest] >= 0.2 - TOKENS * STEP_S
    before = seen.data[: seen.stamps[longest][1]]
    assert before.count(b"data: ") == 3


@pytest.mark.parametrize("after", [0, 1, 4])
def test_truncate(struck: Maker, after: int) -> None:
    """So many events, and the connection is closed without the body's end."""
    seen = struck("truncate", after=after)
    assert not seen.whole
    assert not seen.reset
    assert len(seen.events()) == after


def test_reset(struck: Maker) -> None:
    """The kernel tells the client that the connection was reset."""
    seen = struck("reset", after=2)
    assert seen.reset
    assert not seen.whole


def test_malformed_json(struck: Maker) -> None:
    """One event is no JSON; those around it are what they always are."""
    events = struck("malformed_json", after=3).events()
    assert len(events) == TOKENS + 4
    with pytest.raises(json.JSONDecodeError):
        json.loads(events.pop(3))
    assert len(plain_events(events)) == TOKENS + 2


def test_malformed_sse(struck: Maker) -> None:
    """Two events without a blank line between them are one, by the standard."""
    events = struck("malformed_sse", after=3).events()
    assert len(events) == TOKENS + 3
    joined = events.pop(3).split(b"\n")
    assert [json.loads(each)["object"] for each in joined] == [
        "chat.completion.chunk"
    ] * 2


def test_buffer(struck: Maker) -> None:
    """Headers at once; then all events come together, and they are whole."""
    seen = struck("buffer")
    assert seen.whole
    assert len(plain_events(seen.events())) == TOKENS + 3
    body_at = len(seen.head) + 4
    first = next(at for at, size in seen.stamps if size > body_at)
    headers = next(at for at, size in seen.stamps if size >= body_at)
    assert first - headers >= (TOKENS - 1) * STEP_S
    # TCP may cut what was one write, but nothing waits in between.
    assert seen.stamps[-1][0] - first < (TOKENS - 1) * STEP_S


def test_no_usage(struck: Maker) -> None:
    """Usage was asked for, and no event has it."""
    seen = struck("no_usage")
    assert seen.whole
    assert len(plain_events(seen.events())) == TOKENS + 2
    assert b"usage" not in seen.body


@pytest.mark.parametrize("kind", ["truncate", "reset", "malformed_json", "no_usage"])
def test_bodies(struck: Maker, kind: str) -> None:
    """Answers in one body are cut, broken or uncounted as streams are."""
    seen = struck(kind, stream=False)
    announced = int(seen.head.lower().partition("content-length: ")[2].split()[0])
    assert (len(seen.body) < announced) == (kind in ("truncate", "reset"))
    assert seen.reset == (kind == "reset")
    if kind == "no_usage":
        assert set(json.loads(seen.body)) == {
            "id", "object", "created", "model", "choices"
        }  # fmt: skip
    else:
        with pytest.raises(json.JSONDecodeError):
            json.loads(seen.body)


@pytest.mark.parametrize("path", ["completions", "responses"])
@pytest.mark.parametrize("kind", ["no_usage", "stall", "truncate", "buffer"])
def test_other_endpoints(mock: Maker, kind: str, path: str) -> None:
    """What is done to a stream is done to its events, whatever endpoint wrote them."""
    row = {"kind": kind} | ({"delay": 0.05} if kind == "stall" else {})
    text = {"input": "hello"} if path == "responses" else {"prompt": "hello"}
    asked = {"model": "llama", "stream": True} | text

    async def scenario() -> tuple[bytes, bool]:
        async with (
            mock(faults=(read_fault(row),)) as server,
            aiohttp.ClientSession(server.url) as client,
            client.post(f"/v1/{path}", json=asked) as answer,
        ):
            data = b""
            try:
                async for chunk in answer.content.iter_any():
                    data += chunk
            except aiohttp.ClientPayloadError:
                return data, False
            return data, True

    data, whole = asyncio.run(scenario())
    assert whole == (kind != "truncate")
    assert data.count(b"data: ") >= 17 if whole else data.count(b"data: ") == 2
    if kind == "no_usage":
        assert b'"usage"' not in data


@pytest.mark.parametrize("kind", ["no_usage", "malformed_json", "truncate", "buffer"])
def test_a_stream_without_chunks(
    mock: Maker, body: Maker, raw_post: Maker, kind: str
) -> None:
    """HTTP/1.0 has no chunks, only events: they are spoilt all the same."""
    fault = read_fault({"kind": kind})
    options = {"stream_options": {"include_usage": True}, "ignore_eos": True}
    asked = body(stream=True, max_tokens=TOKENS, **options)

    async def scenario() -> Seen:
        async with mock(faults=(fault,)) as server:
            address = "127.0.0.1", server.port
            reader, writer = await asyncio.open_connection(*address)
            writer.write(raw_post(asked, version="1.0"))
            seen = await read_all(reader, Seen())
            writer.close()
            await writer.wait_closed()
            return seen

    seen = asyncio.run(scenario())
    # Role, tokens, end, usage and [DONE].
    whole = TOKENS + 4
    expected = {"no_usage": whole - 1, "truncate": 2}
    assert len(seen.events()) == expected.get(kind, whole)
    assert (b"usage" in seen.body) == (kind in ("malformed_json", "buffer"))


def test_answers_that_share_a_stream_share_its_fault(mock: Maker, body: Maker) -> None:
    """Two choices: one connection, one stall, nothing lost."""
    fault = read_fault({"kind": "stall", "delay": 0.1, "after": 5})
    asked = body(stream=True, max_tokens=TOKENS, ignore_eos=True, n=2, temperature=1)

    async def scenario() -> tuple[list[bytes], int]:
        async with (
            mock(faults=(fault,)) as server,
            aiohttp.ClientSession(server.url) as client,
            client.post("/v1/chat/completions", json=asked) as answer,
        ):
            lines = [line async for line in answer.content if line != b"\n"]
            return lines, server.stats.faults["stall"]

    lines, struck = asyncio.run(scenario())
    assert struck == 1
    # For each choice: role, tokens, end; and one [DONE].
    assert len(lines) == 2 * (TOKENS + 2) + 1
    assert lines[-1] == b"data: [DONE]\n"


def test_every_kind_of_the_wire_and_the_door_is_tested_here() -> None:
    """A kind that is added needs a test that looks at the wire."""
    source = Path(__file__).read_text(encoding="utf-8")
    for kind, form in KINDS.items():
        if form.place is not Place.RACK:
            assert f'struck("{kind}"' in source
