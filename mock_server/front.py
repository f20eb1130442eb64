"""What the supervisor of several workers answers: for all of them, on one port.

Their API is not here: a relay would cost what serving costs, and hide which worker
answered. Whoever asks for it is told where the workers are.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import aiohttp
from aiohttp import web
from aiohttp.typedefs import StrOrURL

from loadstone import __version__
from loadstone.units import Seconds
from loadstone.wire.openai_error import ApiError

from .config import ServerConfig
from .edge import error_response
from .worker import State, Worker

SCRAPE_S: Final[Seconds] = 4.0
"""A worker has so long for its page: Prometheus waits for 10 s by default."""
ADMIN_S: Final[Seconds] = 30.0
_NOT_PASSED_ON: Final = frozenset(
    (
        "accept-encoding", "connection", "content-length", "host", "keep-alive",
        "proxy-authenticate", "proxy-authorization", "te", "trailer",
        "transfer-encoding", "upgrade",
    )
)  # fmt: skip
"""Headers that belong to one connection (RFC 9110, 7.6.1), or that the library sets."""

Page = tuple[int, str]
"""The text of a worker's metrics, and how many deaths of it came before."""
Merge = Callable[[str, Sequence[Page | None], Sequence[Worker]], tuple[bytes, str]]
"""Renders the pages of all workers as one for an `Accept` header: its bytes and their
content type. None stands for a worker that does not answer."""


class Front:
    """Asks the workers, and answers with what all of them say."""

    def __init__(
        self, config: ServerConfig, workers: Sequence[Worker], merge: Merge
    ) -> None:
        self._config = config
        self._workers = workers
        self._merge = merge

    def __repr__(self) -> str:
        return f"<Front of {len(self._workers)} workers>"

    def app(self) -> web.Application:
        """Build the application."""
        app = web.Application(client_max_size=self._config.max_body_bytes)
        app.add_routes(
            [
                web.get("/metrics", self.metrics),
                web.get("/health", self.health),
                web.get("/ready", self.ready),
                web.get("/version", self.version),
                web.get("/workers", self.workers),
                web.route("*", "/admin{tail:(?:/.*)?}", self.admin),
                web.route("*", "/{tail:.*}", self.elsewhere),
            ]
        )
        return app

    async def metrics(self, request: web.Request) -> web.Response:
        """Render the metrics of all workers as one page."""
        accept = ",".join(request.headers.getall("Accept", ()))
        pages = await self._all(lambda worker: self._page(worker, accept))
        body, content_type = self._merge(accept, pages, self._workers)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def health(self, _: web.Request) -> web.Response:
        """Say whether any worker is there to answer."""
        there = any(worker.state is State.UP for worker in self._workers)
        return web.Response(status=200 if there else 503)

    async def ready(self, _: web.Request) -> web.Response:
        """Say whether every worker would take a request now."""
        asked = await self._all(
            lambda worker: _ask(worker, "GET", "/ready", patience_s=SCRAPE_S)
        )
        statuses = [503 if answer is None else answer[0] for answer in asked]
        ready = all(status == 200 for status in statuses)
        facts = {"status": "ready" if ready else "not_ready", "workers": statuses}
        return web.json_response(facts, status=200 if ready else 503)

    async def version(self, _: web.Request) -> web.Response:
        """Say what this is, and where the API is."""
        return web.json_response(
            {
                "version": __version__,
                "preset": self._config.preset,
                "model": self._config.model,
                "vms": self._config.vms,
                "slowdown": self._config.slowdown,
                "workers": self._urls(),
                "emulated": True,
            }
        )

    async def workers(self, _: web.Request) -> web.Response:
        """Say how every worker is."""
        facts = [worker.facts() for worker in self._workers]
        return web.json_response({"workers": facts})

    async def admin(self, request: web.Request) -> web.Response:
        """Pass a request on to every worker; who may ask that is theirs to judge.

        The status is the one that all of them gave, or else 207 (Multi-Status).
        """
        body = await request.read()
        headers = [
            (name, value)
            for name, value in request.headers.items()
            if name.lower() not in _NOT_PASSED_ON
        ]
        asked = await self._all(
            lambda worker: _ask(
                worker,
                request.method,
                request.rel_url,
                patience_s=ADMIN_S,
                headers=headers,
                body=body,
            )
        )
        answers = [
            {"worker": worker.share.worker, "status": answer[0], "body": answer[1]}
            if answer is not None
            else {"worker": worker.share.worker, "status": 503, "body": None}
            for worker, answer in zip(self._workers, asked, strict=True)
        ]
        statuses = {int(answer["status"] or 503) for answer in answers}
        status = statuses.pop() if len(statuses) == 1 else 207
        return web.json_response({"workers": answers}, status=status)

    async def elsewhere(self, request: web.Request) -> web.Response:
        """Tell whoever looks for the API here where it is."""
        return error_response(
            ApiError(
                f"{request.path} is not served by the supervisor, but by its workers:"
                f" {', '.join(self._urls())}",
                status=421,
                code="misdirected_request",
            )
        )

    def _urls(self) -> list[str]:
        return [worker.url for worker in self._workers]

    async def _page(self, worker: Worker, accept: str) -> Page | None:
        deaths = worker.deaths
        headers = [("Accept", accept)]
        answer = await _ask(
            worker, "GET", "/metrics", patience_s=SCRAPE_S, headers=headers
        )
        if answer is None or answer[0] != 200 or worker.deaths != deaths:
            return None
        return deaths, str(answer[1])

    async def _all(self, ask: Callable[[Worker], Awaitable[Any]]) -> list[Any]:
        return await asyncio.gather(*map(ask, self._workers))


async def _ask(
    worker: Worker,
    method: str,
    target: StrOrURL,
    *,
    patience_s: Seconds,
    headers: Sequence[tuple[str, str]] = (),
    body: bytes = b"",
) -> tuple[int, Any] | None:
    """Ask a worker by its control socket; None if it does not answer in time."""
    timeout = aiohttp.ClientTimeout(total=patience_s)
    connector = aiohttp.UnixConnector(str(worker.control))
    try:
        async with (
            aiohttp.ClientSession(
                "http://worker", connector=connector, timeout=timeout
            ) as client,
            client.request(
                method,
                target,
                headers=headers,
                data=body or None,
                allow_redirects=False,
            ) as response,
        ):
            text = await response.text(errors="replace")
            if response.content_type == "application/json":
                return response.status, json.loads(text)
            return response.status, text
    except (OSError, aiohttp.ClientError, TimeoutError, ValueError):
        return None
