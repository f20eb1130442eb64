"""What is refused, with which status, and in OpenAI's error object; and the probes."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from loadstone import __version__

Maker = Callable[..., Any]

pytestmark = pytest.mark.timeout(20)


async def error_of(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """Read an error object, checking its shape."""
    assert response.content_type == "application/json"
    payload = await response.json()
    assert set(payload) == {"error"}
    assert set(payload["error"]) == {"message", "type", "param", "code"}
    assert payload["error"]["message"]
    error: dict[str, Any] = payload["error"]
    return error


@pytest.mark.parametrize(
    ("data", "status", "code", "param"),
    [
        (b"", 400, "invalid_json", None),
        (b'{"model": "llama", "messages": [', 400, "invalid_json", None),
        (b"\xff\xff", 400, "invalid_json", None),
        (b"[" * 50_000, 400, "invalid_json", None),
        (b'{"model": "llama"}', 400, "missing_required_parameter", "messages"),
        (b'{"model": "llama", "messages": []}', 400, "invalid_value", "messages"),
        (b'{"model": "gpt", "messages": [{"role": "user", "content": "x"}]}',
         404, "model_not_found", "model"),
        (b'{"model": "llama", "n": 129, "messages": [{"role":"user","content":"x"}]}',
         400, "invalid_value", "n"),
        (b'{"model":"llama","max_tokens":200000,"messages":[{"role":"user","content":""}]}',
         400, "context_length_exceeded", "messages"),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused(
    mock: Maker, data: bytes, status: int, code: str, param: str | None
) -> None:
    """The status, the code and the field; and the connection stays usable."""

    async def scenario() -> None:
        async with mock() as server, aiohttp.ClientSession() as client:
            url = f"{server.url}/v1/chat/completions"
            async with client.post(url, data=data) as response:
                assert response.status == status
                error = await error_of(response)
                assert (error["code"], error["param"]) == (code, param)
            assert server.journal == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "unknown_url"),
        ("POST", "/v1/chat/completionz", 404, "unknown_url"),
        ("POST", "/v1/completions/%00/x", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("PURGE", "/health", 405, "method_not_allowed"),
    ],
)
def test_wrong_paths_and_methods(
    mock: Maker, method: str, path: str, status: int, code: str
) -> None:
    """They get the same error object; a 405 says what would have been right."""

    async def scenario() -> None:
        async with mock() as server, aiohttp.ClientSession() as client:
            async with client.request(method, server.url + path) as response:
                assert response.status == status
                assert (await error_of(response))["code"] == code
                assert ("Allow" in response.headers) == (status == 405)
            labels = dict(server.stats.http_requests())
            assert all(key[1] in {method, "other"} for key in labels)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer sesame", 200),
        ("Bearer Sesame", 401),
        ("bearer sesame", 401),
        ("Bearer sésame", 401),
        ("sesame", 401),
        ("", 401),
    ],
)
def test_the_key_is_checked(mock: Maker, header: str, status: int) -> None:
    """Only what costs something is guarded; a probe needs no key."""

    async def scenario() -> None:
        headers = {"Authorization": header} if header else {}
        async with mock(api_key="sesame") as server, aiohttp.ClientSession() as client:
            async with client.get(
                f"{server.url}/v1/models", headers=headers
            ) as response:
                assert response.status == status
                if status == 401:
                    assert (await error_of(response))["code"] == "invalid_api_key"
            for path in ("/health", "/version", "/metrics"):
                async with client.get(server.url + path) as response:
                    assert response.status == 200

    asyncio.run(scenario())


def test_a_header_that_is_not_utf8_is_a_wrong_key(mock: Maker) -> None:
    """Bytes from anywhere do not make the check fail."""

    async def scenario() -> bytes:
        async with mock(api_key="sesame") as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n")
            writer.write(b"Authorization: Bearer \xff\xfe\r\n\r\n")
            status = await reader.readline()
            writer.close()
            await writer.wait_closed()
            return status

    assert b" 401 " in asyncio.run(scenario())


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_too_large_is_refused(
    mock: Maker,
    announced: bool,
) -> None:
    """By its length where that is announced, else as soon as it has grown too large."""

    async def scenario() -> None:
        async def pieces() -> Any:
            for _ in range(20):
                yield b" " * 1000

        data = b" " * 20_000 if announced else pieces()
        async with (
            mock(max_body_bytes=10_000) as server,
            aiohttp.ClientSession() as client,
        ):
            for path in ("/v1/chat/completions", "/tokenize"):
                async with client.post(server.url + path, data=data) as response:
                    assert response.status == 413
                    assert "10000 bytes" in (await error_of(response))["message"]
                data = b" " * 20_000

    asyncio.run(scenario())


def test_a_full_queue_is_refused_with_an_honest_delay(
    mock: Maker, fleet_of: Maker, body: Maker, until: Maker
) -> None:
    """One runs, one waits, the third is told when the queue should have been served."""

    async def scenario() -> None:
        fleet = fleet_of(step_ms=10.0, max_num_seqs=1, max_num_batched_tokens=2048)
        async with (
            mock(fleet, max_waiting=1) as server,
            aiohttp.ClientSession() as client,
        ):
            (engine,) = fleet.engines
            url = f"{server.url}/v1/chat/completions"
            long = {"stream": True, "max_tokens": 450, "ignore_eos": True}
            async with client.post(url, json=body(**long)) as first:
                assert first.status == 200
                await until(lambda: engine.running == 1 and engine.token_rate > 0)
                async with client.post(url, json=body(**long)) as second:
                    assert second.status == 200
                    async with client.post(url, json=body(**long)) as third:
                        assert third.status == 429
                        error = await error_of(third)
                        # 450 tokens wait, and the engine gives one in 10 ms: 4.5 s.
                        assert third.headers["Retry-After"] == "5"
                    first.close()
                    second.close()
            assert error["code"] == error["type"] == "rate_limit_exceeded"
            await until(lambda: engine.waiting == 0 and not server.kv_in_use)
            assert len([e for e in server.journal if e.kind == "submit"]) == 2

    asyncio.run(scenario())


def test_the_probes_say_what_this_is(mock: Maker, fleet_of: Maker) -> None:
    """Models, health, version and metrics."""

    async def scenario() -> None:
        fleet = fleet_of(engines=2, max_model_len=4096)
        async with mock(fleet, vms=3) as server, aiohttp.ClientSession() as client:

            async def get(path: str) -> bytes:
                async with client.get(server.url + path) as response:
                    assert response.status == 200
                    return await response.read()

            assert await get("/health") == b""
            assert await get("/metrics") == b"up 1\n"
            assert json.loads(await get("/version")) == {
                "version": __version__, "preset": "test", "model": "llama", "vms": 3,
                "engines": 2, "slowdown": 1.0, "stream_interval": 1, "lag_alarm": False,
                "clock": "real",
                "emulated": True,
            }  # fmt: skip
            models = json.loads(await get("/v1/models"))
            assert models["object"] == "list"
            (model,) = models["data"]
            assert (model["id"], model["max_model_len"]) == ("llama", 4096)

    asyncio.run(scenario())


def test_tokenize_counts_by_the_rule(mock: Maker, body: Maker) -> None:
    """In vLLM's shape; what it counts is what a chat is charged."""

    async def scenario() -> None:
        async with mock() as server, aiohttp.ClientSession() as client:
            url = f"{server.url}/tokenize"
            async with client.post(url, json=body()) as response:
                answer = await response.json()
            assert set(answer) == {"count", "max_model_len", "tokens", "token_strs"}
            assert answer["count"] == len(answer["tokens"]) == 20
            async with client.post(url, json={"prompt": "hello"}) as response:
                assert (await response.json())["count"] == 2
            async with client.post(
                url, json={"model": "gpt", "prompt": ""}
            ) as response:
                assert (await error_of(response))["code"] == "model_not_found"

    asyncio.run(scenario())


def test_a_bug_is_answered_and_logged(
    mock: Maker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A failing handler gives 500 in the same error object, and a traceback to us."""

    def broken(_: bytes) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("mock_server.probes.parse_tokenize", broken)

    async def scenario() -> None:
        async with (
            mock() as server,
            aiohttp.ClientSession() as client,
            client.post(f"{server.url}/tokenize", data=b"") as response,
        ):
            assert response.status == 500
            assert (await error_of(response))["type"] == "server_error"

    asyncio.run(scenario())
    assert "ZeroDivisionError" in caplog.text
