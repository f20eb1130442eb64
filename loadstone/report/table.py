"""A run's figures as a table for the terminal."""

from collections.abc import Iterable, Iterator, Mapping
from io import StringIO
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ..traffic.quantiles import LEAST, QUANTILES

WIDTH: Final = 80
_LATENCIES: Final = (
    ("ttft_s", "TTFT, from send"),
    ("ttft_intended_s", "TTFT, from due"),
    ("tpot_s", "TPOT"),
    ("icl_s", "gap between events"),
    ("e2e_s", "answer, from send"),
    ("response_time_s", "answer, from due"),
    ("send_lag_s", "send lag"),
)
_WITH_INTERVALS: Final = ("ttft_intended_s", "tpot_s", "response_time_s")
"""Those that objectives are about; the others are as wide."""
_HOW: Final = {
    "given": "given",
    "detected": "detected",
    "middle": "the middle 80 % of the tokens",
}
_FEW_FAILURES: Final = 0.01
"""Share of the requests above which failures are said in red."""
_COLOURS: Final = {"ok": "green", "too_few_samples": "yellow"}


def number(value: float | None, digits: int = 1) -> str:
    """Write a number with thousands separated, or a dash where there is none."""
    return "-" if value is None else f"{value:,.{digits}f}"


def duration(value: float | None) -> str:
    """Write seconds as milliseconds, or as seconds where there are many, or a dash."""
    if value is None:
        return "-"
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:,.2f} s"


def usd(value: float | None) -> str:
    """Write dollars with the digits that matter, or a dash."""
    if value is None:
        return "-"
    return f"${value:,.2f}" if value >= 1 else f"${value:#.3g}"


def print_summary(summary: Mapping[str, Any], console: Console) -> None:
    """Print a summary: latencies, throughput, money, and how far to believe them."""
    console.print(_latencies(summary))
    console.print(_figures(summary))
    console.print(_verdict(summary))


def text_of_summary(summary: Mapping[str, Any]) -> str:
    """Return the same as plain text."""
    out = StringIO()
    print_summary(summary, Console(file=out, width=WIDTH, color_system=None))
    return out.getvalue()


def _latencies(summary: Mapping[str, Any]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("Latency", no_wrap=True)
    names = ("mean", *QUANTILES)
    for name in names:
        table.add_column(name, justify="right")
    for key, label in _LATENCIES:
        stats = summary.get(key)
        if stats and stats["n"]:
            table.add_row(label, *(duration(stats[name]) for name in names))
    return table


def _add(grid: Table, label: str, lines: Iterable[str]) -> None:
    """Add lines under one label."""
    for line in lines:
        grid.add_row(label, line)
        label = ""


def _lacking(summary: Mapping[str, Any]) -> list[str]:
    """Return which percentiles are not told, with what they lack; each once."""
    blocks = [summary.get(key) or {"n": 0} for key, _ in _LATENCIES]
    return list(
        dict.fromkeys(
            f"{name} - (n={stats['n']} < {least})"
            for stats in blocks
            for name, least in LEAST.items()
            if stats["n"] and stats[name] is None
        )
    )


def _intervals(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each latency that objectives are about."""
    for key in _WITH_INTERVALS:
        stats = summary.get(key) or {}
        told = ", ".join(
            f"{name} {_interval(*pair)}"
            for name in ("p50", "p99")
            if (pair := stats.get(f"{name}_interval"))
        )
        if told:
            yield f"{dict(_LATENCIES)[key]}: {told}"


def _interval(low: float | None, high: float | None) -> str:
    """Write an interval, both ends in the unit of the greater; one may be open."""
    scale, unit = (1.0, "s") if (high or low or 0.0) >= 1 else (1e3, "ms")
    if low is not None and high is not None:
        return f"{low * scale:.3g} to {high * scale:.3g} {unit}"
    if low is not None:
        return f"over {low * scale:.3g} {unit}"
    return f"under {(high or 0.0) * scale:.3g} {unit}"


def _figures(summary: Mapping[str, Any]) -> Table:
    requests, tokens = summary["requests"], summary["tokens"]
    rates, cost = summary["throughput"], summary["cost"]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    others = (
        f"{n:,} {k}" for k, n in requests.items() if n and k not in ("sent", "ok")
    )
    grid.add_row(
        "Requests",
        ", ".join((f"{requests['sent']:,} sent", f"{requests['ok']:,} ok", *others)),
    )
    grid.add_row("Tokens", f"{tokens['input']:,} in, {tokens['output']:,} out")
    steady = number(rates["steady_output_tok_s"], 0)
    found = summary.get("window", {"how": "unknown"})["how"]
    where = "steady" if found else "in the middle 80 %"
    grid.add_row(
        "Throughput",
        f"{number(rates['output_tok_s'], 0)} output tokens/s ({steady} {where}),"
        f" {number(rates['req_s'], 2)} requests/s"
        f" over {number(summary['makespan_s'])} s",
    )
    if lacking := _lacking(summary):
        grid.add_row("Not told", ", ".join(lacking))
    _add(grid, "95 % sure", _intervals(summary))
    _add(grid, "Steady", _steadiness(summary.get("window")))
    if rates["goodput_req_s"] is not None:
        good = f"{number(rates['goodput_req_s'], 2)} requests/s within the objectives"
        grid.add_row("Goodput", good + _attained(summary.get("goodput")))
    grid.add_row(
        "Cost",
        f"{usd(cost['usd_per_request'])} per request,"
        f" {usd(cost['usd_per_million_output_tokens'])} per million output tokens",
    )
    for assumption in cost["assumptions"]:
        line = Text(assumption, style="dim", overflow="ellipsis", no_wrap=True)
        grid.add_row("", line)
    for slo in summary["slo"]:
        grid.add_row("SLO", _objective(slo))
    unanswered = _unanswered(requests)
    if unanswered > _FEW_FAILURES:
        share = f"{100 * unanswered:.1f} % of requests were not answered"
        grid.add_row("Errors", Text(share, style="red"))
    for error, count in summary["errors"].items():
        span = summary.get("errors_between_s", {}).get(error)
        when = f", {span[0]:.1f} to {span[1]:.1f} s into the run" if span else ""
        grid.add_row("Errors", Text(f"{count:,} x {error}{when}"))
    for label, text in _of_the_endpoint(summary):
        grid.add_row(label, Text(text))
    return grid


def _of_the_endpoint(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what failures mean, which limit was reached, and the server's own view."""
    for found in summary.get("endpoint", {}).get("findings", ()):
        yield "Cause", f"{found['code']}: {found['cause']}; {found['remedy']}"
    budget = summary.get("budget")
    if budget is not None and budget["stopped_by"]:
        flag = "--" + budget["stopped_by"].replace("_", "-")
        yield "Budget", f"{flag} closed the arrivals"
    server = summary.get("server", {})
    levels = [
        f"{label} {number(server[name]['mean'] * scale)}"
        f" (most {number(server[name]['max'] * scale)}){unit}"
        for name, label, scale, unit in _LEVELS
        if name in server
    ]
    if levels:
        yield "Server", ", ".join(levels)


_LEVELS: Final = (
    ("running", "running", 1.0, ""),
    ("waiting", "waiting", 1.0, ""),
    ("kv_usage", "KV", 100.0, " %"),
    ("power_w", "power", 1e-3, " kW"),
)
"""Levels of the server, what they are called, and the unit they are shown in."""


def _steadiness(window: Mapping[str, Any] | None) -> Iterator[str]:
    """Say where the run was steady, and what it was like there; or why nowhere."""
    if window is None:
        return
    if window["how"] is None:
        yield f"no steady window: {window['reason']}"
        return
    span = f"{number(window['start_s'])} to {number(window['end_s'])} s"
    rate = f"{number(window['output_tok_s'], 0)} output tokens/s"
    flight = f"{number(window['in_flight'])} in flight"
    yield f"{span} ({_HOW[window['how']]}): {rate}, {flight}"
    if "ttft_s" in window:
        ttft, answer = (
            duration(window[key]["p99"])
            for key in ("ttft_intended_s", "response_time_s")
        )
        yield f"p99 there, from due: TTFT {ttft}, answer {answer}"


def _attained(goodput: Mapping[str, Any] | None) -> str:
    """Say which share of the requests met the objectives, and how sure that is."""
    if goodput is None:
        return ""
    low, high = (100 * x for x in goodput["share_interval"])
    return f", {100 * goodput['share']:.1f} % ({low:.1f} to {high:.1f})"


def _objective(slo: Mapping[str, Any]) -> str:
    """Write an objective; its statistic may have fallen on a failure."""
    met = {True: "met", False: "NOT MET", None: "no sample"}[slo["met"]]
    broken = slo["met"] is False and slo["value_s"] is None
    value = "failures" if broken else duration(slo["value_s"])
    limit = duration(slo["max_s"])
    return f"{met}: {slo['metric']} {slo['stat']} {value}, limit {limit}"


def _unanswered(requests: Mapping[str, int]) -> float:
    """Return the share that did not end ok, of what we did not cancel ourselves."""
    sent = requests["sent"] - requests["cancelled"]
    return (sent - requests["ok"]) / sent if sent else 0.0


def _verdict(summary: Mapping[str, Any]) -> Panel:
    instrument = summary["instrument"]
    verdict = instrument["verdict"]
    lines = [
        *(
            []
            if summary["complete"]
            else ["stopped early: these are the figures so far"]
        ),
        f"verdict: {verdict}",
        *(f"- {reason}" for reason in instrument["reasons"]),
    ]
    error = instrument.get("ttft_error_s", {}).get("p99")
    if error is not None:
        lines.append(f"TTFT error against the mock's truth: {duration(error)} at p99")
    lines += instrument.get("notes", ())
    return Panel(Text("\n".join(lines)), border_style=_COLOURS.get(verdict, "red"))
