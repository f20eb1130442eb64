"""Embeddings: length one, the same each time, and near where texts are near."""

import json
from base64 import b64decode
from math import sqrt
from struct import unpack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.wire.embedding import (
    DIMENSIONS,
    embed,
    embedding_body,
    parse_embedding,
    text_of,
)
from loadstone.wire.tokens import tokenize

TOPICS = {
    "cooking": (
        "How do I bake bread with sourdough starter?",
        "Baking sourdough bread: how long does the starter need?",
        "A recipe for bread baked from a sourdough starter.",
    ),
    "networks": (
        "The TCP connection was reset by the remote server.",
        "Why does the server reset my TCP connections?",
        "Resetting a connection: what TCP servers do.",
    ),
    "money": (
        "The central bank raised interest rates again.",
        "Interest rates were raised by the bank this week.",
        "What raising the interest rate means for banks.",
    ),
}


def cosine(a: str, b: str) -> float:
    """Return how near two texts are; 1 is equal."""
    return sum(x * y for x, y in zip(embed(a), embed(b), strict=True))


@given(st.text(), st.integers(1, 300))
def test_every_text_has_a_vector_of_length_one(text: str, dimensions: int) -> None:
    """Also one of punctuation alone, and in one dimension."""
    vector = embed(text, dimensions)
    assert len(vector) == dimensions
    assert sqrt(sum(x * x for x in vector)) == pytest.approx(1)
    assert embed(text, dimensions) == vector


def test_related_texts_are_nearer_than_unrelated_ones() -> None:
    """Every pair within a topic is nearer than every pair across two."""
    near, far = [], []
    texts = [(topic, text) for topic, lines in TOPICS.items() for text in lines]
    for i, (topic, text) in enumerate(texts):
        for other, line in texts[i + 1 :]:
            (near if topic == other else far).append(cosine(text, line))
    assert min(near) > 1.5 * max(far)
    assert cosine("Bake bread", "bake BREAD!") == pytest.approx(1)


def test_a_search_finds_its_passage() -> None:
    """Each question's nearest passage, of all the others, is on its topic."""
    passages = [(topic, line) for topic, lines in TOPICS.items() for line in lines[1:]]
    for topic, (question, *_) in TOPICS.items():
        found, _ = max(passages, key=lambda passage: cosine(question, passage[1]))
        assert found == topic


def test_base64_is_the_same_vector() -> None:
    """Little-endian floats of four bytes, as clients decode them."""
    body = json.dumps(
        {"model": "m", "input": ["a b", "c"], "encoding_format": "base64",
         "dimensions": 64}
    ).encode()  # fmt: skip
    asked = parse_embedding(body)
    vectors = [embed(text_of(text), asked.dimensions) for text in asked.texts]
    reply = embedding_body(asked, vectors, "m")
    for vector, data in zip(vectors, reply["data"], strict=True):
        assert unpack("<64f", b64decode(data["embedding"])) == pytest.approx(vector)


def test_token_ids_are_their_text() -> None:
    """A text and its ids have one vector."""
    for text in ("the old map", "né là"):
        body = json.dumps({"model": "m", "input": tokenize(text)}).encode()
        (read,) = parse_embedding(body).texts
        assert text_of(read) == text
        assert len(embed(text_of(read))) == DIMENSIONS
