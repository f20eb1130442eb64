"""`loadstone run`: drive an endpoint with Locust and report what it measured."""

import json
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from loadgen.options import OPTIONS, plan_of, read_options

from ..errors import ExitCode, LoadstoneError
from ..report.progress import Progress
from ..report.table import print_summary
from .locust_child import failed, running

_WEB: Final = "http://127.0.0.1:8089"


def _load_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(OPTIONS):
        if option.name == "scenario":
            continue
        command = click.option(
            option.flag,
            option.name,
            type=click.Choice(option.choices) if option.choices else str,
            default=option.default or None,
            show_default=bool(option.default),
            metavar=None if option.choices else option.metavar,
            help=option.text,
        )(command)
    return command


@click.command(
    "run",
    epilog="""\b
Examples:
  loadstone run chat --rate 20 --duration 60s --host http://127.0.0.1:8000
  loadstone run chat --users 50 --think 2s --duration 5m
  loadstone run chat --trace azure_llm_2023_conv.csv --speedup 2 --duration 60s
  loadstone run chat --rate 5 --host https://llm.example.com --api-key-env LLM_KEY
  loadstone run chat --rate 20 --slo slo.toml --json > result.json""",
)
@click.argument("scenario")
@click.option(
    "--host",
    default="http://127.0.0.1:8000",
    show_default=True,
    metavar="URL",
    help="the endpoint",
)
@click.option(
    "--users",
    type=click.IntRange(1),
    metavar="N",
    help="closed loop: how many users; open loop: most requests in flight",
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Locust worker processes",
)
@click.option(
    "--web", is_flag=True, help=f"with Locust's web UI on {_WEB}; stays until Ctrl-C"
)
@click.option("--json", "as_json", is_flag=True, help="print the summary as JSON")
@_load_options
def command(
    *, scenario: str, host: str, users: int | None, processes: int, web: bool,
    as_json: bool, **given: str | None,
) -> int:  # fmt: skip
    """Drive an endpoint with SCENARIO: tokens/s, tails, cost, how far to trust them.

    With --rate or --trace arrivals are open loop: they come when they are due, whatever
    the answers do. With --users alone it is a closed loop.
    """
    given["scenario"] = scenario
    plan_of(
        read_options(given), host=host, users=users
    )  # wrong usage is told before anything starts
    arguments = locust_arguments(
        given, host=host, users=users, processes=processes, web=web
    )
    return drive(arguments, console=Console(stderr=as_json), as_json=as_json)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def locust_arguments(
    given: dict[str, str | None],
    *,
    host: str,
    users: int | None,
    processes: int,
    web: bool,
) -> list[str]:
    """Write the options as Locust's command line."""
    plan = plan_of(read_options(given), host=host, users=users)
    arguments = ["--host", host, "--users", str(plan.users), "--loglevel", "INFO"]
    arguments += ["--spawn-rate", str(plan.users), "--only-summary"]
    arguments += ["--autostart", "--web-host", "127.0.0.1"] if web else ["--headless"]
    if processes > 1:
        # Workers are on this machine, and nobody else has business with their master.
        port = str(free_port())
        arguments += ["--processes", str(processes), "--master-bind-host", "127.0.0.1"]
        arguments += ["--master-bind-port", port, "--master-port", port]
    for option in OPTIONS:
        text = given.get(option.name)
        if text is not None:
            arguments.append(f"{option.flag}={text}")
    return arguments


def drive(arguments: Sequence[str], *, console: Console, as_json: bool) -> int:
    """Run Locust, show the run, print its summary and return the exit code.

    Under the web UI there may be several runs; the code is that of the last one.
    """
    code: int | None = None
    with running(arguments) as child, Progress(console) as progress:
        for what, facts in child:
            if what == "progress":
                progress.show(facts)
            elif what == "failed":
                raise failed(facts)
            elif what == "metrics":
                console.print(f"metrics     {facts['url']}", highlight=False)
            else:
                child.keep_log(Path(facts["folder"]))
                show(facts, console=console, as_json=as_json)
                code = exit_code(facts["summary"])
        if code is None:
            raise LoadstoneError("Locust ended without a run", hint=child.log_tail())
    return code


def show(done: dict[str, Any], *, console: Console, as_json: bool) -> None:
    """Print a finished run."""
    if as_json:
        click.echo(json.dumps(done["summary"]))
    else:
        print_summary(done["summary"], console)
        console.print(f"[dim]run folder  {done['folder']}[/dim]", highlight=False)


def exit_code(summary: dict[str, Any]) -> ExitCode:
    """Say in a number how the run went: not valid comes before not met."""
    if summary["instrument"]["verdict"] != "ok":
        return ExitCode.NOT_VALID
    if any(slo["met"] is False for slo in summary["slo"]):
        return ExitCode.NOT_MET
    return ExitCode.DONE
