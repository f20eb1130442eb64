"""`loadstone run --check`: an endpoint looked over before a plan is run against it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import ExitCode
from ..report.table import duration, usd
from ..traffic.plan import Plan

if TYPE_CHECKING:
    from loadgen.estimate import Estimate
    from loadgen.preflight import Preflight

_MARKS: Final = {True: "[green]ok[/green]", False: "[red]wrong[/red]"}
_NOTED: Final = "[yellow]note[/yellow]"


def check(
    values: Mapping[str, Any], *, host: str, users: int | None,
    environ: Mapping[str, str], console: Console, as_json: bool,
) -> ExitCode:  # fmt: skip
    """Look each host over, print what was found and what the plan would take.

    Raises `UsageError` for options that cannot be.
    """
    from loadgen.estimate import estimate
    from loadgen.options import plan_of
    from loadgen.preflight import preflight
    from loadgen.target import endpoints_of
    from loadgen.workload import requests_of

    plan = plan_of(values, host=host, users=users)
    requests = requests_of(plan)
    looked = [preflight(at, plan) for at in endpoints_of(plan.hosts, values, environ)]
    first, *others = looked
    costs = estimate(plan, requests, ttft_s=first.ttft_s, tpot_s=first.tpot_s)
    costs = replace(costs, usd=_spend(plan, costs, first.mock))
    if as_json:
        told = first.to_json() | {"estimate": costs.to_json()}
        if others:
            told["others"] = [seen.to_json() for seen in others]
        click.echo(json.dumps(told))
    else:
        for seen in looked:
            _show(seen, console)
        _show_estimate(costs, console)
    return max(seen.exit_code for seen in looked)


def _spend(
    plan: Plan, costs: "Estimate", mock: Mapping[str, Any] | None
) -> float | None:
    """Return what the plan would cost in US dollars; None without a price."""
    from loadgen.resolve import priced

    return priced(plan, mock, costs.seconds, costs.input_tokens, costs.output_tokens)


def _show(seen: "Preflight", console: Console) -> None:
    """Print the checklist: what was tried, what was found, what to do."""
    from loadgen.findings import FINDINGS

    grid = Table.grid(padding=(0, 2, 0, 0))
    for check in seen.checks:
        well = check.exit_code is ExitCode.DONE
        mark = _NOTED if well and check.code else _MARKS[well]
        # As text: what a server says may look like markup.
        grid.add_row(mark, check.name, Text(check.tried, style="dim"))
        grid.add_row("", "", Text(check.found))
        if check.code is not None:
            told = Text(f"{check.code}: ", style="bold")
            grid.add_row("", "", told.append(FINDINGS[check.code].cause, "not bold"))
            grid.add_row("", "", Text(f"-> {check.remedy}"))
    title = Text(seen.endpoint, style="bold")
    console.print(title.append(f"  {seen.api} {seen.model}", "not bold"))
    console.print(grid)


def _show_estimate(costs: "Estimate", console: Console) -> None:
    """Print what the plan would take."""
    console.print(
        f"the plan: {costs.requests:,} requests,"
        f" {costs.input_tokens:,} tokens in and {costs.output_tokens:,} out,"
        f" about {duration(costs.seconds)},"
        f" {usd(costs.usd) if costs.usd is not None else 'no price: give --prices'}",
        highlight=False,
    )
    console.print(f"[dim]{costs.basis}[/dim]", highlight=False)
