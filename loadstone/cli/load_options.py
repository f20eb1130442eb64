"""The load generator's options as click options: for `run` and `simulate`."""

from collections.abc import Callable, Container
from typing import Any

import click

from loadgen.options import OPTIONS


def load_options(
    wanted: Container[str],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds those options of `OPTIONS` whose names are wanted.

    They are given as text and have no default here: what was not given may come from a
    plan file.
    """

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(OPTIONS):
            if option.name not in wanted:
                continue
            default = f"  [default: {option.default}]" if option.default else ""
            command = click.option(
                option.flag,
                option.name,
                type=click.Choice(option.choices) if option.choices else str,
                metavar=None if option.choices else option.metavar,
                help=option.text + default,
            )(command)
        return command

    return add
