"""Documents and labelled questions, read from files.

Documents are a folder of `.md` and `.txt` files (named by their path in it) or JSON
lines with `id` and `text`. Questions are JSON lines with `question` and `documents`,
the names of those that answer it. `sample` names the project's own of either.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..errors import UsageError
from .passages import Document

SAMPLE: Final = "sample"
_SAMPLE_HOME: Final = Path(__file__).parent / "sample"
_QUESTIONS: Final = _SAMPLE_HOME / "questions.jsonl"
_SUFFIXES: Final = (".md", ".txt")


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and the documents that answer it; none where nobody labelled it."""

    text: str
    documents: tuple[str, ...] = ()


def read_documents(source: str) -> list[Document]:
    """Read all documents; raises `UsageError` naming the file and line at fault."""
    path = _SAMPLE_HOME if source == SAMPLE else Path(source)
    found = list(_of_folder(path) if path.is_dir() else _of_lines(path))
    if not any(document.text.strip() for document in found):
        kinds = " or ".join(_SUFFIXES)
        raise UsageError(
            f"{source} holds no text",
            hint=f"give a folder of {kinds} files, or JSON lines with id and text",
        )
    names = [document.name for document in found]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"{source}: two documents are called {twice!r}")
    return found


def read_questions(source: str) -> list[Question]:
    """Read labelled questions; raises `UsageError` naming the line at fault."""
    path = _QUESTIONS if source == SAMPLE else Path(source)
    found = [_question(row, where) for row, where in _rows(path)]
    if not found:
        raise UsageError(f"{source} holds no question")
    return found


def _of_folder(path: Path) -> Iterator[Document]:
    for file in sorted(path.rglob("*")):
        if file.suffix in _SUFFIXES and file.is_file():
            yield Document(file.relative_to(path).as_posix(), _read(file))


def _of_lines(path: Path) -> Iterator[Document]:
    for row, where in _rows(path):
        yield Document(_text(row, "id", where), _text(row, "text", where))


def _question(row: dict[str, Any], where: str) -> Question:
    documents = row.get("documents", [])
    named = isinstance(documents, list) and all(isinstance(d, str) for d in documents)
    if not named:
        raise UsageError(f"{where}: `documents` is to be a list of names")
    return Question(_text(row, "question", where), tuple(dict.fromkeys(documents)))


def _rows(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each line's object, and what to call the line in an error."""
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as wrong:
            raise UsageError(f"{where} is not JSON: {wrong}") from None
        if not isinstance(row, dict):
            raise UsageError(f"{where} is not a JSON object")
        yield row, where


def _text(row: dict[str, Any], name: str, where: str) -> str:
    text = row.get(name)
    if not isinstance(text, str) or not text.strip():
        raise UsageError(f"{where}: `{name}` is to be a text that is not empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{where}: `{name}` holds half of a character") from None
    return text


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as failed:
        raise UsageError(f"cannot read {path}: {failed.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"cannot read {path}: it is not UTF-8 text") from None
