"""The HTTP surface: OpenAI's paths, Azure's names for them, and vLLM's probes."""

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from loadstone.wire.openai_error import ApiError
from loadstone.wire.openapi import AZURE, DEPLOYMENT, PATHS, ROOT_PATHS, V1

from .chat import CHAT_COMPLETIONS, COMPLETIONS
from .config import LengthDistribution, ServerConfig
from .door import Door
from .driver import Driver
from .edge import build_edge
from .embeddings import Embeddings
from .generate import Generator
from .probes import Metrics, Probes
from .responses import Memory, responses

__all__ = ["Metrics", "build_app"]

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_API_VERSION: Final = "api-version"


def build_app(
    config: ServerConfig,
    driver: Driver,
    *,
    lengths: LengthDistribution,
    metrics: Metrics,
    door: Door,
) -> web.Application:
    """Build the application. `lengths` draws the answers that end by themselves.

    Requests for answers come in by the `door`.
    """
    app = web.Application(
        middlewares=[
            build_edge(
                driver.stats,
                door,
                api_key=config.api_key,
                max_body_bytes=config.max_body_bytes,
            )
        ],
        client_max_size=config.max_body_bytes,
    )
    generator = Generator(config, driver, lengths)
    probes = Probes(config, driver, metrics, door)
    handlers: dict[str, _Handler] = {
        "/chat/completions": generator.handler(CHAT_COMPLETIONS),
        "/completions": generator.handler(COMPLETIONS),
        "/responses": generator.handler(responses(Memory())),
        "/embeddings": Embeddings(config, driver).handle,
        "/models": probes.models,
        "/models/{model}": probes.model,
        "/tokenize": probes.tokenize,
        "/detokenize": probes.detokenize,
        "/health": probes.health,
        "/ready": probes.ready,
        "/version": probes.version,
        "/metrics": probes.metrics,
        "/openapi.json": probes.openapi,
    }
    app.add_routes(_routes(handlers))
    return app


def _routes(handlers: dict[str, _Handler]) -> list[web.RouteDef]:
    """Return the routes of the paths that `openapi` describes, and no others."""
    routes = []
    for path in ROOT_PATHS:
        take = web.get if path.form is None else web.post
        routes.append(take(path.path, handlers[path.path]))
    for path in PATHS:
        take = web.get if path.form is None else web.post
        handler = handlers[path.path]
        routes.append(take(V1 + path.path, handler))
        routes.append(take(AZURE + path.path, handler))
        if path.azure:
            routes.append(take(DEPLOYMENT + path.path, _deployed(handler)))
    return routes


def _deployed(handler: _Handler) -> _Handler:
    """Ask for the version of the API, as Azure does; any will do."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if not request.query.get(_API_VERSION):
            raise ApiError(
                f"Missing required query parameter: '{_API_VERSION}'.",
                param=_API_VERSION,
                code="missing_required_parameter",
            )
        return await handler(request)

    return handle
