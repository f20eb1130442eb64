"""The server's edge: check keys, count requests, turn errors into OpenAI's."""

import logging
import time
from collections.abc import Sequence
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from loadstone.wire.openai_error import ApiError

from .entrance import Entrance
from .hooks import CLIENT_WENT_AWAY
from .stats import ServerStats
from .tenants import Tenant, find_tenant

TENANT: Final = web.RequestKey("tenant", str)
"""The name of the tenant whose key a request came with."""

_LOG: Final = logging.getLogger(__name__)
_METHODS: Final = frozenset(
    ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
)
_GUARDED: Final = ("/v1/", "/openai/", "/tokenize", "/detokenize")


def build_edge(
    stats: ServerStats,
    entrance: Entrance,
    *,
    tenants: Sequence[Tenant],
    max_body_bytes: int,
) -> Middleware:
    """Build the middleware that every request passes; probes pass a shut entrance too.

    Without tenants nobody needs a key.
    """

    @web.middleware
    async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
        status = CLIENT_WENT_AWAY
        began = time.perf_counter()
        try:
            response = await _answer(request, handler)
            status = response.status
            if entrance.shut:
                # Whoever keeps the connection would only be refused again.
                response.force_close()
        finally:
            took = time.perf_counter() - began
            stats.count_http(_route(request), _method(request), status, took)
        return response

    async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if not request.path.startswith(_GUARDED):
                return await handler(request)
            if tenants:
                request[TENANT] = _whose(request, tenants)
            with entrance:
                return await handler(request)
        except ApiError as error:
            return error_response(error)
        except web.HTTPException as error:
            return _translated(request, error, max_body_bytes)
        except ConnectionError:
            # Nobody is left to be told, and it is no error of ours to log.
            return web.Response(status=CLIENT_WENT_AWAY)
        except Exception:  # noqa: BLE001 - logged, and the client is told
            _LOG.exception("%s %s failed", request.method, request.path)
            return error_response(_OUR_FAULT)

    return edge


_OUR_FAULT: Final = ApiError(
    "The mock server failed on this request; this is a bug in loadstone.",
    status=500,
    kind="server_error",
)


def error_response(error: ApiError) -> web.Response:
    """Return the response that tells a client of `error`."""
    response = web.Response(
        body=error.body(), status=error.status, content_type="application/json"
    )
    response.headers.update(error.headers)
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


async def read_body(request: web.Request, limit_bytes: int) -> bytes:
    """Read a body; raises `ApiError` 413 as soon as it is known to be too large."""
    announced = request.content_length
    if announced is not None and announced > limit_bytes:
        raise ApiError.too_large(limit_bytes)
    return await request.read()


def _whose(request: web.Request, tenants: Sequence[Tenant]) -> str:
    headers = request.headers
    tenant = find_tenant(
        tenants, headers.get("Authorization", ""), headers.get("api-key", "")
    )
    if tenant is None:
        raise ApiError.bad_key()
    return tenant.name


def _translated(
    request: web.Request, error: web.HTTPException, max_body_bytes: int
) -> web.Response:
    """Return OpenAI's error object for an error of the HTTP library."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        response = error_response(
            ApiError.bad_method(request.method, request.path, allowed)
        )
        response.headers["Allow"] = allowed
        return response
    if isinstance(error, web.HTTPNotFound):
        return error_response(ApiError.unknown_path(request.method, request.path))
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return error_response(ApiError.too_large(max_body_bytes))
    return error_response(ApiError(error.reason, status=error.status))


def _route(request: web.Request) -> str:
    # Unknown paths and methods share one label: clients must not be able to make new
    # ones. The word is prometheus-fastapi-instrumentator's.
    resource = request.match_info.route.resource
    return "none" if resource is None else resource.canonical


def _method(request: web.Request) -> str:
    return request.method if request.method in _METHODS else "other"
