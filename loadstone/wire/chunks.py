"""One event of an answer: whether it carries tokens, and what else it says.

Forms read are those of OpenAI's chat and legacy completions as vLLM, SGLang, TGI,
llama.cpp, Azure and the reasoning services write them, and OpenAI's responses, which
`as_chat` retells. A role-only delta carries no token; a delta of reasoning or of a tool
call does. Nothing here trusts the type of anything it was sent.
"""

import json
import re
from enum import Enum
from typing import Any, Final, Self

import msgspec

from ..traffic.record import Truth
from ..units import Tokens
from ..vocabulary import TRUTH_FIELD
from .as_chat import as_chat, is_response

Chunk = dict[str, Any]
"""A parsed event or body."""

MAX_ERROR_TEXT: Final = 300
"""Most characters kept of what a server says about an error."""
_MAX_COUNT: Final = 1 << 53
_QUOTE: Final = 34
_BACKSLASH: Final = 92
_OPENING: Final = re.compile(
    rb'"delta":{"role":"\w+"(?:,"content":"")?(?:,"\w+":null)*}'
    rb'(?:,"\w+":null)*}](?:,"\w+":null)*}'
)
"""The rest of a first event that has a role, nulls and no text, as vLLM writes it; one
that is written in any other way is parsed."""
_decode = msgspec.json.Decoder().decode


class Kind(Enum):
    """What the tokens of an event are."""

    ANSWER = "answer"
    TOOL = "tool"
    """A tool call: no text, but an answer all the same."""
    THOUGHT = "thought"
    """Reasoning, which comes before the visible answer."""


_DELTA_KEYS: Final = (
    (b'"content":', 10, Kind.ANSWER),
    (b'"reasoning_content":', 20, Kind.THOUGHT),
    (b'"reasoning":', 12, Kind.THOUGHT),
    (b'"arguments":', 12, Kind.TOOL),
)
"""Key, its length, and what it says."""
_TEXT_KEYS: Final = ((b'"text":', 7, Kind.ANSWER),)
_RESPONSE_DELTAS: Final = (
    (b'"type":"response.output_text.delta"', Kind.ANSWER),
    (b'"type":"response.reasoning_text.delta"', Kind.THOUGHT),
    (b'"type":"response.function_call_arguments.delta"', Kind.TOOL),
)
"""What an event of the responses endpoint is whose delta is the text itself."""


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Token counts as the server states them; what it does not state is 0."""

    input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    cached_tokens: Tokens = 0
    """Of the input, served from a prefix cache."""
    reasoning_tokens: Tokens = 0
    """Of the output, spent on reasoning, streamed or hidden."""

    @property
    def size(self) -> tuple[Tokens, Tokens]:
        """Return what tells a later usage of the same answer from an earlier one."""
        return self.output_tokens, self.input_tokens

    @classmethod
    def of(cls, chunk: Chunk) -> Self | None:
        """Read the `usage` of a chunk or body, None if it has none."""
        usage = chunk.get("usage")
        if not isinstance(usage, dict):
            return None
        prompt = _mapping(usage.get("prompt_tokens_details"))
        completion = _mapping(usage.get("completion_tokens_details"))
        return cls(
            _count(usage.get("prompt_tokens")),
            _count(usage.get("completion_tokens")),
            _count(prompt.get("cached_tokens", usage.get("prompt_cache_hit_tokens"))),
            _count(completion.get("reasoning_tokens", usage.get("reasoning_tokens"))),
        )


class ErrorObject(msgspec.Struct, frozen=True, gc=False):
    """What a server says went wrong; `kind` is OpenAI's `type` (or `code`)."""

    message: str
    kind: str = ""

    @classmethod
    def of(cls, chunk: Chunk) -> Self | None:
        """Read an error in any of the usual shapes, None if there is none."""
        error = chunk.get("error")
        if error is None and chunk.get("object") == "error":
            error = chunk
        if error is None and "choices" not in chunk and "detail" in chunk:
            error = {"message": chunk["detail"]}  # FastAPI
        if not error:
            return None
        if not isinstance(error, dict):
            return cls(_short(error), _short(chunk.get("error_type") or ""))
        kind = error.get("type") or error.get("code") or ""
        return cls(_short(error.get("message") or error), _short(kind))


def parse(payload: bytes) -> Chunk | None:
    """Parse a JSON object; None for anything else, however it was broken."""
    try:
        chunk = _decode(payload)
    except (ValueError, RecursionError):
        chunk = _leniently(payload)
    if not isinstance(chunk, dict):
        return None
    return as_chat(chunk) if is_response(chunk) else chunk


def _leniently(payload: bytes) -> object:
    """Parse what is JSON but for half a surrogate pair, `NaN`, or 1e999."""
    try:
        return json.loads(payload.decode())
    except (ValueError, RecursionError):
        return None


def spot(body: bytes, start: int, end: int) -> tuple[Kind, int] | None:
    """Tell from the bytes of an event that it carries text, and where the text starts.

    Returns the kind and the offset of the first byte inside the quotes. None means that
    the bytes do not decide, not that there is no token.
    """
    delta = body.find(b'"delta":', start, end)
    if delta >= 0 and body[delta + 8 : delta + 9] == b'"':
        return _spot_response(body, start, delta + 9, end)
    if delta >= 0 and body.startswith(b"{}", delta + 8):
        return None  # nearly every stream ends with one
    if delta < 0 and body.find(b'"response.', start, end) >= 0:
        return None  # it tells a text again that its deltas told
    keys, begin = (_TEXT_KEYS, start) if delta < 0 else (_DELTA_KEYS, delta)
    for key, width, kind in keys:
        at = body.find(key, begin, end)
        if at <= start or body[at - 1] == _BACKSLASH:
            continue
        value = at + width
        if body[value : value + 1] == b" ":
            value += 1
        opening = body[value : value + 2]
        if opening[:1] == b'"' and opening != b'""' and value + 1 < end:
            return kind, value + 1
    return None


def opens(body: bytes, start: int, end: int) -> bool:
    """Tell from the bytes of an event that it says who speaks, and nothing else.

    False means that the bytes do not decide.
    """
    delta = body.find(b'"delta":{"role":', start, end)
    return (
        delta >= 0
        and _OPENING.fullmatch(body, delta, end) is not None
        and body.find(b'"usage"', start, delta) < 0
        and body.find(b'"error"', start, delta) < 0
    )


def _spot_response(
    body: bytes, start: int, text: int, end: int
) -> tuple[Kind, int] | None:
    if text >= end or body[text] == _QUOTE:
        return None
    for marker, kind in _RESPONSE_DELTAS:
        if body.find(marker, start, end) >= 0:
            return kind, text
    return None


def kind_of(chunk: Chunk) -> Kind | None:
    """Return what tokens a parsed chunk or body carries, None for none."""
    found: Kind | None = None
    for said in _sayings(chunk):
        if said.get("content") or said.get("text") or said.get("refusal"):
            return Kind.ANSWER
        if said.get("tool_calls") or said.get("function_call"):
            found = Kind.TOOL
        elif said.get("reasoning_content") or said.get("reasoning"):
            found = found or Kind.THOUGHT
    return found


def answer_of(chunk: Chunk) -> str:
    """Return the visible text of a chunk or body."""
    return "".join(
        _text(said.get("content") or said.get("text") or said.get("refusal"))
        for said in _sayings(chunk)
    )


def has_vectors(chunk: Chunk) -> bool:
    """Say whether a body holds embeddings, as numbers or packed."""
    data = chunk.get("data")
    return (
        isinstance(data, list)
        and bool(data)
        and all(bool(_mapping(item).get("embedding")) for item in data)
    )


def finish_reason_of(chunk: Chunk) -> str | None:
    """Return the first `finish_reason` that is not null."""
    for choice in _choices(chunk):
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            return reason[:MAX_ERROR_TEXT]
    return None


def truth_of(chunk: Chunk) -> Truth | None:
    """Return the mock's own stamps, None if they are missing or not numbers."""
    try:
        return msgspec.convert(chunk.get(TRUTH_FIELD), Truth)
    except (ValueError, OverflowError):
        return None


def _choices(chunk: Chunk) -> list[Chunk]:
    choices = chunk.get("choices")
    if not isinstance(choices, list):
        return []
    return [choice for choice in choices if isinstance(choice, dict)]


def _sayings(chunk: Chunk) -> list[Chunk]:
    """Return what holds the text of each choice: a delta, a message, or the choice."""
    return [
        _mapping(choice.get("delta", choice.get("message", choice)))
        for choice in _choices(chunk)
    ]


def _mapping(value: object) -> Chunk:
    return value if isinstance(value, dict) else {}


def _count(value: object) -> Tokens:
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return min(max(value, 0), _MAX_COUNT)


def _text(value: object) -> str:
    """Return text that is a string or, as some services send it, a list of parts."""
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else []
    return "".join(_text(_mapping(part).get("text")) for part in parts)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return " ".join(text.split())[:MAX_ERROR_TEXT]
