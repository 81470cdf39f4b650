"""The pid file: who the running daemon is, and how its last reload went; for `hybridgrey reload`.

The first line is the master's process id, the second a JSON object (`Record`).  The master holds a lock on
the file for all its life, which the kernel takes away when it ends in whatever way: an unlocked file is
stale, so no signal ever goes to a process that merely has the same number.  It is a lock of the process
(POSIX), not of the descriptor: the children do not inherit it.

Where it is follows from the configuration alone, so that the command finds it (`place`).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from hybridgrey.config.load import Config
from hybridgrey.config.sockets import absolute

NAME: Final = "hybridgrey.pid"
RUN: Final = Path("/var/run/hybridgrey")
_SIZE = 16384  # bytes; what a record takes at most, and what is read


@dataclass(frozen=True, slots=True)
class Record:
    """What the master says of itself.

    `reloads` counts the reloads that ended, in whatever way; `problems` says why the last one failed and is
    empty when it did not; `needs_restart` has the keys whose change it could not take.
    """

    pid: int
    config: str = ""
    workers: int = 0
    mode: str = ""
    reloads: int = 0
    problems: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()


class PidFileError(Exception):
    """The file cannot be had or read; the text says why."""


def place(config: Config) -> Path | None:
    """Where the file is: `pid_file`, else beside the embedded store or the unix socket, else in /var/run.

    None when there is no such place: /var/run/hybridgrey is used only if somebody has made it.
    """
    if config.pid_file:
        return absolute(config.pid_file, config.path.parent if config.path else None)
    if config.store.embedded is not None:
        return config.store.embedded / NAME
    socket = config.address.path
    if socket is not None:
        return socket.with_name(f"{socket.name}.pid")
    return RUN / NAME if RUN.is_dir() else None


class PidFile:
    """The file of this process; its lock ends with the process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def claim(cls, path: Path, uid: int = -1) -> PidFile:
        """Open and lock the file; `uid` becomes its owner. Raises PidFileError."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise PidFileError(f"{path}: {error.strerror}") from None
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if uid >= 0:
                os.fchown(descriptor, uid, -1)
            # What a daemon that was killed has left behind names a process that may be anybody's by now.
            os.ftruncate(descriptor, 0)
        except OSError as error:
            os.close(descriptor)
            busy = error.errno in (errno.EACCES, errno.EAGAIN)
            raise PidFileError(f"{path}: {'in use by another daemon' if busy else error.strerror}") from None
        return cls(path, descriptor)

    def write(self, record: Record) -> None:
        """Replace the record; in one write, so that a reader sees the old or the new one."""
        text = f"{record.pid}\n{json.dumps(asdict(record))}\n".encode()[:_SIZE]
        size = os.fstat(self._descriptor).st_size
        os.pwrite(self._descriptor, text.ljust(size), 0)
        os.ftruncate(self._descriptor, len(text))

    def remove(self) -> None:
        """Take the file away, or empty it where its folder is not ours to change."""
        os.ftruncate(self._descriptor, 0)
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            return  # its lock goes with us, and unlocked it says nothing


def read(path: Path) -> Record | None:
    """The record of the daemon that runs; None when none does. Raises PidFileError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PidFileError(f"{path}: {error.strerror}") from None
    try:
        if not _is_locked(descriptor):
            return None
        lines = os.pread(descriptor, _SIZE, 0).decode().splitlines()
    finally:
        os.close(descriptor)
    try:
        fields: dict[str, Any] = json.loads(lines[1])
        fields |= {name: tuple(fields[name]) for name in ("problems", "needs_restart")}
        return Record(**fields)
    except (ValueError, IndexError, KeyError, TypeError):
        raise PidFileError(f"{path}: its daemon is starting, or is of another version") from None


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX has both for it
        return True
    return False
