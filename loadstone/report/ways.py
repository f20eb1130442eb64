"""One plan, several ways: an endpoint, the mock, virtual time, side by side."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from ..errors import UsageError
from ..units import MS

_FIGURES: Final = (
    ("requests", ("requests", "ok"), 1.0, "{:,.0f}"),
    ("output tokens/s", ("throughput", "output_tok_s"), 1.0, "{:,.1f}"),
    ("steady tokens/s", ("throughput", "steady_output_tok_s"), 1.0, "{:,.1f}"),
    ("TTFT p50 ms", ("ttft_s", "p50"), MS, "{:,.1f}"),
    ("TTFT p99 ms", ("ttft_s", "p99"), MS, "{:,.1f}"),
    ("TPOT p50 ms", ("tpot_s", "p50"), MS, "{:,.2f}"),
    ("answer p50 s", ("e2e_s", "p50"), 1.0, "{:,.2f}"),
    ("answer p99 s", ("e2e_s", "p99"), 1.0, "{:,.2f}"),
)
"""What is shown: its title, where it is in a summary, its unit, how it is written."""


def way_of(summary: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    """Say how a run was run: in virtual time, against the mock, or an endpoint."""
    if summary["instrument"].get("virtual"):
        return "virtual time"
    return "mock" if environment.get("mock") else "endpoint"


def ways(runs: Sequence[tuple[str, str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Return the figures of runs, given as (name, way, summary), and their ratios.

    Ratios are to the first. Raises `UsageError` for runs of different plans: their
    hashes are of all that was asked, so what differs then is the load.
    """
    hashes = {summary.get("plan_hash"): name for name, _, summary in runs}
    if len(hashes) > 1:
        raise UsageError(
            f"{' and '.join(hashes.values())} are not runs of one plan",
            hint="loadstone compare takes runs of different plans",
        )
    told = [
        {
            "run": name,
            "way": way,
            "verdict": summary["instrument"]["verdict"],
            "figures": {title: _at(summary, path) for title, path, _, _ in _FIGURES},
        }
        for name, way, summary in runs
    ]
    first = told[0]["figures"]
    for each in told:
        each["ratio"] = {
            title: value / first[title] if value is not None and first[title] else None
            for title, value in each["figures"].items()
        }
    return {"plan_hash": next(iter(hashes)), "runs": told}


def _at(summary: Mapping[str, Any], path: tuple[str, str]) -> float | None:
    value = (summary.get(path[0]) or {}).get(path[1])
    return None if value is None else float(value)


def print_ways(told: Mapping[str, Any], console: Console) -> None:
    """Print the table: a column for each run, with its ratio to the first."""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for each in told["runs"]:
        table.add_column(f"{each['way']}\n{each['run']}", justify="right")
    for title, _, unit, form in _FIGURES:
        cells = [
            _cell(each["figures"][title], each["ratio"][title], unit, form, first=not i)
            for i, each in enumerate(told["runs"])
        ]
        table.add_row(title, *cells)
    table.add_row("verdict", *(each["verdict"] for each in told["runs"]))
    console.print(table)


def _cell(
    value: float | None, ratio: float | None, unit: float, form: str, *, first: bool
) -> str:
    if value is None:
        return "-"
    shown = form.format(value / unit)
    return shown if first or ratio is None else f"{shown} ({ratio - 1:+.1%})"
