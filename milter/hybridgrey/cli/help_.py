"""``hybridgrey help``: the help of a command."""

from __future__ import annotations

import click


@click.command("help")
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@click.pass_context
def help_(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Show the help of a command.

    \b
    Examples:
      hybridgrey help explain
      hybridgrey help greylist list
    """
    parent = ctx.parent
    assert parent is not None  # noqa: S101 (the group has called it)
    command: click.Command = parent.command
    at = parent
    for word in words:
        if not isinstance(command, click.Group):
            raise click.UsageError(f"{at.command_path!r} has no commands", at)
        _, found, _ = command.resolve_command(at, [word])
        assert found is not None  # noqa: S101 (else it has raised)
        command = found
        at = click.Context(command, at, word)
    click.echo(command.get_help(at))
