"""Embeddings made of the text itself: texts that share words and stems lie close.

A text's features are its words and the runs of three letters inside them, each hashed
to a coordinate and a sign (feature hashing), rarer-looking ones weighing more: long
words say more about a subject than short ones. The vector has length 1, so that the dot
product is the cosine. No model is behind it: synonyms are strangers to each other.
"""

import re
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log, sqrt
from struct import pack
from typing import Any, Final
from zlib import crc32

from . import tokens
from .body import reading
from .openai_fields import EMBEDDING
from .openai_messages import Prompt, read_texts

DIMENSIONS: Final = 1024
"""Unless asked otherwise; that of many open embedding models."""
_WORD: Final = re.compile(r"\w+")
_GRAM: Final = 3
_GRAM_WEIGHT: Final = 1.5
"""Of all runs of letters of a word, against the word: `scaling` is near `scales`."""
_MIX: Final = 0x9E3779B1


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest:
    """A request for one vector for each of `texts`."""

    model: str
    texts: tuple[Prompt, ...]
    dimensions: int = DIMENSIONS
    base64: bool = False
    priority: int = 0


@reading
def parse_embedding(payload: dict[str, Any]) -> EmbeddingRequest:
    """Read a request for embeddings; raises `ApiError` for what cannot be served."""
    EMBEDDING.check(payload)
    return EmbeddingRequest(
        model=payload["model"],
        texts=tuple(read_texts(payload["input"], "input")),
        dimensions=payload.get("dimensions") or DIMENSIONS,
        base64=payload.get("encoding_format") == "base64",
        priority=payload.get("priority") or 0,
    )


def embed(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """Return the vector of a text: `dimensions` numbers whose squares add up to 1."""
    vector = [0.0] * dimensions
    for feature, weight in _features(text.casefold()):
        # Mixed, because the CRCs of words that differ little differ regularly.
        hashed = crc32(feature.encode(errors="replace")) * _MIX >> 8
        vector[(hashed >> 1) % dimensions] += weight if hashed & 1 else -weight
    norm = sqrt(sum(x * x for x in vector))
    if norm == 0:
        # Nothing but punctuation, or features that cancel: still a direction.
        vector[crc32(text.encode(errors="replace")) % dimensions] = norm = 1.0
    return [x / norm for x in vector]


def text_of(prompt: Prompt) -> str:
    """Return the text of a prompt that was read, also where it came as token ids."""
    return tokens.detokenize(tokens.ids_of(prompt.padded))


def embedding_body(
    asked: EmbeddingRequest, vectors: Sequence[Sequence[float]], model: str
) -> dict[str, Any]:
    """Return the reply as an object."""
    total = sum(text.tokens for text in asked.texts)
    return {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": i,
                "embedding": _base64(vector) if asked.base64 else list(vector),
            }
            for i, vector in enumerate(vectors)
        ],
        "model": model,
        "usage": {"prompt_tokens": total, "total_tokens": total},
    }


def _base64(vector: Sequence[float]) -> str:
    return b64encode(pack(f"<{len(vector)}f", *vector)).decode()


def _features(text: str) -> Iterator[tuple[str, float]]:
    for word, times in Counter(_WORD.findall(text)).items():
        weight = log(1 + len(word)) ** 2 * (1 + log(times))
        yield word, weight
        padded = f"<{word}>"
        grams = range(len(padded) - _GRAM + 1)
        share = _GRAM_WEIGHT * weight / sqrt(len(grams))
        for i in grams:
            yield f"#{padded[i : i + _GRAM]}", share
