"""``hybridgrey reload``: make the running daemon take the new configuration, and say how it went."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import click

from hybridgrey.cleaning import clean
from hybridgrey.cli import config_option
from hybridgrey.cli.access import UNAVAILABLE, as_written
from hybridgrey.cli.output import fail, several, warn
from hybridgrey.config.load import Config
from hybridgrey.process import pidfile
from hybridgrey.process.pidfile import PidFileError, Record

PAUSE = 0.1


@click.command()
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="Wait this long for the outcome.",
)
@config_option
def reload(config_path: Path, timeout: float) -> None:
    """Check the configuration, make the running daemon take it, and wait for the outcome.

    The daemon is found by its pid file: `pid_file`, else beside the embedded store or the unix socket, else
    in /var/run/hybridgrey.  It must be the process that the kernel names as the holder of that file, and is
    signalled with the rights of the file's owner.  Sessions in flight go on with the old configuration.

    \b
    Exit status: 0 the new configuration is in effect, 1 the old one stays, 69 no daemon runs,
                 78 bad configuration (the daemon is not told).

    \b
    Examples:
      hybridgrey reload
      hybridgrey check-config -c new.toml && mv new.toml /etc/hybridgrey/hybridgrey.toml && hybridgrey reload
    """
    config = as_written(config_path, "not reloaded: a running daemon keeps the configuration it has")
    for warning in config.warnings:
        warn(warning)
    path = pidfile.place(config)
    if path is None:
        fail(
            "no pid file: set pid_file and restart, or send the daemon SIGHUP (systemctl reload)", UNAVAILABLE
        )
    before = _running(path)
    if before.config and Path(before.config) != (config.path or config_path).absolute():
        warn(f"the daemon reads {clean(before.config)}")
    try:
        pidfile.tell(path, before.pid, signal.SIGHUP)
    except PidFileError as error:
        fail(str(error), UNAVAILABLE)
    except PermissionError:
        fail(f"process {before.pid}: not permitted to signal it; be root or the daemon's user")
    except ProcessLookupError:
        fail(f"process {before.pid}: has ended just now", UNAVAILABLE)
    _tell(_outcome(path, before, timeout), config)


def _running(path: Path) -> Record:
    """What the running daemon says of itself; ends with status 69 when there is none."""
    try:
        record = pidfile.read(path)
    except PidFileError as error:
        fail(str(error), UNAVAILABLE)
    if record is None:
        fail(f"no daemon is running (none holds {path}); start one: hybridgrey run", UNAVAILABLE)
    return record


def _outcome(path: Path, before: Record, timeout: float) -> Record:
    """The record after the reload."""
    end = time.monotonic() + timeout
    while (record := _running(path)).reloads == before.reloads or record.pid != before.pid:
        if time.monotonic() > end:
            fail(f"process {before.pid}: no outcome within {timeout:g} s; see its log")
        time.sleep(PAUSE)
    return record


def _tell(record: Record, config: Config) -> None:
    if record.problems:
        fail(f"reload failed, the old configuration stays: {'; '.join(map(clean, record.problems))}")
    for key in record.needs_restart:
        warn(f"{config.path}: {clean(key)}: a change needs a restart, the old value stays")
    click.echo(
        f"reloaded: process {record.pid}, {several(record.workers, 'worker')}, mode {clean(record.mode)}"
    )
