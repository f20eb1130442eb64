"""Vectors from an endpoint's `/v1/embeddings`, as stores take them.

They are asked for in base64: that is the 32-bit floats themselves, so nobody writes or
parses a thousand decimals. A server that does not know it answers in decimals.
"""

import json
from base64 import b64decode
from collections.abc import Sequence
from typing import Any, Final

from loadstone.errors import LoadstoneError
from loadstone.retrieval.store import packed

from .client import Exchange, StreamingClient

EMBEDDINGS_PATH: Final = "/v1/embeddings"


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


class EndpointEmbedder:
    """Embeds texts by requests to an endpoint, one after another."""

    def __init__(self, client: StreamingClient, model: str) -> None:
        self._client = client
        self._model = model

    def __repr__(self) -> str:
        return f"<EndpointEmbedder {self._model!r} at {self._client.endpoint}>"

    def __call__(self, texts: Sequence[str]) -> list[bytes]:
        """Return their vectors; raises `LoadstoneError` in plain words."""
        exchange = self._client.send(
            embeddings_body(self._model, texts), path=EMBEDDINGS_PATH
        )
        if exchange.error is not None:
            raise _refused(self._client, exchange)
        return vectors_of(exchange.body, len(texts))


def _refused(client: StreamingClient, exchange: Exchange) -> LoadstoneError:
    return LoadstoneError(
        f"{client.endpoint.url} gave no embeddings: {exchange.error}:"
        f" {exchange.error_text}".rstrip(": "),
        hint="is an embedding model behind /v1/embeddings, and is it --model?",
        code="embeddings",
    )


def _index(each: dict[str, Any]) -> int:
    return int(each["index"])


def _packed(embedding: str | list[float]) -> bytes:
    if isinstance(embedding, str):
        return b64decode(embedding, validate=True)
    return packed(embedding)
