"""Pages in a browser: which of other origins may ask, and read what they get.

As in vLLM with `--allowed-origins`, but nobody may unless it is said. Any method and
header may be sent; cookies mean nothing here, so credentials are not spoken of.
"""

from collections.abc import Sequence
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from loadstone.wire.openai_error import ApiError

from .config import ANY_ORIGIN
from .edge import error_response

_MAX_AGE_S: Final = 600
"""How long a browser may keep what it was told: it asks once, not for each request."""
_METHODS: Final = "GET, POST, DELETE, OPTIONS"


class Cors:
    """Answers preflights, and says on each answer whose pages may read it."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(origins)

    def __repr__(self) -> str:
        return f"<Cors for {', '.join(sorted(self._origins))}>"

    def add_to(self, app: web.Application) -> None:
        """Be the first whom a request meets, and the last to touch a head."""
        app.middlewares.insert(0, self.middleware)
        app.on_response_prepare.append(self._mark)

    @web.middleware
    async def middleware(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        """Answer a preflight, which has no key yet; let everything else through."""
        headers = request.headers
        asked = headers.get(hdrs.ACCESS_CONTROL_REQUEST_METHOD)
        if request.method != hdrs.METH_OPTIONS or asked is None:
            return await handler(request)
        if not self._allowed(headers.get(hdrs.ORIGIN)):
            return error_response(
                ApiError(
                    "Pages of this origin may not ask; see --allowed-origins.",
                    status=403,
                    code="origin_not_allowed",
                )
            )
        wanted = headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "*")
        return web.Response(
            headers={
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: _METHODS,
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: wanted,
                hdrs.ACCESS_CONTROL_MAX_AGE: str(_MAX_AGE_S),
            }
        )

    async def _mark(self, request: web.Request, response: web.StreamResponse) -> None:
        origin = request.headers.get(hdrs.ORIGIN)
        # Or a cache would give the answer for one origin to another.
        if ANY_ORIGIN not in self._origins:
            response.headers[hdrs.VARY] = hdrs.ORIGIN
        if origin is not None and self._allowed(origin):
            told = ANY_ORIGIN if ANY_ORIGIN in self._origins else origin
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = told

    def _allowed(self, origin: str | None) -> bool:
        return ANY_ORIGIN in self._origins or origin in self._origins
