"""`loadstone dashboards`: what lies in the repository is what the code makes."""

import json
from pathlib import Path

import pytest
from processes import loadstone

from dashboards.files import BOARDS, DOCUMENT, JSON_HOME, rendered, stale
from loadstone.errors import LoadstoneError

COMMITTED = Path(__file__).parents[2] / "docs" / "dashboards.md"


def test_what_is_committed_is_what_the_code_makes() -> None:
    """JSON and the document's tables are fresh; else `loadstone dashboards build`."""
    assert stale(JSON_HOME, COMMITTED) == []
    done = loadstone("dashboards", "check")
    if DOCUMENT.exists():
        assert (done.returncode, done.stderr) == (0, "")
    else:  # what is tested was installed from a wheel
        assert done.returncode == 2
        assert "no checkout" in done.stderr


def test_what_was_built_passes_the_check(tmp_path: Path) -> None:
    """`build --out` writes the dashboards and nothing else, and names each file."""
    out = tmp_path / "grafana"
    built = loadstone("dashboards", "build", "--out", str(out))
    assert built.returncode == 0, built.stderr
    assert built.stdout.split() == [str(out / name) for name in BOARDS]
    assert {path.name for path in out.iterdir()} == set(BOARDS)
    for name in BOARDS:
        assert (out / name).read_text() == (JSON_HOME / name).read_text()
    assert loadstone("dashboards", "check", "--out", str(out)).returncode == 0


@pytest.mark.parametrize("harm", ["edited", "missing", "nobody's"])
def test_a_stale_file_is_named(tmp_path: Path, harm: str) -> None:
    """A file that differs, is missing or is nobody's fails the check; it says why."""
    loadstone("dashboards", "build", "--out", str(tmp_path))
    file = tmp_path / ("old.json" if harm == "nobody's" else "load.json")
    if harm == "missing":
        file.unlink()
    else:
        file.write_text(json.dumps({"title": "mine"}))
    done = loadstone("dashboards", "check", "--out", str(tmp_path))
    assert done.returncode == 1
    assert str(file) in done.stderr
    assert "loadstone dashboards build --out" in done.stderr
    others = set(BOARDS) - {file.name}
    assert not any(name in done.stderr for name in others)


def test_the_documents_table_is_kept_too(tmp_path: Path) -> None:
    """A changed table is stale; around it the document is left as it is."""
    document = tmp_path / "dashboards.md"
    text = COMMITTED.read_text()
    document.write_text(text.replace("| TTFT p99 |", "| TTFT p98 |") + "More.\n")
    assert stale(JSON_HOME, document) == [document]
    assert dict(rendered(JSON_HOME, document))[document] == text + "More.\n"


def test_a_document_without_a_place_for_the_table_is_refused(tmp_path: Path) -> None:
    """It is not overwritten."""
    document = tmp_path / "dashboards.md"
    document.write_text("# Mine\n")
    with pytest.raises(LoadstoneError, match="no place"):
        stale(JSON_HOME, document)
