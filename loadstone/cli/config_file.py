"""A file of options: TOML, one key for each option of the verb, without the dashes."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from ..errors import UsageError
from ..toml_lines import line_of
from .toml_file import read_toml


def config_option(command: Any) -> Any:
    """Add `--config FILE` to a click command: what it says, the command line may not.

    The file's values become the options' defaults, so an option that is given wins.
    """
    return click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=_take,
        help="take options from a TOML file; those given here win",
    )(command)


def _take(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is not None:
        ctx.default_map = read_config(path, ctx)


def read_config(path: Path, ctx: click.Context) -> dict[str, Any]:
    """Return the file's values by parameter name.

    Raises `UsageError` for a file that cannot be read, and for a key that is no option
    or a value that the option refuses, with its line.
    """
    text, table = read_toml(path)
    options = {
        p.name: p
        for p in ctx.command.params
        if isinstance(p, click.Option) and p.expose_value and p.name
    }
    values = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        where = f"{path}, line {line_of(text, key)}"
        if name not in options:
            near = get_close_matches(name, options, 1)
            raise UsageError(
                f"{where}: no option {key!r}",
                hint=f"did you mean {near[0]!r}?" if near else _known(options),
            )
        values[name] = _checked(options[name], value, ctx, f"{where}: {key}")
    return values


def _checked(option: click.Option, value: Any, ctx: click.Context, where: str) -> Any:
    if option.is_flag != isinstance(value, bool) or isinstance(value, dict | list):
        wanted = "true or false" if option.is_flag else "one value, as the option has"
        raise UsageError(f"{where}: expected {wanted}, got {value!r}")
    try:
        option.type_cast_value(ctx, value if option.is_flag else str(value))
    except click.BadParameter as bad:
        raise UsageError(f"{where}: {bad.message}") from None
    return value


def _known(options: dict[str, click.Option]) -> str:
    return f"the options are {', '.join(sorted(options))}"
