"""The supervisor's front before workers that are played here, on Unix sockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from mock_server.config import ServerConfig
from mock_server.front import Front, Page
from mock_server.share import Share
from mock_server.worker import State, Worker

pytestmark = pytest.mark.timeout(30)

Handler = Callable[[web.Request], Any]


def merge(
    accept: str, pages: Sequence[Page | None], workers: Sequence[Worker]
) -> tuple[bytes, str]:
    """Show what the front hands over."""
    return json.dumps([accept, pages, len(workers)]).encode(), "text/plain"


@asynccontextmanager
async def fronting(
    folder: Path, *handlers: Handler | None
) -> AsyncIterator[tuple[aiohttp.ClientSession, list[Worker]]]:
    """Run a front before workers that answer so; None is one that is not there."""
    count = len(handlers)
    shares = Share.all_of(count, count)
    workers = [
        Worker(share, {}, port=0, control=folder / f"{share.worker}.s", patience_s=1)
        for share in shares
    ]
    runners = []

    async def serve(app: web.Application) -> web.AppRunner:
        runner = web.AppRunner(app)
        await runner.setup()
        runners.append(runner)
        return runner

    for worker, handler in zip(workers, handlers, strict=True):
        worker.url = f"http://worker-{worker.share.worker}"
        worker.state = State.DOWN
        if handler is not None:
            worker.state = State.UP
            app = web.Application()
            app.router.add_route("*", "/{tail:.*}", handler)
            await web.UnixSite(await serve(app), str(worker.control)).start()
    config = ServerConfig(model="m", preset="p", vms=count)
    runner = await serve(Front(config, workers, merge).app())
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with aiohttp.ClientSession(url) as client:
            yield client, workers
    finally:
        for running in runners:
            await running.cleanup()


async def echo(request: web.Request) -> web.Response:
    """Answer with all that was asked."""
    return web.json_response(
        {
            "method": request.method,
            "target": request.raw_path,
            "key": request.headers.get("Authorization"),
            "type": request.content_type,
            "body": (await request.read()).decode(),
        }
    )


async def refuse(_: web.Request) -> web.Response:
    """Refuse, as a worker does without the key."""
    return web.json_response({"error": {"code": "invalid_api_key"}}, status=401)


async def plain(_: web.Request) -> web.Response:
    """Answer with a page of text."""
    return web.Response(text="up 1\n")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
def test_admin_calls_reach_every_worker_whole(tmp_path: Path, method: str) -> None:
    """Method, path, query, key and body; the answers say whose they are."""

    async def scenario() -> None:
        async with fronting(tmp_path, echo, echo) as (client, _):
            body = None if method == "GET" else '{"vm": 1}'
            headers = {"Authorization": "Bearer k", "Content-Type": "application/json"}
            target = "/admin/faults/a%2Fb?x=1&y=%20"
            async with client.request(
                method, target, data=body, headers=headers
            ) as response:
                assert response.status == 200
                answers = (await response.json())["workers"]
        assert [answer["worker"] for answer in answers] == [0, 1]
        for answer in answers:
            assert answer["status"] == 200
            assert answer["body"] == {
                "method": method, "target": target, "key": "Bearer k",
                "type": "application/json", "body": body or "",
            }  # fmt: skip

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("handlers", "status", "statuses"),
    [
        ((refuse, refuse), 401, [401, 401]),
        ((echo, refuse), 207, [200, 401]),
        ((echo, None), 207, [200, 503]),
        ((None, None), 503, [503, 503]),
    ],
)
def test_the_status_is_what_all_workers_gave(
    tmp_path: Path,
    handlers: tuple[Handler | None, ...],
    status: int,
    statuses: list[int],
) -> None:
    """Where they differ it is 207, and each answer has its own."""

    async def scenario() -> None:
        async with (
            fronting(tmp_path, *handlers) as (client, _),
            client.get("/admin") as response,
        ):
            assert response.status == status
            answers = (await response.json())["workers"]
            assert [answer["status"] for answer in answers] == statuses

    asyncio.run(scenario())


def test_probes_tell_of_all_workers(tmp_path: Path) -> None:
    """Alive while one is there, ready only when all are."""

    async def probe(*handlers: Handler | None) -> tuple[int, int]:
        async with (
            fronting(tmp_path, *handlers) as (client, _),
            client.get("/health") as health,
            client.get("/ready") as ready,
        ):
            return health.status, ready.status

    async def scenario() -> None:
        assert await probe(plain, plain) == (200, 200)
        assert await probe(plain, refuse) == (200, 503)
        assert await probe(plain, None) == (200, 503)
        assert await probe(None, None) == (503, 503)

    asyncio.run(scenario())


def test_pages_are_merged_with_who_does_not_answer(tmp_path: Path) -> None:
    """The scraper's `Accept` is passed on; a page says which life it is of."""
    asked = []

    async def page(request: web.Request) -> web.Response:
        asked.append((request.path, request.headers["Accept"]))
        return web.Response(text="up 1\n")

    async def scenario() -> None:
        async with fronting(tmp_path, page, None, refuse) as (client, workers):
            workers[0].deaths = 2
            headers = {"Accept": "text/plain;version=0.0.4"}
            async with client.get("/metrics", headers=headers) as response:
                seen = json.loads(await response.text())
        assert seen == ["text/plain;version=0.0.4", [[2, "up 1\n"], None, None], 3]
        assert asked == [("/metrics", "text/plain;version=0.0.4")]

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/", "/administration"])
def test_everything_else_is_the_workers(tmp_path: Path, path: str) -> None:
    """421 and where they are."""

    async def scenario() -> None:
        async with (
            fronting(tmp_path, echo, echo) as (client, _),
            client.post(path, json={}) as response,
        ):
            error = (await response.json())["error"]
            assert (response.status, error["code"]) == (421, "misdirected_request")
            assert "http://worker-0, http://worker-1" in error["message"]

    asyncio.run(scenario())
