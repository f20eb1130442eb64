"""The matrix, its tests and its document say the same."""

import ast
from collections.abc import Iterator
from pathlib import Path

from fault_matrix import MATRIX
from reliability import DOCUMENT, document

TESTS = Path(__file__).parents[1]
ROWS = [row for rows in MATRIX.values() for row in rows]


def node_ids(path: Path) -> Iterator[str]:
    """Yield the node ids of a file's tests, without their parameters."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield f"{path.relative_to(TESTS)}::{node.name}"


def test_the_document_is_current() -> None:
    """It is what the matrix makes."""
    written = DOCUMENT.read_text(encoding="utf-8")
    assert written == document(), "run `python tests/reliability.py --write`"


def test_every_row_has_tests_that_there_are() -> None:
    """And an id of its own."""
    assert len({row.id for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row.tests
        for test in row.tests:
            assert test in set(node_ids(TESTS / test.partition("::")[0])), row.id


def test_every_test_has_a_row() -> None:
    """Of those that are here for the matrix alone."""
    named = {test for row in ROWS for test in row.tests}
    here = [p for p in Path(__file__).parent.glob("test_*.py") if p != Path(__file__)]
    assert len(here) >= 3
    for path in here:
        assert set(node_ids(path)) <= named
