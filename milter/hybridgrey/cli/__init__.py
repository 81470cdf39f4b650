"""The command line: the group ``hybridgrey`` and what its commands share.

A command lives in a module of its own, named in `COMMANDS` and imported when it is used: so ``check-config``
starts fast, and everything but ``run`` works where libmilter is not installed.

Exit status: 0 done, 1 negative result, 2 wrong usage, 78 bad configuration (EX_CONFIG of sysexits.h).
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click

from hybridgrey import __version__

EX_CONFIG: Final = 78
# Ports of FreeBSD keep out of /etc (hier(7))
_PREFIX = "/usr/local" if sys.platform.startswith("freebsd") else ""
DEFAULT_CONFIG: Final = Path(f"{_PREFIX}/etc/hybridgrey/hybridgrey.toml")

VARIABLE: Final = "HYBRIDGREY_CONFIG"
"""The environment variable that names another default."""

COMMANDS: Final = {
    "run": "hybridgrey.cli.run:run",
    "check-config": "hybridgrey.cli.check_config:check_config",
    "reload": "hybridgrey.cli.reload:reload",
    "status": "hybridgrey.cli.status:status",
    "explain": "hybridgrey.cli.explain:explain_",
    "zones": "hybridgrey.cli.zones:zones",
    "pools": "hybridgrey.cli.pools:pools_",
    "greylist": "hybridgrey.cli.greylist:greylist",
    "allow": "hybridgrey.cli.hand:allow",
    "block": "hybridgrey.cli.hand:block",
    "unlist": "hybridgrey.cli.hand:unlist",
    "entries": "hybridgrey.cli.entries:entries_",
    "expect": "hybridgrey.cli.expect:expect",
    "correspondents": "hybridgrey.cli.correspondents:correspondents",
    "import": "hybridgrey.cli.import_:import_",
    "report": "hybridgrey.cli.report:report",
    "log": "hybridgrey.cli.log:log",
    "replay": "hybridgrey.cli.replay:replay",
    "completion": "hybridgrey.cli.completion:completion",
    "help": "hybridgrey.cli.help_:help_",
    "version": "hybridgrey.cli.version:version",
}

# What a file that standard output goes to may say.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})

_F = TypeVar("_F", bound=Callable[..., Any])


# Less alike than this, and `start` would be called a `status`.
_NEAR: Final = 0.75


def nearest(word: str, names: Sequence[str]) -> str:
    """The name that was meant by a misspelt one or by the head of one, "" when none is near."""
    heads = {name.partition("-")[0]: name for name in names} | {name: name for name in names}
    near = get_close_matches(word, heads, 1, _NEAR)
    return heads[near[0]] if near else ""


class Group(click.Group):
    """A group that says which command was meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` begin with; raises UsageError with the nearest name there is."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            meant = nearest(args[0], self.list_commands(ctx)) if args else ""
            if not meant:
                raise
            raise click.UsageError(f"{error.message} Did you mean {meant!r}?", ctx) from None


class LazyGroup(Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands, as DESIGN section 6 has them."""
        return [*COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported from the place that `COMMANDS` names."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return super().get_command(ctx, cmd_name)
        module, _, name = place.partition(":")
        command = getattr(import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{place} is no click command")
        return command


def _chosen(ctx: click.Context, _param: click.Parameter, value: Path | None) -> Path:
    """The file named nearest to the command: there, before it, in the environment, or the default."""
    path = value or ctx.find_object(Path) or Path(os.environ.get(VARIABLE) or DEFAULT_CONFIG)
    ctx.obj = path
    return path


def config_option(command: _F) -> _F:
    """``-c``/``--config FILE``, before a command or after it; the command takes it as `config_path`."""
    option = click.option(
        "-c",
        "--config",
        "config_path",
        metavar="FILE",
        type=click.Path(readable=False, path_type=Path),  # what is wrong with it, `load` says
        callback=_chosen,
        help=f"The config file.  [default: ${VARIABLE}, or {DEFAULT_CONFIG}]",
    )
    return option(command)


def bad_config(problems: tuple[str, ...], consequence: str = "") -> NoReturn:
    """Print what is wrong with the configuration, one problem a line, and end with status 78."""
    for problem in problems:
        click.secho(problem, fg="red", err=True)
    if f"{DEFAULT_CONFIG}: does not exist" in problems:
        click.echo(f"name another file with -c FILE, or in {VARIABLE}", err=True)
    if consequence:
        click.echo(consequence, err=True)
    raise SystemExit(EX_CONFIG)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="hybridgrey")
@config_option
@click.pass_context
def hybridgrey(ctx: click.Context, config_path: Path) -> None:
    """A milter that accepts the trusted, rejects the listed and greylists the rest.

    \b
    Examples:
      hybridgrey check-config -c hybridgrey.toml
      hybridgrey explain 192.0.2.1 --from a@example.org --to b@example.net
      hybridgrey greylist list --help
    """
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def main() -> None:
    """Entry point of the program."""
    _open_streams()
    try:
        hybridgrey(prog_name="hybridgrey")
    except OSError as error:
        if error.filename is not None or error.errno not in _FULL:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left to print goes nowhere
        click.secho(f"hybridgrey: cannot print: {error.strerror}", fg="red", err=True)
        raise SystemExit(os.EX_IOERR) from None


def _open_streams() -> None:
    """Open standard streams that were closed: what is opened next would have their numbers else."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest number that is free, which is its own
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123
            os.set_inheritable(number, True)
