"""`loadstone`: finds the verb, runs it, and turns errors into words and exit codes."""

import importlib
import json
import sys
from typing import Any, Final

import click
from click.exceptions import NoSuchCommand
from click.shell_completion import CompletionItem

from .. import __version__
from ..errors import ExitCode, LoadstoneError, UsageError

VERBS: Final = {
    "demo": "a mock rack slice, real traffic and the numbers, in one command",
    "serve": "the mock inference server",
    "run": "drive an endpoint: the mock or a real one",
    "plan": "plans of traffic: the built-in ones, checks, and their schema",
    "agree": "how far two endpoints' answers agree, beside the speed gain",
    "simulate": "the same engine in virtual time",
    "report": "a run made readable: a page, JSON, CSV, Markdown",
    "bundle": "a run as evidence: one archive, every change to it detected",
    "cost": "what a run cost, under any price list",
    "verify": "a claim, or a contract, against a run",
    "compare": "two runs, figure by figure, and how sure each difference is",
    "selfcheck": "up to which load this machine measures right",
    "audit": "prove that each request of a run ended in exactly one outcome",
    "validate": "the timing model against published figures",
    "fit": "constants from your own measurements",
    "index": "documents into a store for retrieval, and its recall",
    "dashboards": "Grafana dashboards: make their JSON, or check it",
    "completion": "the script that completes these words in bash, zsh or fish",
}


class _Verbs(click.Group):
    """Loads a verb's module when it is used, so that `--help` stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002 - click's
        if name not in VERBS:
            return None
        command = importlib.import_module(f".{name}", __package__).command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest verb where there is none of that name."""
        try:
            return super().resolve_command(ctx, args)
        except NoSuchCommand as wrong:
            raise NoSuchCommand(args[0], possibilities=VERBS, ctx=ctx) from wrong

    def shell_complete(
        self, ctx: click.Context, incomplete: str
    ) -> list[CompletionItem]:
        """Complete a verb without loading any."""
        verbs = [CompletionItem(n, help=t) for n, t in VERBS.items()]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [v for v in verbs if v.value.startswith(incomplete)] + options

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  loadstone demo
  loadstone serve --preset azure-nd-gb300-v6 --vms 1
  loadstone run azure-chat --rate 20 --duration 60s --host http://127.0.0.1:8000
  loadstone simulate --preset azure-nd-gb300-v6 --vms 1 --offline 200000

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 an objective is not met, 4 the result is
not valid (client-limited, rate not delivered, too few samples).""",
)
@click.version_option(__version__, prog_name="loadstone")
def group() -> None:
    """Rehearse an LLM serving rack on a laptop, and measure real ones honestly."""


def report_error(wrong: LoadstoneError, *, as_json: bool) -> None:
    """Tell what was wrong: in words on stderr, and as JSON on stdout under `--json`."""
    if as_json:
        error = {"code": wrong.code, "message": wrong.message, "hint": wrong.hint}
        click.echo(json.dumps({"error": error}))
    click.echo(f"error: {wrong.message}", err=True)
    if wrong.hint:
        click.echo(f"  {wrong.hint}", err=True)


def main(args: list[str] | None = None) -> None:
    """Run `loadstone` with `args` (or the process's own) and exit."""
    argv: list[Any] = sys.argv[1:] if args is None else args
    try:
        code = group.main(argv, prog_name="loadstone", standalone_mode=False)
        sys.exit(code or ExitCode.DONE)
    except LoadstoneError as wrong:
        report_error(wrong, as_json="--json" in argv)
        sys.exit(wrong.exit_code)
    except click.ClickException as wrong:
        if "--json" in argv:
            told = UsageError(wrong.format_message(), hint="--help lists the options")
            report_error(told, as_json=True)
        else:
            wrong.show()
        sys.exit(ExitCode.USAGE)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(ExitCode.FAILED)
