"""`python -m loadstone.cli.worker`: one process of `loadstone serve --workers N`.

Its supervisor tells it on standard input what it is to serve, in one line of JSON, and
leaves the pipe open: its end says that the supervisor died. On standard output it says
one line, once it listens.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from threading import Thread
from typing import Any

import click

from mock_server.share import Share

from ..errors import LoadstoneError
from .main import report_error
from .serve import Place, command, serve_part


def main() -> None:
    """Serve what standard input says, and exit."""
    spec = json.loads(sys.stdin.readline())
    Thread(target=_end_with_supervisor, daemon=True).start()
    try:
        serve_part(**read_options(spec["options"]), place=read_place(spec))
    except LoadstoneError as wrong:
        report_error(wrong, as_json=False)
        sys.exit(wrong.exit_code)


def read_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Read options as the verb does; `given` by name, as a file of options has them."""
    known = {name: value for name, value in given.items() if value is not None}
    ctx = command.make_context("serve", [], default_map=known)
    return {name: value for name, value in ctx.params.items() if name != "workers"}


def read_place(spec: Mapping[str, Any]) -> Place:
    """Read which part of which rack this is, and where it listens."""
    return Place(
        share=Share(**spec["share"]),
        port=spec["port"],
        control=Path(spec["control"]),
        announce=_announce,
    )


def _announce(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()


def _end_with_supervisor() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
