"""`loadstone completion`: verbs, options and their values, completed by the shell."""

from typing import Final

import click
from click.shell_completion import get_completion_class

from ..errors import LoadstoneError

SHELLS: Final = ("bash", "zsh", "fish")


@click.command(
    "completion",
    epilog="""\b
Examples:
  loadstone completion bash > ~/.local/share/bash-completion/completions/loadstone
  loadstone completion zsh > ~/.zfunc/_loadstone     # with fpath+=~/.zfunc in ~/.zshrc
  loadstone completion fish > ~/.config/fish/completions/loadstone.fish

\b
For the shell that is open:
  source <(loadstone completion bash)""",
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(ctx: click.Context, *, shell: str) -> None:
    """Print the script that completes loadstone's words in SHELL.

    Verbs and options are completed, and values where there is a choice: plans, presets,
    models, prices, claims, files. bash has to be 4.4 or newer.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(ctx.find_root().command, {}, "loadstone", "_LOADSTONE_COMPLETE")
    try:
        click.echo(script.source(), nl=False)
    except RuntimeError as failed:
        raise LoadstoneError(str(failed)) from None
