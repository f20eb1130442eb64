"""Embeds texts by an endpoint, for whoever fills a store or questions it."""

from collections.abc import Sequence
from typing import Final

from loadstone.errors import LoadstoneError
from loadstone.retrieval.embeddings import embeddings_body, vectors_of

from .client import Exchange, StreamingClient

EMBEDDINGS_PATH: Final = "/v1/embeddings"


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
