"""What the mock answers: how long, why it ends there, and which text.

Where the filler starts, how long an answer is that ends by itself, which tools are
called and what a schema is filled with all follow from the server's seed and the
request's prompt and seed, so the same request gets the same answer, as under greedy
decoding.
"""

from dataclasses import replace
from math import ceil
from random import Random
from typing import Final

from loadstone.units import Tokens
from loadstone.wire.answer import (
    RING_MASK,
    Answer,
    EndReason,
    Part,
    Segment,
    call,
    cut,
    filler,
    reasoning,
    stopped,
    unseen,
    written,
)
from loadstone.wire.by_schema import sample
from loadstone.wire.openai_messages import Prompt
from loadstone.wire.openai_request import GenerationRequest
from loadstone.wire.openai_tools import Tools
from loadstone.wire.tokens import may_occur

from .config import LengthDistribution

__all__ = ["RING_MASK", "Answer", "choose_answer"]

_SPREAD: Final = 0x9E3779B97F4A7C15
"""An odd multiplier (2^64 / golden ratio): seeds 0, 1, 2 start far apart on the ring.
"""
_CHOICE: Final = 0xD1B54A32D192ED03
"""Another: the answers to one request differ."""
REASONING_SHARE: Final = {
    "none": 0.0, "minimal": 0.1, "low": 0.2, "medium": 0.5, "high": 0.8, "xhigh": 0.95
}  # fmt: skip
"""Share of an answer's tokens that is reasoning: the budgets that OpenRouter documents
for models that take a number instead of an effort. How long models really think differs
from one to the next."""


def choose_answer(
    asked: GenerationRequest,
    limit: Tokens,
    *,
    seed: int,
    lengths: LengthDistribution,
    prompt: Prompt | None = None,
    choice: int = 0,
) -> Answer:
    """Choose an answer of at most `limit` tokens to one prompt of a request.

    Raises `ApiError` for a schema that cannot be honoured.
    """
    prompt = prompt or asked.prompts[0]
    own = (asked.seed + choice) * _CHOICE
    mixed = (seed * _SPREAD + own + prompt.hash) % (1 << 64)
    offset = (mixed ^ mixed >> 32) & RING_MASK
    if asked.tools.choice or asked.schema:
        content = _structured(asked, Random(mixed))
        return _of_segments(asked, content, offset, limit)
    if asked.unseen:
        return unseen(offset)
    natural = limit
    if not asked.ignore_eos:
        natural = max(lengths(Random(mixed)), asked.min_tokens, 1)
    share = REASONING_SHARE[asked.effort]
    if share:
        return _thought_over(asked, offset, natural, limit, share)
    if asked.ignore_eos or natural > limit:
        return _stopped(asked, Answer(offset, limit, "length"))
    return _stopped(asked, Answer(offset, natural, "stop"))


def _thought_over(
    asked: GenerationRequest, offset: int, natural: Tokens, limit: Tokens, share: float
) -> Answer:
    """Put reasoning before filler of its natural length, or share the limit out."""
    reason: EndReason
    if asked.ignore_eos:
        thought = max(1, int(limit * share))
        tokens, reason = limit - thought, "length"
    else:
        thought = _thought(natural, share)
        tokens, reason = natural, "stop"
    parts = [reasoning(offset, thought), filler(offset + thought, tokens)]
    return _ended(asked, parts, offset, limit, reason)


def _structured(asked: GenerationRequest, rng: Random) -> list[Segment]:
    """Return the calls or the JSON that a request wants."""
    if asked.tools.choice:
        return _calls(asked.tools, rng)
    assert asked.schema is not None
    return [written(sample(asked.schema.schema, rng, where=asked.schema.where))]


def _calls(tools: Tools, rng: Random) -> list[Segment]:
    """Call one function, or two different ones where they may run side by side."""
    n = rng.randint(1, min(2, len(tools.choice))) if tools.parallel else 1
    return [
        call(
            tool.name,
            sample(tool.parameters, rng, where=tool.where),
            f"call_{rng.getrandbits(96):024x}",
        )
        for tool in rng.sample(tools.choice, n)
    ]


def _of_segments(
    asked: GenerationRequest, content: list[Segment], offset: int, limit: Tokens
) -> Answer:
    share = REASONING_SHARE[asked.effort]
    parts = content
    if share:
        tokens = sum(len(segment.pieces) for segment in content)
        parts = [reasoning(offset, _thought(tokens, share)), *content]
    return _ended(asked, parts, offset, limit, "stop")


def _thought(tokens: Tokens, share: float) -> Tokens:
    """Return how much reasoning makes `tokens` the rest beside its share."""
    return max(1, ceil(tokens * share / (1 - share)))


def _ended(
    asked: GenerationRequest, parts: list[Segment], offset: int, limit: Tokens,
    reason: EndReason,
) -> Answer:  # fmt: skip
    """End an answer of segments at a stop string, at its limit, or by itself."""
    *before, last = parts
    if last.part is Part.CONTENT and asked.stop:
        thought = sum(len(segment.pieces) for segment in before)
        least = max(0, asked.min_tokens - thought)
        left = stopped(last, asked.stop, keep=asked.keep_stop, least=least)
        if left is not None:
            parts, reason = [*before, left], "stop"
    wanted = sum(len(segment.pieces) for segment in parts)
    if wanted > limit:
        reason = "length"
    kept = cut(parts, limit)
    calls = any(segment.part is Part.CALL for segment in kept)
    return Answer(
        offset,
        min(wanted, limit),
        reason,
        kept,
        told="tool_calls"
        if calls and reason == "stop" and not asked.tools.named
        else None,
    )


def _stopped(asked: GenerationRequest, plain: Answer) -> Answer:
    """Cut filler at a stop string, if it has one; what has none stays filler."""
    if not any(map(may_occur, asked.stop)):
        return plain
    whole = filler(plain.offset, plain.tokens)
    left = stopped(whole, asked.stop, keep=asked.keep_stop, least=asked.min_tokens)
    if left is None:
        return plain
    return replace(
        plain, tokens=len(left.pieces), finish_reason="stop", segments=(left,)
    )
