"""Rows of a worker whose disk the master does not see: told of, and carried over.

The master asks for one chunk after another, so a chunk that is asked for is also an
acknowledgement of those before it, and no more than one is under way. The digest that
the worker told before is held against what arrived.
"""

import hashlib
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from loadstone.errors import LoadstoneError, UsageError
from loadstone.runs import RunFiles

CHUNK_BYTES: Final = 256 * 1024
"""Of rows, before they are compressed: some 400 of them, 40 KB on the wire."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a worker says of its file of rows."""

    path: str
    shared: bool
    """Whether it lies in the run's own folder."""
    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path, *, shared: bool) -> "Written":
        """Look at a file that is written to its end."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return cls(str(path), shared, file.tell(), digest)

    def message(self) -> dict[str, Any]:
        """Return it as a message; `Written(**message)` reads it."""
        return asdict(self)


def is_same_folder(folder: Path, run_id: str) -> bool:
    """Whether that path leads, from here, to the folder of the run of that id."""
    with suppress(UsageError, OSError):
        return RunFiles(folder).environment().get("run_id") == run_id
    return False


def read_chunk(path: Path, offset: int) -> dict[str, Any]:
    """Return the chunk that begins at `offset`, compressed; an empty one at the end."""
    with path.open("rb") as file:
        file.seek(offset)
        return {"offset": offset, "data": zlib.compress(file.read(CHUNK_BYTES), 6)}


class Receiver:
    """Puts the chunks of one file together; the file is there whole or not at all."""

    def __init__(self, path: Path, told: Written) -> None:
        """Begin a file at `path`; raises `OSError` if that cannot be written."""
        self._path = path
        self._told = told
        self._part = path.with_name(path.name + ".part")
        self._file = self._part.open("wb")
        self._digest = hashlib.sha256()
        self.offset = 0
        """Where the next chunk begins."""

    def __repr__(self) -> str:
        return f"<Receiver {self._path.name} {self.offset} of {self._told.size}>"

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return self.offset == self._told.size

    def take(self, chunk: Mapping[str, Any]) -> None:
        """Append a chunk; one that was taken before is let go.

        Raises `LoadstoneError` for what does not belong to the file that was told of.
        """
        if chunk["offset"] != self.offset:
            return
        inflate = zlib.decompressobj()
        data = inflate.decompress(chunk["data"], CHUNK_BYTES)
        if not data or inflate.unconsumed_tail:
            raise LoadstoneError(f"{self._told.path}: ends before it was said to")
        self._file.write(data)
        self._digest.update(data)
        self.offset += len(data)

    def close(self) -> None:
        """Let the file appear; raises `LoadstoneError` if it is not the one told of."""
        self._file.close()
        if self._digest.hexdigest() != self._told.sha256:
            self._part.unlink()
            raise LoadstoneError(f"{self._told.path}: arrived otherwise than it was")
        self._part.replace(self._path)

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._file.close()
        self._part.unlink(missing_ok=True)
