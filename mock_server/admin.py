"""The admin calls: faults are added, listed and taken out while the server runs.

They are there only if the server was given an admin key, which is not a client's key.
"""

import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from loadstone.wire.openai_error import ApiError

from .edge import read_body
from .faults import FaultError, FaultPlan, Planned, read_fault
from .outages import Outages

PATH: Final = "/admin/faults"
_MOST_BYTES: Final = 1 << 16
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Admin:
    """The handlers."""

    def __init__(
        self, key: str, plan: FaultPlan, outages: Outages, now: Callable[[], float]
    ) -> None:
        self._key = key.encode()
        self._plan = plan
        self._outages = outages
        self._now = now

    def __repr__(self) -> str:
        return f"<Admin of {self._plan!r}>"

    def routes(self) -> list[web.RouteDef]:
        """Return what to add to the application."""
        one = PATH + r"/{number:\d{1,9}}"
        return [
            web.get(PATH, self._guarded(self._list)),
            web.post(PATH, self._guarded(self._add)),
            web.delete(PATH, self._guarded(self._clear)),
            web.delete(one, self._guarded(self._remove)),
        ]

    def _guarded(self, handler: _Handler) -> _Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            given = request.headers.get("Authorization", "")
            bearer = given.encode(errors="surrogateescape")
            if not hmac.compare_digest(bearer, b"Bearer " + self._key):
                raise ApiError.bad_key()
            return await handler(request)

        return handle

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response({"faults": [self._told(p) for p in self._plan]})

    async def _add(self, request: web.Request) -> web.Response:
        """Take one fault, with the fields of a row; its times count from now."""
        try:
            row = json.loads(await read_body(request, _MOST_BYTES))
        except ValueError:
            raise ApiError("The body is no JSON.", code="bad_fault") from None
        if not isinstance(row, dict):
            raise ApiError("The body must be an object.", code="bad_fault")
        try:
            fault = read_fault(row)
            self._plan.check(fault)
            self._outages.check(fault)
        except FaultError as bad:
            text = f"{bad.message} ({bad.hint})" if bad.hint else bad.message
            raise ApiError(text, param=bad.key, code=bad.code) from None
        planned = self._plan.add(fault, self._now())
        self._outages.schedule(planned)
        return web.json_response(self._told(planned), status=201)

    async def _clear(self, _: web.Request) -> web.Response:
        for planned in list(self._plan):
            self._take_out(planned.number)
        return web.json_response({"faults": []})

    async def _remove(self, request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        if not self._take_out(number):
            raise ApiError(f"There is no fault {number}.", status=404, code="not_found")
        return web.Response(status=204)

    def _take_out(self, number: int) -> bool:
        planned = self._plan.remove(number)
        if planned is not None:
            self._outages.end(planned)
        return planned is not None

    def _told(self, planned: Planned) -> dict[str, Any]:
        active = planned.from_s <= self._now() < planned.until_s
        return {"id": planned.number, "active": active} | planned.fault.fields()
