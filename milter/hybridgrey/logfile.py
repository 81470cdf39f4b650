"""A log file that follows its name, for init systems without a journal: ``hybridgrey run --log-file``.

A rotation renames the file and puts a new one in its place, and several processes of different users write to
it.  None of them needs to be told: before a line is written, at most once in `LOOK` seconds, the writer looks
whether the name still stands for the file that it has open.  Until then lines go to the renamed file, so none
is lost as long as that is left alone for a moment (logrotate's ``delaycompress``).

Put in the place of ``sys.stderr`` by `cli.run`; `logs` calls `LogFile.following`.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hybridgrey import folders

LOOK: Final = 1.0
# Not to wait where the name stands for a named pipe: for a reader of it, or for one that stands still.
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_MODE: Final = 0o640  # addresses of people are in it


class LogFile(io.TextIOWrapper):
    """A text stream that appends to the file of this name, whichever that is.

    `descriptor` is made to stand for the file, now and later: with that of standard error, what the
    interpreter and C libraries say goes there too.  Raises OSError.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path.absolute()
        self._fd = descriptor
        self._open()
        self._looked = time.monotonic()
        self._failed = False
        raw = io.FileIO(descriptor, "a", closefd=False)
        super().__init__(io.BufferedWriter(raw), "utf-8", "backslashreplace", write_through=True)

    def following(self, write: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """`write`, which writes to our descriptor, with a look before each line."""

        def followed(line: bytes) -> None:
            self.follow()
            write(line)

        return followed

    def follow(self) -> None:
        """Go on in the file that has the name now; never raises."""
        now = time.monotonic()
        if now - self._looked < LOOK:
            return
        self._looked = now
        try:
            if self._moved():
                self._open()
                self._failed = False
        except OSError as error:
            self._complain(error)

    def _open(self) -> None:
        new = _opened(self._path)
        # The number stays, so every user of this descriptor follows
        os.dup2(new, self._fd)
        os.close(new)

    def _moved(self) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return True
        return not os.path.samestat(there, os.fstat(self._fd))

    def _complain(self, error: OSError) -> None:
        """Say once, in the old file, that it is still in use: there is no other place to say it."""
        if not self._failed:
            self._failed = True
            said = f"hybridgrey: cannot log to the new {self._path}: {error.strerror}; the old file is used\n"
            try:
                os.write(self._fd, said.encode("utf-8", "backslashreplace"))
            except OSError:
                return  # the disk is full, for instance: the lines themselves are counted as lost


def _opened(path: Path) -> int:
    """The file, made if it is missing.  Raises OSError.

    Root takes no link, nor one of several names of a file, in a folder of others: it would write there to
    whatever they like.
    """
    with folders.opened(path.parent) as folder:
        if os.geteuid() != 0 or not (folder.loose or folders.others_may_write(os.fstat(folder.fd))):
            return os.open(path.name, _FLAGS, _MODE, dir_fd=folder.fd)
        new = os.open(path.name, _FLAGS | os.O_NOFOLLOW, _MODE, dir_fd=folder.fd)
    status = os.fstat(new)
    if stat.S_ISFIFO(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1):
        return new
    os.close(new)
    raise PermissionError(
        errno.EPERM, "a hard link, or no file, in a folder where others may write", str(path)
    )
