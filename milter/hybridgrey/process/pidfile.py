"""The pid file: who the running daemon is, and how its last reload went; for `hybridgrey reload`.

The first line is the master's process id, the second a JSON object (`Record`).  The master holds a lock on
the file for all its life, which the kernel takes away when it ends in whatever way: an unlocked file is
stale, so no signal ever goes to a process that merely has the same number.  It is a lock of the process
(POSIX), not of the descriptor: the children do not inherit it, and the kernel can name who has it (`holder`).

The file stands in a folder that the daemon's account may write to, and is opened by root there: never by way
of a link, never one with a second name, and emptied or given an owner only if it is the account's or new.

Where it is follows from the configuration alone, so that the command finds it (`place`).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from hybridgrey import folders
from hybridgrey.config.load import Config
from hybridgrey.config.sockets import absolute
from hybridgrey.process import holder

NAME: Final = "hybridgrey.pid"
RUN: Final = Path("/var/run/hybridgrey")
_SIZE = 16384  # bytes; what a record takes at most, and what is read
_ATTEMPTS = 10  # of starters that take stale files away at the same moment
# Not to wait where a named pipe has been put
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_WRITE = _READ | os.O_RDWR


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
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def claim(cls, path: Path, uid: int = -1) -> PidFile:
        """Open and lock the file; one that is made here gets `uid` as its owner. Raises PidFileError."""
        try:
            with folders.opened(path.parent) as folder:
                return cls(path, _claimed(folder.fd, path, os.geteuid() if uid < 0 else uid))
        except OSError as error:
            raise PidFileError(f"{path}: {error.strerror}") from None

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
            with folders.opened(self.path.parent) as folder:
                if _is_at(self._descriptor, folder.fd, self.path.name):
                    os.unlink(self.path.name, dir_fd=folder.fd)
        except OSError:
            return  # its lock goes with us, and unlocked it says nothing


def _claimed(folder: int, path: Path, owner: int) -> int:
    """A locked, empty file of `owner`'s in an open folder; a stale one is used again if it is his."""
    for _attempt in range(_ATTEMPTS):
        try:
            descriptor = os.open(path.name, _WRITE | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder)
        except FileExistsError:
            descriptor = _usable(folder, path, owner)
            if descriptor < 0:
                continue
            # What a daemon that was killed has left behind names a process that may be anybody's by now.
            os.ftruncate(descriptor, 0)
            return descriptor
        try:
            if os.fstat(descriptor).st_uid != owner:
                os.fchown(descriptor, owner, -1)
            _lock(descriptor, path)
            if _is_at(descriptor, folder, path.name):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise PidFileError(f"{path}: others take and remove it at every moment")


def _usable(folder: int, path: Path, owner: int) -> int:
    """The file that is there, locked; -1 when it is gone, or was another's and has been taken away.

    Another's file is neither emptied nor given away: in a folder of `owner`'s it may have come from anywhere.
    """
    try:
        descriptor = os.open(path.name, _WRITE, dir_fd=folder)
    except FileNotFoundError:
        return -1
    try:
        _check(descriptor, path)
        _lock(descriptor, path)
        if _is_at(descriptor, folder, path.name):
            if os.fstat(descriptor).st_uid == owner:
                return descriptor
            os.unlink(path.name, dir_fd=folder)
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return -1


def _check(descriptor: int, path: Path) -> None:
    """Refuse what is no pid file. Raises PidFileError."""
    _check_single(descriptor, path)
    first = os.pread(descriptor, _SIZE, 0).split(b"\n")[0].strip()
    if first and not first.isdigit():
        raise PidFileError(f"{path}: is no pid file; remove it, or set pid_file to another name")


def _check_single(descriptor: int, path: Path) -> None:
    """Refuse a file of more than one name: the other may be what its owner wants us to spoil."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise PidFileError(f"{path}: is no regular file")
    if status.st_nlink > 1:
        raise PidFileError(f"{path}: has another name (hard link); remove it")


def _lock(descriptor: int, path: Path) -> None:
    """Lock an open file. Raises PidFileError when another process has it."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX has both for it
        raise PidFileError(f"{path}: in use by another daemon") from None


def _is_at(descriptor: int, folder: int, name: str) -> bool:
    """Whether the name still stands for the open file."""
    try:
        there = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))


def read(path: Path) -> Record | None:
    """The record of the daemon that runs; None when none does. Raises PidFileError."""
    descriptor = _opened(path)
    if descriptor is None:
        return None
    try:
        pid = holder.holder(descriptor)
        return None if pid is None else _record(descriptor, path, pid)
    except OSError as error:
        raise PidFileError(f"{path}: {error.strerror}") from None
    finally:
        os.close(descriptor)


def tell(path: Path, pid: int, number: int) -> None:
    """Send a signal to the daemon of this process id, if it still holds the file.

    Raises PidFileError, and OSError as `holder.send` does.
    """
    descriptor = _opened(path)
    if descriptor is None:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    try:
        holder.send(number, descriptor, pid)
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int | None:
    """The file, for reading; None when there is none."""
    try:
        with folders.opened(path.parent) as folder:
            descriptor = os.open(path.name, _READ, dir_fd=folder.fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PidFileError(f"{path}: {error.strerror}") from None
    try:
        _check_single(descriptor, path)
    except PidFileError:
        os.close(descriptor)
        raise
    return descriptor


def _record(descriptor: int, path: Path, pid: int) -> Record:
    """What the file says, if it is the process `pid` that says it."""
    try:
        record = TypeAdapter(Record).validate_json(os.pread(descriptor, _SIZE, 0).splitlines()[1])
    except (ValueError, IndexError):
        raise PidFileError(f"{path}: its daemon is starting, or is of another version") from None
    if record.pid != pid:
        who = f"process {pid}" if pid else "none that this system's kernel can name"
        raise PidFileError(f"{path}: names process {record.pid}, but its holder is {who}: not trusted")
    return record
