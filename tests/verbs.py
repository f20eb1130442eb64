"""The verbs of `loadstone`, as its own parser knows them."""

from collections.abc import Iterator

import click

from loadgen.options import OPTIONS
from loadstone.cli.main import group
from loadstone.errors import LoadstoneError

_READERS = {option.flag: option for option in OPTIONS}


def verbs() -> Iterator[tuple[str, click.Command]]:
    """Give each verb and sub-verb with its name, such as `plan show`."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            for below, sub in command.commands.items():
                yield f"{name} {below}", sub


def options() -> set[str]:
    """Return every option of every verb."""
    return {"--help", "--version"} | {
        flag
        for _, command in verbs()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for flag in (*parameter.opts, *parameter.secondary_opts)
    }


def wrong_with(arguments: list[str]) -> str:
    """Say what the parser refuses of a command line; "" if nothing.

    Verbs, options and values are looked at. Files are not: they need not be there.
    What comes last may be missing, because a text may name a verb or an option alone.
    """
    command: click.Command = group
    context = click.Context(group, info_name="loadstone")
    words = list(arguments)
    try:
        while isinstance(command, click.Group) and words[:1] and words[0][0] != "-":
            name, found, words = command.resolve_command(context, words)
            assert found is not None
            command, context = found, click.Context(found, context, info_name=name)
        given, rest, _ = command.make_parser(context).parse_args(words)
        for parameter in command.params:
            _try(parameter, given.get(parameter.name or ""), context)
    except click.BadOptionUsage as wrong:
        return "" if wrong.option_name == arguments[-1] else wrong.message
    except (click.ClickException, LoadstoneError) as wrong:
        return wrong.message
    return f"too much: {' '.join(rest)}" if rest else ""


def _try(parameter: click.Parameter, value: object, context: click.Context) -> None:
    """Raise what the parameter says of a value, if it was given and names no file."""
    if value is None or isinstance(parameter.type, click.Path):
        return
    if isinstance(parameter, click.Argument):
        return
    assert isinstance(parameter, click.Option)
    values = value if parameter.multiple else (value,)
    for each in values if isinstance(values, (list, tuple)) else ():
        if not isinstance(each, str) or each in _PLACEHOLDERS:
            continue
        parameter.type.convert(each, parameter, context)
        reader = _READERS.get(parameter.opts[0])
        if reader is not None and parameter.type == click.STRING:
            reader.parse(each)


_PLACEHOLDERS = ("N", "X", "K", "TIME", "REQ/S", "USD")
"""What stands for a value where a text is about the option."""
