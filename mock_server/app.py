"""The HTTP surface: OpenAI's paths, Azure's names for them, and vLLM's probes."""

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from loadstone.wire.openai_error import ApiError
from loadstone.wire.openapi import AZURE, DEPLOYMENT, PATHS, ROOT_PATHS, V1

from .admin import Admin
from .chat import CHAT_COMPLETIONS, COMPLETIONS
from .config import LengthDistribution, ServerConfig
from .cors import Cors
from .door import Door
from .driver import Driver
from .edge import build_edge
from .embeddings import Embeddings
from .entrance import Entrance
from .faults import FaultPlan
from .generate import Generator
from .injection import Injector
from .outages import Outages
from .probes import Metrics, Probes
from .responses import Memory, responses
from .runs import RunBooks
from .tenants import DEFAULT

__all__ = ["Metrics", "build_app"]

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_API_VERSION: Final = "api-version"


def build_app(
    config: ServerConfig,
    driver: Driver,
    *,
    lengths: LengthDistribution,
    metrics: Metrics,
    entrance: Entrance,
) -> web.Application:
    """Build the application. `lengths` draws the answers that end by themselves.

    Requests for answers come in by the `entrance`.
    """
    runs = RunBooks()
    app = web.Application(
        middlewares=[
            runs.middleware,
            build_edge(
                driver.stats,
                entrance,
                tenants=config.who,
                max_body_bytes=config.max_body_bytes,
            ),
        ],
        client_max_size=config.max_body_bytes,
    )
    if config.origins:
        Cors(config.origins).add_to(app)
    tenants = [tenant.name for tenant in config.who] or [DEFAULT]
    plan = FaultPlan(config.seed, tenants=tenants, models=config.names)
    outages = Outages(driver, config.part)
    for fault in config.faults:
        plan.check(fault)
        outages.check(fault)
        outages.schedule(plan.add(fault, driver.clock.now()))
    door = Door(config, driver)
    injector = Injector(plan, driver, headers=config.fault_header)
    generator = Generator(config, driver, lengths, door=door, injector=injector)
    probes = Probes(config, driver, metrics, entrance)
    handlers: dict[str, _Handler] = {
        "/chat/completions": generator.handler(CHAT_COMPLETIONS),
        "/completions": generator.handler(COMPLETIONS),
        "/responses": generator.handler(responses(Memory())),
        "/embeddings": Embeddings(config, driver, door).handle,
        "/models": probes.models,
        "/models/{model}": probes.model,
        "/tokenize": probes.tokenize,
        "/detokenize": probes.detokenize,
        "/tokenizer_info": probes.tokenizer_info,
        "/health": probes.health,
        "/ping": probes.health,
        "/ready": probes.ready,
        "/version": probes.version,
        "/metrics": probes.metrics,
        "/runs/{run}": runs.tell,
        "/openapi.json": probes.openapi,
    }
    app.add_routes(_routes(handlers))
    if config.admin_key is not None:
        admin = Admin(config.admin_key, plan, outages, driver.clock.now)
        app.add_routes(admin.routes())
    return app


def _routes(handlers: dict[str, _Handler]) -> list[web.RouteDef]:
    """Return the routes of the paths that `openapi` describes, and no others."""
    routes = []
    for path in ROOT_PATHS:
        take = web.get if path.form is None else web.post
        routes.append(take(path.path, handlers[path.path]))
        routes.append(take(path.path + "/", _without_slash))
    for path in PATHS:
        take = web.get if path.form is None else web.post
        handler = handlers[path.path]
        routes.append(take(V1 + path.path, handler))
        routes.append(take(V1 + path.path + "/", _without_slash))
        routes.append(take(AZURE + path.path, handler))
        if path.azure:
            routes.append(take(DEPLOYMENT + path.path, _deployed(handler)))
    return routes


async def _without_slash(request: web.Request) -> web.Response:
    """Lead to the path without its last slash; the method and the body stay."""
    target = request.rel_url.with_path(request.path.rstrip("/"), keep_query=True)
    return web.Response(status=307, headers={"Location": str(target)})


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
