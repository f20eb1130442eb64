"""What a store of passages is, and which one an address means.

`FILE` is SQLite with sqlite-vec in this process; `postgresql://...` is PostgreSQL with
pgvector. Both search exactly (every vector is compared), so that what they find differs
by rounding only. A store is written once, as a whole, and then only read.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, Self

from ..errors import LoadstoneError, UsageError
from .passages import Cut, Passage

SCHEMA: Final = 1
"""Of what is stored; another one is refused."""
POSTGRES: Final = ("postgresql://", "postgres://")


class Hit(NamedTuple):
    """A passage that was found; `score` is the cosine of its vector and the asked."""

    document: str
    position: int
    score: float
    text: str


Row = tuple[Passage, bytes]
"""A passage and its vector, as `packed` gives it."""


@dataclass(frozen=True, slots=True)
class About:
    """What a store says of itself."""

    embedder: str
    """The model that made its vectors; questions need the same."""
    dimensions: int
    size: int
    overlap: int
    documents: int
    passages: int = 0
    schema: int = SCHEMA

    @classmethod
    def made(cls, embedder: str, dimensions: int, cut: Cut, documents: int) -> Self:
        """Describe a store that is about to be filled."""
        return cls(embedder, dimensions, cut.size, cut.overlap, documents)

    def rows(self) -> list[tuple[str, str]]:
        """Return it as names and texts, as stores keep it."""
        return [(name, str(value)) for name, value in asdict(self).items()]

    @classmethod
    def of_rows(cls, rows: Iterable[Sequence[Any]], where: str) -> Self:
        """Read what `rows` gave; raises `LoadstoneError` if it is not ours."""
        found = {str(name): str(value) for name, value in rows}
        if found.get("schema") != str(SCHEMA):
            raise not_ours(where)
        numbers = {f.name: int(found[f.name]) for f in fields(cls) if f.type is int}
        return cls(embedder=found["embedder"], **numbers)


class Store(Protocol):
    """A store that is open for searching, by one caller at a time."""

    about: About

    def search(self, vector: bytes, k: int) -> list[Hit]:
        """Return the `k` nearest passages, the best first."""
        ...

    def close(self) -> None:
        """Give up what it holds."""
        ...


def packed(vector: Sequence[float]) -> bytes:
    """Return a vector as 32-bit floats, little end first."""
    numbers = array("f", vector)
    if _BIG_ENDIAN:
        numbers.byteswap()
    return numbers.tobytes()


_BIG_ENDIAN: Final = array("H", [1]).tobytes() == b"\0\1"


def open_store(address: str) -> Store:
    """Open a store; raises `LoadstoneError` if it is not there or not ours."""
    store: Store = _module(address).open_store(checked(address))
    return store


def write_store(address: str, about: About, rows: Iterable[Row]) -> int:
    """Fill a new store, in the place of an old one of ours; return its passages.

    Whole or not at all: until the last row is in, others see what was there before.
    """
    write: Callable[[str, About, Iterable[Row]], int] = _module(address).write_store
    return write(checked(address), about, rows)


def checked(address: str) -> str:
    """Return an address as it is; raises `UsageError` for one that must not be."""
    if _is_postgres(address):
        import_module(".postgres", __package__).refuse_password(address)
    elif "://" in address:
        kind = address.split("://", 1)[0]
        raise UsageError(
            f"there is no store of the kind {kind}://",
            hint="give a file, or postgresql://HOST/DATABASE",
        )
    elif not Path(address).parent.is_dir():
        raise UsageError(f"no folder {Path(address).parent} to hold the store")
    return address


def not_ours(where: str) -> LoadstoneError:
    """Return the error for something that is no store of this release."""
    return LoadstoneError(
        f"{where} is not a store that this loadstone wrote",
        hint="write one with `loadstone index DOCS`",
        code="not_a_store",
    )


def _is_postgres(address: str) -> bool:
    return address.startswith(POSTGRES)


def _module(address: str) -> Any:
    """Return the adapter. Its library is loaded only if it is needed."""
    return import_module(
        ".postgres" if _is_postgres(address) else ".sqlite", __package__
    )
