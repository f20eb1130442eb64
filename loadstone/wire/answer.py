"""What an answer says: segments of tokens, and why it ends where it ends.

Most answers are a stretch of the filler and nothing else, so that is all an `Answer`
holds for them: no text is made per request, and a stream of it is sliced from the ring.
Reasoning, tool calls, JSON and text that a stop string cuts are *segments*, whose
tokens are written down before the answer begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from ..units import Tokens
from .tokens import RING_TOKENS, count, pieces, ring_text

EndReason = Literal["stop", "length"]
"""Why the engine stops: the answer is complete, or it may not be longer."""
FinishReason = Literal["stop", "length", "tool_calls"]
"""What clients are told."""

RING_MASK: Final = RING_TOKENS - 1


class Part(Enum):
    """What a segment of an answer is."""

    REASONING = "reasoning"
    CONTENT = "content"
    CALL = "call"
    UNSEEN = "unseen"
    """Made, and not shown: what ends an echo that was to have no answer."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens of one part, by the text each of them shows, which may be none.

    A call has its function's `name` and an `id`; its first tokens spell the name, which
    is shown all at once when the call begins.
    """

    part: Part
    pieces: Sequence[str]
    name: str = ""
    id: str = ""

    @property
    def text(self) -> str:
        """All that it shows."""
        return "".join(self.pieces)

    def cut(self, tokens: Tokens) -> "Segment":
        """Return its first tokens."""
        return Segment(self.part, self.pieces[:tokens], self.name, self.id)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request will be given.

    `offset` is the place of its first token on the ring; an answer with `segments` is
    made of those instead, and `tokens` is their sum. `told` overrides the reason that
    clients are told.
    """

    offset: int
    tokens: Tokens
    finish_reason: EndReason
    segments: tuple[Segment, ...] = ()
    told: FinishReason | None = None

    @property
    def reason(self) -> FinishReason:
        """Why it ends, as clients are told."""
        return self.told or self.finish_reason

    @property
    def parts(self) -> tuple[Segment, ...]:
        """Its segments, for filler too."""
        if self.segments:
            return self.segments
        return (Segment(Part.CONTENT, ring_text(self.offset, self.tokens)),)

    @property
    def reasoning_tokens(self) -> Tokens:
        """Tokens of reasoning."""
        return sum(len(s.pieces) for s in self.segments if s.part is Part.REASONING)

    def text(self, part: Part = Part.CONTENT) -> str:
        """Return all that it shows of one part."""
        return "".join(s.text for s in self.parts if s.part is part)

    @property
    def calls(self) -> tuple[Segment, ...]:
        """Its tool calls."""
        return tuple(s for s in self.segments if s.part is Part.CALL)


def reasoning(offset: int, tokens: Tokens) -> Segment:
    """Return reasoning made of filler."""
    return Segment(Part.REASONING, ring_text(offset, tokens))


def filler(offset: int, tokens: Tokens) -> Segment:
    """Return content made of filler."""
    return Segment(Part.CONTENT, ring_text(offset, tokens))


def written(text: str) -> Segment:
    """Return content that is a given text."""
    return Segment(Part.CONTENT, pieces(text))


def call(name: str, arguments: str, call_id: str) -> Segment:
    """Return a tool call."""
    shown = [""] * count(name) + pieces(arguments)
    return Segment(Part.CALL, shown, name, call_id)


def stopped(
    segment: Segment, stop: Sequence[str], *, keep: bool, least: Tokens = 0
) -> Segment | None:
    """Return what is left of a segment that a stop string ends, None if none occurs.

    Strings in the first `least` tokens do not count.

    All tokens up to the one that completes the string were made; what it has of the
    string is shown only if `keep`. Of several strings the one that is complete first
    ends the text.
    """
    text = segment.text
    begin = len("".join(segment.pieces[:least]))
    found = [
        (at + len(string), at)
        for string in stop
        if string and (at := text.find(string, begin)) >= 0
    ]
    if not found:
        return None
    end, start = min(found)
    shown = end if keep else start
    left: list[str] = []
    seen = 0
    for piece in segment.pieces:
        left.append(piece[: max(0, shown - seen)])
        seen += len(piece)
        if seen >= end:
            break
    return Segment(segment.part, left)


def unseen(offset: int) -> Answer:
    """Return the answer to a prompt that is only to be echoed: the engine makes one."""
    return Answer(offset, 1, "length", (Segment(Part.UNSEEN, [""]),))


def cut(segments: Sequence[Segment], limit: Tokens) -> tuple[Segment, ...]:
    """Return the segments as far as `limit` tokens go; none is left without a token."""
    kept = []
    for segment in segments:
        if limit <= 0:
            break
        kept.append(segment.cut(limit))
        limit -= len(segment.pieces)
    return tuple(segment for segment in kept if segment.pieces)
