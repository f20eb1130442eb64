"""Embeddings: a vector for each text, after the time that its prefill takes."""

import asyncio
from itertools import count

from aiohttp import web

from loadstone.engine.sequence import Sequence
from loadstone.wire.answer import Answer
from loadstone.wire.embedding import (
    EmbeddingRequest,
    embed,
    embedding_body,
    parse_embedding,
    text_of,
)
from loadstone.wire.openai_error import ApiError

from .config import ServerConfig
from .door import Door
from .driver import Driver
from .edge import read_body
from .generate import path_fields
from .runs import count_tokens
from .sinks import CollectSink, Ticket
from .tenants import Tenant


class Embeddings:
    """Handles requests for embeddings.

    Each text is a sequence of its own on an engine, that ends with its prefill. To the
    engine that is an answer of one token, and its token counters say so.
    """

    def __init__(self, config: ServerConfig, driver: Driver, door: Door) -> None:
        self._config = config
        self._door = door
        self._driver = driver
        self._max_model_len = driver.fleet.engines[0].max_model_len
        self._numbers = count(1)

    def __repr__(self) -> str:
        return f"<Embeddings {self._config.model} on {self._driver!r}>"

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request; raises `ApiError` for one that cannot be served."""
        received_s = self._driver.clock.now()
        body = await read_body(request, self._config.max_body_bytes)
        asked = parse_embedding(body, **path_fields(request))
        tenant = self._door.tenant(request)
        self._door.check(asked.model, asked.priority)
        for text in asked.texts:
            if text.tokens >= self._max_model_len:
                raise ApiError(
                    f"This model's maximum context length is {self._max_model_len}"
                    f" tokens. However, an input has {text.tokens}.",
                    param="input",
                    code="context_length_exceeded",
                )
        headers = self._door.enter(tenant, sum(text.tokens for text in asked.texts))
        tickets = [
            self._ticket(asked, i, received_s, tenant) for i in range(len(asked.texts))
        ]
        try:
            for ticket in tickets:
                self._driver.submit(CollectSink(ticket))
            # In a thread: a large batch takes seconds, and the loop writes tokens.
            vectors = await asyncio.to_thread(_vectors, asked)
            for ticket in tickets:
                await ticket.done
        finally:
            for ticket in tickets:
                self._driver.cancel(ticket)
        reply = embedding_body(asked, vectors, self._config.model)
        count_tokens(request, sum(text.tokens for text in asked.texts), 0)
        return web.json_response(reply, headers=headers)

    def _ticket(
        self, asked: EmbeddingRequest, index: int, received_s: float, tenant: Tenant
    ) -> Ticket:
        name = f"embd-{self._config.seed % (1 << 32):08x}{next(self._numbers):016x}"
        text = asked.texts[index]
        return Ticket(
            sequence=Sequence(
                name,
                text.tokens,
                1,
                priority=asked.priority + tenant.priority,
                tenant=tenant.name,
                weight=tenant.weight,
            ),
            answer=Answer(0, 1, "stop"),
            received_s=received_s,
            done=asyncio.get_running_loop().create_future(),
            operation="embeddings",
        )


def _vectors(asked: EmbeddingRequest) -> list[list[float]]:
    return [embed(text_of(text), asked.dimensions) for text in asked.texts]
