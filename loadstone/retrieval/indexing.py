"""From documents to a store: cut, embed, write."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from ..errors import LoadstoneError
from ..wire.embedding import DIMENSIONS, embed
from .passages import Cut, Document, Passage
from .store import About, Row, packed, write_store

Embedder = Callable[[Sequence[str]], list[bytes]]
"""Makes a vector, as `store.packed` gives it, of each text."""
OWN: Final = "loadstone-hash"
"""The embedding of `wire.embedding`, which the mock serves: it needs no server."""
AT_ONCE: Final = 32
"""Passages in one request for embeddings."""


def own_embedder(texts: Sequence[str]) -> list[bytes]:
    """Embed without a server, as the mock would."""
    return [packed(embed(text, DIMENSIONS)) for text in texts]


def index(
    documents: Iterable[Document],
    address: str,
    *,
    embedder: Embedder,
    name: str,
    cut: Cut,
    done: Callable[[int, int], None] = lambda *_: None,
) -> About:
    """Write a store of these documents and return what it says of itself.

    `name` is the embedder's; `done` hears how many passages of how many are embedded.
    Nothing is written before the first vectors came, and nothing stays of a failure.
    """
    documents = list(documents)
    passages = [p for document in documents for p in cut.passages(document)]
    rows = _embedded(passages, embedder, done)
    first = next(rows)
    about = About.made(name, len(first[1]) // 4, cut, len(documents))
    count = write_store(address, about, _same(about, first, rows))
    return About.of_rows(dict(about.rows(), passages=str(count)).items(), address)


def _embedded(
    passages: Sequence[Passage], embedder: Embedder, done: Callable[[int, int], None]
) -> Iterator[Row]:
    rest, made = iter(passages), 0
    while batch := list(islice(rest, AT_ONCE)):
        vectors = embedder([passage.text for passage in batch])
        made += len(batch)
        done(made, len(passages))
        yield from zip(batch, vectors, strict=True)


def _same(about: About, first: Row, rest: Iterator[Row]) -> Iterator[Row]:
    """Yield the rows; an embedder that changes its mind is found out."""
    yield first
    for row in rest:
        if len(row[1]) != 4 * about.dimensions:
            raise LoadstoneError(
                f"{about.embedder} gave vectors of {about.dimensions} and of"
                f" {len(row[1]) // 4} dimensions"
            )
        yield row
