"""A mock LLM for other people's tests: a pytest plugin, on wherever loadstone is.

    def test_the_bot_answers(mock_llm):
        client = OpenAI(base_url=mock_llm.url + "/v1", api_key="none")

Nothing but pytest is imported until a test asks for the mock. `docs/testing.md` has
what can be set and what the two clocks mean.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import pytest

if TYPE_CHECKING:
    import asyncio

    from mock_server.hooks import Visit
    from mock_server.jump import JumpingTimers

    from .catalog.presets import Preset
    from .engine.fleet import Fleet

MARKER: Final = "mock_llm"
PATIENCE_S: Final = 10.0
"""How long a test waits for the mock to start, to stop, or to have its requests."""
_UNREAD_BYTES: Final = 1 << 30
"""Under a virtual clock no reader is slow: answers come faster than anyone reads."""

Clock = Literal["virtual", "real"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A request as the mock saw it; times are the engine's, in seconds.

    All but `status` are zero for a request that was refused or did not end.
    """

    status: int
    prompt_tokens: int = 0
    output_tokens: int = 0
    queue_s: float = 0.0
    ttft_s: float = 0.0
    tpot_s: float = 0.0
    e2e_s: float = 0.0

    @classmethod
    def of(cls, visit: Visit) -> Self:
        """Take a visit's figures."""
        sequence = visit.ticket.sequence if visit.ticket else None
        if sequence is None or sequence.first_s is None or sequence.last_s is None:
            return cls(status=visit.status)
        tokens = sequence.output_tokens
        return cls(
            status=visit.status,
            prompt_tokens=sequence.prompt_tokens,
            output_tokens=tokens,
            queue_s=(sequence.scheduled_s or 0.0) - visit.received_s,
            ttft_s=sequence.first_s - visit.received_s,
            tpot_s=(sequence.last_s - sequence.first_s) / max(1, tokens - 1),
            e2e_s=sequence.last_s - visit.received_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a mock for tests is: see `docs/testing.md`."""

    clock: Clock = "virtual"
    preset: str = "azure-nd-gb300-v6"
    model: str = "llama-2-70b"
    vms: int = 1
    router: str = "least_loaded"
    policy: str = "vllm"
    seed: int = 0
    slowdown: float = 1.0
    stream_interval: int = 1
    output_tokens: int | None = None
    """Length of the answers that end by themselves; else drawn as for real chats."""
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    max_model_len: int | None = None
    max_waiting: int = 4096
    api_key: str | None = None

    def machine(self) -> tuple[Preset, Fleet]:
        """Build the engines."""
        from .cli.engine_options import build_live

        machine, fleet, _ = build_live(
            preset=self.preset, model=self.model, vms=self.vms, router=self.router,
            policy=self.policy, seed=self.seed, max_num_seqs=self.max_num_seqs,
            max_num_batched_tokens=self.max_num_batched_tokens,
            max_model_len=self.max_model_len, slowdown=self.slowdown,
        )  # fmt: skip
        return machine, fleet


class MockLlm:
    """A mock server in a thread of this process, on a free port of 127.0.0.1."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.model = options.model
        self.url = ""
        self._served: list[Served] = []
        self._machine, self._fleet = options.machine()
        self._timers: JumpingTimers | None = None
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name=MARKER, daemon=True)

    def __repr__(self) -> str:
        return f"<MockLlm {self.options.clock} at {self.url or 'no address yet'}>"

    def __enter__(self) -> Self:
        """Start it; raises what kept it from starting."""
        self._thread.start()
        self._ready.wait(PATIENCE_S)
        if self._failed is not None:
            raise self._failed
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it; requests that still run are cut off."""
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_S)

    @property
    def served(self) -> list[Served]:
        """Every request for an answer, in the order of their ends."""
        import asyncio

        loop = self._loop
        if loop is not None and self._thread.is_alive():
            # A client may have the last byte before the handler has taken note of it.
            asyncio.run_coroutine_threadsafe(_settle(), loop).result(PATIENCE_S)
        return list(self._served)

    @property
    def in_flight(self) -> int:
        """Requests on the engines, waiting ones included."""
        return sum(engine.waiting + engine.running for engine in self._fleet.engines)

    def wait_for(self, requests: int) -> None:
        """Wait, in real time, until so many requests are in flight together.

        Raises `TimeoutError` if they do not come.
        """
        end = time.monotonic() + PATIENCE_S
        while self.in_flight < requests:
            if time.monotonic() > end:
                raise TimeoutError(f"{self.in_flight} of {requests} requests came")
            time.sleep(0.001)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Let virtual time stand still: what comes meanwhile arrives at one instant.

        Raises `RuntimeError` under a real clock.
        """
        timers, loop = self._timers, self._loop
        if timers is None or loop is None:
            raise RuntimeError("hold() needs a running mock with clock='virtual'")
        loop.call_soon_threadsafe(timers.hold)
        try:
            yield
        finally:
            loop.call_soon_threadsafe(timers.release)

    def request_served(self, visit: Visit) -> None:
        """Take note of a request: a hook of `mock_server.hooks`."""
        self._served.append(Served.of(visit))

    def _run(self) -> None:
        import asyncio

        try:
            asyncio.run(self._serve())
        except BaseException as failed:  # noqa: BLE001 - raised where it was started
            self._failed = failed
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        import asyncio

        from mock_server.config import MIB, ServerConfig
        from mock_server.jump import JumpingTimers
        from mock_server.serve import serve
        from mock_server.stats import ServerStats

        from .catalog.boards import load_board
        from .catalog.workloads import load_lengths
        from .observers import Observers
        from .telemetry.gpus import GpuFacts, Gpus
        from .telemetry.server import About, server_metrics

        asked, machine, fleet = self.options, self._machine, self._fleet
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        virtual = asked.clock == "virtual"
        self._timers = JumpingTimers(self._loop) if virtual else None
        limits = machine.limits
        stats = ServerStats(len(fleet.engines), max_model_len=limits.max_model_len)
        gpus = Gpus(GpuFacts.of(machine, load_board(machine.gpu)), fleet.engines)
        about = About(
            model=asked.model, preset=asked.preset, vms=asked.vms,
            cache_dtype=machine.cache_dtype,
        )  # fmt: skip
        config = ServerConfig(
            model=asked.model, preset=asked.preset, vms=asked.vms, seed=asked.seed,
            port=0, clock=asked.clock, slowdown=asked.slowdown,
            stream_interval=asked.stream_interval, max_waiting=asked.max_waiting,
            api_key=asked.api_key, grace_s=0.0,
            write_limit_bytes=_UNREAD_BYTES if virtual else MIB,
        )  # fmt: skip
        observers = Observers(_fail)
        observers.add(self)
        length = asked.output_tokens
        chats = load_lengths("azure-2023-conversation-output")
        await serve(
            config,
            fleet,
            stats=stats,
            lengths=chats.draw if length is None else lambda _: length,
            metrics=server_metrics(about, fleet, stats, gpus),
            announce=self._announce,
            observers=observers,
            stop=self._stop,
            timers=self._timers,
        )

    def _announce(self, line: str) -> None:
        self.url = line.removeprefix("listening on ")
        self._ready.set()


async def _settle() -> None:
    """Let whatever is ready on the loop run, and what that makes ready."""
    import asyncio

    for _ in range(10):
        await asyncio.sleep(0)


def _fail(_: object, hook: str, failure: Exception) -> None:
    raise AssertionError(f"{hook} failed; this is a bug in loadstone") from failure


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, so that `--strict-markers` lets it pass."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(clock=, model=, vms=, seed=, slowdown=, ...): what the fixture"
        f" {MARKER} of this test is to be; docs/testing.md of loadstone has them all",
    )


@pytest.fixture
def mock_llm_factory() -> Iterator[Callable[..., MockLlm]]:
    """Give what starts mocks: `mock_llm_factory(clock="real", vms=2)`.

    They are stopped at the end of the test.
    """
    with ExitStack() as running:

        def start(**options: Any) -> MockLlm:
            return running.enter_context(MockLlm(Options(**options)))

        yield start


@pytest.fixture
def mock_llm(
    request: pytest.FixtureRequest, mock_llm_factory: Callable[..., MockLlm]
) -> MockLlm:
    """Give a running mock LLM, as the marker of the same name says."""
    marker = request.node.get_closest_marker(MARKER)
    return mock_llm_factory(**(marker.kwargs if marker else {}))
