"""Documents and questions are read from folders and lines; what is wrong is named."""

from pathlib import Path

import pytest

from loadstone.errors import UsageError
from loadstone.retrieval.documents import Question, read_documents, read_questions
from loadstone.retrieval.passages import Document
from loadstone.retrieval.recall import recall, recall_at
from loadstone.retrieval.store import Hit


def test_a_folder_is_read_in_order_and_depth(tmp_path: Path) -> None:
    """Names are paths within it; other kinds of files are left alone."""
    (tmp_path / "sub").mkdir()
    for name in ("b.md", "a.txt", "sub/c.md", "d.pdf"):
        (tmp_path / name).write_text(f"text of {name}")
    assert read_documents(str(tmp_path)) == [
        Document(name, f"text of {name}") for name in ("a.txt", "b.md", "sub/c.md")
    ]


def test_lines_are_documents(tmp_path: Path) -> None:
    """Blank lines do not count, further fields do not matter."""
    path = tmp_path / "docs.jsonl"
    path.write_text(
        '{"id": "one", "text": "first", "more": 1}\n\n{"id":"2","text":"t"}'
    )
    assert read_documents(str(path)) == [Document("one", "first"), Document("2", "t")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"id": "a", "text": "t"}\nnot json', "line 2 is not JSON"),
        ('["a"]', "line 1 is not a JSON object"),
        ('{"id": "a"}', "line 1: `text`"),
        ('{"id": 5, "text": "t"}', "line 1: `id`"),
        ('{"id": "a", "text": "  "}', "line 1: `text`"),
        ('{"id": "a", "text": "\\ud800"}', "half of a character"),
        ('{"id": "a", "text": "t"}\n{"id": "a", "text": "u"}', "two documents"),
        ("", "no text"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, content: str, said: str) -> None:
    """By file, line and field."""
    path = tmp_path / "docs.jsonl"
    path.write_text(content)
    with pytest.raises(UsageError, match=said):
        read_documents(str(path))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Absent, not text, and a folder with nothing to read in it."""
    with pytest.raises(UsageError, match=r"cannot read .*absent"):
        read_documents(str(tmp_path / "absent"))
    with pytest.raises(UsageError, match="holds no text"):
        read_documents(str(tmp_path))
    (tmp_path / "x.md").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_documents(str(tmp_path))


def test_questions_may_be_labelled(tmp_path: Path) -> None:
    """Or not; a document named twice counts once."""
    path = tmp_path / "q.jsonl"
    path.write_text(
        '{"question": "Why?", "documents": ["a", "b", "a"]}\n{"question":"How?"}'
    )
    assert read_questions(str(path)) == [Question("Why?", ("a", "b")), Question("How?")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"question": "Why?", "documents": "a"}', "a list of names"),
        ('{"question": "Why?", "documents": [1]}', "a list of names"),
        ('{"ask": "Why?"}', "`question`"),
        ("\n", "no question"),
    ],
)
def test_bad_questions_are_named(tmp_path: Path, content: str, said: str) -> None:
    """By line and field."""
    path = tmp_path / "q.jsonl"
    path.write_text(content)
    with pytest.raises(UsageError, match=said):
        read_questions(str(path))


def hits(*names: str) -> list[Hit]:
    """Return passages of these documents."""
    return [Hit(name, 0, 1.0, "text") for name in names]


def test_recall_is_the_share_of_the_relevant_that_was_found() -> None:
    """By hand; two passages of one document count once."""
    assert recall(hits("a", "a", "x"), ["a", "b"]) == 0.5
    assert recall(hits("a", "b"), ["b"]) == 1.0
    assert recall([], ["b"]) == 0.0
    assert recall(hits("a"), []) is None


def test_recall_at_a_depth_is_a_mean_over_labelled_questions() -> None:
    """Questions that nobody labelled do not count."""
    asked = [(hits("a", "b"), ["b"]), (hits("c", "d"), ["c"]), (hits("e"), [])]
    assert recall_at(asked, 1) == 0.5
    assert recall_at(asked, 2) == 1.0
    assert recall_at(asked[2:], 1) is None
