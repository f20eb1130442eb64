"""Both stores keep what was indexed and find the same."""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadstone.errors import LoadstoneError, UsageError
from loadstone.retrieval.documents import SAMPLE, read_documents, read_questions
from loadstone.retrieval.indexing import OWN, index, own_embedder
from loadstone.retrieval.passages import Cut, Document, Passage
from loadstone.retrieval.recall import recall_at
from loadstone.retrieval.store import About, Hit, open_store, packed, write_store

DOCUMENTS = [Document(f"d{i}", f"{word} " * 5) for i, word in enumerate("abcdef")]
LITTLE = Cut(8, 2)


def filled(address: str, documents: Sequence[Document] = DOCUMENTS) -> About:
    """Write a store with the project's own embedding."""
    return index(documents, address, embedder=own_embedder, name=OWN, cut=LITTLE)


def found(address: str, text: str, k: int = 5) -> list[Hit]:
    """Search for a text."""
    store = open_store(address)
    try:
        return store.search(own_embedder([text])[0], k)
    finally:
        store.close()


@pytest.mark.parametrize("cut", [Cut(), Cut(64, 16)], ids=["whole", "in parts"])
def test_recall_on_the_sample(address: str, cut: Cut) -> None:
    """Of the documents that were labelled, nine in ten are among the five best."""
    documents, questions = read_documents(SAMPLE), read_questions(SAMPLE)
    assert len(documents) >= 50
    assert len(questions) >= 60
    assert {d for q in questions for d in q.documents} <= {d.name for d in documents}
    about = index(documents, address, embedder=own_embedder, name=OWN, cut=cut)
    assert about.passages >= about.documents == len(documents)
    store = open_store(address)
    vectors = own_embedder([question.text for question in questions])
    hits = [
        (store.search(vector, 10), question.documents)
        for vector, question in zip(vectors, questions, strict=True)
    ]
    store.close()
    at = {k: recall_at(hits, k) for k in (1, 5, 10)}
    assert at[5] is not None
    assert at[5] >= 0.9, at
    # A search that returned everything would find everything.
    assert {len(list_) for list_, _ in hits} == {10}


def test_both_stores_find_the_same(server: str, tmp_path: Path) -> None:
    """Exact search is exact: order and scores agree to single precision."""
    file = str(tmp_path / "corpus.db")
    documents = read_documents(SAMPLE)
    for address in (file, server):
        index(documents, address, embedder=own_embedder, name=OWN, cut=Cut(64, 16))
    for question in read_questions(SAMPLE)[::9]:
        ours, theirs = found(file, question.text), found(server, question.text)
        assert [hit[:2] for hit in ours] == [hit[:2] for hit in theirs]
        assert [h.score for h in ours] == pytest.approx([h.score for h in theirs])
        assert [h.text for h in ours] == [h.text for h in theirs]


def test_scores_are_cosines_and_fall(address: str) -> None:
    """The passage itself is found at 1; others follow in order."""
    filled(address)
    hits = found(address, DOCUMENTS[2].text.strip(), 6)
    assert (hits[0].document, hits[0].score) == ("d2", pytest.approx(1.0, abs=1e-5))
    assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)
    assert len(hits) == 6
    assert len(found(address, "a", 100)) == open_passages(address)


def open_passages(address: str) -> int:
    """Return how many passages a store says that it has."""
    store = open_store(address)
    store.close()
    return store.about.passages


def test_an_index_is_replaced_as_a_whole(address: str) -> None:
    """A new index leaves nothing of the old one."""
    assert filled(address).documents == 6
    about = filled(address, DOCUMENTS[:1])
    assert (about.documents, about.passages) == (1, open_passages(address))
    assert {hit.document for hit in found(address, "b")} == {"d0"}


def test_a_failure_leaves_the_old_index(address: str) -> None:
    """Whole or not at all: an embedder that breaks off changes nothing."""
    filled(address)
    before = found(address, "a", 50)

    def breaking(texts: Sequence[str]) -> list[bytes]:
        if "stop" in texts[0]:
            raise LoadstoneError("no more")
        return own_embedder(texts)

    more = [*(Document(f"n{i}", "new words") for i in range(40)), Document("x", "stop")]
    more[32] = Document("y", "stop here")
    with pytest.raises(LoadstoneError, match="no more"):
        index(more, address, embedder=breaking, name=OWN, cut=LITTLE)
    assert found(address, "a", 50) == before


def test_vectors_of_two_lengths_are_refused(address: str) -> None:
    """An embedder that changes its mind is named, and the old index stays."""
    filled(address)

    def changing(texts: Sequence[str]) -> list[bytes]:
        return [packed([1.0] * (3 + len(text))) for text in texts]

    documents = [Document("a", "one"), Document("b", "three")]
    with pytest.raises(LoadstoneError, match="dimensions"):
        index(documents, address, embedder=changing, name="odd", cut=LITTLE)
    assert open_passages(address) > 0


def test_a_store_says_how_it_was_made(address: str) -> None:
    """What `index` returned is what the store says when it is opened."""
    about = filled(address)
    store = open_store(address)
    store.close()
    assert store.about == about
    assert (about.embedder, about.dimensions, about.size) == (OWN, 1024, 8)


def test_nothing_of_ours_is_said_so(tmp_path: Path, server: str) -> None:
    """No file, another file and a database without our tables are told apart."""
    with pytest.raises(LoadstoneError, match="there is no store"):
        open_store(str(tmp_path / "absent.db"))
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE about (name, value)")
    connection.close()
    for path in (other, tmp_path / "text"):
        if not path.exists():
            path.write_text("not a database, and long enough to be one")
        before = path.read_bytes()
        with pytest.raises(LoadstoneError, match="not a store"):
            open_store(str(path))
        with pytest.raises(LoadstoneError, match="not a store"):
            filled(str(path))
        assert path.read_bytes() == before
    with psycopg.connect(server) as database:
        database.execute("DROP TABLE IF EXISTS loadstone_about, loadstone_passages")
    with pytest.raises(LoadstoneError, match="not a store"):
        open_store(server)


def test_another_schema_is_refused(address: str, server: str) -> None:
    """A store of another release is not misread."""
    filled(address)
    change = "UPDATE {}about SET value = '99' WHERE name = 'schema'"
    if address == server:
        with psycopg.connect(server) as database:
            database.execute("UPDATE loadstone_about SET value = '99'"
                             " WHERE name = 'schema'")  # fmt: skip
    else:
        with sqlite3.connect(address) as connection:
            connection.execute(change.format(""))
        connection.close()
    with pytest.raises(LoadstoneError, match="not a store"):
        open_store(address)


@pytest.mark.parametrize(
    "secret",
    [
        "postgresql://me:hunter2@/db",
        "postgresql://me@/db?password=hunter2",
        "postgresql://me@/db?sslpassword=hunter2",
        "postgresql://me:hunter2@[/db",
    ],
)
def test_a_password_in_an_address_is_refused(secret: str) -> None:
    """It is not repeated either, and nothing is connected to."""
    with pytest.raises(UsageError) as refused:
        open_store(secret)
    assert "hunter2" not in refused.value.message + refused.value.hint


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The error says which, and what libpq said."""
    with pytest.raises(LoadstoneError, match="cannot reach PostgreSQL 'db'"):
        open_store(f"postgresql://me@/db?host={tmp_path}")


def test_addresses_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    """An unknown kind, and a folder that is not there."""
    with pytest.raises(UsageError, match="mysql"):
        open_store("mysql://here/db")
    with pytest.raises(UsageError, match="no folder"):
        filled(str(tmp_path / "no" / "corpus.db"))


def test_text_that_postgres_cannot_keep(address: str) -> None:
    """A NUL in a document stops neither store; tabs, quotes and emoji come back."""
    text = "tab\there 'quoted' \\back\\ slash 🚀"
    filled(address, [Document("odd\tname", text), Document("nul", "before \0 after")])
    assert found(address, text, 1)[0].document == "odd\tname"
    joined = {hit.text.replace("\0", "") for hit in found(address, "after", 10)}
    assert any("🚀" in passage for passage in joined)
    assert any("before" in passage for passage in joined)


@settings(max_examples=20, deadline=None)
@given(
    vectors=st.lists(
        st.lists(st.integers(-9, 9), min_size=3, max_size=3).filter(any),
        min_size=1, max_size=12,
    ),
    asked=st.lists(st.integers(-9, 9), min_size=3, max_size=3).filter(any),
    k=st.integers(1, 15),
)  # fmt: skip
def test_the_nearest_are_found(
    tmp_path_factory: pytest.TempPathFactory,
    vectors: list[list[int]],
    asked: list[int],
    k: int,
) -> None:
    """The embedded store agrees with a comparison of everything with everything."""
    address = str(tmp_path_factory.mktemp("near") / "s.db")

    def rows() -> Iterator[tuple[Passage, bytes]]:
        for i, vector in enumerate(vectors):
            yield Passage(str(i), 0, "text"), packed(vector)

    write_store(address, About.made("test", 3, LITTLE, len(vectors)), rows())
    store = open_store(address)
    hits = store.search(packed(asked), k)
    store.close()
    best = sorted((cosine(v, asked) for v in vectors), reverse=True)[:k]
    assert [hit.score for hit in hits] == pytest.approx(best, abs=1e-5)
    for hit in hits:
        true = cosine(vectors[int(hit.document)], asked)
        assert hit.score == pytest.approx(true, abs=1e-5)


def cosine(a: Sequence[int], b: Sequence[int]) -> float:
    """Return the cosine of two vectors, slowly."""
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    norms = sum(x * x for x in a) * sum(y * y for y in b)
    return float(dot / norms**0.5)
