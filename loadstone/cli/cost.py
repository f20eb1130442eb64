"""`loadstone cost`: a finished run under a price list."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from loadgen.pricing import tariff_of

from ..catalog.tariffs import alternatives, price_names
from ..cost.analysis import analyse, busy_of_block, busy_of_server, fleet_of_block
from ..cost.block import Fleet
from ..cost.usage import Usage
from ..errors import CatalogError, UsageError
from ..report.table import number, usd
from ..runs import SUMMARY, RunFiles
from ..traffic.slo import judged_by
from .completing import one_of

_FIGURES: Final = {
    "usd_per_million_output_tokens": "$ per million output tokens",
    "joules_per_output_token": "J per output token",
    "gco2_per_output_token": "gCO2 per output token",
}


@click.command(
    "cost",
    epilog="""\b
Examples:
  loadstone cost runs/latest
  loadstone cost runs/latest --prices own-gb300
  loadstone cost runs/latest --prices contract.toml --vms 18
  loadstone cost runs/latest --against tokens.toml --against gb300-reserved-3y
  loadstone cost runs/latest --json""",
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--prices", metavar="NAME|FILE",
              shell_complete=one_of(price_names, or_file=True),
              help="price in the catalog, or a price list (TOML)"
              "  [default: what the run was priced with]")  # fmt: skip
@click.option("--vms", type=click.IntRange(1), metavar="N",
              help="how many VMs are paid for  [default: as many as the run says]",
              )  # fmt: skip
@click.option("--against", multiple=True, metavar="NAME|FILE",
              shell_complete=one_of(price_names, or_file=True),
              help="another way to pay, to break even with; repeatable"
              "  [default: the GPU's reserved rent, and its purchase]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="print the result as JSON")
def command(
    *, folder: Path, prices: str | None, vms: int | None, against: tuple[str, ...],
    as_json: bool,
) -> int:  # fmt: skip
    """Say what the run in DIR cost: per request, per token, in energy and carbon.

    Nothing in DIR is changed. Figures are fully loaded: idle time and failed requests
    are paid for by the answers.
    """
    run = RunFiles.open(folder)
    summary = run.summary() or {}
    written = summary.get("cost", {})
    fleet = _fleet(run, written, prices, vms)
    others = [tariff_of(name) for name in against] or alternatives(fleet.tariff.gpu)
    usage = Usage(judged_by(summary))
    for row in run.rows():
        usage.add(row)
    if not usage.count("requests"):
        raise UsageError(
            f"{folder} has no rows", hint="a run with --no-rows cannot be priced again"
        )
    window_s = summary.get("makespan_s", usage.window_s)
    result = analyse(
        usage,
        fleet,
        window_s=window_s,
        busy=busy_of_block(written) or busy_of_server(summary.get("server"), window_s),
        others=[
            replace(fleet, tariff=tariff)
            for tariff in others
            if tariff.name != fleet.tariff.name
        ],
    )
    if as_json:
        click.echo(json.dumps({"run": run.name, **result}))
    else:
        _print(result, Console())
    return 0


def _fleet(
    run: RunFiles, written: Mapping[str, Any], prices: str | None, vms: int | None
) -> Fleet:
    """Return what is paid for: what was asked for here, else what the run says."""
    plan = run.plan().get("plan", {})
    named = prices or (None if written.get("tariff") else plan.get("price"))
    before = _before(run, written) if named is None else None
    if named is None and before is None:
        raise UsageError(
            f"{run.path} names no price", hint="give --prices NAME, or a price list"
        )
    tariff = before.tariff if before else tariff_of(str(named))
    count = vms or plan.get("vms") or (before.vms if before else None)
    if count is None and tariff.by_machine:
        raise UsageError(
            f"{run.path} does not say how many VMs it had", hint="give --vms N"
        )
    return Fleet(tariff, count or 0)


def _before(run: RunFiles, written: Mapping[str, Any]) -> Fleet | None:
    try:
        return fleet_of_block(written)
    except (CatalogError, KeyError, TypeError, ValueError) as wrong:
        raise UsageError(
            f"{run.path / SUMMARY} has a price list that cannot be read: {wrong!r}",
            hint="give --prices NAME, or a price list",
        ) from None


# ------------------------------------------------------------------- what is printed


def _print(result: Mapping[str, Any], console: Console) -> None:
    cost = result["cost"]
    console.print(_bill(cost))
    console.print(_unit_costs(cost))
    for by, lines in cost["by"].items():
        if len(lines) > 1:
            console.print(_split(by, lines, cost["allocation"]["idle_usd"]))
    console.print(_tornado(result["sensitivity"]))
    if result["break_even"] is not None:
        console.print(_uses(result["break_even"]))
        for found in result["break_even"]["crossings"]:
            console.print(_crossing(found), highlight=False)
    console.print()
    for said in _said(result):
        console.print(said, style="dim", highlight=False, soft_wrap=True)


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _bill(cost: Mapping[str, Any]) -> Table:
    allocation, total = cost["allocation"], cost["usd_total"]
    table = _table(f"Bill of {number(cost['window_s'])} s", "USD", "share")
    lines = {
        **cost["parts"],
        "answered requests": allocation["answered_usd"],
        "failed requests": allocation["failed_usd"],
        "idle time": allocation["idle_usd"],
        "total": total,
    }
    for name, value in lines.items():
        if name in ("answered requests", "total"):
            table.add_section()
        table.add_row(name, usd(value), _percent(value / total if total else None))
    return table


def _unit_costs(cost: Mapping[str, Any]) -> Table:
    table = _table("Fully loaded", "")
    for key, label in (
        ("usd_per_hour", "per hour"),
        ("usd_per_request", "per answered request"),
        ("usd_per_good_request", "per request within the objectives"),
        ("usd_per_million_output_tokens", "per million output tokens"),
        ("usd_per_million_tokens", "per million tokens, in and out"),
    ):
        table.add_row(label, usd(cost[key]))
    tail = cost["per_request_usd"]
    table.add_section()
    for name in ("p50", "p90", "p99"):
        table.add_row(f"own share of a request, {name}", usd(tail[name]))
    energy = cost["energy"]
    if energy is not None:
        table.add_section()
        joules = energy["joules_per_output_token"]
        table.add_row("energy per output token", f"{number(joules, 4)} J")
        grams = energy["gco2_per_output_token"]
        per_million = None if grams is None else grams * 1e6
        table.add_row("CO2 per million output tokens", f"{number(per_million)} g")
    return table


def _split(by: str, lines: Mapping[str, Any], idle: float) -> Table:
    table = _table(f"By {by}", "requests", "USD", "per request", "per 1M output")
    for name, line in lines.items():
        table.add_row(
            name, f"{line['requests']:,}", usd(line["usd"]),
            usd(line["usd_per_request"]), usd(line["usd_per_million_output_tokens"]),
        )  # fmt: skip
    table.add_row("idle time", "", usd(idle), "", "")
    return table


def _tornado(swings: list[Mapping[str, Any]]) -> Table:
    table = _table("Assumption, 20 % lower and higher", "value", "lower", "higher")
    figure = ""
    for swing in swings:
        if swing["figure"] != figure:
            figure = swing["figure"]
            table.add_section()
            base = f"{swing['at_base']:.4g}"
            table.add_row(f"[bold]{_FIGURES[figure]}[/bold]", base, "", "")
        table.add_row(
            f"  {swing['assumption']}",
            f"{swing['value']:g} {swing['unit']}".removesuffix(" 1"),
            f"{swing['at_low']:.4g}",
            f"{swing['at_high']:.4g}",
        )
    return table


def _uses(found: Mapping[str, Any]) -> Table:
    uses = [f"{use:.0%} used" for use in found["uses"]]
    table = _table("$ per million output tokens", *uses)
    for line in found["lines"]:
        table.add_row(line["name"], *(usd(value) for value in line["usd_per_million"]))
    return table


def _crossing(found: Mapping[str, Any]) -> str:
    below, above, use = found["below"], found["above"], found["use"]
    if use is None:
        return f"{below} is cheaper than {above} at any use"
    return f"{below} is cheaper than {above} below a use of {use:.1%}, dearer above"


def _said(result: Mapping[str, Any]) -> Iterator[str]:
    cost = result["cost"]
    yield from cost["assumptions"]
    if cost["unpriced_requests"]:
        yield f"{cost['unpriced_requests']:,} requests are in no figure: see missing"
    allocation = cost["allocation"]
    yield f"{_percent(allocation['busy_share'])} busy, by {allocation['busy_source']}"
    yield allocation["rule"]
    if cost["energy"] is not None:
        yield from (f"energy: without {left}" for left in cost["energy"]["left_out"])
    if result["break_even"] is not None:
        yield from result["break_even"]["assumptions"]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
