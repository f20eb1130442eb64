"""Faults done to requests: which one strikes, and what becomes of the answer."""

import asyncio
from asyncio import Future, Transport
from dataclasses import dataclass
from functools import partial
from itertools import count
from math import inf
from typing import Final

from aiohttp import web

from loadstone.units import Seconds
from loadstone.vocabulary import FAULT_HEADER
from loadstone.wire.openai_error import ApiError

from .broken import BROKEN, FaultyTransport, cut, half, without_usage
from .driver import Driver
from .faults import (
    Facts,
    Fault,
    FaultError,
    FaultPlan,
    Place,
    fits,
    parse_header,
    refusal,
)
from .stats import ServerStats

JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault of the wire that a request's answer is to have."""

    fault: Fault
    stats: ServerStats

    def count(self) -> None:
        """Take note that it happened."""
        self.stats.faults[self.fault.kind] += 1


class Injector:
    """Chooses the fault of a request, and does it to the answer."""

    def __init__(self, plan: FaultPlan, driver: Driver, *, headers: bool) -> None:
        """`headers`: requests may ask for a fault of their own."""
        self._plan = plan
        self._driver = driver
        self._headers = headers
        self._numbers = count(1)

    def __repr__(self) -> str:
        return f"<Injector of {self._plan!r}>"

    def choose(
        self, request: web.Request, *, path: str, model: str, tenant: str, stream: bool
    ) -> Strike | None:
        """Return what is to be done to the answer, if anything.

        Raises `ApiError` if a fault of the door strikes, or if the request asks for one
        that it cannot have.
        """
        facts = Facts(next(self._numbers), path, model, tenant, stream)
        asked = request.headers.get(FAULT_HEADER)
        now = self._driver.clock.now()
        if asked is not None:
            fault, left_s = self._asked(asked, stream=stream), inf
        else:
            planned = self._plan.strike(facts, now)
            if planned is None:
                return None
            fault, left_s = planned.fault, planned.until_s - now
        strike = Strike(fault, self._driver.stats)
        if fault.place is Place.DOOR:
            strike.count()
            raise refusal(fault, left_s)
        return strike

    def _asked(self, header: str, *, stream: bool) -> Fault:
        if not self._headers:
            raise ApiError(
                f"This server takes no faults from '{FAULT_HEADER}';"
                " start it with '--allow-fault-header'.",
                param=FAULT_HEADER,
                code="faults_not_allowed",
            )
        try:
            fault = parse_header(header)
        except FaultError as bad:
            raise ApiError(
                f"{FAULT_HEADER}: {bad.message}", param=FAULT_HEADER, code=bad.code
            ) from None
        if not fits(fault, stream=stream):
            raise ApiError(
                f"{FAULT_HEADER}: {fault.kind!r} is for streams only.",
                param=FAULT_HEADER,
                code="bad_fault",
            )
        return fault

    def transport(
        self, strike: Strike, transport: Transport, *, chunked: bool
    ) -> FaultyTransport:
        """Return the connection that a stream is to be written to."""
        return BROKEN[strike.fault.kind](
            transport,
            strike.fault,
            chunked=chunked,
            later=self._later,
            struck=strike.count,
        )

    async def body(
        self,
        strike: Strike,
        request: web.Request,
        data: bytes,
        headers: dict[str, str],
    ) -> web.StreamResponse:
        """Answer with a body, as the fault lets it."""
        fault = strike.fault
        strike.count()
        if fault.kind == "slow_first_token":
            await self._later(fault.number("delay"))
        elif fault.kind == "no_usage":
            data = without_usage(data)
        elif fault.kind == "malformed_json":
            data = half(data)
        else:
            await _cut_short(request, fault, data)
        return web.Response(body=data, content_type=JSON, headers=headers)

    def _later(self, delay_s: Seconds) -> Future[None]:
        done = asyncio.get_running_loop().create_future()
        at = self._driver.clock.now() + delay_s
        self._driver.call_at(at, partial(_resolve, done))
        return done


def _resolve(done: Future[None]) -> None:
    # The request may be gone by then, and with it who waited.
    if not done.done():
        done.set_result(None)


async def _cut_short(request: web.Request, fault: Fault, data: bytes) -> None:
    """Send half of a body whose length was announced; never returns."""
    response = web.StreamResponse(headers={"Content-Type": JSON})
    response.content_length = len(data)
    await response.prepare(request)
    await response.write(half(data))
    if request.transport is not None:
        cut(request.transport, fault)
    # The lost connection cancels this handler; nothing more may be written to it.
    await asyncio.get_running_loop().create_future()
