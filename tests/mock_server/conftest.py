"""A live mock server on a free port, and a hand-moved event loop for its driver."""

import asyncio
import heapq
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from math import inf
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from loadstone.engine.core import Engine
from loadstone.engine.fleet import Fleet, build_fleet
from loadstone.engine.sequence import Step
from loadstone.engine.virtual import JournalEntry
from loadstone.observers import Observers
from loadstone.physics.limits import EngineLimits
from loadstone.physics.speculation import PLAIN, Speculation
from loadstone.physics.steplaw import StepLaw
from loadstone.wire.tokens import prompt_of
from mock_server.config import ServerConfig
from mock_server.serve import serve
from mock_server.stats import ServerStats

LIMITS = {
    "max_num_seqs": 64,
    "max_num_batched_tokens": 2048,
    "kv_blocks": 16_384,
    "block_size": 16,
    "max_model_len": 200_000,
}


def small_fleet(
    *,
    step_ms: float = 2.0,
    engines: int = 1,
    sigma: float = 0.0,
    speculation: Speculation = PLAIN,
    **limits: int,
) -> Fleet:
    """Build engines whose steps all take `step_ms`, give or take `sigma`."""
    law = StepLaw(
        weights_ms=step_ms,
        gemm_us_per_token=0,
        kv_ns_per_token=0,
        pair_ns=0,
        sigma=sigma,
    )
    return build_fleet(
        EngineLimits(**(LIMITS | limits)),
        law,
        engines=engines,
        seed=7,
        speculation=speculation,
    )


@dataclass
class Mock:
    """A running mock server as a test sees it."""

    fleet: Fleet
    stats: ServerStats
    stop: asyncio.Event
    journal: list[JournalEntry] = field(default_factory=list)
    url: str = ""

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.url.rsplit(":", 1)[1])

    @property
    def kv_in_use(self) -> bool:
        """Whether any engine holds KV blocks."""
        return any(engine.kv_usage > 0 for engine in self.fleet.engines)


@asynccontextmanager
async def running(
    fleet: Fleet | None = None,
    *,
    length: int = 20,
    observers: Observers | None = None,
    **settings: Any,
) -> AsyncIterator[Mock]:
    """Run a server for the block; natural answers have `length` tokens."""
    fleet = fleet or small_fleet()
    mock = Mock(fleet, ServerStats(len(fleet.engines)), asyncio.Event())
    usual: dict[str, Any] = {"model": "llama", "preset": "test", "port": 0}
    config = ServerConfig(**(usual | {"grace_s": 0.2} | settings))
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        serve(
            config,
            fleet,
            stats=mock.stats,
            lengths=lambda _: length,
            metrics=lambda _accept, _now: (b"up 1\n", "text/plain; version=0.0.4"),
            announce=ready.set_result,
            journal=mock.journal,
            observers=observers,
            stop=mock.stop,
        )
    )
    either: set[asyncio.Future[Any]] = {task, ready}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        ready.cancel()
        await task
    mock.url = ready.result().removeprefix("listening on ")
    try:
        yield mock
    finally:
        mock.stop.set()
        await task


@pytest.fixture
def mock() -> Callable[..., Any]:
    """Give the context manager that runs a server."""
    return running


@pytest.fixture
def fleet_of() -> Callable[..., Fleet]:
    """Give a builder of small fleets."""
    return small_fleet


@pytest.fixture
def step_log(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Fleet], dict[int, list[str]]]:
    """Give a recorder of what a live fleet's engines do."""
    logs_of: dict[Engine, list[str]] = {}
    plain = Engine.step

    def step(engine: Engine) -> Step | None:
        done = plain(engine)
        if done is not None and engine in logs_of:
            logs_of[engine].append(done.line())
        return done

    def log_steps(fleet: Fleet) -> dict[int, list[str]]:
        """Write down every step a live fleet completes."""
        logs_of.update((engine, []) for engine in fleet.engines)
        return {i: logs_of[engine] for i, engine in enumerate(fleet.engines)}

    monkeypatch.setattr(Engine, "step", step)
    return log_steps


@pytest.fixture
def until() -> Callable[..., Coroutine[Any, Any, None]]:
    """Give a wait for something that must come true, and soon."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - the server sets no events
                await asyncio.sleep(0.001)

    return wait


@pytest.fixture
def body() -> Callable[..., dict[str, Any]]:
    """Give a maker of request bodies; every prompt has 20 tokens and is unique."""
    numbers = count()

    def make(**fields: Any) -> dict[str, Any]:
        content = prompt_of(20, next(numbers))
        messages = [{"role": "user", "content": content}]
        return {"model": "llama", "messages": messages} | fields

    return make


@pytest.fixture
def raw_post() -> Callable[..., bytes]:
    """Give a maker of whole HTTP requests, for raw sockets."""

    def make(payload: dict[str, Any], *headers: str, version: str = "1.1") -> bytes:
        data = json.dumps(payload).encode()
        head = [
            f"POST /v1/chat/completions HTTP/{version}",
            "Host: mock",
            f"Content-Length: {len(data)}",
            *headers,
        ]
        return "\r\n".join([*head, "", ""]).encode() + data

    return make


class HandMovedTimer:
    """What a hand-moved loop gives for a callback that it keeps."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Never call back."""
        self._callback = None

    def fire(self) -> None:
        """Call back, unless it was cancelled."""
        if self._callback is not None:
            self._callback()


class HandMovedLoop:
    """The part of an event loop that a driver uses, moved by hand."""

    def __init__(self) -> None:
        self._now = 100.0
        self._timers: list[tuple[float, int, HandMovedTimer]] = []
        self._numbers = count()

    def time(self) -> float:
        """Return the time it was moved to."""
        return self._now

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Keep the callback until the loop is moved there."""
        timer = HandMovedTimer(callback)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def move_to(self, instant: float) -> None:
        """Jump to `instant`, then fire what was due: as a loop that was busy does."""
        self._now = max(self._now, instant)
        while self._timers and self._timers[0][0] <= self._now:
            heapq.heappop(self._timers)[2].fire()

    def stall_to(self, instant: float) -> None:
        """Jump to `instant` in the middle of something else: no timer fires."""
        self._now = max(self._now, instant)

    def run(self, until: float = inf) -> None:
        """Fire every timer on time, up to `until` or until none is left."""
        while self._timers and self._timers[0][0] <= until:
            self.move_to(self._timers[0][0])
        if until < inf:
            self._now = max(self._now, until)


@pytest.fixture
def hand_loop() -> HandMovedLoop:
    """Give a loop that is moved by hand."""
    return HandMovedLoop()


@pytest.fixture
def futures() -> Iterator[Callable[[], asyncio.Future[None]]]:
    """Give a maker of futures that no running loop owns."""
    loop = asyncio.new_event_loop()
    yield loop.create_future
    loop.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Give a self-signed certificate for 127.0.0.1, and its key."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mock")])
    now = datetime.now(UTC)
    address = x509.IPAddress(ip_address("127.0.0.1"))
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    where = tmp_path_factory.mktemp("tls")
    cert_file, key_file = where / "cert.pem", where / "key.pem"
    cert_file.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_file, key_file


@pytest.fixture
def ask(mock: Callable[..., Any], body: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function that asks a new server, whole and streamed."""

    def both(
        path: str = "/v1/chat/completions",
        length: int = 20,
        options: Any = None,
        **fields: Any,
    ) -> tuple[Any, list[Any]]:
        async def main() -> tuple[Any, list[Any]]:
            payload = body(**fields)
            if "prompt" in fields or "input" in fields:
                del payload["messages"]
            async with mock(length=length) as server, aiohttp.ClientSession() as client:
                url = server.url + path
                async with client.post(url, json=payload) as response:
                    whole = await response.json()
                    assert response.status == 200, whole
                payload["stream"] = True
                if "input" not in fields:
                    payload["stream_options"] = options or {"include_usage": True}
                async with client.post(url, json=payload) as response:
                    assert response.status == 200, await response.text()
                    text = await response.text()
                assert not server.kv_in_use
            lines = [line for line in text.split("\n") if line.startswith("data: {")]
            return whole, [json.loads(line[6:]) for line in lines]

        return asyncio.run(main())

    return both
