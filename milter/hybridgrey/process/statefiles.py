"""Small files that the daemon keeps: replaced as a whole, and read as if somebody else had put them there.

A reader may be root and the folder the account's.  So what is read must have been made by root or by the
folder's owner, in a folder where nobody else can put a file in its place.

Some must outlive the daemon, and the machine's next start (`folder`).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hybridgrey import folders, logs
from hybridgrey.config.load import Config, default
from hybridgrey.process import pidfile
from hybridgrey.trouble.reporter import Report

NEW: Final = ".new"

_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_MAKE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def folder(config: Config) -> Path | None:
    """Where files of state stand: with the embedded store, in systemd's StateDirectory, else the usual place.

    Where nobody has made that for us, beside the pid file; None if there is no such place either.
    """
    if config.store.embedded is not None:
        return config.store.embedded
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]  # systemd.exec(5)
    if given:
        return Path(given)
    usual = default().store.embedded
    if usual is not None and os.access(usual, os.W_OK | os.X_OK):
        return usual
    beside = pidfile.place(config)
    return beside.parent if beside is not None else None


def replace(path: Path, data: bytes) -> None:
    """Put a file of mode 0600 there; a reader sees the old one or the new one.  Raises OSError."""
    with folders.opened(path.parent) as above:
        new = path.name + NEW
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new, dir_fd=above.fd)  # of a start that was killed
        with os.fdopen(os.open(new, _MAKE, 0o600, dir_fd=above.fd), "wb") as file:
            file.write(data)
        os.rename(new, path.name, src_dir_fd=above.fd, dst_dir_fd=above.fd)


def keep(path: Path | None, data: bytes, report: Report, *, what: str, kind: str) -> None:
    """Replace the file of what is known; without it a restart knows less, and that is all.

    `path`: None for nowhere.  `what` it is called in the log, and `kind` the trouble with it.
    """
    if path is None:
        logs.get().debug(f"no place for {what}")
    else:
        try:
            replace(path, data)
        except OSError as error:
            report.failing(kind, file=str(path), error=error.strerror or str(error))
            return
    report.recovered(kind)


def recall(path: Path | None, most: int, take: Callable[[bytes], None], *, what: str) -> None:
    """Have `take` use what an earlier daemon has left; it raises ValueError for what is of no use."""
    if path is None:
        return
    try:
        take(read(path, most))
    except FileNotFoundError:
        return  # the first start
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        logs.get().warning(f"{what} is of no use", file=str(path), reason=reason)


def remove(path: Path) -> None:
    """Take a file away, if it is there and its folder ours to change."""
    with contextlib.suppress(OSError), folders.opened(path.parent) as above:
        os.unlink(path.name, dir_fd=above.fd)


def read(path: Path, most: int) -> bytes:
    """A file of at most so many bytes.  Raises OSError, and ValueError for what the daemon has not made."""
    return read_of(path, most)[0]


def read_of(path: Path, most: int) -> tuple[bytes, int]:
    """As `read`, with the uid of the file's owner."""
    with folders.opened(path.parent) as above:
        descriptor = os.open(path.name, _READ, dir_fd=above.fd)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            _check(status, os.stat(".", dir_fd=above.fd), most)
            return file.read(most + 1), status.st_uid


def _check(status: os.stat_result, above: os.stat_result, most: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("is no regular file")
    if status.st_nlink > 1:
        raise ValueError("has another name (hard link)")
    if status.st_size > most:
        raise ValueError(f"is larger than {most} bytes")
    if above.st_mode & stat.S_IWOTH:
        raise ValueError("stands in a folder that everybody may write to")
    if not folders.is_root(status.st_uid) and status.st_uid != above.st_uid:
        raise ValueError("belongs neither to root nor to the owner of its folder")
