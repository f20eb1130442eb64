"""The load generator's options as click options: for `run` and `simulate`."""

from collections.abc import Callable, Container, Mapping
from types import MappingProxyType
from typing import Any, Final

import click

from loadgen.options import OPTIONS, Option
from loadgen.plans import SUFFIX, find_plan

from ..catalog.plans import plan_names
from ..catalog.tariffs import price_names
from ..retrieval.documents import SAMPLE
from .completing import Completer, files, folders, one_of

_AS_THEY_ARE: Final[Mapping[str, str]] = MappingProxyType({})


def load_options(
    wanted: Container[str], defaults: Mapping[str, str] = _AS_THEY_ARE
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds those options of `OPTIONS` whose names are wanted.

    They are given as text and have no default here: what was not given may come from a
    plan file. Help shows the option's own default, or the one in `defaults`.
    """

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(OPTIONS):
            if option.name not in wanted:
                continue
            told = defaults.get(option.name, option.default)
            default = f"  [default: {told}]" if told else ""
            command = click.option(
                option.flag,
                option.name,
                type=click.Choice(option.choices) if option.choices else str,
                metavar=None if option.choices else option.metavar,
                shell_complete=None if option.choices else _completer(option),
                help=option.text + default,
            )(command)
        return command

    return add


def _completer(option: Option) -> Completer | None:
    """Return what completes an option's value, if there is a choice."""
    return _NAMED.get(option.name) or _BY_METAVAR.get(option.metavar)


_NAMED: Final[Mapping[str, Completer]] = MappingProxyType({
    "scenario": one_of(plan_names, or_file=True),
    "prices": one_of(price_names, or_file=True),
    "store": files,
    "questions": files,
})  # fmt: skip
_BY_METAVAR: Final[Mapping[str, Completer]] = MappingProxyType({
    "FILE": files,
    "DIR": folders,
    "BOOL": one_of(lambda: ("true", "false")),
})  # fmt: skip


def is_path(name: str, text: str) -> bool:
    """Whether an option's text is a file's path; some may be a name instead."""
    match name:
        case "prices" | "scenario" | "preset":
            return text.endswith(SUFFIX)
        case "store" | "questions":
            return text != SAMPLE and "://" not in text
    return name in _PATHS


_PATHS: Final = {o.name for o in OPTIONS if o.metavar in ("FILE", "DIR")}


def options_of_plan(scenario: str) -> dict[str, str]:
    """Return the options that a plan brings: a built-in one, a file, or a run's.

    Raises `UsageError` for a plan there is not.
    """
    return dict(find_plan(scenario, known=PLAN_OPTIONS).options)


NAMES: Final = tuple(option.name for option in OPTIONS if option.name != "scenario")
PLAN_OPTIONS: Final = ("host", "users", *NAMES)
"""The options that a plan's file may set."""
