"""What a prompt is made of: named stretches of text, so that prompts can begin alike.

A prompt is written down before the run as names and lengths, not as text: equal names
mean equal text, and the text of a name does not depend on how much of it is used. From
the names alone follows which blocks of two prompts a prefix cache finds equal, so the
virtual engine and a real server see the same hits.
"""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Final, NamedTuple

from ..units import Tokens

TEMPLATE_TOKENS: Final[Tokens] = 1
"""Tokens that the chat template adds for every message: its role."""
_TEMPLATE: Final = -1
"""What names the template's token; names of text are 0 or more."""


def name_of(text: str) -> int:
    """Return the name of some text, or of anything that is told apart by a text."""
    return int.from_bytes(blake2b(text.encode(), digest_size=7).digest())


class Span(NamedTuple):
    """The first `tokens` of the text that has this name."""

    name: int
    tokens: Tokens


class Message(NamedTuple):
    """One message of a chat. `text` is there where it was given, not made."""

    role: str
    spans: tuple[Span, ...]
    text: str | None = None

    @property
    def tokens(self) -> Tokens:
        """Its length, the template's part included."""
        return TEMPLATE_TOKENS + sum(span.tokens for span in self.spans)


def written(role: str, text: str, tokens: Tokens) -> Message:
    """Return a message whose text is given; `tokens` are those of the text."""
    return Message(role, (Span(name_of(text), tokens),), text)


def made(role: str, name: int, tokens: Tokens) -> Message:
    """Return a message of `tokens` in all, whose text is made from its name."""
    return Message(role, (Span(name, tokens - TEMPLATE_TOKENS),))


def block_ids(messages: tuple[Message, ...], block_size: Tokens) -> tuple[int, ...]:
    """Return ids of a prompt's whole blocks: equal where all text up to there is.

    A block is named by what comes before the span that it ends in, by that span, and
    by how deep inside it ends.
    """
    return tuple(_ends(messages, block_size))


def _ends(messages: tuple[Message, ...], block_size: Tokens) -> Iterator[int]:
    before, start, end = 0, 0, block_size
    for message in messages:
        for name, tokens in (Span(_TEMPLATE, TEMPLATE_TOKENS), *message.spans):
            while end <= start + tokens:
                yield hash((before, name, end - start))
                end += block_size
            before = hash((before, name, tokens))
            start += tokens
