"""`loadstone index`: documents in, a store and its recall out."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import mock_server

from loadstone.cli.main import main
from loadstone.retrieval.store import open_store

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Return a function that runs the verb in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["index", *args])
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    return call


def test_the_sample_is_found_again(run: Run) -> None:
    """Indexed and checked in one go, then checked alone: the same figures."""
    code, out, _ = run("sample", "--check", "sample", "--json")
    assert code == 0
    told = json.loads(out)
    assert told["documents"] >= 50
    assert told["questions"] >= 60
    recall = told["recall"]
    assert 0.9 <= recall["5"] <= recall["10"] <= 1.0
    assert recall["1"] < 1.0
    assert json.loads(run("--check", "sample", "--json")[1]) == told
    code, out, _ = run("--check", "sample")
    assert f"@5 {recall['5']:.3f}" in out


def test_an_endpoints_embeddings(run: Run) -> None:
    """Through /v1/embeddings of the mock, whose embedding is the default one."""
    with mock_server() as url:
        code, out, err = run("sample", "--host", url, "--check", "sample", "--json")
    assert code == 0, err
    there = json.loads(out)
    assert there["embedder"] not in ("", "loadstone-hash")
    here = json.loads(run("sample", "--check", "sample", "--json")[1])
    assert there["recall"] == here["recall"]
    assert there["dimensions"] == here["dimensions"] == 1024


def test_an_endpoint_that_fails_leaves_nothing(run: Run, tmp_path: Path) -> None:
    """The old store stays, no draft does, and the error says what to look at."""
    run("sample")
    before = Path("corpus.db").read_bytes()
    with mock_server() as url:
        code, _, err = run("sample", "--host", url, "--model", "another")
    assert code == 1
    assert "gave no embeddings: http_404" in err
    assert Path("corpus.db").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.db"]


def test_passages_are_cut_as_asked(run: Run) -> None:
    """Sizes and overlap are kept, and said by the store."""
    Path("one.txt").write_text("word " * 100)
    Path("docs.jsonl").write_text(json.dumps({"id": "a", "text": "word " * 100}))
    code, out, _ = run("docs.jsonl", "--passage", "10", "--overlap", "2", "--json")
    assert code == 0
    store = open_store("corpus.db")
    assert store.about.size == json.loads(out)["size"] == 10
    (hit, *_) = store.search(bytes(4 * 1023) + b"\0\0\x80\x3f", 1)
    store.close()
    assert len(hit.text) <= 40


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "nothing to index"),
        (("sample", "--out", "a.db", "--store", "postgresql:///x"), "not both"),
        (("sample", "--store", "postgresql://u:pw@/x"), "holds a password"),
        (("sample", "--store", "redis://x"), "redis"),
        (("sample", "--out", "no/such/a.db"), "no folder"),
        (("absent",), "cannot read absent"),
        (("sample", "--overlap", "300"), "overlap"),
        (("sample", "--model", "m"), "--model has no meaning without --host"),
        (("sample", "--check", "absent.jsonl"), "cannot read absent.jsonl"),
    ],
)
def test_what_cannot_be_is_refused(
    run: Run, args: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    """Before anything is written."""
    code, _, err = run(*args)
    assert code == 2
    assert said in err
    assert not list(tmp_path.iterdir())


def test_checking_needs_a_store_and_labels(run: Run) -> None:
    """Both are missed by name."""
    code, _, err = run("--check", "sample")
    assert code == 1
    assert "there is no store corpus.db" in err
    run("sample")
    Path("q.jsonl").write_text('{"question": "Why?"}')
    code, _, err = run("--check", "q.jsonl")
    assert code == 2
    assert "no question is labelled" in err
