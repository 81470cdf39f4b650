"""``hybridgrey run``: the daemon, in the foreground."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import TextIO

import click

from hybridgrey.cli import bad_config, config_option
from hybridgrey.config import load


@click.command()
@config_option
@click.option(
    "--log-file",
    metavar="FILE",
    type=click.Path(dir_okay=False, readable=False, path_type=Path),
    help="Log to this file. When it is renamed, the log goes on in a new file of this name.",
)
def run(config_path: Path, log_file: Path | None) -> None:
    """Run the daemon in the foreground; it logs to standard error.

    SIGHUP makes it read the config again. SIGTERM ends it when the open sessions are over, at the latest
    after drain_timeout.

    \b
    Exit status: 0 ended in order, 69 cannot start now, 77 not permitted, 78 bad configuration.

    \b
    Examples:
      hybridgrey run
      hybridgrey run -c ./hybridgrey.toml
      hybridgrey run --log-file /var/log/hybridgrey/hybridgrey.log
    """
    try:
        settings = load.load(config_path)
    except load.ConfigError as error:
        bad_config(error.problems)
    # Only here: the other commands start without the daemon's modules
    from hybridgrey.process import assembly, daemon

    starter = sys.stderr if log_file is None else _log_to(log_file)
    try:
        status = daemon.run(settings, lambda: load.load(config_path), assembly.assemble)
    except daemon.StartError as error:
        click.echo(f"hybridgrey: {error}", file=starter)
        status = error.status
    raise SystemExit(status)


def _log_to(path: Path) -> TextIO:
    """Put the file in the place of standard error; what was there, for why the daemon does not start."""
    from hybridgrey.logfile import LogFile

    starter = os.fdopen(os.dup(sys.stderr.fileno()), "w")
    try:
        sys.stderr = LogFile(path, sys.stderr.fileno())
    except OSError as error:
        click.echo(f"hybridgrey: cannot log to {path}: {error.strerror}", err=True)
        refused = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        raise SystemExit(os.EX_NOPERM if refused else os.EX_UNAVAILABLE) from None
    return starter
