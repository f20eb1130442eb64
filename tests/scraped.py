"""A live mock whose `/metrics` is the real one, and a reader of what it says."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import aiohttp
from aiohttp import web
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as read_classic

from loadstone.engine.fleet import Fleet, build_fleet
from loadstone.engine.sequence import Sequence
from loadstone.physics.limits import EngineLimits
from loadstone.physics.power import PowerLaw
from loadstone.physics.steplaw import StepLaw
from loadstone.telemetry.gpus import GpuFacts, Gpus
from loadstone.telemetry.places import Topology
from loadstone.telemetry.server import About, server_metrics
from loadstone.vocabulary import MetricSpec
from loadstone.wire.tokens import prompt_of
from mock_server.app import Metrics, build_app
from mock_server.config import ServerConfig
from mock_server.driver import Driver
from mock_server.entrance import Entrance
from mock_server.filler import Answer
from mock_server.serve import serve
from mock_server.sinks import CollectSink, Ticket
from mock_server.stats import ServerStats

MODEL = "llama"
STEP_S = 0.002
PROMPT = 20
PUBLISHED_PER_GPU = 500.0
MIB = 1 << 20
UTF8 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8"
LIMITS = {
    "max_num_seqs": 64,
    "max_num_batched_tokens": 2048,
    "kv_blocks": 16_384,
    "block_size": 16,
    "max_model_len": 200_000,
}
GPU = GpuFacts(
    title="NVIDIA GB300 (emulated)",
    power=PowerLaw(idle_w=200.0, limit_w=1400.0),
    rest_w_per_vm=2000.0,
    topology=Topology(gpus_per_engine=1, gpus_per_vm=4, vms_per_rack=18),
    memory_bytes=1000.0 * MIB,
    memory_bytes_per_s=1e9,
    weight_bytes=100.0 * MIB,
    reserved_bytes=10.0 * MIB,
    kv_bytes_per_token=100.0,
)


class Page:
    """One scrape, read by prometheus_client."""

    def __init__(self, text: str, content_type: str) -> None:
        self.text = text
        self.content_type = content_type
        openmetrics = content_type.startswith("application/openmetrics-text")
        read = read_openmetrics if openmetrics else read_classic
        self.families: dict[str, Metric] = {f.name: f for f in read(text)}

    def samples(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        """Give the samples of one name on the wire: their labels and values."""
        for family in self.families.values():
            for sample in family.samples:
                if sample.name == name:
                    yield sample.labels, sample.value

    def total(self, name: str, **labels: str) -> float:
        """Add up the samples of one name that have these labels; 0 for none."""
        return sum(
            value
            for found, value in self.samples(name)
            if found.items() >= labels.items()
        )

    def family(self, spec: MetricSpec) -> Metric:
        """Give a spec's family. The parser takes `_total` off a counter's name."""
        return self.families[spec.name]


@dataclass
class Live:
    """A running mock server, and a client's view of it."""

    fleet: Fleet
    stats: ServerStats
    client: aiohttp.ClientSession
    url: str = ""
    numbers: Iterator[int] = field(default_factory=count)

    def post(self, **fields: Any) -> Any:
        """Send a chat completion with a prompt of 20 tokens; a context manager."""
        headers = fields.pop("headers", {})
        content = prompt_of(PROMPT, next(self.numbers))
        messages = [{"role": "user", "content": content}]
        payload = {"model": MODEL, "messages": messages} | fields
        url = f"{self.url}/v1/chat/completions"
        return self.client.post(url, json=payload, headers=headers)

    async def answer(self, **fields: Any) -> int:
        """Send one and read all of its answer; returns the status."""
        async with self.post(**fields) as response:
            await response.read()
            status: int = response.status
            return status

    async def get(self, path: str) -> int:
        """Get a path; returns the status."""
        async with self.client.get(self.url + path) as response:
            await response.read()
            return response.status

    async def scrape(self, accept: str = "*/*") -> Page:
        """Read `/metrics`."""
        async with self.client.get(
            f"{self.url}/metrics", headers={"Accept": accept}
        ) as response:
            return Page(await response.text(), response.headers["Content-Type"])


def fleet_of(
    engines: int = 1,
    *,
    policy: str = "vllm",
    prefix_caching: bool = True,
    **limits: int,
) -> Fleet:
    """Build engines with steps of 2 ms."""
    law = StepLaw(
        weights_ms=STEP_S * 1e3, gemm_us_per_token=0.1, kv_ns_per_token=0, pair_ns=0
    )
    return build_fleet(
        EngineLimits(**(LIMITS | limits)), law, engines=engines, seed=7,
        policy=policy, prefix_caching=prefix_caching,
    )  # fmt: skip


def stats_of(fleet: Fleet) -> ServerStats:
    """Make the statistics of a fleet's server."""
    return ServerStats(len(fleet.engines), max_model_len=fleet.engines[0].max_model_len)


def metrics_of(fleet: Fleet, stats: ServerStats, gpu: GpuFacts = GPU) -> Metrics:
    """Make what answers `/metrics`."""
    about = About(
        model=MODEL, preset="test", vms=1, cache_dtype="fp8",
        published=((("gpu", "mean", "Offline, unverified"), PUBLISHED_PER_GPU),),
        published_energy=((("Offline, unverified",), 0.5),),
    )  # fmt: skip
    return server_metrics(about, fleet, stats, Gpus(gpu, fleet.engines))


@asynccontextmanager
async def running(
    *, engines: int = 1, length: int = 7, max_waiting: int = 4096, **limits: int
) -> AsyncIterator[Live]:
    """Run a server for the block: steps of 2 ms, natural answers of `length` tokens."""
    fleet = fleet_of(engines, **limits)
    stats = stats_of(fleet)
    stop = asyncio.Event()
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        serve(
            ServerConfig(
                model=MODEL, preset="test", port=0, grace_s=0.2, max_waiting=max_waiting
            ),
            fleet,
            stats=stats,
            lengths=lambda _: length,
            metrics=metrics_of(fleet, stats),
            announce=ready.set_result,
            stop=stop,
        )
    )
    try:
        async with aiohttp.ClientSession() as client:
            url = (await ready).removeprefix("listening on ")
            yield Live(fleet, stats, client, url)
    finally:
        stop.set()
        await task


@dataclass
class Driven:
    """A server whose driver is at hand: for what requests cannot say over HTTP."""

    driver: Driver
    url: str

    def submit(self, sequence: Sequence) -> asyncio.Future[None]:
        """Let a sequence arrive; the future is done when it has been served."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ticket = Ticket(
            sequence=sequence,
            answer=Answer(0, sequence.output_tokens, "length"),
            received_s=self.driver.clock.now(),
            done=done,
        )
        self.driver.submit(CollectSink(ticket))
        return done

    async def scrape(self) -> Page:
        """Read `/metrics`."""
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"{self.url}/metrics") as response,
        ):
            return Page(await response.text(), response.headers["Content-Type"])


@asynccontextmanager
async def driven(fleet: Fleet, gpu: GpuFacts = GPU) -> AsyncIterator[Driven]:
    """Run a fleet behind the mock's application for the block."""
    stats = stats_of(fleet)
    driver = Driver(fleet, stats, asyncio.get_running_loop())
    config = ServerConfig(model=MODEL, preset="test", port=0)
    metrics = metrics_of(fleet, stats, gpu)
    app = build_app(
        config, driver, lengths=lambda _: 7, metrics=metrics, entrance=Entrance(0.0)
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield Driven(driver, f"http://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        driver.stop()
        await runner.cleanup()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that must come true, and soon."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the server sets no events
            await asyncio.sleep(0.001)
