"""``hybridgrey run``: the daemon, in the foreground."""

from __future__ import annotations

from pathlib import Path

import click

from hybridgrey import config
from hybridgrey.cli import bad_config, config_option


@click.command()
@config_option
def run(config_path: Path) -> None:
    """Run the daemon in the foreground; it logs to standard error.

    SIGHUP reads the config again, SIGTERM ends the daemon when the open sessions are over, or after
    drain_timeout.

    \b
    Exit status: 0 ended in order, 69 cannot start now, 77 not permitted, 78 bad configuration.

    \b
    Examples:
      hybridgrey run
      hybridgrey run -c ./hybridgrey.toml
    """
    try:
        settings = config.load(config_path)
    except config.ConfigError as error:
        bad_config(error.problems)
    # Only here: the other commands start without the daemon's modules
    from hybridgrey import assembly, daemon

    try:
        status = daemon.run(settings, lambda: config.load(config_path), assembly.assemble)
    except daemon.StartError as error:
        click.echo(f"hybridgrey: {error}", err=True)
        status = error.status
    raise SystemExit(status)
