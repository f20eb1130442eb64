"""`loadstone demo`: a slice of a rack, real traffic and the numbers, in one command."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import click
from rich.console import Console

from ..errors import ExitCode, LoadstoneError
from ..traffic.plan import DEFAULT_SCENARIO
from .mock_child import mock_server
from .run import drive, is_free, locust_arguments, web_arguments

_RATE: Final = "20"
"""Requests per second: 4,000 tokens/s, a small share of the VM and of a laptop core."""
_PORT: Final = 8000
_WEB_PORT: Final = 8089


@click.command(
    "demo",
    epilog="""\b
Examples:
  loadstone demo
  loadstone demo --duration 2m --rate 40
  loadstone demo --web        # watch it in Locust's web UI""",
)
@click.option(
    "--duration",
    default="30s",
    show_default=True,
    metavar="TIME",
    help="how long requests arrive",
)
@click.option(
    "--rate",
    default=_RATE,
    show_default=True,
    metavar="REQ/S",
    help="requests per second",
)
@click.option(
    "--seed",
    default="0",
    show_default=True,
    metavar="N",
    help="same seed, same requests",
)
@click.option(
    "--out",
    default="runs",
    show_default=True,
    metavar="DIR",
    help="where the run folder goes",
)
@click.option("--web", is_flag=True, help="with Locust's web UI; stays until Ctrl-C")
def command(*, duration: str, rate: str, seed: str, out: str, web: bool) -> int:
    """Emulate one ND GB300 v6 VM, drive chat traffic at it, print what was measured."""
    console = Console()
    given: dict[str, str | None] = {
        "scenario": DEFAULT_SCENARIO, "rate": rate, "duration": duration, "seed": seed,
        "out": out, "metrics_port": "0",
    }  # fmt: skip
    # What is wrong with the options is told before anything starts.
    arguments = locust_arguments(given, host="", users=None)
    arguments += web_arguments(_WEB_PORT) if web else ["--headless"]
    with _server(console) as url:
        arguments[arguments.index("--host") + 1] = url
        code = drive(arguments, console=console, as_json=False, web=web)
    # The verdict is printed; the demonstration itself was completed.
    return ExitCode.DONE if code in (ExitCode.NOT_VALID, ExitCode.NOT_MET) else code


@contextmanager
def _server(console: Console) -> Iterator[str]:
    """Run the mock for a `with` block, on port 8000 or, if it is taken, a free one."""

    def say(line: str) -> None:
        console.print(f"mock        {line}", highlight=False)

    with ExitStack() as running:
        try:
            url = _listening(running, _PORT, say)
        except _TakenError:
            console.print(f"port {_PORT} is taken, so the mock takes a free one")
            url = _listening(running, 0, say)
        yield url


class _TakenError(Exception):
    """Somebody else listens on the port."""


def _listening(running: ExitStack, port: int, say: Callable[[str], object]) -> str:
    """Start the mock; raises `_TakenError` also where another was quicker."""
    if not is_free(port):
        raise _TakenError
    try:
        return running.enter_context(mock_server(port, say))
    except LoadstoneError:
        if is_free(port):
            raise
        raise _TakenError from None
