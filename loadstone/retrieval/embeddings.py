"""What is asked of `/v1/embeddings`, and the vectors of an answer as stores take them.

They are asked for in base64: that is the 32-bit floats themselves, so nobody writes or
parses a thousand decimals. A server that does not know it answers in decimals.
"""

import json
from base64 import b64decode
from collections.abc import Sequence
from typing import Any

from ..errors import LoadstoneError
from .store import packed


def embeddings_body(model: str, texts: Sequence[str]) -> bytes:
    """Return the body of a request for a vector of each text."""
    asked = {"model": model, "input": list(texts), "encoding_format": "base64"}
    return json.dumps(asked).encode()


def vectors_of(body: bytes, count: int) -> list[bytes]:
    """Return the vectors of an answer, packed, in the order of the texts.

    Raises `LoadstoneError` for a body that does not hold `count` of them.
    """
    try:
        told = json.loads(body)["data"]
        vectors = [_packed(each["embedding"]) for each in sorted(told, key=_index)]
    except (ValueError, TypeError, KeyError, OverflowError):
        vectors = []
    if len(vectors) != count or not all(vectors):
        raise LoadstoneError(
            f"the answer does not hold {count} embeddings", code="bad_embeddings"
        )
    return vectors


def _index(each: dict[str, Any]) -> int:
    return int(each["index"])


def _packed(embedding: str | list[float]) -> bytes:
    if isinstance(embedding, str):
        return b64decode(embedding, validate=True)
    return packed(embedding)
