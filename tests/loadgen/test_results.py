"""Rows on disk: what was written is read back, and a kill costs no more than a line."""

from errno import EMFILE
from pathlib import Path

import gevent
import pytest

from loadgen.results import FLUSH_EVERY_S, RowWriter, rows_name
from loadgen.watch import Stops
from loadstone.errors import LoadstoneError
from loadstone.runs import read_rows
from loadstone.traffic.record import Outcome, RequestRecord


def row(number: int) -> RequestRecord:
    """Return a row with a number for a name."""
    return RequestRecord(
        id=str(number),
        scenario="chat",
        intended_s=float(number),
        sent_s=float(number),
        end_s=number + 1.0,
        outcome=Outcome.OK,
    )


def write(path: Path, *numbers: int) -> None:
    """Write rows to a file."""
    path.write_text("".join(row(number).to_line() for number in numbers))


def unexpected(failed: OSError) -> None:
    """Fail the test: the disk was expected to take the row."""
    raise AssertionError(failed)


def test_a_disk_that_takes_no_more_is_told_once() -> None:
    """The failure is handed on, later rows are let go, and closing does not raise."""
    told: list[OSError] = []
    full = Path("/dev/full")
    writer = RowWriter.__new__(RowWriter)
    writer.path, writer.written, writer._failed = full, 0, False
    writer._on_failure, writer.stops = told.append, Stops()
    writer._file = full.open("w", encoding="utf-8", buffering=1)
    writer._flusher = gevent.spawn(lambda: None)
    for number in range(5):
        writer.write(row(number))
    writer.close()
    assert [failure.strerror for failure in told] == ["No space left on device"]
    assert writer.written == 0


def test_rows_are_read_back(tmp_path: Path) -> None:
    """In their order, all of them after a close; the file is not overwritten."""
    writer = RowWriter(tmp_path / rows_name(0, 1), unexpected)
    for number in range(100):
        writer.write(row(number))
    assert repr(writer) == "<RowWriter requests.jsonl rows=100>"
    writer.close()
    assert list(read_rows(tmp_path)) == [row(number) for number in range(100)]
    with pytest.raises(FileExistsError):
        RowWriter(tmp_path / "requests.jsonl", unexpected)


def test_rows_reach_the_disk_while_the_run_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second, so that a kill loses no more; shortened here."""
    assert FLUSH_EVERY_S <= 1.0
    monkeypatch.setattr("loadgen.results.FLUSH_EVERY_S", 0.001)
    writer = RowWriter(tmp_path / "requests.jsonl", unexpected)
    writer.write(row(1))
    with gevent.Timeout(10):
        while not list(read_rows(tmp_path)):
            gevent.sleep(0.001)
    writer.close()


def test_each_worker_has_its_own_file(tmp_path: Path) -> None:
    """All are read, and nothing else in the folder."""
    names = [rows_name(rank, 3) for rank in range(3)]
    assert len({*names, rows_name(0, 1)}) == 4
    for rank, name in enumerate(names):
        write(tmp_path / name, rank)
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "requests.txt").write_text("no rows\n")
    assert [r.id for r in read_rows(tmp_path)] == ["0", "1", "2"]


def test_line_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    """Wherever it was cut, just before its end too; other files are read on."""
    path = tmp_path / rows_name(0, 2)
    write(path, 1, 2)
    whole = path.read_text()
    write(tmp_path / rows_name(1, 2), 3)
    for lost in (1, 5, len(row(2).to_line()) - 1):
        path.write_text(whole[:-lost])
        assert [r.id for r in read_rows(tmp_path)] == ["1", "3"]


@pytest.mark.parametrize("bad", ["not json", "7", "[]", '{"id": "1"}', ""])
def test_bad_line_is_an_error_that_names_it(tmp_path: Path, bad: str) -> None:
    """It is no kill's work: file and line are said."""
    path = tmp_path / "requests.jsonl"
    path.write_text(row(1).to_line() + bad + "\n" + row(2).to_line())
    with pytest.raises(LoadstoneError, match=r"requests\.jsonl: line 2 is not a row: "):
        list(read_rows(tmp_path))


def test_folder_without_rows_has_none(tmp_path: Path) -> None:
    """As after a run with no rows asked."""
    assert list(read_rows(tmp_path)) == []


def test_a_sign_of_life_that_cannot_be_written_costs_no_row(tmp_path: Path) -> None:
    """Out of descriptors a pulse fails, where the rows' file is open: no end."""
    failures: list[OSError] = []

    def no_descriptor(closed: bool) -> None:
        raise OSError(EMFILE, "Too many open files", f"alive {closed}")

    writer = RowWriter(tmp_path / "requests.jsonl", failures.append, no_descriptor)
    gevent.sleep(FLUSH_EVERY_S * 1.1)
    writer.write(row(1))
    writer.close()
    assert failures == []
    assert len(list(read_rows(tmp_path))) == 1
