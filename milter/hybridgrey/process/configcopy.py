"""The daemon's copy of the configuration in effect: written by the master, read where the file is broken.

It stands beside the pid file and holds secrets: mode 0600, of the daemon's account.  It is good while that
account's daemon holds the pid file's lock; after a crash it stays until the next start.

A reader may be root, and the folder the account's: see `statefiles`, and `Found` for what stands in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from hybridgrey import logs
from hybridgrey.config import in_effect
from hybridgrey.config.load import Config, default
from hybridgrey.process import pidfile, statefiles

SUFFIX: Final = ".in-effect"
MAX_BYTES: Final = 2**28
"""Larger ones are neither written nor read: files of some million entries fit."""


class NoCopyError(Exception):
    """There is no copy to be had; the text says why, "" where no daemon runs."""


def beside(pid_file: Path) -> Path:
    """The copy of the daemon that has this pid file."""
    return pid_file.with_name(pid_file.name.removesuffix(".pid") + SUFFIX)


def names(pid_file: Path) -> set[str]:
    """What the daemon that has this pid file may leave beside it."""
    copy = beside(pid_file).name
    return {copy, copy + statefiles.NEW}


class ConfigCopy:
    """The copy of this process; mail does not depend on it, so without one there is a line at most."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, config: Config) -> None:
        """Replace it; a reader sees the old one or the new one."""
        data = in_effect.dump(config)
        reason = f"it is larger than {MAX_BYTES} bytes" if len(data) > MAX_BYTES else self._written(data)
        if reason:
            self.remove()  # an old one is no longer in effect
            logs.get().debug("no copy of the configuration", file=str(self._path), reason=reason)

    def _written(self, data: bytes) -> str | None:
        """Why it cannot be written, None when it is."""
        try:
            statefiles.replace(self._path, data)
        except OSError as error:
            return error.strerror
        return None

    def remove(self) -> None:
        """Take it away."""
        statefiles.remove(self._path)


class Found(NamedTuple):
    """A configuration in effect, and the uid of whoever may have written it."""

    config: Config
    owner: int


def find(path: Path) -> Found:
    """What is in effect of the configuration file `path`, which is broken.  Raises NoCopyError.

    It is that of a daemon that runs and was started with this file.  Where an account has written it, it may
    say anything: root follows its URLs and paths as that account only (`privileges.act_as`).
    """
    path = path.absolute()
    reason = ""
    # Where its files are follows from keys, of which the broken line may be one.
    usual = pidfile.place(default()), pidfile.RUN / pidfile.NAME
    tried = (pidfile.place(in_effect.places(path)), *usual)
    for pid_file in dict.fromkeys(one for one in tried if one is not None):
        try:
            record = pidfile.read(pid_file)
            if record is not None and record.config == str(path):
                return _read(beside(pid_file))
        except (pidfile.PidFileError, NoCopyError) as error:
            reason = str(error)
    raise NoCopyError(reason)


def _read(path: Path) -> Found:
    try:
        data, owner = statefiles.read_of(path, MAX_BYTES)
        return Found(in_effect.parse(data), owner)
    except OSError as error:
        raise NoCopyError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise NoCopyError(f"{path}: {error}") from None
