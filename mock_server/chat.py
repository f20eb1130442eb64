"""Chat completions: from a request's bytes to a place on an engine and an answer."""

import asyncio
from itertools import count
from math import ceil
from typing import Final

from aiohttp import HttpVersion11, web
from aiohttp.http import StreamWriter

from loadstone.engine.sequence import Sequence
from loadstone.vocabulary import TRACEPARENT_HEADER, TRUTH_HEADER
from loadstone.wire.openai_error import ApiError
from loadstone.wire.openai_reply import EVENT_STREAM, ReplyFormat
from loadstone.wire.openai_request import ChatRequest, parse_chat
from loadstone.wire.traceparent import TraceParent

from .config import LengthDistribution, ServerConfig
from .driver import Driver
from .edge import read_body
from .filler import choose_answer
from .hooks import Visit
from .sinks import CollectSink, Sink, StreamSink, Ticket

_STREAM_HEADERS: Final = {"Content-Type": EVENT_STREAM, "Cache-Control": "no-cache"}


class ChatCompletions:
    """Handles `POST /v1/chat/completions`."""

    def __init__(
        self, config: ServerConfig, driver: Driver, lengths: LengthDistribution
    ) -> None:
        self._config = config
        self._driver = driver
        self._lengths = lengths
        self._max_model_len = driver.fleet.engines[0].max_model_len
        self._numbers = count(1)

    def __repr__(self) -> str:
        return f"<ChatCompletions {self._config.model} on {self._driver!r}>"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; raises `ApiError` for one that cannot be served."""
        clock = self._driver.clock
        visit = Visit(
            t0_epoch=clock.epoch(0.0),
            received_s=clock.now(),
            parent=TraceParent.parse(request.headers.get(TRACEPARENT_HEADER)),
        )
        try:
            response = await self._answer(request, visit)
            visit.status = response.status
        except ApiError as error:
            visit.status = error.status
            raise
        finally:
            sent = visit.ticket.sent_s if visit.ticket else None
            visit.ended_s = clock.now() if sent is None else sent
            self._driver.observers.notify("request_served", visit)
        return response

    async def _answer(self, request: web.Request, visit: Visit) -> web.StreamResponse:
        asked = parse_chat(await read_body(request, self._config.max_body_bytes))
        if asked.model != self._config.model:
            raise ApiError.model_not_found(asked.model, self._config.model)
        visit.ticket = ticket = self._ticket(request, asked, visit)
        _check_queue(self._driver, self._config.max_waiting)
        if asked.stream:
            return await self._stream(request, asked, ticket)
        return await self._collect(ticket)

    def _ticket(self, request: web.Request, asked: ChatRequest, visit: Visit) -> Ticket:
        limit = asked.output_limit(self._max_model_len)
        answer = choose_answer(
            asked,
            limit,
            seed=self._config.seed,
            lengths=self._lengths,
        )
        # The seed is in the id so that the logs of two servers do not share ids.
        name = f"chatcmpl-{self._config.seed % (1 << 32):08x}{next(self._numbers):016x}"
        return Ticket(
            sequence=Sequence(
                name, asked.prompt.tokens, answer.tokens, max_output_tokens=limit
            ),
            answer=answer,
            received_s=visit.received_s,
            done=asyncio.get_running_loop().create_future(),
            slowdown=self._config.slowdown,
            wants_truth=request.headers.get(TRUTH_HEADER) == "1",
            max_tokens=limit,
            parent=visit.parent,
        )

    def _reply(self, ticket: Ticket, *, chunked: bool) -> ReplyFormat:
        created = int(self._driver.clock.epoch(ticket.received_s))
        return ReplyFormat(ticket.sequence.id, created, self._config.model, chunked)

    async def _stream(
        self, request: web.Request, asked: ChatRequest, ticket: Ticket
    ) -> web.StreamResponse:
        chunked = request.version >= HttpVersion11
        response = web.StreamResponse(headers=_STREAM_HEADERS)
        if not chunked:
            response.force_close()
        writer = await response.prepare(request)
        transport = request.transport
        if transport is None or not isinstance(writer, StreamWriter):
            raise ConnectionResetError("the client went away")
        # The sink frames the body and ends it; the library must not end it once more.
        writer.chunked = False
        form = self._reply(ticket, chunked=chunked).stream(
            include_usage=asked.include_usage
        )
        sink = StreamSink(
            ticket,
            transport,
            form,
            clock=self._driver.clock,
            limit_bytes=self._config.write_limit_bytes,
            on_cut=self._count_cut,
            interval=self._driver.interval,
        )
        await self._serve(sink)
        return response

    async def _collect(self, ticket: Ticket) -> web.StreamResponse:
        await self._serve(CollectSink(ticket))
        clock = self._driver.clock
        now = clock.now()
        body = self._reply(ticket, chunked=False).body(
            ticket.answer.text(),
            ticket.answer.finish_reason,
            ticket.usage(),
            ticket.truth(clock, now, now),
        )
        return web.Response(body=body, content_type="application/json")

    async def _serve(self, sink: Sink) -> None:
        """Wait until the answer is complete; if it never is, free the engine."""
        try:
            self._driver.submit(sink)
            await sink.ticket.done
        finally:
            self._driver.cancel(sink.ticket)

    def _count_cut(self) -> None:
        self._driver.stats.slow_readers += 1


def _check_queue(driver: Driver, max_waiting: int) -> None:
    """Refuse a request while too many wait, and say when to try again."""
    fleet = driver.fleet
    waiting = fleet.waiting
    if waiting < max_waiting:
        return
    driver.stats.rejected["max_num_queued_reqs"] += 1
    owed = sum(engine.waiting_output_tokens for engine in fleet.engines)
    rate = sum(engine.token_rate for engine in fleet.engines)
    raise ApiError.queue_full(waiting, max(1, ceil(owed / rate)) if rate else 1)
