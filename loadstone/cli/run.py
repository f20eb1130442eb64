"""`loadstone run`: drive an endpoint with Locust and report what it measured."""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from loadgen.options import OPTIONS, hosts_of, plan_of, read_options
from loadgen.target import check_url

from ..catalog.plans import plan_names
from ..errors import LoadstoneError, UsageError
from ..report.progress import Progress
from ..report.table import print_summary
from ..telemetry.otel.settings import read_settings
from ..traffic.verdict import exit_code
from .check import check
from .completing import one_of
from .find_max import find
from .live_site import LiveSite
from .load_options import is_path, load_options, options_of_plan
from .locust_child import LocustChild, failed, running
from .report import end_with_report
from .sections import Sectioned
from .sweep import sweep
from .trials import LOADS, Trials, trial_options

_HOST: Final = "http://127.0.0.1:8000"


@click.command(
    "run",
    cls=Sectioned,
    epilog="""\b
Examples:
  loadstone run azure-chat --rate 20 --duration 60s --host http://127.0.0.1:8000
  loadstone run chat --users 50 --think 2s --duration 5m
  loadstone run azure-chat --trace azure_llm_2023_conv.csv --speedup 2
  loadstone run azure-chat --rate 5 --host https://llm.example.com --api-key-env LLM_KEY
  loadstone run azure-chat --rate 5 --host https://llm.example.com \\
    --api-key-env LLM_KEY --check
  loadstone run azure-chat --rate 90 --host http://vm-1:8000 --host http://vm-2:8000
  loadstone run azure-chat --rate 20 --slo slo.toml --json > result.json
  loadstone run azure-chat --find-max --slo slo.toml --host http://127.0.0.1:8000
  loadstone run azure-chat --sweep users=1:256:x2 --duration 60s
  loadstone run runs/latest/plan.toml --host http://127.0.0.1:9000""",
)
@click.argument("scenario", shell_complete=one_of(plan_names, or_file=True))
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="URL",
    help=f"the endpoint; several get the requests in turn  [default: {_HOST}]",
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
@click.option("--web", is_flag=True, help="with Locust's web UI; stays until Ctrl-C")
@click.option(
    "--web-port",
    type=click.IntRange(1, 65535),
    default=8089,
    show_default=True,
    metavar="N",
    help="port of the web UI",
)
@click.option(
    "--check",
    "checking",
    is_flag=True,
    help="send a few short requests instead, say what is wrong with the endpoint,"
    " and what the plan would take",
)
@click.option("--json", "as_json", is_flag=True, help="print the summary as JSON")
@load_options({option.name for option in OPTIONS} - {"scenario"})
@trial_options
def command(
    *, scenario: str, hosts: tuple[str, ...], users: int | None, processes: int,
    web: bool, web_port: int, checking: bool, as_json: bool, trials: Trials,
    **given: str | None,
) -> int:  # fmt: skip
    """Drive an endpoint with SCENARIO: tokens/s, tails, cost, how far to trust them.

    With --rate or --trace arrivals are open loop: they come when they are due, whatever
    the answers do. With --users alone it is a closed loop. SCENARIO may also be the
    plan.toml of an earlier run, to run it again; options given beside it win.
    """
    asked: dict[str, str | None] = dict(options_of_plan(scenario))
    host = ",".join(hosts) or asked.pop("host", None)
    places = users
    users = users or int(asked.pop("users", None) or "0") or None
    asked |= {name: text for name, text in given.items() if text}
    asked["scenario"] = scenario
    host = host or _HOST
    for one in hosts_of(host):
        check_url(one)
    if checking:
        return check(
            read_options(asked), host=host, users=users, environ=os.environ,
            console=Console(), as_json=as_json,
        )  # fmt: skip
    # Wrong usage is told before anything starts.
    read_settings(os.environ)
    if trials:
        trials.refuse_loads(given)
        asked |= dict.fromkeys(LOADS)
        write = partial(locust_arguments, host=host, processes=processes)
        site = LiveSite(asked, host, places, write, Console(stderr=True), web=web)
        tried = find if trials.find_max else sweep
        return tried(site, trials, asked, as_json=as_json)
    arguments = locust_arguments(asked, host=host, users=users, processes=processes)
    arguments += web_arguments(web_port) if web else ["--headless"]
    return drive(arguments, console=Console(stderr=as_json), as_json=as_json, web=web)


def web_arguments(port: int) -> list[str]:
    """Return Locust's options for its web UI on that port of 127.0.0.1.

    Raises `LoadstoneError` when somebody listens there.
    """
    if not is_free(port):
        raise LoadstoneError(
            f"127.0.0.1:{port} is already in use",
            hint="stop what listens there, or choose another --web-port",
            code="port_in_use",
        )
    return ["--autostart", "--web-host", "127.0.0.1", "--web-port", str(port)]


def is_free(port: int) -> bool:
    """Whether nobody listens on that port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def locust_arguments(
    given: Mapping[str, str | None],
    *,
    host: str,
    users: int | None,
    processes: int = 1,
) -> list[str]:
    """Write the options as Locust's command line; raises `UsageError` for wrong ones.

    Each is written, with its default where it was not given: nothing is left for a
    configuration file to fill in.
    """
    plan = plan_of(read_options(given), host=host, users=users)
    if plan.users < processes:
        raise UsageError(
            f"{plan.users} users cannot be spread over {processes} processes"
        )
    arguments = ["--host", host, "--users", str(plan.users), "--loglevel", "INFO"]
    arguments += ["--spawn-rate", str(plan.users), "--only-summary"]
    if processes > 1:
        # Workers are on this machine, and nobody else has business with their master.
        port = str(free_port())
        arguments += ["--processes", str(processes), "--master-bind-host", "127.0.0.1"]
        arguments += ["--master-bind-port", port, "--master-port", port]
    for option in OPTIONS:
        text = given.get(option.name) or option.default
        if text and is_path(option.name, text):
            # The child has a working folder of its own.
            text = str(Path(text).absolute())
        arguments.append(f"{option.flag}={text}")
    return arguments


def drive(
    arguments: Sequence[str], *, console: Console, as_json: bool, web: bool = False
) -> int:
    """Run Locust, show each run, print its summary and return the last one's exit code.

    Under the web UI there may be several runs, and one that fails does not end it.
    """
    code: int | None = None
    folder: Path | None = None
    with running(arguments) as child, Progress(console) as progress:
        for what, facts in child:
            if what == "progress":
                progress.show(facts)
            elif what == "started":
                folder = Path(facts["folder"])
            elif what == "failed" and not web:
                raise failed(facts)
            elif what == "failed":
                # What a server said may look like markup.
                console.print(f"error: {facts['message']}", style="red", markup=False)
            elif what == "metrics":
                console.print(f"metrics     {facts['url']}", highlight=False)
            else:
                child.keep_log(Path(facts["folder"]))
                show(facts, console=console, as_json=as_json)
                code = exit_code(facts["summary"])
        if code is None:
            raise _ended_early(child, folder)
        if folder is not None:
            # Once more, with what it said while it ended.
            child.keep_log(folder)
    return code


def _ended_early(child: LocustChild, folder: Path | None) -> LoadstoneError:
    """Say why there is no summary, and where what there is can be found."""
    how = "was ended by force" if child.close() < 0 else "ended"
    if folder is None:
        return LoadstoneError(f"Locust {how} before a run began", hint=child.log_tail())
    return LoadstoneError(
        f"Locust {how} without a summary; the rows so far are in {folder}, and"
        f" `loadstone report {folder}` reports them",
        hint=child.log_tail(),
    )


def show(done: dict[str, Any], *, console: Console, as_json: bool) -> None:
    """Print a finished run, and make its report."""
    if as_json:
        click.echo(json.dumps(done["summary"]))
    else:
        print_summary(done["summary"], console)
        console.print(f"[dim]run folder  {done['folder']}[/dim]", highlight=False)
    end_with_report(Path(done["folder"]), console)
