"""Prompts: which strings they hold, how many tokens, and their hash."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from zlib import crc32

from ..units import Tokens
from . import tokens
from .openai_error import ApiError
from .rules import invalid

ROLES: Final = frozenset(
    ("system", "developer", "user", "assistant", "tool", "function")
)
_PLAIN: Final = frozenset(("role", "content"))
_MAY_LACK_CONTENT: Final = frozenset(("assistant", "function"))
"""An assistant's turn may be nothing but tool calls."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What matters of a prompt: its length, and a hash that picks the answer's text.

    `padded` has its tokens, four bytes each: what a prefix cache compares.
    """

    tokens: Tokens
    hash: int
    padded: bytes = field(default=b"", repr=False, compare=False)


def read_prompt(messages: object, extra: Iterable[str] = ()) -> Prompt:
    """Count and hash chat messages; raises `ApiError` naming the part at fault.

    `extra` are strings that the template writes before them, such as tools; they count
    but do not pick the answer.
    """
    parts = [tokens.pad(text.encode()) for text in extra]
    digest = 0
    for strings in chat_strings(messages):
        parts.append(_TEMPLATE)
        for text in strings:
            data = text.encode()
            parts.append(tokens.pad(data))
            digest = crc32(data, digest)
    return _prompt(b"".join(parts), digest)


def read_text(text: object, where: str) -> Prompt:
    """Count and hash a prompt that is a text or token ids."""
    if isinstance(text, str):
        data = _text(text, where).encode()
        padded = tokens.pad(data)
    else:
        assert isinstance(text, list)
        data = padded = tokens.bytes_of(text)
    if not padded:
        raise invalid(where, "at least one token", text)
    return _prompt(padded, crc32(data))


def read_texts(texts: object, where: str) -> list[Prompt]:
    """Read one prompt or many: a string, token ids, or an array of either."""
    if isinstance(texts, list) and isinstance(texts[0], (str, list)):
        return [read_text(text, f"{where}[{i}]") for i, text in enumerate(texts)]
    return [read_text(texts, where)]


def shown_texts(texts: object) -> list[list[str]]:
    """Return what the tokens of each prompt show; `texts` was read before."""
    assert isinstance(texts, (str, list))
    if isinstance(texts, str) or isinstance(texts[0], int):
        texts = [texts]
    return [
        tokens.pieces(text) if isinstance(text, str) else tokens.shown(text)
        for text in texts
    ]


def last_role(messages: object) -> str:
    """Return who spoke last."""
    assert isinstance(messages, list)
    role: str = messages[-1]["role"]
    return role


def _prompt(padded: bytes, digest: int) -> Prompt:
    return Prompt(len(padded) // tokens.BYTES_PER_TOKEN, digest, padded)


_TEMPLATE: Final = bytes(tokens.PER_MESSAGE * tokens.BYTES_PER_TOKEN)


def chat_strings(messages: object) -> list[list[str]]:
    """Return each message's strings; raises `ApiError` naming the part at fault."""
    if not isinstance(messages, list) or not messages:
        raise invalid("messages", "a non-empty array of messages", messages)
    return [_strings(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _strings(message: object, where: str) -> list[str]:
    if not isinstance(message, dict):
        raise invalid(where, "an object", message)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise invalid(f"{where}.role", f"one of {', '.join(sorted(ROLES))}", role)
    strings = _content(message.get("content"), role, f"{where}.content")
    for name, value in message.items():
        if name not in _PLAIN and value is not None and value != []:
            strings.extend(_extra(name, value, f"{where}.{name}"))
    return strings


def _content(content: object, role: str, where: str) -> list[str]:
    if isinstance(content, str):
        return [_text(content, where)]
    if isinstance(content, list):
        return [_part(part, f"{where}[{i}]") for i, part in enumerate(content)]
    if content is None and role in _MAY_LACK_CONTENT:
        return []
    raise invalid(where, "a string or an array of content parts", content)


def _part(part: object, where: str) -> str:
    if not isinstance(part, dict):
        raise invalid(where, "an object", part)
    kind = part.get("type")
    if not isinstance(kind, str):
        raise invalid(f"{where}.type", "a string", kind)
    if kind != "text":
        raise ApiError.not_modelled(where, "only text parts have a token count here")
    return _text(part.get("text"), f"{where}.text")


def _extra(name: str, value: object, where: str) -> list[str]:
    """Return the strings of a field beside role and content, such as `name`."""
    if isinstance(value, str):
        return [_text(value, where)]
    if name == "tool_calls" and isinstance(value, list):
        return [
            text
            for i, call in enumerate(value)
            for text in _call(call, f"{where}[{i}].function")
        ]
    raise ApiError.not_modelled(
        where, "only its strings and tool calls have a token count"
    )


def _call(call: object, where: str) -> list[str]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise invalid(where, "an object", function)
    return [_text(function.get(key), f"{where}.{key}") for key in ("name", "arguments")]


def _text(text: object, where: str) -> str:
    if not isinstance(text, str):
        raise invalid(where, "a string", text)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            # JSON can spell half of a surrogate pair; no encoding of text can.
            raise invalid(where, "well-formed Unicode", text) from None
    return text
