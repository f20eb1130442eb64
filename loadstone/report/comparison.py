"""Two runs side by side: a table with the intervals drawn, and what else differed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..traffic.compare import Difference
from .table import duration, number, usd

HALF: Final = 10
"""Characters from no difference to the greatest that is drawn."""
_COLOURS: Final = {"better": "green", "worse": "red"}
_NOT_SHOWN: Final = "-"
_METRICS: Final = {
    "ttft_s": "TTFT", "tpot_s": "TPOT", "e2e_s": "answer from send",
    "response_time_s": "answer from due",
}  # fmt: skip
_TITLES: Final = {
    **{f"{m}.{q}": f"{t} {q}" for m, t in _METRICS.items() for q in ("p50", "p99")},
    "output_tok_s": "output tokens/s",
    "req_s": "requests/s",
    "answered": "answered, share",
    "goodput_req_s": "goodput, requests/s",
    "usd_per_request": "$ per request",
    "usd_per_million_output_tokens": "$ per M output tokens",
}


def title(name: str) -> str:
    """Return a figure's name as a person reads it."""
    figure, _, rest = name.partition(" ")
    return f"{_TITLES[figure]} {rest}".rstrip()


def percent(relative: float) -> str:
    """Write a relative difference; from twice on, as a factor."""
    if relative >= 1:
        return f"x{1 + relative:.3g}"
    return f"{100 * relative:+.1f} %"


def bar(low: float, middle: float, high: float, scale: float) -> str:
    """Draw an interval about no difference (`|`); `scale` is the half width's worth."""

    def place(x: float) -> int:
        return HALF + round(max(-1.0, min(1.0, x / scale)) * HALF) if scale else HALF

    drawn = [" "] * (2 * HALF + 1)
    for i in range(place(low), place(high) + 1):
        drawn[i] = "-"
    drawn[HALF] = "|"
    drawn[place(middle)] = "o"
    return "".join(drawn)


def print_differences(differences: Sequence[Difference], console: Console) -> None:
    """Print every figure of two runs, B against A."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("Figure", no_wrap=True)
    for name in ("A", "B", "B against A", "95 %"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("less  |  more", justify="center", no_wrap=True)
    table.add_column("B is")
    scale = max((abs(x) for d in differences for x in (d.low, d.high)), default=0.0)
    for d in differences:
        colour = _COLOURS.get(d.verdict)
        table.add_row(
            title(d.name),
            *(_value(x, d) for x in (d.a, d.b)),
            percent(d.relative),
            f"{percent(d.low)} to {percent(d.high)}",
            bar(d.low, d.relative, d.high, scale),
            Text(d.verdict, style=colour) if colour else _NOT_SHOWN,
        )
    console.print(table)


def _value(value: float, d: Difference) -> str:
    if d.unit == "s":
        return duration(value)
    if d.unit == "USD":
        return usd(value)
    return number(value, 3 if d.unit == "share" else 1)


def print_conditions(
    conditions: Sequence[tuple[str, Any, Any]], console: Console
) -> None:
    """Print what else is not the same of the two runs."""
    if not conditions:
        console.print("No other condition differs that the run folders tell of.")
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title_justify="left")
    for name in ("Not the same", "A", "B"):
        table.add_column(name, overflow="fold")
    for name, a, b in conditions:
        # As text: settings hold names that servers and users chose.
        table.add_row(name, *(Text("-" if x is None else str(x)) for x in (a, b)))
    console.print(table)


def conditions(
    a: Mapping[str, Any], b: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """Return each setting that differs: its dotted name, and its value in A and in B.

    None where one does not have it.
    """
    flat_a, flat_b = dict(_flat(a)), dict(_flat(b))
    names = [*flat_a, *(name for name in flat_b if name not in flat_a)]
    return [
        (name, flat_a.get(name), flat_b.get(name))
        for name in names
        if flat_a.get(name) != flat_b.get(name)
    ]


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
