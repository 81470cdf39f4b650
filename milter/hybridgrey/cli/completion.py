"""``hybridgrey completion``: scripts that let a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from hybridgrey.cli.output import fail

VARIABLE = "_HYBRIDGREY_COMPLETE"  # click's, from the program's name


@click.command()
@click.argument("shell", metavar="bash|zsh|fish", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete commands and options.

    \b
    Examples:
      hybridgrey completion bash >/etc/bash_completion.d/hybridgrey
      hybridgrey completion zsh >/usr/local/share/zsh/site-functions/_hybridgrey
      hybridgrey completion fish >/etc/fish/completions/hybridgrey.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        fail(f"click has no completion for {shell}")
    root = ctx.find_root().command
    try:
        click.echo(kind(root, {}, "hybridgrey", VARIABLE).source())
    except RuntimeError as error:  # a bash that is too old
        fail(str(error))
