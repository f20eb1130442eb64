"""What the mock announces of each request, and what it makes of `traceparent`."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from loadstone.buckets import TracedArray
from loadstone.observers import Observers
from loadstone.telemetry.otel.server import ServerTelemetry
from loadstone.telemetry.otel.settings import Settings
from loadstone.telemetry.otel.trees import Tree
from mock_server.hooks import CLIENT_WENT_AWAY, Visit
from mock_server.stats import ServerStats

Maker = Callable[..., Any]

SAMPLED = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOT_SAMPLED = SAMPLED[:-1] + "0"
CHAT = "/v1/chat/completions"


class Notes:
    """An observer that writes down."""

    def __init__(self) -> None:
        self.visits: list[Visit] = []

    def request_served(self, visit: Visit) -> None:
        """Keep it."""
        self.visits.append(visit)


@asynccontextmanager
async def noted(
    mock: Maker, **settings: Any
) -> AsyncIterator[tuple[Any, aiohttp.ClientSession, Notes]]:
    """Run a server that is observed, and a client."""
    notes = Notes()
    observers = Observers(lambda *_: None)
    observers.add(notes)
    async with (
        mock(observers=observers, **settings) as server,
        aiohttp.ClientSession(server.url) as client,
    ):
        yield server, client, notes


async def ask(client: aiohttp.ClientSession, payload: Any, header: str = "") -> int:
    """Post a request and read its answer."""
    headers = {"traceparent": header} if header else {}
    async with client.post(CHAT, json=payload, headers=headers) as response:
        await response.read()
        return response.status


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_is_announced_with_its_ticket(
    mock: Maker, body: Maker, *, stream: bool
) -> None:
    """Its stamps are in order, on the server's clock."""

    async def scenario() -> None:
        async with noted(mock, length=5) as (_, client, notes):
            assert await ask(client, body(stream=stream), SAMPLED) == 200
            (visit,) = notes.visits
            ticket = visit.ticket
            assert ticket is not None
            sequence = ticket.sequence
            assert (visit.status, ticket.engine) == (200, 0)
            assert visit.parent is not None
            assert str(visit.parent) == SAMPLED
            stamps = [
                visit.received_s, sequence.arrived_s, sequence.scheduled_s,
                sequence.first_s, sequence.last_s, visit.ended_s,
            ]  # fmt: skip
            assert stamps == sorted(stamps)
            assert abs(visit.t0_epoch + visit.ended_s - time.time()) < 5

    asyncio.run(scenario())


def test_refused_requests_are_announced_with_their_status(
    mock: Maker, body: Maker
) -> None:
    """With or without a ticket, as far as they came."""

    async def scenario() -> None:
        async with noted(mock) as (_, client, notes):
            assert await ask(client, body(model="other")) == 404
            assert await ask(client, {"model": "llama"}) == 400
            assert [(v.status, v.ticket) for v in notes.visits] == [
                (404, None), (400, None)
            ]  # fmt: skip
            assert all(v.parent is None for v in notes.visits)

    asyncio.run(scenario())


def test_a_client_that_left_is_announced(
    mock: Maker, body: Maker, until: Maker
) -> None:
    """As nginx counts it."""

    async def scenario() -> None:
        async with noted(mock, length=100_000) as (_, client, notes):
            response = await client.post(CHAT, json=body(stream=True))
            response.close()
            await until(lambda: notes.visits)
            (visit,) = notes.visits
            assert visit.status == CLIENT_WENT_AWAY
            assert visit.ended_s > visit.received_s

    asyncio.run(scenario())


@pytest.mark.parametrize("header", ["", "garbage", SAMPLED.upper(), "00-" + "f" * 8000])
def test_a_bad_traceparent_is_as_good_as_none(
    mock: Maker, body: Maker, header: str
) -> None:
    """The request is served all the same."""

    async def scenario() -> None:
        async with noted(mock, length=1) as (_, client, notes):
            assert await ask(client, body(), header) == 200
            assert notes.visits[0].parent is None

    asyncio.run(scenario())


def test_only_a_recorded_trace_is_an_exemplar(mock: Maker, body: Maker) -> None:
    """A trace that nobody keeps would be a dead link."""

    async def scenario() -> None:
        async with noted(mock, length=1) as (server, client, _):
            ttft = server.stats.engines[0].ttft
            assert isinstance(ttft, TracedArray)
            await ask(client, body(), NOT_SAMPLED)
            assert not ttft.exemplars
            await ask(client, body(), SAMPLED)
            (example,) = ttft.exemplars.values()
            assert example.trace_id == SAMPLED.split("-")[1]

    asyncio.run(scenario())


def test_an_observer_that_raises_is_switched_off(mock: Maker, body: Maker) -> None:
    """The request that it failed on is answered, and so is the next."""
    failures: list[str] = []

    class Broken:
        def request_served(self, visit: Visit) -> None:
            raise RuntimeError(visit.status)

    async def scenario() -> None:
        observers = Observers(lambda _, hook, __: failures.append(hook))
        observers.add(Broken())
        async with (
            mock(observers=observers, length=1) as server,
            aiohttp.ClientSession(server.url) as client,
        ):
            assert await ask(client, body()) == 200
            assert await ask(client, body()) == 200

    asyncio.run(scenario())
    assert failures == ["request_served"]


# -------------------------------------------------------------------- what is sampled


def watcher(ratio: float, *, follows_parent: bool = True) -> ServerTelemetry:
    """Make an exporter of nothing that keeps what is sampled in its queue."""
    settings = Settings(
        signals=frozenset(("traces",)), ratio=ratio, follows_parent=follows_parent
    )
    made = ServerTelemetry(settings, model="llama", stats=ServerStats(1))
    made.close()
    return made


@pytest.mark.parametrize(
    ("header", "ratio", "follows", "sampled"),
    [
        (SAMPLED, 0.0, True, True),
        (NOT_SAMPLED, 1.0, True, False),
        (SAMPLED, 0.0, False, False),
        (NOT_SAMPLED, 1.0, False, True),
        # The lower half of the trace id is 0.64 of the range.
        (SAMPLED, 0.6, False, False),
        (NOT_SAMPLED, 0.7, False, True),
        (None, 0.0, True, False),
        (None, 1.0, True, True),
    ],
)
def test_who_decides_about_sampling(
    header: str | None, ratio: float, *, follows: bool, sampled: bool
) -> None:
    """The caller where there is one and the sampler says so, else the trace id."""
    from loadstone.wire.traceparent import TraceParent

    made = watcher(ratio, follows_parent=follows)
    parent = TraceParent.parse(header)
    made.request_served(Visit(t0_epoch=0.0, received_s=0.0, parent=parent))
    assert len(made._telemetry.queue) == sampled


def tree_of(visit: Visit) -> Tree:
    """Return the spans of a visit."""
    return watcher(1.0)._tree_of(visit)


def test_stages_end_with_a_broken_request(
    mock: Maker, body: Maker, until: Maker
) -> None:
    """A request that was cut off while it decoded has no stage beyond its end."""

    async def scenario() -> None:
        async with noted(mock, length=100_000) as (_, client, notes):
            response = await client.post(CHAT, json=body(stream=True))
            await response.content.readany()
            response.close()
            await until(lambda: notes.visits)
            (visit,) = notes.visits
        made = tree_of(visit)
        assert [s.name for s in made.stages] == ["queue", "prefill", "decode"]
        assert made.stages[-1].end == made.end == visit.ended_s
        assert made.error == "499"

    asyncio.run(scenario())


def test_a_request_refused_for_a_full_queue_has_no_stages(
    mock: Maker, body: Maker, fleet_of: Maker, until: Maker
) -> None:
    """No engine ever saw it."""

    async def scenario() -> None:
        fleet = fleet_of(step_ms=200.0, max_num_seqs=1)
        async with noted(mock, fleet=fleet, max_waiting=1) as (_, client, notes):
            asking = [asyncio.create_task(ask(client, body())) for _ in range(4)]
            await until(lambda: notes.visits)
            for task in asking:
                task.cancel()
            visit = notes.visits[0]
        assert (visit.status, tree_of(visit).stages) == (429, ())
        assert tree_of(visit).error == "429"
        assert tree_of(visit).name == "chat _OTHER"

    asyncio.run(scenario())
