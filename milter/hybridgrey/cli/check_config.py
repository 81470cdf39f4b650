"""``hybridgrey check-config``: all errors and warnings of a config file, or the effective configuration.

Needs neither libmilter nor a store, a list or a free port: it can run anywhere before a file is installed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click
import tomli_w

from hybridgrey.cleaning import clean
from hybridgrey.cli import EX_CONFIG, bad_config, config_option
from hybridgrey.config.load import Config, ConfigError, load
from hybridgrey.process import privileges


class _Command(click.Command):
    """A command that says how a file is named, to those who name it without an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The arguments; raises UsageError with advice when there is one that no option wants."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if type(error) is not click.UsageError:
                raise
            raise click.UsageError(f"{error.message}; the file is named with -c FILE", ctx) from None


@click.command(cls=_Command)
@config_option
@click.option("--show", is_flag=True, help="Print the effective configuration.")
@click.option("--json", "as_json", is_flag=True, help="Print errors, warnings and configuration as JSON.")
def check_config(config_path: Path, show: bool, as_json: bool) -> None:
    """Check a config file: every error and every warning in it, each with its line.

    Errors and warnings go to stderr.  If the file is good, stdout says "ok".  With --show it has the
    effective configuration instead, with every default filled in and secrets masked.  When root runs it, it
    also checks that `user` may read the file and the files it names.  Exit status 0 when the file can be
    used, 78 when not.

    \b
    Examples:
      hybridgrey check-config
      hybridgrey check-config --show
      hybridgrey check-config -c new.toml && mv new.toml /etc/hybridgrey/hybridgrey.toml
      hybridgrey check-config --json | jq .warnings
    """
    try:
        config = load(config_path)
    except ConfigError as e:
        if as_json:
            _print_json(ok=False, errors=e.problems)
            raise SystemExit(EX_CONFIG) from None
        bad_config(e.problems)
    warnings = (*config.warnings, *privileges.warnings(config.files, privileges.account(config.user)))
    if as_json:
        _print_json(ok=True, warnings=warnings, config=dict(config.shown))
    else:
        _print(config, warnings, show=show)


def _print(config: Config, warnings: Sequence[str], *, show: bool) -> None:
    for warning in warnings:
        click.secho(f"warning: {warning}", fg="yellow", err=True)
    if show:
        click.echo(tomli_w.dumps(dict(config.shown)), nl=False)
    else:
        click.echo(f"ok: {clean(str(config.path))}")


def _print_json(*, ok: bool, **parts: object) -> None:
    report = {"ok": ok, "errors": [], "warnings": [], "config": None} | parts
    click.echo(json.dumps(report, indent=2, ensure_ascii=False))
