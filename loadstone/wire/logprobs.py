"""Log probabilities, made up: plausible, the same each time, and they add up.

A token has a probability between 0.1 and 1, mostly high; its alternatives share half,
a quarter, ... of the rest, so they are less likely than the rest allows. Nothing about
a model is to be learned from them; what they are for is the shape and size of answers.
"""

from collections.abc import Iterable, Sequence
from math import log
from typing import Any, Final
from zlib import crc32

from ..units import Tokens
from .tokens import RING_TOKENS, ring_text

_Ranked = list[tuple[str, float]]
"""Tokens and their log probabilities, the one that is there first."""
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
        return {
            "text_offset": _offsets(pieces, offset),
            "token_logprobs": [one[0][1] for one in ranked],
            "tokens": list(pieces),
            "top_logprobs": [dict(one) for one in ranked],
        }

    def _ranked(self, piece: str, index: Tokens) -> _Ranked:
        p, words = _drawn(self._seed + index, self._top)
        return _shared_out(piece, p, words, self._top, most=p)


def of_prompt(pieces: Sequence[str], top: int) -> dict[str, Any]:
    """Return the `logprobs` of an echoed prompt, in completions.

    They depend on the tokens up to each, and on nothing else. The model did not choose
    these, so that an alternative may be likelier; they are shown beside the token. The
    first has nothing before it, and so no value.
    """
    ranked: list[_Ranked] = []
    before = 0
    for piece in pieces:
        before = crc32(piece.encode(), before)
        p, words = _drawn(before, top)
        ranked.append(_shared_out(piece, p, words, top + 1, most=1))
    return {
        "text_offset": _offsets(pieces, 0),
        "token_logprobs": [None, *(one[0][1] for one in ranked[1:])],
        "tokens": list(pieces),
        "top_logprobs": [None, *map(dict, ranked[1:])],
    }


def _drawn(seed: int, top: int) -> tuple[float, list[str]]:
    """Draw a probability, and words that a token's alternatives may be."""
    mixed = seed * _STEP
    return _P[mixed >> 8 & 255], ring_text(mixed % RING_TOKENS, 4 * top)


def _shared_out(
    piece: str, p: float, words: Iterable[str], wanted: int, *, most: float
) -> _Ranked:
    """Share out what `p` leaves among `wanted` tokens, the first of them `piece`.

    No alternative is more likely than `most`.
    """
    ranked = [(piece, _log(p))]
    rest, seen = 1 - p, {piece}
    for word in words:
        if len(ranked) >= wanted:
            break
        if word not in seen:
            seen.add(word)
            rest /= 2
            ranked.append((word, _log(min(rest, most))))
    return ranked


def _offsets(pieces: Sequence[str], start: int) -> list[int]:
    """Return where each piece begins in a text, in characters."""
    offsets = []
    for piece in pieces:
        offsets.append(start)
        start += len(piece)
    return offsets


def _entry(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def _log(p: float) -> float:
    return round(log(p), 6) + 0.0  # not -0.0
