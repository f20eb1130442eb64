"""The embedded store: SQLite with sqlite-vec, in one file.

It goes through apsw, which brings an SQLite of its own: Python's is often built so that
it cannot load extensions.
"""

import os
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import apsw
import sqlite_vec

from ..errors import LoadstoneError
from .store import About, Hit, Row, not_ours

_MOST_DIMENSIONS: Final = 8192
"""sqlite-vec's own limit."""


class SqliteStore:
    """A file that is open for reading."""

    def __init__(self, connection: apsw.Connection, about: About) -> None:
        self.about = about
        self._connection = connection

    def __repr__(self) -> str:
        return f"<SqliteStore of {self.about.passages} passages>"

    def search(self, vector: bytes, k: int) -> list[Hit]:
        """Return the `k` nearest passages, the best first."""
        rows = self._connection.execute(
            # sqlite-vec orders by distance alone, and only so much is its business.
            "WITH near AS MATERIALIZED (SELECT rowid AS id, distance FROM vectors"
            " WHERE embedding MATCH ? AND k = ?)"
            "SELECT document, position, 1 - distance, text"
            " FROM near JOIN passages USING (id) ORDER BY distance, id",
            (vector, k),
        )
        return [Hit(*row) for row in rows]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def open_store(address: str) -> SqliteStore:
    """Open a file for reading; raises `LoadstoneError` if it is not ours."""
    if not Path(address).is_file():
        raise LoadstoneError(
            f"there is no store {address}",
            hint=f"write one with `loadstone index DOCS --out {address}`",
            code="no_store",
        )
    connection = _connect(address, apsw.SQLITE_OPEN_READONLY)
    try:
        rows = list(connection.execute("SELECT name, value FROM about"))
        about = About.of_rows(rows, address)
    except apsw.Error:
        connection.close()
        raise not_ours(address) from None
    except LoadstoneError:
        connection.close()
        raise
    return SqliteStore(connection, about)


def write_store(address: str, about: About, rows: Iterable[Row]) -> int:
    """Write a file beside the old one, then put it in its place; see `store`."""
    if about.dimensions > _MOST_DIMENSIONS:
        raise LoadstoneError(
            f"vectors of {about.dimensions} dimensions do not fit into SQLite",
            hint=f"its limit is {_MOST_DIMENSIONS}",
        )
    if Path(address).exists():
        open_store(address).close()  # refuses to replace what is not ours
    draft = f"{address}.{os.getpid()}.part"
    try:
        with closing(_connect(draft)) as connection:
            # A draft that a crash leaves is thrown away: nothing to recover.
            connection.execute("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
            with connection:
                passages = _fill(connection, about, rows)
        Path(draft).replace(address)
    except (apsw.Error, OSError) as failed:
        raise LoadstoneError(f"cannot write {address}: {failed}") from None
    finally:
        with suppress(FileNotFoundError):
            Path(draft).unlink()
    return passages


def _fill(connection: apsw.Connection, about: About, rows: Iterable[Row]) -> int:
    connection.execute(
        "CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);"
        "CREATE TABLE passages (id INTEGER PRIMARY KEY, document TEXT NOT NULL,"
        " position INTEGER NOT NULL, text TEXT NOT NULL);"
        "CREATE VIRTUAL TABLE vectors USING"
        f" vec0(embedding float[{about.dimensions:d}] distance_metric=cosine)"
    )
    passages = 0
    for passages, (passage, vector) in enumerate(rows, start=1):
        connection.execute(
            "INSERT INTO passages VALUES (?, ?, ?, ?)",
            (passages, passage.document, passage.position, passage.text),
        )
        connection.execute(
            "INSERT INTO vectors (rowid, embedding) VALUES (?, ?)", (passages, vector)
        )
    counted = [*dict(about.rows(), passages=str(passages)).items()]
    connection.executemany("INSERT INTO about VALUES (?, ?)", counted)
    return passages


def _connect(
    path: str, flags: int = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
) -> apsw.Connection:
    try:
        connection = apsw.Connection(path, flags=flags)
        connection.enable_load_extension(True)  # noqa: FBT003 - positional only
        connection.load_extension(sqlite_vec.loadable_path())
        connection.enable_load_extension(False)  # noqa: FBT003 - positional only
    except apsw.Error as failed:
        raise LoadstoneError(f"cannot open {path}: {failed}") from None
    return connection
