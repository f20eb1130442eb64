"""Requests for text: from a request's bytes to places on engines and an answer.

One path for every endpoint: parse, choose the answers, make a ticket for each, hand
their sinks to the driver, wait. What differs between endpoints is in a `Dialect`.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, Protocol

from aiohttp import HttpVersion11, web
from aiohttp.http import StreamWriter

from loadstone.engine.sequence import Sequence as EngineSequence
from loadstone.traffic.record import Truth
from loadstone.units import Tokens
from loadstone.vocabulary import TRACEPARENT_HEADER, TRUTH_HEADER
from loadstone.wire.answer import Answer
from loadstone.wire.openai_error import ApiError
from loadstone.wire.openai_messages import Prompt
from loadstone.wire.openai_reply import EVENT_STREAM, Usage, total_usage
from loadstone.wire.openai_request import GenerationRequest
from loadstone.wire.script import Script
from loadstone.wire.traceparent import TraceParent

from .config import LengthDistribution, ServerConfig
from .door import Door
from .driver import Driver
from .edge import read_body
from .filler import choose_answer
from .hooks import Visit
from .injection import JSON, Injector, Strike
from .prefix import block_ids, caches
from .runs import count_tokens
from .sinks import (
    CollectSink,
    ScriptSink,
    Sink,
    StreamForm,
    StreamSink,
    Ticket,
    Wire,
)
from .stats import Operation
from .tenants import Tenant

_WORKER_SHIFT: Final = 48
"""Bits of an id's number below the worker's: workers of one rack share a seed."""
_STREAM_HEADERS: Final = {"Content-Type": EVENT_STREAM, "Cache-Control": "no-cache"}


class Reply(Protocol):
    """How the answers to one request are written."""

    def form(self, index: int) -> StreamForm:
        """Return the bytes around the events of one answer."""
        ...

    def script(self, index: int) -> Script | None:
        """Return the events of one answer, None if it is filler and nothing else."""
        ...

    def body(self, usage: Usage, truth: Truth | None) -> bytes:
        """Write all answers as one body."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a reply is told of its request's circumstances.

    `id` is that of the reply; `created` is in seconds since the epoch.
    """

    id: str
    created: int
    model: str
    chunked: bool
    answers: Sequence[Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One endpoint: how its requests are read and its replies written."""

    operation: Operation
    path: str
    """Where it is, below any prefix."""
    prefix: str
    """What ids of its replies begin with."""
    parse: Callable[..., GenerationRequest]
    reply: Callable[[GenerationRequest, Setting], Reply]


class Generator:
    """Serves requests for text on a driver's engines, whatever their dialect."""

    def __init__(
        self,
        config: ServerConfig,
        driver: Driver,
        lengths: LengthDistribution,
        *,
        door: Door,
        injector: Injector,
    ) -> None:
        engine = driver.fleet.engines[0]
        self._config = config
        self._driver = driver
        self._lengths = lengths
        self._door = door
        self._injector = injector
        self._max_model_len = engine.max_model_len
        self._block_size = engine.limits.block_size if caches(engine) else 0
        self._numbers = count(1 + (config.part.worker << _WORKER_SHIFT))

    def __repr__(self) -> str:
        return f"<Generator {self._config.model} on {self._driver!r}>"

    def handler(self, dialect: Dialect) -> Callable[[web.Request], Any]:
        """Return the handler of an endpoint."""

        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._visit(request, dialect)

        return handle

    async def _visit(
        self, request: web.Request, dialect: Dialect
    ) -> web.StreamResponse:
        """Answer one request; raises `ApiError` for one that cannot be served."""
        clock = self._driver.clock
        visit = Visit(
            t0_epoch=clock.epoch(0.0),
            received_s=clock.now(),
            parent=TraceParent.parse(request.headers.get(TRACEPARENT_HEADER)),
        )
        self._driver.settle()
        try:
            response = await self._answer(request, dialect, visit)
            visit.status = response.status
        except ApiError as error:
            visit.status = error.status
            raise
        finally:
            sent = visit.ticket.sent_s if visit.ticket else None
            visit.ended_s = clock.now() if sent is None else sent
            self._driver.observers.notify("request_served", visit)
        return response

    async def _answer(
        self, request: web.Request, dialect: Dialect, visit: Visit
    ) -> web.StreamResponse:
        body = await read_body(request, self._config.max_body_bytes)
        asked = dialect.parse(body, **path_fields(request))
        tenant = self._door.tenant(request)
        self._door.check(asked.model, asked.priority)
        strike = self._injector.choose(
            request,
            path=dialect.path,
            model=asked.model,
            tenant=tenant.name,
            stream=asked.stream,
        )
        tickets = self._tickets(request, asked, dialect, visit, tenant)
        visit.ticket = tickets[0]
        headers = self._door.enter(tenant, _estimate(asked, tickets))
        setting = Setting(
            id=tickets[0].sequence.id.partition("/")[0],
            created=int(self._driver.clock.epoch(visit.received_s)),
            model=self._config.model,
            chunked=request.version >= HttpVersion11,
            answers=[ticket.answer for ticket in tickets],
        )
        reply = dialect.reply(asked, setting)
        if asked.stream:
            response = await self._stream(request, reply, tickets, strike, headers)
        else:
            body = await self._collect(reply, tickets, asked.n)
            if strike is not None:
                response = await self._injector.body(strike, request, body, headers)
            else:
                response = web.Response(body=body, content_type=JSON, headers=headers)
        total = total_usage([ticket.usage() for ticket in tickets], asked.n)
        count_tokens(request, total.prompt_tokens, total.completion_tokens)
        return response

    def _tickets(
        self,
        request: web.Request,
        asked: GenerationRequest,
        dialect: Dialect,
        visit: Visit,
        tenant: Tenant,
    ) -> list[Ticket]:
        limit = asked.output_limit(self._max_model_len)
        # The seed is in the id so that the logs of two servers do not share ids.
        seed = self._config.seed % (1 << 32)
        name = f"{dialect.prefix}{seed:08x}{next(self._numbers):016x}"
        tickets: list[Ticket] = []
        for prompt in asked.prompts:
            ids = (
                block_ids(prompt.padded, self._block_size, asked.cache_salt)
                if self._block_size
                else ()
            )
            answers = [
                choose_answer(
                    asked, limit, seed=self._config.seed, lengths=self._lengths,
                    prompt=prompt, choice=choice,
                )
                for choice in range(asked.n)
            ]  # fmt: skip
            longest = max(answers, key=lambda answer: answer.tokens)
            for answer in answers:
                own = f"{name}/{len(tickets)}" if tickets else name
                sequence = _sequence(
                    own,
                    asked,
                    prompt=prompt,
                    answer=answer,
                    limit=limit,
                    ids=ids,
                    tenant=tenant,
                )
                tickets.append(
                    Ticket(
                        sequence=sequence,
                        answer=answer,
                        received_s=visit.received_s,
                        done=asyncio.get_running_loop().create_future(),
                        slowdown=self._config.slowdown,
                        wants_truth=request.headers.get(TRUTH_HEADER) == "1",
                        max_tokens=limit,
                        n=asked.n if answer is longest else 0,
                        operation=dialect.operation,
                        parent=visit.parent,
                    )
                )
        return tickets

    async def _stream(
        self,
        request: web.Request,
        reply: Reply,
        tickets: Sequence[Ticket],
        strike: Strike | None,
        headers: dict[str, str],
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=_STREAM_HEADERS | headers)
        chunked = request.version >= HttpVersion11
        if not chunked:
            response.force_close()
        writer = await response.prepare(request)
        transport = request.transport
        if transport is None or not isinstance(writer, StreamWriter):
            raise ConnectionResetError("the client went away")
        # The sink frames the body and ends it; the library must not end it once more.
        writer.chunked = False
        if strike is None:
            await self._write(reply, tickets, transport)
            return response
        faulty = self._injector.transport(strike, transport, chunked=chunked)
        await self._write(reply, tickets, faulty)
        await faulty.finish()
        return response

    async def _write(
        self, reply: Reply, tickets: Sequence[Ticket], transport: Wire
    ) -> None:
        await self._serve(
            [
                self._sink(ticket, transport, reply.form(index), reply.script(index))
                for index, ticket in enumerate(tickets)
            ]
        )

    def _sink(
        self, ticket: Ticket, transport: Wire, form: StreamForm,
        script: Script | None,
    ) -> StreamSink:  # fmt: skip
        more: dict[str, Any] = {
            "clock": self._driver.clock,
            "limit_bytes": self._config.write_limit_bytes,
            "on_cut": self._count_cut,
            "interval": self._driver.interval,
        }
        if script is None:
            return StreamSink(ticket, transport, form, **more)
        return ScriptSink(ticket, transport, form, script, **more)

    async def _collect(self, reply: Reply, tickets: Sequence[Ticket], n: int) -> bytes:
        await self._serve([CollectSink(ticket) for ticket in tickets])
        clock = self._driver.clock
        now = clock.now()
        usage = total_usage([ticket.usage() for ticket in tickets], n)
        return reply.body(usage, tickets[0].truth(clock, now, now))

    async def _serve(self, sinks: Sequence[Sink]) -> None:
        """Wait until all answers are complete; if they never are, free the engines."""
        try:
            for sink in sinks:
                self._driver.submit(sink)
            for sink in sinks:
                await sink.ticket.done
        finally:
            for sink in sinks:
                self._driver.cancel(sink.ticket)

    def _count_cut(self) -> None:
        self._driver.stats.slow_readers += 1


def path_fields(request: web.Request) -> dict[str, Any]:
    """Return the fields that come with the path: Azure's has the model's name."""
    deployment = request.match_info.get("deployment")
    return {} if deployment is None else {"model": deployment}


def _sequence(
    name: str, asked: GenerationRequest, *, prompt: Prompt, answer: Answer,
    limit: Tokens, ids: tuple[int, ...], tenant: Tenant,
) -> EngineSequence:  # fmt: skip
    return EngineSequence(
        name,
        prompt.tokens,
        answer.tokens,
        max_output_tokens=limit,
        priority=asked.priority + tenant.priority,
        prefix_ids=ids,
        tenant=tenant.name,
        weight=tenant.weight,
    )


def _estimate(asked: GenerationRequest, tickets: Sequence[Ticket]) -> Tokens:
    """Return the tokens that a request is counted as, before its answers are there."""
    # Where no limit was set, the mock knows what real services have to guess.
    answers = [asked.max_tokens or ticket.answer.tokens for ticket in tickets]
    return sum(prompt.tokens for prompt in asked.prompts) + sum(answers)
