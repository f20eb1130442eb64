"""Clients that go away or do not read, and how the server starts and stops."""

import asyncio
import os
import resource
import signal
import socket
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from loadstone.errors import LoadstoneError, UsageError
from mock_server.capacity import Capacity, find_capacity
from mock_server.config import MAX_INTERVAL, ServerConfig
from mock_server.filler import choose_answer
from mock_server.listen import tls_context

Maker = Callable[..., Any]
LONG = {"max_tokens": 5000, "ignore_eos": True}

pytestmark = pytest.mark.timeout(20)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_kv(
    mock: Maker,
    body: Maker,
    raw_post: Maker,
    until: Maker,
    stream: bool,
) -> None:
    """The request is cancelled on the engine, and the journal says when."""

    async def scenario() -> None:
        async with mock() as server:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(raw_post(body(stream=stream, **LONG)))
            (engine,) = server.fleet.engines
            await until(lambda: engine.generated_tokens > 3)
            assert server.kv_in_use
            writer.close()
            await writer.wait_closed()
            await until(lambda: not server.kv_in_use)
            assert engine.running == engine.waiting == 0
            assert engine.generated_tokens < 4000
            assert [entry.kind for entry in server.journal] == ["submit", "cancel"]
            assert server.stats.engines[0].finished["abort"] == 1

    asyncio.run(scenario())


def test_a_waiting_client_that_goes_away_leaves_the_queue(
    mock: Maker, fleet_of: Maker, body: Maker, raw_post: Maker, until: Maker
) -> None:
    """It never ran, so it must not run later."""

    async def scenario() -> None:
        fleet = fleet_of(max_num_seqs=1)
        async with mock(fleet) as server, aiohttp.ClientSession() as client:
            url = f"{server.url}/v1/chat/completions"
            async with client.post(url, json=body(stream=True, **LONG)) as first:
                _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(raw_post(body(stream=True, **LONG)))
                await until(
                    lambda: fleet.waiting == 1 and fleet.engines[0].running == 1
                )
                writer.close()
                await writer.wait_closed()
                await until(lambda: fleet.waiting == 0)
                assert fleet.engines[0].running == 1
                first.close()

    asyncio.run(scenario())


def test_a_client_that_left_before_its_answer_is_no_error(
    mock: Maker,
    body: Maker,
    raw_post: Maker,
    until: Maker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its request was whole, and the connection gone when it was handled."""

    async def scenario() -> None:
        async with mock() as server:
            for _ in range(20):
                sock = socket.create_connection(("127.0.0.1", server.port))
                reset = struct.pack("ii", 1, 0)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                sock.sendall(raw_post(body(stream=True, **LONG)))
                sock.close()
            await until(lambda: dict(server.stats.http_requests()).values())
            await asyncio.sleep(0.05)
            await until(lambda: not server.kv_in_use)

    asyncio.run(scenario())
    assert caplog.messages == []


def test_a_slow_reader_is_cut(
    mock: Maker, fleet_of: Maker, body: Maker, raw_post: Maker, until: Maker
) -> None:
    """A client that stops reading is not buffered for; others go on."""

    async def scenario() -> None:
        fleet = fleet_of(step_ms=0.1)
        async with (
            mock(fleet, write_limit_bytes=50_000) as server,
            aiohttp.ClientSession(server.url) as client,
        ):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", server.port))
            payload = body(stream=True, max_tokens=190_000, ignore_eos=True)
            sock.sendall(raw_post(payload))
            asked = body(max_tokens=5)
            async with client.post("/v1/chat/completions", json=asked) as answer:
                assert answer.status == 200
                assert (await answer.json())["usage"]["completion_tokens"] == 5
            await until(lambda: server.stats.slow_readers == 1)
            await until(lambda: not server.kv_in_use)
            assert server.stats.engines[0].finished["abort"] == 1
            sock.close()

    asyncio.run(scenario())


def test_a_taken_port_is_named(mock: Maker) -> None:
    """With what to do about it."""

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(LoadstoneError) as caught:
                async with mock(port=port):
                    pass
        assert caught.value.code == "port_in_use"
        assert str(port) in caught.value.message
        assert "--port" in caught.value.hint

    asyncio.run(scenario())


def test_an_address_that_cannot_be_had_is_named(mock: Maker) -> None:
    """192.0.2.1 is nobody's (RFC 5737)."""

    async def scenario() -> None:
        with pytest.raises(LoadstoneError) as caught:
            async with mock(host="192.0.2.1"):
                pass
        assert caught.value.code == "cannot_listen"

    asyncio.run(scenario())


def mode_of(path: Path) -> int:
    """Return a file's permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def test_a_unix_socket_is_its_owners_alone_and_goes_with_the_server(
    mock: Maker, tmp_path: Path
) -> None:
    """Mode 0600 whatever the umask; and what a killed server left is replaced."""
    path = tmp_path / "mock.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()  # the path stays, and nobody listens

    async def scenario() -> None:
        async with mock(uds=path) as server:
            assert server.url == f"unix:{path}"
            assert mode_of(path) == 0o600
            _, writer = await asyncio.open_unix_connection(str(path))
            writer.close()
        assert not path.exists()

    before = os.umask(0o000)
    try:
        asyncio.run(scenario())
    finally:
        os.umask(before)


def test_a_unix_socket_in_use_is_left_alone(mock: Maker, tmp_path: Path) -> None:
    """The second server says so, and the first goes on."""
    path = tmp_path / "mock.sock"

    async def scenario() -> None:
        async with mock(uds=path):
            with pytest.raises(LoadstoneError) as caught:
                async with mock(uds=path):
                    pass
            assert caught.value.code == "socket_in_use"
            _, writer = await asyncio.open_unix_connection(str(path))
            writer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("name", "said"),
    [("notes.txt", "not a socket"), ("x" * 120, "107 bytes"), ("no/dir", "cannot")],
)
def test_a_path_that_cannot_be_a_socket_is_refused(
    mock: Maker, tmp_path: Path, name: str, said: str
) -> None:
    """A file of the user's is not deleted for it."""
    (tmp_path / "notes.txt").write_text("mine")

    async def scenario() -> None:
        with pytest.raises(UsageError) as caught:
            async with mock(uds=tmp_path / name):
                pass
        assert said in caught.value.message + caught.value.hint

    asyncio.run(scenario())
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_connections_that_cannot_be_had_are_refused(mock: Maker) -> None:
    """Before anything listens, with the limit and what to do."""
    room = find_capacity().connections

    async def scenario() -> None:
        async with mock(expect_connections=room):
            pass
        with pytest.raises(UsageError) as caught:
            async with mock(expect_connections=room + 1):
                pass
        assert str(room) in caught.value.message
        assert "ulimit" in caught.value.hint

    asyncio.run(scenario())


def test_the_limit_of_files_is_raised_and_said() -> None:
    """As far as the system allows; ports are said where there are fewer of them."""
    capacity = find_capacity()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == hard == capacity.open_files
    text = str(Capacity(open_files=100_064, ports=28_232))
    assert "100000 connections" in text
    assert "28232 of them from one client address" in text
    assert "address" not in str(Capacity(open_files=1000, ports=28_232))
    assert Capacity(open_files=10).connections == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_answers_end(
    mock: Maker, body: Maker, until: Maker, number: signal.Signals
) -> None:
    """The stream is whole, and then nobody listens any more."""

    async def scenario() -> bytes:
        async with mock(grace_s=10.0) as server, aiohttp.ClientSession() as client:
            url = f"{server.url}/v1/chat/completions"
            payload = body(stream=True, max_tokens=100, ignore_eos=True)
            async with client.post(url, json=payload) as response:
                await until(lambda: server.fleet.engines[0].generated_tokens > 3)
                os.kill(os.getpid(), number)
                answer: bytes = await response.read()
            await until(lambda: refuses(server.port))
            return answer

    answer = asyncio.run(scenario())
    assert answer.count(b'"content":" ') == 100
    assert answer.endswith(b"data: [DONE]\n\n")


def test_while_answers_end_new_requests_are_refused(
    mock: Maker, fleet_of: Maker, body: Maker, until: Maker
) -> None:
    """With 503, on kept and on new connections; probes tell, and the stream ends."""

    async def scenario() -> None:
        async with (
            mock(fleet_of(step_ms=10.0), grace_s=9.5) as server,
            aiohttp.ClientSession(server.url) as client,
            aiohttp.ClientSession(server.url) as stranger,
        ):
            url = "/v1/chat/completions"
            async with client.get("/health") as kept:
                assert kept.status == 200
            running = body(stream=True, max_tokens=300, ignore_eos=True)
            async with client.post(url, json=running) as response:
                await until(lambda: server.fleet.engines[0].generated_tokens > 3)
                server.stop.set()
                await asyncio.sleep(0)
                for session in (client, stranger):
                    async with session.post(url, json=body()) as refused:
                        assert refused.status == 503
                        assert refused.headers["Retry-After"] == "10"
                        assert refused.headers["Connection"] == "close"
                        error = (await refused.json())["error"]
                        assert error["code"] == "shutting_down"
                seen = {}
                for probe in ("/ready", "/health", "/metrics"):
                    async with stranger.get(probe) as answer:
                        seen[probe] = answer.status
                assert seen == {"/ready": 503, "/health": 200, "/metrics": 200}
                answer = await response.read()
                assert answer.count(b'"content":" ') == 300
                assert answer.endswith(b"data: [DONE]\n\n")

    asyncio.run(scenario())


def refuses(port: int) -> bool:
    """Return whether nobody listens on a port."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("stream", [True, False])
def test_after_the_grace_answers_are_cut_off(
    mock: Maker,
    body: Maker,
    until: Maker,
    stream: bool,
) -> None:
    """A stream breaks, so that it cannot look complete; a body becomes a 503."""

    async def scenario() -> None:
        async with mock(grace_s=0.0) as server, aiohttp.ClientSession() as client:
            url = f"{server.url}/v1/chat/completions"

            async def read() -> int:
                async with client.post(
                    url, json=body(stream=stream, **LONG)
                ) as response:
                    await response.read()
                    return response.status

            reading = asyncio.create_task(read())
            await until(lambda: server.kv_in_use)
            server.stop.set()
            if stream:
                with pytest.raises(aiohttp.ClientError):
                    await reading
            else:
                assert await reading == 503

    asyncio.run(scenario())


def test_a_second_signal_cuts_the_grace_short(
    mock: Maker, body: Maker, until: Maker
) -> None:
    """Whoever presses Ctrl-C twice means it."""

    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        async with mock(grace_s=15.0) as server, aiohttp.ClientSession() as client:
            url = f"{server.url}/v1/chat/completions"
            async with client.post(url, json=body(stream=True, **LONG)) as response:
                await until(lambda: server.kv_in_use)
                start = loop.time()
                os.kill(os.getpid(), signal.SIGINT)
                await until(server.stop.is_set)
                os.kill(os.getpid(), signal.SIGINT)
                with pytest.raises(aiohttp.ClientError):
                    await response.read()
        return loop.time() - start

    assert asyncio.run(scenario()) < 5


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """Missing, or not a certificate."""
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    for path in (tmp_path / "missing.pem", junk):
        config = ServerConfig(model="m", preset="p", tls_cert=path, tls_key=path)
        with pytest.raises(UsageError, match=str(path)):
            tls_context(config)


@pytest.mark.parametrize(
    "settings",
    [
        {"port": 70_000}, {"port": -1}, {"api_key": ""},
        {"aliases": ("m",)}, {"aliases": ("",)}, {"max_waiting": 0},
        {"tls_cert": Path("cert.pem")}, {"vms": 0}, {"max_body_bytes": 0},
        {"stream_interval": 0}, {"stream_interval": MAX_INTERVAL + 1},
        {"write_limit_bytes": 0}, {"expect_connections": 0},
    ],
)  # fmt: skip
def test_settings_that_cannot_serve_are_refused(settings: dict[str, Any]) -> None:
    """Before anything is started."""
    with pytest.raises(UsageError):
        ServerConfig(**({"model": "m", "preset": "p"} | settings))


def test_the_key_is_not_shown() -> None:
    """A configuration may be logged."""
    assert "sesame" not in repr(ServerConfig(model="m", preset="p", api_key="sesame"))


def test_answers_follow_from_seed_and_prompt() -> None:
    """Same seed and prompt, same answer; another seed, another answer."""
    from loadstone.wire.openai_messages import Prompt
    from loadstone.wire.openai_request import GenerationRequest

    def answers(seed: int) -> list[tuple[int, int]]:
        made = []
        for n in range(50):
            asked = GenerationRequest(model="m", prompts=(Prompt(8, n),))
            answer = choose_answer(
                asked, 1000, seed=seed, lengths=lambda rng: rng.randint(1, 900)
            )
            made.append((answer.offset, answer.tokens))
        return made

    assert answers(1) == answers(1)
    assert len(set(answers(1))) == 50
    assert not set(answers(1)) & set(answers(2))


def test_a_name_may_have_addresses_that_are_not_of_this_machine(
    mock: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are listened on; without any the reason is told."""
    ours, other = ("127.0.0.1", 0), ("192.0.2.1", 0)

    async def scenario(*addresses: tuple[str, int]) -> int:
        async def found(*_: object, **__: object) -> list[Any]:
            kind = socket.SOCK_STREAM
            return [(socket.AF_INET, kind, 0, "", address) for address in addresses]

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", found)
        async with mock(host="a-name") as server:
            assert server.url.startswith("http://127.0.0.1:")
            return len(await found())

    for known in ((other, ours), (ours, other)):
        assert asyncio.run(scenario(*known)) == 2
    with pytest.raises(LoadstoneError, match="cannot listen on a-name:0"):
        asyncio.run(scenario(other))
