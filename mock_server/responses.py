"""Responses: the dialect, and the conversations that it remembers."""

import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from loadstone.traffic.record import Truth
from loadstone.wire.answer import FinishReason
from loadstone.wire.openai_reply import Usage
from loadstone.wire.responses_reply import ResponseFormat, ResponseStream, messages_of
from loadstone.wire.responses_request import Message, ResponseRequest, reader
from loadstone.wire.script import Script

from .generate import Dialect, Setting

MEMORY_BYTES: Final = 64 << 20
"""JSON of the conversations that are remembered: those used longest ago go first."""


class Memory:
    """The messages of earlier responses, by id, up to `limit_bytes` of JSON."""

    def __init__(self, limit_bytes: int = MEMORY_BYTES) -> None:
        self._limit = limit_bytes
        self._known: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<Memory of {len(self._known)} responses, {self._bytes} bytes>"

    def put(self, response_id: str, messages: list[Message]) -> None:
        """Remember a conversation; one that is larger than the limit is not kept."""
        data = json.dumps(messages).encode()
        self._known[response_id] = data
        self._bytes += len(data)
        while self._bytes > self._limit:
            _, forgotten = self._known.popitem(last=False)
            self._bytes -= len(forgotten)

    def get(self, response_id: str) -> list[Message] | None:
        """Recall a conversation, None if it is not known."""
        data = self._known.get(response_id)
        if data is None:
            return None
        self._known.move_to_end(response_id)
        messages: list[Message] = json.loads(data)
        return messages


@dataclass(frozen=True, slots=True)
class _Reply:
    """Writes one response, and remembers it when it is complete."""

    asked: ResponseRequest
    response: ResponseFormat
    memory: Memory

    def form(self, _: int) -> "_Stream":
        """Return the bytes around the events."""
        return _Stream(self, self.response.stream())

    def script(self, _: int) -> Script | None:
        """Return the events: each has a number, so that there is no plain form."""
        return self.response.script()

    def body(self, usage: Usage, truth: Truth | None) -> bytes:
        """Write the whole response."""
        self.remember()
        return self.response.body(usage, truth)

    def remember(self) -> None:
        """Keep the conversation for those that continue it."""
        if self.asked.store:
            told = messages_of([self.response.answer])
            self.memory.put(self.response.id, [*self.asked.messages, *told])


@dataclass(frozen=True, slots=True)
class _Stream:
    """A stream that is remembered when it ends."""

    reply: _Reply
    inner: ResponseStream
    head: bytes = b""
    tail: bytes = b""

    @property
    def opening(self) -> bytes:
        """What comes before the first token."""
        return self.inner.opening

    def closing(self, reason: FinishReason, usage: Usage, truth: Truth | None) -> bytes:
        """Write what follows the last token."""
        self.reply.remember()
        return self.inner.closing(reason, usage, truth)


def responses(memory: Memory) -> Dialect:
    """Return the dialect of one server."""

    def reply(asked: Any, setting: Setting) -> _Reply:
        (answer,) = setting.answers
        response = ResponseFormat(
            setting.id, setting.created, setting.model, answer, asked.echo,
            setting.chunked,
        )  # fmt: skip
        return _Reply(asked, response, memory)

    return Dialect(
        operation="chat",
        path="/responses",
        prefix="resp_",
        parse=reader(memory.get),
        reply=reply,
    )
