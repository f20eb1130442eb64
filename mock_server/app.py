"""The HTTP surface: OpenAI's chat completions and vLLM's probes."""

from collections.abc import Callable
from typing import Any

from aiohttp import web

from loadstone import __version__
from loadstone.units import Seconds
from loadstone.wire.openai_error import ApiError
from loadstone.wire.openai_request import parse_tokenize

from .chat import ChatCompletions
from .config import LengthDistribution, ServerConfig
from .driver import Driver
from .edge import build_edge, read_body

Metrics = Callable[[str, Seconds], tuple[bytes, str]]
"""Renders the exposition for an `Accept` header at an instant of engine time: its bytes
and their content type."""


def build_app(
    config: ServerConfig,
    driver: Driver,
    *,
    lengths: LengthDistribution,
    metrics: Metrics,
) -> web.Application:
    """Build the application. `lengths` draws the answers that end by themselves."""
    app = web.Application(
        middlewares=[
            build_edge(
                driver.stats,
                api_key=config.api_key,
                max_body_bytes=config.max_body_bytes,
            )
        ],
        client_max_size=config.max_body_bytes,
    )
    chat = ChatCompletions(config, driver, lengths)
    probes = _Probes(config, driver, metrics)
    app.add_routes(
        [
            web.post("/v1/chat/completions", chat.handle),
            web.get("/v1/models", probes.models),
            web.get("/health", probes.health),
            web.get("/version", probes.version),
            web.get("/metrics", probes.metrics),
            web.post("/tokenize", probes.tokenize),
        ]
    )
    return app


class _Probes:
    """The handlers that answer at once, without an engine."""

    def __init__(self, config: ServerConfig, driver: Driver, metrics: Metrics) -> None:
        self._config = config
        self._metrics = metrics
        self._clock = driver.clock
        self._engines = len(driver.fleet.engines)
        self._max_model_len = driver.fleet.engines[0].max_model_len
        self._created = int(driver.clock.epoch(driver.clock.now()))

    def __repr__(self) -> str:
        return f"<_Probes of {self._config.model}>"

    async def models(self, _: web.Request) -> web.Response:
        """List the one model there is."""
        model = {
            "id": self._config.model,
            "object": "model",
            "created": self._created,
            "owned_by": "loadstone",
            "max_model_len": self._max_model_len,
        }
        return web.json_response({"object": "list", "data": [model]})

    async def health(self, _: web.Request) -> web.Response:
        """Say that the process answers; as vLLM's, the body is empty."""
        return web.Response()

    async def version(self, _: web.Request) -> web.Response:
        """Say what this is: nobody may take it for a real engine."""
        facts: dict[str, Any] = {
            "version": __version__,
            "preset": self._config.preset,
            "model": self._config.model,
            "vms": self._config.vms,
            "engines": self._engines,
            "slowdown": self._config.slowdown,
            "stream_interval": self._config.stream_interval,
            "lag_alarm": self._clock.lagging,
            "clock": self._config.clock,
            "emulated": True,
        }
        return web.json_response(facts)

    async def metrics(self, request: web.Request) -> web.Response:
        """Render the metrics as of now, in the format the scraper can read."""
        accept = ",".join(request.headers.getall("Accept", ()))
        body, content_type = self._metrics(accept, self._clock.now())
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def tokenize(self, request: web.Request) -> web.Response:
        """Count tokens by the house's rule, in the shape of vLLM's `/tokenize`."""
        asked = parse_tokenize(await read_body(request, self._config.max_body_bytes))
        if asked.model not in ("", self._config.model):
            raise ApiError.model_not_found(asked.model, self._config.model)
        return web.json_response(
            {
                "count": len(asked.ids),
                "max_model_len": self._max_model_len,
                "tokens": asked.ids,
                "token_strs": None,
            }
        )
