"""Rows carried over in chunks: whole and right, or not there at all."""

import zlib
from pathlib import Path

import pytest

from loadgen.folder import RunFolder
from loadgen.transfer import (
    CHUNK_BYTES,
    Receiver,
    Written,
    is_same_folder,
    read_chunk,
)
from loadstone.errors import LoadstoneError


def rows_of(path: Path, size: int) -> Written:
    """Write a file of that many bytes, and tell of it as a worker does."""
    path.write_bytes(bytes(i * 7 % 251 for i in range(size)))
    return Written(**Written.of(path, shared=False).message())


@pytest.mark.parametrize(
    "size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES]
)
def test_a_file_arrives_as_it_was(tmp_path: Path, size: int) -> None:
    """Of any length, though every chunk comes twice; until then it is not there."""
    source, there = tmp_path / "source", tmp_path / "requests.1.jsonl"
    receiver = Receiver(there, rows_of(source, size))
    while not receiver.complete:
        assert not there.exists()
        chunk = read_chunk(source, receiver.offset)
        assert len(zlib.decompress(chunk["data"])) <= CHUNK_BYTES
        receiver.take(chunk)
        receiver.take(chunk)
    receiver.close()
    assert there.read_bytes() == source.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"source", there.name}


def test_another_file_is_refused(tmp_path: Path) -> None:
    """Of the same length, but with other rows: nothing is left of it."""
    source, there = tmp_path / "source", tmp_path / "rows"
    receiver = Receiver(there, rows_of(source, 100))
    source.write_bytes(bytes(100))
    receiver.take(read_chunk(source, 0))
    with pytest.raises(LoadstoneError, match="arrived otherwise"):
        receiver.close()
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_file_that_shrank_is_refused(tmp_path: Path) -> None:
    """Its end comes too early."""
    source, there = tmp_path / "source", tmp_path / "rows"
    receiver = Receiver(there, rows_of(source, 100))
    source.write_bytes(b"")
    with pytest.raises(LoadstoneError, match="ends before"):
        receiver.take(read_chunk(source, 0))
    receiver.abandon()
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_chunk_cannot_be_a_bomb(tmp_path: Path) -> None:
    """What unpacks to more than a chunk is refused before it is unpacked."""
    told = rows_of(tmp_path / "source", 2 * CHUNK_BYTES)
    receiver = Receiver(tmp_path / "rows", told)
    bomb = zlib.compress(bytes(1000 * CHUNK_BYTES))
    with pytest.raises(LoadstoneError):
        receiver.take({"offset": 0, "data": bomb})
    receiver.abandon()


def test_a_folder_is_known_by_the_run_s_id(tmp_path: Path) -> None:
    """Not by its path: another host may have one of the same name."""
    assert not is_same_folder(tmp_path / "none", "a")
    RunFolder(tmp_path).write_environment(None, 2, run_id="a")
    assert is_same_folder(tmp_path, "a")
    assert not is_same_folder(tmp_path, "b")
    (tmp_path / "environment.json").write_text("{")
    assert not is_same_folder(tmp_path, "a")
