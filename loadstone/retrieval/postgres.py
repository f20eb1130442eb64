"""The store on a server: PostgreSQL with pgvector, through psycopg.

A password is never part of an address, since every process of a machine can read
command lines: libpq finds it in PGPASSWORD, `~/.pgpass` or a service file.
"""

from array import array
from collections.abc import Iterable
from contextlib import closing
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from ..errors import LoadstoneError, UsageError
from .store import About, Hit, Row, not_ours

_CONNECT_S: Final = 10
_QUERY_S: Final = 30
_LOCK: Final = 0x10AD570E
"""Of who writes the tables, so that two do not do so at once."""
_SEARCH: Final = (
    "SELECT document, position, 1 - (embedding <=> %(v)s::vector), text"
    " FROM loadstone_passages ORDER BY embedding <=> %(v)s::vector, id LIMIT %(k)s"
)


class PostgresStore:
    """A connection that searches."""

    def __init__(self, connection: psycopg.Connection[Any], about: About) -> None:
        self.about = about
        self._connection = connection

    def __repr__(self) -> str:
        return f"<PostgresStore of {self.about.passages} passages>"

    def search(self, vector: bytes, k: int) -> list[Hit]:
        """Return the `k` nearest passages, the best first."""
        asked = {"v": _text_of(vector), "k": k}
        try:
            return [Hit(*row) for row in self._connection.execute(_SEARCH, asked)]
        except psycopg.Error as failed:
            raise _told("PostgreSQL did not search", failed) from None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def refuse_password(address: str) -> None:
    """Raise `UsageError` for an address that cannot be read or holds a password."""
    try:
        parts = conninfo_to_dict(address)
    except psycopg.Error:
        # What is wrong is not repeated: a password may be in it.
        raise UsageError(
            "the store's address cannot be read",
            hint="it is like postgresql://USER@HOST:5432/DATABASE",
        ) from None
    if {"password", "sslpassword"} & set(parts):
        raise UsageError(
            "the store's address holds a password, which others could read",
            hint="leave it out and set PGPASSWORD, or put it into ~/.pgpass",
        )


def open_store(address: str) -> PostgresStore:
    """Connect for reading; raises `LoadstoneError` if nothing of ours is there."""
    connection = _connect(address)
    try:
        connection.read_only = True
        rows = connection.execute("SELECT name, value FROM loadstone_about").fetchall()
        return PostgresStore(connection, About.of_rows(rows, _shown(address)))
    except psycopg.Error:
        connection.close()
        raise not_ours(_shown(address)) from None
    except LoadstoneError:
        connection.close()
        raise


def write_store(address: str, about: About, rows: Iterable[Row]) -> int:
    """Make the tables anew in one transaction; see `store`."""
    try:
        with closing(_connect(address, write=True)) as connection:
            connection.autocommit = False
            with connection.transaction():
                return _fill(connection, about, rows)
    except psycopg.Error as failed:
        raise _told(f"cannot write to {_shown(address)}", failed) from None


def _fill(
    connection: psycopg.Connection[Any], about: About, rows: Iterable[Row]
) -> int:
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    connection.execute("DROP TABLE IF EXISTS loadstone_passages, loadstone_about")
    connection.execute(
        "CREATE TABLE loadstone_about (name text PRIMARY KEY, value text NOT NULL)"
    )
    connection.execute(
        sql.SQL(
            "CREATE TABLE loadstone_passages (id bigint PRIMARY KEY,"
            " document text NOT NULL, position integer NOT NULL, text text NOT NULL,"
            " embedding vector({}) NOT NULL)"
        ).format(sql.Literal(about.dimensions))
    )
    passages = 0
    copy_in = "COPY loadstone_passages FROM STDIN"
    with connection.cursor() as cursor:
        with cursor.copy(copy_in) as copy:
            for passages, (passage, vector) in enumerate(rows, start=1):
                copy.write_row(
                    (passages, passage.document, passage.position,
                     _storable(passage.text), _text_of(vector))
                )  # fmt: skip
        cursor.executemany(
            "INSERT INTO loadstone_about VALUES (%s, %s)",
            [*dict(about.rows(), passages=str(passages)).items()],
        )
    return passages


def _connect(address: str, *, write: bool = False) -> psycopg.Connection[Any]:
    # Of searches each has a limit; an index may take as long as it takes.
    limit = 0 if write else _QUERY_S
    try:
        return psycopg.connect(
            address, connect_timeout=_CONNECT_S, autocommit=True,
            application_name="loadstone", options=f"-c statement_timeout={limit}s",
        )  # fmt: skip
    except psycopg.Error as failed:
        raise _told(f"cannot reach {_shown(address)}", failed) from None


def _text_of(vector: bytes) -> str:
    return str(array("f", vector).tolist())


def _storable(text: str) -> str:
    """Leave out what PostgreSQL cannot keep in a text."""
    return text.replace("\0", "")


def _shown(address: str) -> str:
    """Name a database without what else stands in its address."""
    parts = conninfo_to_dict(address)
    return (
        f"PostgreSQL {parts.get('dbname', '')!r} at {parts.get('host', 'its socket')}"
    )


def _told(what: str, failed: psycopg.Error) -> LoadstoneError:
    said = str(failed).strip().splitlines()
    return LoadstoneError(
        f"{what}: {said[-1] if said else type(failed).__name__}",
        hint="the server needs the extension pgvector, and we a right to use it",
        code="store",
    )
