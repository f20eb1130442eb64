"""Replies as they leave: chat and text completions, as chunks and bodies of vLLM.

A stream is many small events that differ in four bytes, so what is the same is built
once per request and a token event is `head + token + tail`. Because each token has four
bytes, every event is equally long and the HTTP chunk framing is part of `head` and
`tail` too. Answers that are more than filler have a `Script` instead.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import msgspec

from ..traffic.record import Truth
from ..units import Tokens
from ..vocabulary import TRUTH_FIELD
from . import tokens
from .answer import Answer, FinishReason, Part, Segment
from .logprobs import Logprobs, of_prompt
from .script import Run, Script, escaped, nothing

EVENT_STREAM: Final = "text/event-stream; charset=utf-8"
LAST_CHUNK: Final = b"0\r\n\r\n"
"""Ends a chunked HTTP body."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one answer or of all to one request.

    Details are told only where there are any, as vLLM does.
    """

    prompt_tokens: Tokens
    completion_tokens: Tokens
    cached_tokens: Tokens = 0
    reasoning_tokens: Tokens = 0

    def fields(self) -> dict[str, Any]:
        """Return the counts by OpenAI's names."""
        counts: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "completion_tokens": self.completion_tokens,
        }
        if self.cached_tokens:
            counts["prompt_tokens_details"] = {"cached_tokens": self.cached_tokens}
        if self.reasoning_tokens:
            counts["completion_tokens_details"] = {
                "reasoning_tokens": self.reasoning_tokens
            }
        return counts

    def plus(self, other: "Usage", *, same_prompt: bool) -> "Usage":
        """Return the counts of two answers; a prompt they share counts once."""
        more = Usage(0, 0) if same_prompt else other
        return Usage(
            self.prompt_tokens + more.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + more.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


def total_usage(usages: Sequence[Usage], n: int) -> Usage:
    """Add up the answers to one request; each prompt has `n` of them in a row."""
    total = usages[0]
    for i, usage in enumerate(usages[1:], 1):
        total = total.plus(usage, same_prompt=i % n != 0)
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How one endpoint writes: names of its objects, and what a choice holds."""

    chunk: str
    whole: str
    content: bytes
    opening: bytes | None
    final: bytes


CHAT: Final = Style(
    chunk="chat.completion.chunk",
    whole="chat.completion",
    content=b'"delta":{"content":"%b"}',
    opening=b'"delta":{"role":"assistant","content":""}',
    final=b'"delta":{}',
)
TEXT: Final = Style(
    chunk="text_completion",
    whole="text_completion",
    content=b'"text":"%b"',
    opening=None,
    final=b'"text":""',
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What a reply has in every event beside the text."""

    top_logprobs: int | None = None
    continuous_usage: bool = False


class Ending:
    """Which of the answers in one stream is the last to end."""

    def __init__(self, choices: int, n: int) -> None:
        self._usages: list[Usage | None] = [None] * choices
        self._n = n

    def __repr__(self) -> str:
        return f"<Ending {self._usages.count(None)} open>"

    def close(self, index: int, usage: Usage) -> Usage | None:
        """Note the end of an answer; returns the sum after the last one."""
        self._usages[index] = usage
        known = [usage for usage in self._usages if usage is not None]
        return total_usage(known, self._n) if len(known) == len(self._usages) else None


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
    style: Style = CHAT

    def stream(
        self, *, include_usage: bool, index: int = 0, ending: Ending | None = None
    ) -> "StreamFormat":
        """Build what a stream of filler needs for its events."""
        start = self._start(self.style.chunk)
        content = _choice(index, self.style.content % _SLOT)
        head, tail = self.framed(_event(start, content)).split(_SLOT)
        opening = self.style.opening
        if opening is not None:
            opening = self.framed(_event(start, _choice(index, opening)))
        return StreamFormat(
            self, start, opening or b"", head, tail, include_usage, index, ending
        )

    def script(
        self,
        answer: Answer,
        prompt_tokens: Tokens,
        index: int,
        extras: Extras,
        echo: Sequence[str] = (),
    ) -> Script:
        """Build the events of an answer that is more than filler.

        It begins with an `echo`, the prompt token by token, if that was asked for.
        """
        start = self._start(self.style.chunk)
        writer = _Writer(start, self.style, answer, prompt_tokens, index, extras, echo)
        return Script(writer.runs(), self.framed)

    def body(
        self,
        answers: Sequence[Answer],
        usage: Usage,
        truth: Truth | None,
        top_logprobs: int | None = None,
        echoes: Sequence[Sequence[str]] = (),
    ) -> bytes:
        """Write whole answers as one JSON object, each after its echo if it has one."""
        choices = [
            {
                "index": i,
                **(
                    _message(answer, top_logprobs)
                    if self.style is CHAT
                    else _text(answer, top_logprobs, echoes[i] if echoes else ())
                ),
                "finish_reason": answer.reason,
            }
            for i, answer in enumerate(answers)
        ]
        rest: dict[str, Any] = {"choices": choices, "usage": usage.fields()}
        rest |= truth_field(truth)
        return self._start(self.style.whole) + dumps(rest)[1:]

    def _start(self, kind: str) -> bytes:
        fields = {
            "id": self.id, "object": kind, "created": self.created, "model": self.model
        }  # fmt: skip
        return dumps(fields)[:-1] + b","

    def framed(self, data: bytes) -> bytes:
        """Wrap `data` for the body, as one HTTP chunk where the body is chunked."""
        return _chunk(data) if self.chunked else data

    def last(self, data: bytes) -> bytes:
        """Wrap the last `data` of a body."""
        return _chunk(data) + LAST_CHUNK if self.chunked else data


@dataclass(frozen=True, slots=True)
class StreamFormat:
    """The bytes of one answer in a stream.

    `opening` is the event with the role, `head + token + tail` that of a token. An
    `ending` is shared by answers that share a stream.
    """

    reply: ReplyFormat
    start: bytes
    opening: bytes
    head: bytes
    tail: bytes
    include_usage: bool
    index: int = 0
    ending: Ending | None = None

    def closing(self, reason: FinishReason, usage: Usage, truth: Truth | None) -> bytes:
        """Write what follows the last token, up to the end of the body if it is there.

        The truth goes into the last JSON event: the one with the usage where that was
        asked for, else the one with the finish reason.
        """
        final = _choice(self.index, self.reply.style.final, reason=dumps(reason))
        total = self.ending.close(self.index, usage) if self.ending else usage
        if total is None:
            return self.reply.framed(_event(self.start, final))
        extra = dumps(truth_field(truth))[1:-1]
        events = self._last_events(final, total, b"," + extra if extra else b"")
        return self.reply.last(events + b"data: [DONE]\n\n")

    def _last_events(self, final: bytes, usage: Usage, extra: bytes) -> bytes:
        if not self.include_usage:
            return _event(self.start, final + extra)
        counts = b'"choices":[],"usage":' + dumps(usage.fields())
        return _event(self.start, final) + _event(self.start, counts + extra)


@dataclass(slots=True)
class _Writer:
    """Writes the segments of one answer as chunks."""

    start: bytes
    style: Style
    answer: Answer
    prompt_tokens: Tokens
    index: int
    extras: Extras
    echo: Sequence[str]
    pieces: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.pieces = [piece for part in self.answer.parts for piece in part.pieces]

    def runs(self) -> list[Run]:
        """Return one run for each segment."""
        runs = []
        calls = begin = 0
        for segment in self.answer.parts:
            end = begin + len(segment.pieces)
            if segment.part is Part.CALL:
                runs.append(self._call(segment, calls, begin))
                calls += 1
            elif segment.part is Part.REASONING:
                runs.append(Run(segment.pieces, partial(self._delta, _reasoning)))
            else:
                before = self._echoed if self.echo else nothing
                write = partial(self._content, begin)
                runs.append(Run(segment.pieces, write, before=before))
            begin = end
        return runs

    def _call(self, segment: Segment, number: int, begin: Tokens) -> Run:
        function = {"name": segment.name, "arguments": ""}
        call = {
            "index": number, "id": segment.id, "type": "function", "function": function
        }  # fmt: skip
        named = b'"delta":' + dumps({"tool_calls": [call]})
        write = b'"delta":{"tool_calls":[{"index":%d,"function":{"arguments":"%%b"}}]}'
        return Run(
            segment.pieces,
            partial(self._delta, (write % number).__mod__),
            before=lambda: self._event(named, b"null", begin + 1),
        )

    def _delta(
        self, write: Callable[[bytes], bytes], text: str, _: Tokens, stop: Tokens
    ) -> bytes:
        return self._event(write(escaped(text)), b"null", stop)

    def _content(self, begin: Tokens, text: str, start: Tokens, stop: Tokens) -> bytes:
        logprobs = b"null"
        if self.extras.top_logprobs is not None:
            made = Logprobs(self.answer.offset, self.extras.top_logprobs)
            pieces = self.pieces[start:stop]
            if self.style is CHAT:
                logprobs = dumps(made.chat(pieces, start))
            else:
                offset = len("".join([*self.echo, *self.pieces[begin:start]]))
                logprobs = dumps(made.text(pieces, start, offset))
        return self._event(self.style.content % escaped(text), logprobs, stop)

    def _echoed(self) -> bytes:
        top = self.extras.top_logprobs
        logprobs = b"null" if top is None else dumps(of_prompt(self.echo, top))
        text = self.style.content % escaped("".join(self.echo))
        return self._event(text, logprobs, 0)

    def _event(self, what: bytes, logprobs: bytes, done: Tokens) -> bytes:
        rest = _choice(self.index, what, logprobs)
        if self.extras.continuous_usage:
            usage = Usage(self.prompt_tokens, done)
            rest += b',"usage":' + dumps(usage.fields())
        return _event(self.start, rest)


def _reasoning(text: bytes) -> bytes:
    # vLLM says `reasoning` since its 0.11, and most clients read `reasoning_content`.
    return b'"delta":{"reasoning_content":"%b","reasoning":"%b"}' % (text, text)


def _message(answer: Answer, top: int | None) -> dict[str, Any]:
    parts = answer.parts
    content = [s for s in parts if s.part is Part.CONTENT]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": answer.text() if content or not answer.calls else None,
    }
    thought = answer.text(Part.REASONING)
    if thought:
        message |= {"reasoning_content": thought, "reasoning": thought}
    if answer.calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.text},
            }
            for call in answer.calls
        ]
    pieces = [piece for s in content for piece in s.pieces]
    begin = answer.reasoning_tokens
    return {
        "message": message,
        "logprobs": None
        if top is None
        else Logprobs(answer.offset, top).chat(pieces, begin),
    }


def _text(answer: Answer, top: int | None, echo: Sequence[str]) -> dict[str, Any]:
    prompt = "".join(echo)
    return {
        "text": prompt + answer.text(),
        "logprobs": None
        if top is None
        else _text_logprobs(answer, top, echo, len(prompt)),
    }


def _text_logprobs(
    answer: Answer, top: int, echo: Sequence[str], offset: int
) -> dict[str, Any]:
    parts = [part for part in answer.parts if part.part is Part.CONTENT]
    pieces = [piece for part in parts for piece in part.pieces]
    made = Logprobs(answer.offset, top).text(pieces, 0, offset)
    if not echo:
        return made
    given = of_prompt(echo, top)
    return {name: [*values, *made[name]] for name, values in given.items()}


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


# Stands for a token while a template is built: as long as one, and impossible in JSON
# text.
_SLOT: Final = b"\x00" * tokens.BYTES_PER_TOKEN


def _event(start: bytes, rest: bytes) -> bytes:
    return b"data: %b%b}\n\n" % (start, rest)


def _choice(
    index: int, what: bytes, logprobs: bytes = b"null", reason: bytes = b"null"
) -> bytes:
    return b'"choices":[{"index":%d,%b,"logprobs":%b,"finish_reason":%b}]' % (
        index,
        what,
        logprobs,
        reason,
    )


def truth_field(truth: Truth | None) -> dict[str, dict[str, float]]:
    """Return the stamps as a field of a reply, nothing if they were not asked for."""
    if truth is None:
        return {}
    # A double holds seconds since the epoch to a quarter of a microsecond.
    return {
        TRUTH_FIELD: {
            name: round(x, 6) if isinstance(x, float) else x
            for name, x in msgspec.structs.asdict(truth).items()
            if x is not None
        }
    }


dumps: Final = msgspec.json.Encoder().encode
"""Write JSON without spaces: a tenth of what the standard library takes, which makes
an encoder for each call, and three are written for the shortest answer."""
