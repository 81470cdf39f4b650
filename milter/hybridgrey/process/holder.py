"""The process that holds a lock, as the kernel names it, and signals that lend nobody root's power.

A pid file is written by the account that the daemon runs as.  Taken at its word by root it would let that
account signal any process.  So the number in it counts only if the kernel names the same process as the
holder of the file's lock, and the signal is sent with no more rights than the file's owner has: whatever the
owner may have arranged, it could have done so itself.  That needs no look at what runs in the process (its
program, its name), which is the owner's to choose.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import struct
import sys
from typing import Final

UNNAMED: Final = 0
"""There is a holder that the kernel does not name: no process of this pid namespace, or no process at all."""

_FLOCK: Final[dict[str, tuple[str, int, int]]] = {
    "linux": ("hhqqi", 0, 4),
    "freebsd": ("qqihhi", 3, 2),
    "": ("qqihh", 3, 2),  # macOS, NetBSD, OpenBSD
}
"""struct flock (fcntl(2)): its fields, and which of them are l_type and l_pid."""


def holder(descriptor: int) -> int | None:
    """The process that holds a POSIX lock on an open file, None when none does, or `UNNAMED`.

    A look only: no lock is taken.  Raises OSError.
    """
    layout, kind, pid = next(row for system, row in _FLOCK.items() if sys.platform.startswith(system))
    question: list[int] = [0] * len(layout)
    question[kind] = fcntl.F_WRLCK
    answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(layout, *question))
    fields = struct.unpack(layout, answer[: struct.calcsize(layout)])
    return None if fields[kind] == fcntl.F_UNLCK else max(fields[pid], UNNAMED)


def send(number: int, descriptor: int, pid: int) -> None:
    """Send a signal to process `pid`, which holds the lock on an open file, with the rights of its owner.

    Raises OSError: ProcessLookupError when that process does not hold it (any more), PermissionError when
    the owner, or we, may not signal it.
    """
    process = _process(pid)
    try:
        # Looked at now, the number and the descriptor are the same process: the holder lives and had both
        if holder(descriptor) != pid:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        owner = os.fstat(descriptor).st_uid
        if os.geteuid() == 0 and owner != 0:
            _as(owner, number, pid, process)
        else:
            _kill(number, pid, process)
    finally:
        if process is not None:
            os.close(process)


def _process(pid: int) -> int | None:
    """A descriptor of the process, whoever may get its number later, where there is such a thing."""
    if sys.platform == "linux":
        try:
            return os.pidfd_open(pid)
        except OSError as error:
            if error.errno == errno.ESRCH:
                raise
    return None


def _kill(number: int, pid: int, process: int | None) -> None:
    if sys.platform == "linux" and process is not None:
        signal.pidfd_send_signal(process, number)
    else:
        os.kill(pid, number)


def _as(owner: int, number: int, pid: int, process: int | None) -> None:
    """Send it from a child that has become `owner`: the kernel asks for the real user id too."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setuid(owner)
            _kill(number, pid, process)
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or errno.EPERM)
        finally:
            os._exit(errno.EPERM)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        status = max(status, 0) or errno.EPERM  # killed: by the owner, whose loss it is
        raise OSError(status, os.strerror(status))
