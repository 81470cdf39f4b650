"""The daemon's copy of the configuration in effect: written by the master, read where the file is broken.

It stands beside the pid file and holds secrets: mode 0600, of the daemon's account.  It is good while that
account's daemon holds the pid file's lock; after a crash it stays until the next start.

A reader may be root, and the folder the account's.  So what is read must have been made by root or by the
folder's owner, who is the account, in a folder where nobody else can put a file in its place.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

from hybridgrey import folders, logs
from hybridgrey.config import in_effect
from hybridgrey.config.load import Config, default
from hybridgrey.process import pidfile

SUFFIX: Final = ".in-effect"
NEW: Final = ".new"
MAX_BYTES: Final = 2**28
"""Larger ones are neither written nor read: files of some million entries fit."""

_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_MAKE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class NoCopyError(Exception):
    """There is no copy to be had; the text says why, "" where no daemon runs."""


def beside(pid_file: Path) -> Path:
    """The copy of the daemon that has this pid file."""
    return pid_file.with_name(pid_file.name.removesuffix(".pid") + SUFFIX)


def names(pid_file: Path) -> set[str]:
    """What the daemon that has this pid file may leave beside it."""
    copy = beside(pid_file).name
    return {copy, copy + NEW}


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
            with folders.opened(self._path.parent) as folder:
                _replace(folder.fd, self._path.name, data)
        except OSError as error:
            return error.strerror
        return None

    def remove(self) -> None:
        """Take it away."""
        with contextlib.suppress(OSError), folders.opened(self._path.parent) as folder:
            os.unlink(self._path.name, dir_fd=folder.fd)


def _replace(folder: int, name: str, data: bytes) -> None:
    new = name + NEW
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new, dir_fd=folder)  # of a start that was killed
    with os.fdopen(os.open(new, _MAKE, 0o600, dir_fd=folder), "wb") as file:
        file.write(data)
    os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)


def find(path: Path) -> Config:
    """What is in effect of the configuration file `path`, which is broken.  Raises NoCopyError.

    It is that of a daemon that runs and was started with this file.
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


def _read(path: Path) -> Config:
    try:
        with folders.opened(path.parent) as folder:
            descriptor = os.open(path.name, _READ, dir_fd=folder.fd)
            with os.fdopen(descriptor, "rb") as file:
                _check(os.fstat(descriptor), os.stat(".", dir_fd=folder.fd))
                data = file.read(MAX_BYTES + 1)
        return in_effect.parse(data)
    except OSError as error:
        raise NoCopyError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise NoCopyError(f"{path}: {error}") from None


def _check(status: os.stat_result, folder: os.stat_result) -> None:
    """Refuse what the daemon has not made.  Raises ValueError."""
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("is no regular file")
    if status.st_nlink > 1:
        raise ValueError("has another name (hard link)")
    if status.st_size > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES} bytes")
    if folder.st_mode & stat.S_IWOTH:
        raise ValueError("stands in a folder that everybody may write to")
    if not folders.is_root(status.st_uid) and status.st_uid != folder.st_uid:
        raise ValueError("belongs neither to root nor to the owner of its folder")
