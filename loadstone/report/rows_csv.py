"""A run's rows as a table for spreadsheets and notebooks.

Each line is what was measured of a request, and the figures that follow from it.
"""

import csv
from collections.abc import Iterable, Iterator
from io import StringIO
from operator import attrgetter
from typing import Final

from ..traffic.record import RequestRecord
from .escaping import cell

DERIVED: Final = (
    "ttft_s", "ttft_intended_s", "ttfo_s", "tpot_s", "e2e_s", "response_time_s",
    "send_lag_s", "ttft_error_s",
)  # fmt: skip
"""Figures that a row's stamps give, by the names they have everywhere."""
_NESTED: Final = frozenset({"icl", "truth", "stages"})
"""Fields that are no single value. Of them the stages are told, in words."""
STAGES: Final = "stages"
COLUMNS: Final = tuple(
    name for name in RequestRecord.__struct_fields__ if name not in _NESTED
)


def lines(rows: Iterable[RequestRecord]) -> Iterator[str]:
    """Yield the header, then a line of CSV for each row; no cell is a formula."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")

    def line(cells: Iterable[str]) -> str:
        writer.writerow(cells)
        text = out.getvalue()
        out.seek(0)
        out.truncate()
        return text

    names = (*COLUMNS, *DERIVED)
    values = attrgetter(*names)
    yield line((*names, STAGES))
    for row in rows:
        yield line(map(cell, (*values(row), _stages(row))))


def _stages(row: RequestRecord) -> str:
    """Write a row's stages as `embed=0.1;generate=0.3`, in seconds."""
    return ";".join(f"{name}={spent:g}" for name, spent in row.stages)
