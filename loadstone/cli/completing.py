"""What a shell completes an option's value with: names of the catalog, and files."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import click
from click.shell_completion import CompletionItem

Completer: TypeAlias = Callable[
    [click.Context, click.Parameter, str], list[CompletionItem]
]


def files(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Leave it to the shell, which knows the files."""
    return [CompletionItem(begun, type="file")]


def folders(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Leave it to the shell, which knows the folders."""
    return [CompletionItem(begun, type="dir")]


def one_of(known: Callable[[], Iterable[str]], *, or_file: bool = False) -> Completer:
    """Complete with the names of a catalog, read when they are asked for.

    With `or_file` the shell's own files come where no name fits.
    """

    def complete(
        _: click.Context, __: click.Parameter, begun: str
    ) -> list[CompletionItem]:
        fitting = [CompletionItem(name) for name in known() if name.startswith(begun)]
        return fitting or [CompletionItem(begun, type="file")] * or_file

    return complete
