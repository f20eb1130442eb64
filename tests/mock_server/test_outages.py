"""Engines that are lost, come back and run slower: on the wire and in the books."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from loadstone.engine.virtual import replay
from loadstone.wire.tokens import count
from mock_server.faults import read_fault

Maker = Callable[..., Any]
pytestmark = pytest.mark.timeout(30)

TOKENS = 150
STEP_MS = 4.0
ADMIN = {"Authorization": "Bearer open"}


class Answer:
    """One stream as its client saw it."""

    def __init__(self) -> None:
        self.status = 0
        self.text = ""
        self.whole = False
        self.usage: dict[str, Any] = {}


async def ask(client: aiohttp.ClientSession, asked: dict[str, Any]) -> Answer:
    """Stream an answer, to the end if there is one."""
    answer = Answer()
    try:
        async with client.post("/v1/chat/completions", json=asked) as response:
            answer.status = response.status
            async for line in response.content:
                if line.startswith(b"data: {"):
                    event = json.loads(line[6:])
                    answer.usage = event.get("usage") or answer.usage
                    for choice in event["choices"]:
                        answer.text += choice["delta"].get("content") or ""
                answer.whole |= line == b"data: [DONE]\n"
    except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError):
        answer.whole = False
    except aiohttp.ClientOSError:
        answer.whole = False
    return answer


def asking(body: Maker, **more: Any) -> dict[str, Any]:
    """Give a request for a long answer."""
    usual = {"stream": True, "max_tokens": TOKENS, "ignore_eos": True}
    with_usage = {"stream_options": {"include_usage": True}}
    asked: dict[str, Any] = body(**(usual | with_usage | more))
    return asked


@pytest.mark.parametrize("fate", ["retry", "fail", "migrate"])
def test_a_lost_vm(
    mock: Maker, fleet_of: Maker, body: Maker, step_log: Maker, until: Maker, fate: str
) -> None:
    """Half of the streams lose their VM in the middle; the other half never notice.

    Those that are moved have a gap and all their tokens, each once; the others break
    off. Afterwards no engine holds anything, and the journal replays to the same steps.
    """
    build = {"engines": 2, "step_ms": STEP_MS, "sigma": 0.1}

    async def scenario() -> tuple[list[Answer], Answer, Any, Any]:
        fleet = fleet_of(**build)
        log = step_log(fleet)
        lost = read_fault({"kind": "vm_lost", "vm": 1, "requests": fate})
        async with (
            mock(fleet, vms=2, admin_key="open") as server,
            aiohttp.ClientSession(server.url) as client,
        ):
            tasks = [asyncio.create_task(ask(client, asking(body))) for _ in range(8)]
            await until(lambda: all(e.generated_tokens > 100 for e in fleet.engines))
            async with client.post(
                "/admin/faults", json=lost.fields(), headers=ADMIN
            ) as told:
                assert told.status == 201
                number = (await told.json())["id"]
            await until(lambda: list(fleet.up) == [0])
            assert server.stats.faults["vm_lost"] == 1
            await until(lambda: fleet.engines[1].due is None)
            assert fleet.engines[1].kv_usage == 0
            assert not fleet.engines[1].running
            # Nothing is routed to it while it is away.
            steps = fleet.engines[1].steps
            late = await ask(client, asking(body, max_tokens=5))
            assert fleet.engines[1].steps == steps
            async with client.delete(f"/admin/faults/{number}", headers=ADMIN) as told:
                assert told.status == 204
            assert list(fleet.up) == [0, 1]
            answers = [await task for task in tasks]
            again = await asyncio.gather(
                *(ask(client, asking(body, max_tokens=5)) for _ in range(4))
            )
            assert all(answer.whole for answer in again)
            assert fleet.engines[1].steps > steps
            await until(lambda: all(e.due is None for e in fleet.engines))
            assert not server.kv_in_use
            assert all(not e.waiting and not e.running for e in fleet.engines)
            finished = [stats.finished for stats in server.stats.engines]
            assert sum(f["error"] for f in finished) == (0 if fate == "migrate" else 4)
            assert sum(f["abort"] for f in finished) == 0
            ended = sum(f["length"] for f in finished)
            assert ended == 5 + (8 if fate == "migrate" else 4)
            first_tokens = sum(stats.ttft.count for stats in server.stats.engines)
            assert first_tokens == 13
            return answers, late, server.journal, log

    answers, late, journal, log = asyncio.run(scenario())
    assert late.whole
    whole = [answer for answer in answers if answer.whole]
    assert len(whole) == (8 if fate == "migrate" else 4)
    for answer in whole:
        assert answer.usage["completion_tokens"] == TOKENS
        assert answer.usage["prompt_tokens"] == 20
        assert count(answer.text) == TOKENS
    kinds = [entry.kind for entry in journal]
    assert kinds.count("restart") == 1
    again: dict[int, list[str]] = {0: [], 1: []}
    replay(
        fleet_of(**build).engines, journal, lambda i, step: again[i].append(step.line())
    )
    assert again == log


def test_text_goes_on_where_it_was(mock: Maker, fleet_of: Maker, body: Maker) -> None:
    """A migrated stream has the very text that it has where nothing is lost."""
    asked = asking(body)

    async def text(*faults: dict[str, Any]) -> str:
        fleet = fleet_of(engines=2, step_ms=STEP_MS)
        rows = tuple(read_fault(row) for row in faults)
        async with (
            mock(fleet, vms=2, faults=rows) as server,
            aiohttp.ClientSession(server.url) as client,
        ):
            answer = await ask(client, asked)
            assert answer.whole
            moves = [entry.generated for entry in server.journal if entry.generated]
            assert bool(moves) == bool(faults)
            assert all(0 < generated < TOKENS for generated in moves)
            return answer.text

    lost = {"kind": "vm_lost", "requests": "migrate", "from": 0.25, "until": 0.3}
    both = [lost | {"vm": 0}, lost | {"vm": 1, "from": 0.4, "until": 9}]
    assert asyncio.run(text(*both)) == asyncio.run(text())


def test_before_its_first_token_a_request_is_retried(
    mock: Maker, fleet_of: Maker, body: Maker, until: Maker
) -> None:
    """Whoever waits or is prefilled goes elsewhere; streams that began break off."""

    async def scenario() -> list[Answer]:
        fleet = fleet_of(engines=2, step_ms=STEP_MS, max_num_seqs=2)
        async with (
            mock(fleet, vms=2, admin_key="open") as server,
            aiohttp.ClientSession(server.url) as client,
        ):
            tasks = [asyncio.create_task(ask(client, asking(body))) for _ in range(8)]
            await until(
                lambda: (
                    all(e.running == 2 and e.waiting == 2 for e in fleet.engines)
                    and fleet.engines[0].generated_tokens > 4
                )
            )
            row = {"kind": "gpu_lost", "engine": 0}
            await client.post("/admin/faults", json=row, headers=ADMIN)
            answers = [await task for task in tasks]
            assert [s.finished["error"] for s in server.stats.engines] == [2, 0]
            assert server.stats.engines[1].finished["length"] == 6
            # Queue times count from when the client asked, wherever it waited.
            assert server.stats.engines[1].queue.total > 0
            return answers

    answers = asyncio.run(scenario())
    assert sum(answer.whole for answer in answers) == 6
    assert all(not answer.whole for answer in answers if count(answer.text) < TOKENS)


def test_when_all_are_lost(mock: Maker, body: Maker, until: Maker) -> None:
    """Running bodies and new requests get 503, `/ready` says no, and it comes back."""

    async def scenario() -> None:
        async with (
            mock(admin_key="open") as server,
            aiohttp.ClientSession(server.url) as client,
        ):
            (engine,) = server.fleet.engines
            chat = "/v1/chat/completions"
            asked = asking(body, stream=False, stream_options=None, max_tokens=9000)
            running = asyncio.create_task(client.post(chat, json=asked))
            await until(lambda: engine.running == 1)
            row = {"kind": "vm_lost", "until": 0.3}
            await client.post("/admin/faults", json=row, headers=ADMIN)
            lost = await running
            assert lost.status == 503
            assert (await lost.json())["error"]["code"] == "engine_lost"
            async with client.post(chat, json=body()) as refused:
                assert refused.status == 503
                assert (await refused.json())["error"]["code"] == "no_engine"
            async with client.get("/ready") as ready:
                assert ready.status == 503
            await until(lambda: bool(server.fleet.up))
            async with client.get("/ready") as ready:
                assert ready.status == 200
            async with client.post(chat, json=body()) as served:
                assert served.status == 200

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["power_cap", "cold_start"])
def test_slower_steps(mock: Maker, fleet_of: Maker, body: Maker, kind: str) -> None:
    """Steps take so many times as long while it lasts, and then what they always do."""
    factor = 5.0
    row = {"kind": kind, "slowdown": factor, "until": 0.6}
    if kind == "cold_start":
        row["load"] = 0.1

    async def scenario() -> list[float]:
        async with (
            mock(fleet_of(step_ms=STEP_MS), faults=(read_fault(row),)) as server,
            aiohttp.ClientSession(server.url) as client,
        ):
            (engine,) = server.fleet.engines
            await asyncio.sleep(0.15)
            tpots = []
            for _ in range(2):
                before = engine.busy_s(1e9), engine.steps
                answer = await ask(client, asking(body, max_tokens=11))
                assert answer.whole
                took = engine.busy_s(1e9) - before[0], engine.steps - before[1]
                tpots.append(took[0] / took[1])
                await asyncio.sleep(0.4)
            return tpots

    slow, usual = asyncio.run(scenario())
    assert slow == pytest.approx(factor * STEP_MS / 1e3)
    assert usual == pytest.approx(STEP_MS / 1e3)


def test_a_cold_start_takes_no_requests_until_it_has_loaded(
    mock: Maker, body: Maker, until: Maker
) -> None:
    """503 first, then service."""
    row = {"kind": "cold_start", "load": 0.3}

    async def scenario() -> None:
        async with (
            mock(faults=(read_fault(row),)) as server,
            aiohttp.ClientSession(server.url) as client,
        ):
            await until(lambda: not server.fleet.up)
            async with client.post("/v1/chat/completions", json=body()) as answer:
                assert answer.status == 503
            await until(lambda: bool(server.fleet.up))
            async with client.post("/v1/chat/completions", json=body()) as answer:
                assert answer.status == 200

    asyncio.run(scenario())


def test_admin(mock: Maker, body: Maker) -> None:
    """Its own key alone lets faults be added, listed and taken out."""
    row = {"kind": "error", "status": 418}

    async def scenario() -> None:
        async with (
            mock(admin_key="open", api_key="client") as server,
            aiohttp.ClientSession(server.url) as client,
        ):
            path = "/admin/faults"
            for wrong in ({}, {"Authorization": "Bearer client"}):
                for verb in (client.get, client.post, client.delete):
                    async with verb(path, headers=wrong) as answer:
                        assert answer.status == 401
            async with client.post(path, json=row, headers=ADMIN) as answer:
                made = await answer.json()
                assert answer.status == 201
                assert made == row | {"id": 1, "from": 0.0, "active": True}
            async with client.get(path, headers=ADMIN) as answer:
                assert (await answer.json()) == {"faults": [made]}
            own = {"Authorization": "Bearer client"}
            chat = "/v1/chat/completions"
            async with client.post(chat, json=body(), headers=own) as answer:
                assert answer.status == 418
            async with client.delete(f"{path}/2", headers=ADMIN) as answer:
                assert answer.status == 404
            async with client.delete(path, headers=ADMIN) as answer:
                assert answer.status == 200
            async with client.post(chat, json=body(), headers=own) as answer:
                assert answer.status == 200
            for bad in (
                {"kind": "boom"},
                {"kind": "vm_lost", "vm": 1},
                row | {"tenant": "nobody"},
                row | {"model": "gpt"},
                [],
                3,
            ):
                async with client.post(path, json=bad, headers=ADMIN) as answer:
                    assert answer.status == 400
                    assert (await answer.json())["error"]["code"] == "bad_fault"

    asyncio.run(scenario())


def test_without_a_key_there_is_no_admin(mock: Maker) -> None:
    """The path leads nowhere."""

    async def scenario() -> int:
        async with (
            mock() as server,
            aiohttp.ClientSession(server.url) as client,
            client.get("/admin/faults", headers=ADMIN) as answer,
        ):
            return answer.status

    assert asyncio.run(scenario()) == 404


@pytest.mark.parametrize("allowed", [True, False])
def test_the_header(mock: Maker, body: Maker, allowed: bool) -> None:
    """Requests have the faults they ask for where the server allows it, else 400."""
    texts = {
        "error;status=503": 503,
        "boom": 400,
        "no_usage": 200,
        "stall;delay=0": 400,
    }

    async def scenario() -> list[int]:
        async with (
            mock(fault_header=allowed) as server,
            aiohttp.ClientSession(server.url) as client,
        ):
            statuses = []
            for text in texts:
                headers = {"x-loadstone-fault": text}
                async with client.post(
                    "/v1/chat/completions", json=body(), headers=headers
                ) as answer:
                    statuses.append(answer.status)
                    assert ("usage" in await answer.json()) is False
            return statuses

    assert asyncio.run(scenario()) == [s if allowed else 400 for s in texts.values()]
