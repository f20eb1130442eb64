"""Replies as they leave: chat completion chunks and bodies, as vLLM writes them.

A stream is many small events that differ in four bytes, so what is the same is built
once per request and a token event is `head + token + tail`. Because each token has four
bytes, every event is equally long and the HTTP chunk framing is part of `head` and
`tail` too.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from ..traffic.record import Truth
from ..units import Tokens
from ..vocabulary import TRUTH_FIELD
from . import tokens

FinishReason = Literal["stop", "length"]

EVENT_STREAM: Final = "text/event-stream; charset=utf-8"
LAST_CHUNK: Final = b"0\r\n\r\n"
"""Ends a chunked HTTP body."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one answer."""

    prompt_tokens: Tokens
    completion_tokens: Tokens

    def fields(self) -> dict[str, int]:
        """Return the counts by OpenAI's names."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "completion_tokens": self.completion_tokens,
        }


@dataclass(frozen=True, slots=True)
class ReplyFormat:
    """The bytes that every reply of one request shares.

    `created` is in seconds since the epoch. `chunked` says whether events are framed as
    HTTP chunks; to an HTTP/1.0 client they are not, and the connection's end ends the
    stream.
    """

    id: str
    created: int
    model: str
    chunked: bool = True

    def stream(self, *, include_usage: bool) -> "StreamFormat":
        """Build what a stream needs for its events."""
        start = self._start("chat.completion.chunk")
        role = _choice(b'{"role":"assistant","content":""}', b"null")
        content = _choice(b'{"content":"%b"}' % _SLOT, b"null")
        head, tail = self.framed(_event(start, content)).split(_SLOT)
        return StreamFormat(
            self, start, self.framed(_event(start, role)), head, tail, include_usage
        )

    def body(
        self, text: str, reason: FinishReason, usage: Usage, truth: Truth | None
    ) -> bytes:
        """Write a whole answer as one JSON object."""
        message = {"role": "assistant", "content": text}
        choice = {
            "index": 0, "message": message, "logprobs": None, "finish_reason": reason
        }  # fmt: skip
        rest: dict[str, Any] = {"choices": [choice], "usage": usage.fields()}
        rest |= _truth(truth)
        return self._start("chat.completion") + _dumps(rest)[1:]

    def _start(self, kind: str) -> bytes:
        fields = {
            "id": self.id, "object": kind, "created": self.created, "model": self.model
        }  # fmt: skip
        return _dumps(fields)[:-1] + b","

    def framed(self, data: bytes) -> bytes:
        """Wrap `data` for the body, as one HTTP chunk where the body is chunked."""
        return _chunk(data) if self.chunked else data


@dataclass(frozen=True, slots=True)
class StreamFormat:
    """The bytes of one stream.

    `opening` is the event with the role, `head + token + tail` that of a token.
    """

    reply: ReplyFormat
    start: bytes
    opening: bytes
    head: bytes
    tail: bytes
    include_usage: bool

    def closing(self, reason: FinishReason, usage: Usage, truth: Truth | None) -> bytes:
        """Write what follows the last token, up to the end of the body.

        The truth goes into the last JSON event: the one with the usage where that was
        asked for, else the one with the finish reason.
        """
        final = _choice(b"{}", _dumps(reason))
        extra = _dumps(_truth(truth))[1:-1]
        events = self._last_events(final, usage, b"," + extra if extra else b"")
        data = self.reply.framed(events + b"data: [DONE]\n\n")
        return data + LAST_CHUNK if self.reply.chunked else data

    def _last_events(self, final: bytes, usage: Usage, extra: bytes) -> bytes:
        if not self.include_usage:
            return _event(self.start, final + extra)
        counts = b'"choices":[],"usage":' + _dumps(usage.fields())
        return _event(self.start, final) + _event(self.start, counts + extra)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


# Stands for a token while a template is built: as long as one, and impossible in JSON
# text.
_SLOT: Final = b"\x00" * tokens.BYTES_PER_TOKEN


def _event(start: bytes, rest: bytes) -> bytes:
    return b"data: %b%b}\n\n" % (start, rest)


def _choice(delta: bytes, reason: bytes) -> bytes:
    return b'"choices":[{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}]' % (
        delta,
        reason,
    )


def _truth(truth: Truth | None) -> dict[str, dict[str, float]]:
    if truth is None:
        return {}
    # A double holds seconds since the epoch to a quarter of a microsecond.
    return {
        TRUTH_FIELD: {
            name: round(x, 6) if isinstance(x, float) else x
            for name, x in asdict(truth).items()
            if x is not None
        }
    }


def _dumps(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
