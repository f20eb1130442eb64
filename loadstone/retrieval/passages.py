"""Documents, and the passages they are cut into.

A passage has at most `size` tokens by the project's own rule (`wire.tokens`: four bytes
are a token) and begins up to `overlap` tokens before the last one ended, so that a
sentence on a border is whole in one of them. Words stay whole unless a single one is
longer than a passage.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ..errors import UsageError
from ..units import Tokens
from ..wire.tokens import BYTES_PER_TOKEN, count

SIZE: Final[Tokens] = 256
OVERLAP: Final[Tokens] = 32
_WORD: Final = re.compile(r"\S+")
_Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Document:
    """A text and the name it is found by."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of a document; `position` counts from 0 within it."""

    document: str
    position: int
    text: str


@dataclass(frozen=True, slots=True)
class Cut:
    """How documents are cut, in tokens; raises `UsageError` for what cannot be."""

    size: Tokens = SIZE
    overlap: Tokens = OVERLAP

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.overlap < self.size:
            raise UsageError(
                f"passages of {self.size} tokens cannot overlap by {self.overlap}",
                hint="a passage has 1 token or more and overlaps by fewer than it has",
            )

    def passages(self, document: Document) -> Iterator[Passage]:
        """Cut a document; blank ones have no passage."""
        text, position = document.text, 0
        words = [m.span() for m in _WORD.finditer(text)]
        words = [piece for span in words for piece in self._split(text, span)]
        first = 0
        while first < len(words):
            last = self._fill(text, words, first)
            passage = text[words[first][0] : words[last][1]]
            yield Passage(document.name, position, passage)
            if last + 1 == len(words):
                return
            first = self._step_back(text, words, first, last)
            position += 1

    def _split(self, text: str, span: _Span) -> Iterator[_Span]:
        """Cut a word that is longer than a passage."""
        begin, end = span
        if count(text[begin:end]) <= self.size:
            yield span
            return
        limit, used = self.size * BYTES_PER_TOKEN, 0
        for i in range(begin, end):
            width = len(text[i].encode())
            if used + width > limit and i > begin:
                yield begin, i
                begin, used = i, 0
            used += width
        yield begin, end

    def _fill(self, text: str, words: list[_Span], first: int) -> int:
        """Return the last word that still fits into a passage from `first` on."""
        begin, last = words[first][0], first
        # NOTE: bytes are counted once per word, so a long document stays linear.
        used = len(text[begin : words[first][1]].encode())
        limit = self.size * BYTES_PER_TOKEN
        for i in range(first + 1, len(words)):
            used += len(text[words[i - 1][1] : words[i][1]].encode())
            if used > limit:
                break
            last = i
        return last

    def _step_back(self, text: str, words: list[_Span], first: int, last: int) -> int:
        """Return the word at which the next passage begins; always after `first`."""
        start = last + 1
        while start - 1 > first:
            if count(text[words[start - 1][0] : words[last][1]]) > self.overlap:
                break
            start -= 1
        return start
