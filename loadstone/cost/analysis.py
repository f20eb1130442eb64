"""Everything the cost model says of a run, as plain values: for tables and reports.

It starts from rows, or from a block that was written earlier, and knows of no files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from ..units import HOUR, Seconds
from .bill import Busy
from .block import IN_FLIGHT, Fleet, busy_by_rows, cost_block
from .breakeven import USES, Line, crossings, line_of, usd_per_million
from .sensitivity import sensitivity
from .terms import Tariff
from .usage import Usage

ASSUMPTIONS: Final = (
    "a busy hour is as busy as this run was; use is the share of all hours that are",
    "pay as you go and spot machines are given back, and are there when wanted again",
    "the machines of every line serve the load as fast as those that were measured",
)
"""What breaking even rests on, beside the prices."""


def fleet_of_block(block: Mapping[str, Any]) -> Fleet | None:
    """Return what a written block was reckoned with; None if it had no price.

    Raises as `Tariff.from_json` does for a price list that is none.
    """
    if not block.get("tariff"):
        return None
    return Fleet(Tariff.from_json(block["tariff"]), block["vms"])


def busy_of_block(block: Mapping[str, Any]) -> Busy | None:
    """Return the busy time that a written block had from a server; None without."""
    allocation = block.get("allocation", {})
    seconds, source = allocation.get("busy_s"), allocation.get("busy_source")
    if seconds is None or source in (None, IN_FLIGHT):
        return None
    return Busy(seconds, source)


def busy_of_server(server: Mapping[str, Any] | None, window_s: Seconds) -> Busy | None:
    """Return the busy time by what the server told of its GPUs; None if it did not.

    `server` is the block of `summary.json`: `gpu_usage` is the share of time in which a
    scraped GPU had work, over the run.
    """
    usage = (server or {}).get("gpu_usage", {}).get("mean")
    if usage is None:
        return None
    return Busy(usage * window_s, "the use of the GPUs that were scraped")


def analyse(
    usage: Usage,
    fleet: Fleet,
    *,
    window_s: Seconds,
    busy: Busy | None = None,
    others: Sequence[Fleet] = (),
) -> dict[str, Any]:
    """Return `{"cost", "sensitivity", "break_even"}` of a run under a price list.

    `others` are further ways to pay for the same load.
    """
    busy = busy or busy_by_rows(usage, window_s)
    cost = cost_block(usage, fleet, window_s=window_s, busy=busy)
    swings = sensitivity(usage, fleet, window_s=window_s, busy=busy)
    return {
        "cost": cost,
        "sensitivity": [{**asdict(one), "swing": one.swing} for one in swings],
        "break_even": break_even(usage, (fleet, *others), window_s=window_s, busy=busy),
    }


def break_even(
    usage: Usage, fleets: Sequence[Fleet], *, window_s: Seconds, busy: Busy
) -> dict[str, Any] | None:
    """Return the ways to pay by use, and where they cross; None without any output."""
    output = usage.count("output", answered=True)
    if window_s <= 0 or not output:
        return None
    tokens_per_hour = output / window_s * HOUR
    lines = [line_of(usage, one, window_s=window_s, busy=busy) for one in fleets]
    return {
        "output_tokens_per_busy_hour": tokens_per_hour,
        "uses": list(USES),
        "lines": [
            {**asdict(line), "usd_per_million": _by_use(line, tokens_per_hour)}
            for line in lines
        ],
        "crossings": [asdict(found) for found in crossings(lines)],
        "assumptions": list(ASSUMPTIONS),
    }


def _by_use(line: Line, tokens_per_hour: float) -> list[float]:
    return [usd_per_million(line, use, tokens_per_hour) for use in USES]
