"""Log probabilities, made up: plausible, the same each time, and they add up.

A token has a probability between 0.1 and 1, mostly high; its alternatives share half,
a quarter, ... of the rest, so they are less likely than the rest allows. Nothing about
a model is to be learned from them; what they are for is the shape and size of answers.
"""

from collections.abc import Sequence
from math import log
from typing import Any, Final

from ..units import Tokens
from .tokens import RING_TOKENS, ring_text

_STEP: Final = 2_654_435_761
"""Knuth's multiplier: neighbouring tokens get unlike probabilities."""
_P: Final = [1 - 0.9 * (i / 256) ** 2 for i in range(1, 257)]


class Logprobs:
    """The log probabilities of one answer, with up to `top` alternatives per token."""

    def __init__(self, seed: int, top: int) -> None:
        self._seed = seed
        self._top = top

    def __repr__(self) -> str:
        return f"<Logprobs top {self._top}>"

    def chat(self, pieces: Sequence[str], start: Tokens) -> dict[str, Any]:
        """Return a choice's `logprobs` in chat, for tokens from `start` on."""
        content = []
        for i, piece in enumerate(pieces, start):
            ranked = self._ranked(piece, i)
            entry = _entry(*ranked[0])
            entry["top_logprobs"] = [_entry(*one) for one in ranked[: self._top]]
            content.append(entry)
        return {"content": content}

    def text(self, pieces: Sequence[str], start: Tokens, offset: int) -> dict[str, Any]:
        """Return a choice's `logprobs` in completions; `offset` is in characters."""
        ranked = [self._ranked(piece, i) for i, piece in enumerate(pieces, start)]
        offsets = []
        for piece in pieces:
            offsets.append(offset)
            offset += len(piece)
        return {
            "text_offset": offsets,
            "token_logprobs": [one[0][1] for one in ranked],
            "tokens": list(pieces),
            "top_logprobs": [dict(one[: max(1, self._top)]) for one in ranked],
        }

    def _ranked(self, piece: str, index: Tokens) -> list[tuple[str, float]]:
        mixed = (self._seed + index) * _STEP
        p = _P[mixed >> 8 & 255]
        ranked = [(piece, _log(p))]
        rest, seen = 1 - p, {piece}
        for word in ring_text(mixed % RING_TOKENS, 4 * self._top):
            if len(ranked) >= self._top:
                break
            if word not in seen:
                seen.add(word)
                rest /= 2
                ranked.append((word, _log(min(rest, p))))
        return ranked


def _entry(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def _log(p: float) -> float:
    return round(log(p), 6) + 0.0  # not -0.0
