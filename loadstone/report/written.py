"""A run's report in each of its formats, written whole or not at all."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from ..errors import LoadstoneError
from ..runs import RunFiles
from . import markdown, rows_csv
from .document import Document, gather
from .html import page
from .proof import Asked

REPORT: Final = "report.html"


def _json(document: Document) -> Iterable[bytes]:
    yield (json.dumps(document.to_json(), indent=1) + "\n").encode()


_OF_DOCUMENT: Final[dict[str, Callable[[Document], Iterable[bytes]]]] = {
    "html": lambda document: (page(document),),
    "json": _json,
    "md": lambda document: (markdown.text(document).encode(),),
}
FORMATS: Final = (*_OF_DOCUMENT, "csv")


def rendered(
    run: RunFiles,
    form: str,
    asked: Asked = Asked(),  # noqa: B008 - frozen
) -> Iterable[bytes]:
    """Return a run's report, in pieces. A CSV is made row by row, and not kept."""
    if form == "csv":
        return (line.encode() for line in rows_csv.lines(run.rows()))
    return _OF_DOCUMENT[form](gather(run, asked))


def write(pieces: Iterable[bytes], path: Path) -> None:
    """Write a file whole or not at all; raises `LoadstoneError` if it cannot be."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.writelines(pieces)
        part.replace(path)
    except OSError as failed:
        raise LoadstoneError(
            f"cannot write {path}: {failed.strerror}", hint="choose another --out"
        ) from None
