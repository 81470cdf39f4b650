"""Folders as descriptors, so that nobody can lead root astray by exchanging what a path stands for.

Who may write to a folder may at any moment put another file, or a link, in the place of a name in it.  A
path that root has looked at and then uses again may be another one by then.  So root goes down a path one
folder at a time, each by the descriptor of the one above, and follows a link only where nobody but root can
have made it: /var/run for example, but nothing in the folder of an account.  What is reached so is either
what the admin meant, or something that whoever led us there may change already.

Terms: a path is *loose* when others than root could make it stand for another folder.

Who is not root has nothing to lose that a path could take: for them a folder is opened as it is written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_DIRECTORY: Final = os.O_DIRECTORY | os.O_CLOEXEC
# To stand in a folder needs no right to list it, where the system has a flag for that.
_STAND: Final = _DIRECTORY | getattr(os, "O_PATH", os.O_RDONLY)
_MOST_LINKS: Final = 40  # path_resolution(7)


@dataclass(frozen=True, slots=True)
class Folder:
    """An open folder: for `dir_fd`, not to be listed or locked (see `readable`)."""

    fd: int
    loose: bool


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Folder]:
    """The folder at `path`.  Raises OSError, ELOOP for a link that root must not follow."""
    folder = _walk(path.absolute()) if os.geteuid() == 0 else Folder(os.open(path, _STAND), False)
    try:
        yield folder
    finally:
        os.close(folder.fd)


def readable(folder: int) -> int:
    """Another descriptor of an open folder, to list, lock or give away.  Raises OSError."""
    return os.open(".", _DIRECTORY | os.O_RDONLY, dir_fd=folder)


def names(fd: int) -> list[str]:
    """The names in a folder open for reading.  Raises OSError."""
    with os.scandir(fd) as entries:
        return [entry.name for entry in entries]


def others_may_write(status: os.stat_result) -> bool:
    """Whether somebody but root may change what the names in a folder stand for."""
    if not is_root(status.st_uid):
        return True
    by_group = status.st_mode & stat.S_IWGRP and status.st_gid != 0
    return bool(by_group or status.st_mode & stat.S_IWOTH)


def is_root(uid: int) -> bool:
    """Root, or in a user namespace without it whoever has "/": all is theirs in any case."""
    return uid in (0, Path("/").stat().st_uid)


def made(path: Path, mode: int, *, uid: int = -1, gid: int = -1, parents: bool = False) -> bool:
    """Make the folder if it is missing; whether it was.  Only one that was made here gets `uid` and `gid`.

    With `parents` folders above are made too, with the usual mode.  Raises OSError.
    """
    try:
        with opened(path):
            return False
    except FileNotFoundError:
        if parents and path.parent != path:
            made(path.parent, 0o777, parents=True)
    given = (uid, gid) != (-1, -1)
    with opened(path.parent) as above:
        try:
            fd = new(above.fd, path.name, mode, empty=given)
        except FileExistsError:
            return False
        try:
            if given:
                os.fchown(fd, uid, gid)
        finally:
            os.close(fd)
    return True


def new(above: int, name: str, mode: int, *, empty: bool = False) -> int:
    """Make a folder in the open folder `above`; a readable descriptor of it.  Raises OSError.

    In the moment between making and opening it may be exchanged.  What is opened is then a folder of ours,
    too, that nobody may do more with than with the one wanted; anything else is an error.  Unless it must be
    `empty` there may be something in it, for example of another starter.
    """
    os.mkdir(name, mode, dir_fd=above)
    fd = os.open(name, _DIRECTORY | os.O_RDONLY | os.O_NOFOLLOW, dir_fd=above)
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or status.st_mode & 0o777 & ~mode or (empty and names(fd)):
        os.close(fd)
        raise OSError(errno.EBUSY, "somebody exchanges folders there", name)
    return fd


def _walk(path: Path) -> Folder:
    """Go down `path` from "/" as root."""
    fd, loose, links = os.open("/", _STAND), False, 0
    ahead = list(reversed(path.parts[1:]))
    try:
        while ahead:
            name = ahead.pop()
            entry = os.stat(name, dir_fd=fd, follow_symlinks=False)
            loose = loose or _exchangeable(os.fstat(fd), entry)
            flags, above = _STAND | os.O_NOFOLLOW, fd
            if stat.S_ISLNK(entry.st_mode):
                links += 1
                target = _target(fd, name, loose or links > _MOST_LINKS)
                ahead += reversed([part for part in target.parts if part != "/"])
                name = "/" if target.is_absolute() else "."
            fd = os.open(name, flags, dir_fd=above)
            os.close(above)
    except OSError:
        os.close(fd)
        raise
    return Folder(fd, loose)


def _target(folder: int, name: str, refused: bool) -> Path:
    if refused:
        raise OSError(errno.ELOOP, "root follows no link that others may have made", name)
    return Path(os.readlink(name, dir_fd=folder))


def _exchangeable(folder: os.stat_result, entry: os.stat_result) -> bool:
    """Whether others can put another thing in the place of an entry; not of root's in its /tmp (sticky)."""
    guarded = folder.st_mode & stat.S_ISVTX and is_root(folder.st_uid) and is_root(entry.st_uid)
    return others_may_write(folder) and not guarded
