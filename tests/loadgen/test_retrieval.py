"""Searches happen in other processes: the hub goes on, and failures are told."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent.event import Event
from processes import alive, descendants, wait_for

from loadgen.retrieval import RetrievalError, Searchers
from loadstone.errors import LoadstoneError
from loadstone.retrieval.documents import read_documents
from loadstone.retrieval.embeddings import embeddings_body, vectors_of
from loadstone.retrieval.indexing import OWN, index, own_embedder
from loadstone.retrieval.passages import Cut
from loadstone.retrieval.store import open_store, packed
from loadstone.wire.embedding import embedding_body, parse_embedding

QUESTION = own_embedder(["Why is decode limited by memory bandwidth?"])[0]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a store of the sample."""
    path = str(tmp_path_factory.mktemp("store") / "corpus.db")
    index(read_documents("sample"), path, embedder=own_embedder, name=OWN, cut=Cut())
    return path


@pytest.fixture
def searchers(address: str) -> Iterator[Searchers]:
    """Run a pool of two."""
    pool = Searchers(address)
    yield pool
    pool.close()


def processes() -> list[int]:
    """Return the searchers of this process."""
    return descendants(os.getpid())


def test_many_at_once_find_what_the_store_finds(
    address: str, searchers: Searchers
) -> None:
    """Each gets its own answer, and the store's own order."""
    store = open_store(address)
    expected = store.search(QUESTION, 3)
    assert searchers.about == store.about
    store.close()
    asked = {k: gevent.spawn(searchers.search, QUESTION, k) for k in range(1, 40)}
    gevent.joinall(asked.values(), raise_error=True)
    assert {k: len(g.value) for k, g in asked.items()} == {k: k for k in asked}
    assert asked[3].value == expected


def test_the_hub_goes_on_while_a_search_waits(searchers: Searchers) -> None:
    """With both processes stopped nothing is found, and other greenlets run."""
    stopped = processes()
    assert len(stopped) == 2
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    searching = gevent.spawn(searchers.search, QUESTION, 2)
    turned = Event()
    gevent.spawn(turned.set)
    assert turned.wait(5)
    assert not searching.ready()
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    assert len(searching.get(timeout=20)) == 2


def test_who_is_killed_leaves_no_trace(searchers: Searchers) -> None:
    """An answer that nobody waits for goes to nobody else."""
    stopped = processes()
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    asked = [gevent.spawn(searchers.search, QUESTION, 7) for _ in range(4)]
    gevent.sleep(0)
    gevent.killall(asked)
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    after = [gevent.spawn(searchers.search, QUESTION, k) for k in (1, 2, 3, 4)]
    gevent.joinall(after, timeout=20, raise_error=True)
    assert [len(g.value) for g in after] == [1, 2, 3, 4]


def test_a_dead_process_is_missed_and_the_last_one_too(searchers: Searchers) -> None:
    """The other goes on searching; with none left each search fails at once."""
    first, second = processes()
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: not alive(first))
    results = []
    for _ in range(6):
        try:
            results.append(len(searchers.search(QUESTION, 1)))
        except RetrievalError:
            results.append(0)
    assert sum(results) >= 5
    assert results[-1] == 1
    os.kill(second, signal.SIGKILL)
    wait_for(lambda: not alive(second))
    gevent.sleep(0.05)
    for _ in range(4):
        with pytest.raises(RetrievalError):
            searchers.search(QUESTION, 1)


def test_the_processes_end_with_the_pool(address: str) -> None:
    """None is left behind."""
    pool = Searchers(address)
    started = processes()
    assert len(started) == 2
    pool.close()
    assert not [pid for pid in started if alive(pid)]


def test_a_question_of_other_dimensions_is_refused(searchers: Searchers) -> None:
    """By the numbers of both."""
    with pytest.raises(RetrievalError, match=r"3 dimensions .* 1024"):
        searchers.search(packed([1.0, 0.0, 0.0]), 1)


def test_a_store_that_does_not_open_says_why(tmp_path: Path) -> None:
    """What the process said of it, and no process stays."""
    with pytest.raises(LoadstoneError, match="there is no store"):
        Searchers(str(tmp_path / "absent.db"))
    deadline = time.monotonic() + 10
    while processes():
        assert time.monotonic() < deadline
        gevent.sleep(0.01)


@pytest.mark.parametrize("base64", [True, False])
def test_vectors_are_read_in_either_form(base64: bool) -> None:
    """The bytes that the mock's own reply holds, whatever their order."""
    asked = json.loads(embeddings_body("m", ["a", "b"]))
    if not base64:
        del asked["encoding_format"]
    parsed = parse_embedding(json.dumps(asked).encode())
    vectors = [[1.0, 0.5], [0.25, -2.0]]
    body = embedding_body(parsed, vectors, "m")
    body["data"].reverse()
    assert vectors_of(json.dumps(body).encode(), 2) == [packed(v) for v in vectors]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b'{"data": []}', b'{"data": [{"index": 0}]}',
        b'{"data": [{"index": 0, "embedding": "*"}]}',
        b'{"data": [{"index": 0, "embedding": []}]}',
        b'{"data": [{"index": 0, "embedding": ["x"]}]}',
        b'{"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1]}]}',
    ],
)  # fmt: skip
def test_other_bodies_hold_no_embeddings(body: bytes) -> None:
    """Too few, too many, or something else."""
    with pytest.raises(LoadstoneError, match="does not hold 1"):
        vectors_of(body, 1)
