"""Looking at the open descriptors of this process, among them those that libmilter opened for itself.

libmilter tells nobody which descriptor it listens on, nor how many connections it holds; the kernel does.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

_LOW = 1024  # a forked process has few descriptors, and the lowest free one is taken first
_MOST = 65536


@contextlib.contextmanager
def borrowed(fd: int) -> Iterator[socket.socket | None]:
    """`fd` as a socket that is not closed afterwards; None when it is no socket, or no longer open."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        yield None
        return
    try:
        yield sock
    finally:
        sock.detach()


def low() -> frozenset[int]:
    """The open descriptors among the first 1024; the look itself opens none."""
    return frozenset(fd for fd in range(_LOW) if _is_open(fd))


def is_listening(fd: int) -> bool:
    """Whether `fd` is a listening socket."""
    with borrowed(fd) as sock:
        return sock is not None and _listens(sock)


def place(sock: socket.socket) -> int | str:
    """What an accepted connection shares with its listening socket: the path, or at least the port."""
    name = sock.getsockname()
    return str(name) if sock.family == socket.AF_UNIX else int(name[1])


def connections(family: int, where: int | str) -> int:
    """How many connections accepted at `where` (see `place`) this process holds."""
    count = 0
    for fd in _all():
        with borrowed(fd) as sock:
            count += sock is not None and sock.family == family and _accepted(sock, where)
    return count


def _accepted(sock: socket.socket, where: int | str) -> bool:
    try:
        return place(sock) == where and not _listens(sock)
    except OSError:  # closed by a thread of libmilter since we looked
        return False


def _listens(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _all() -> list[int]:
    """All open descriptors, perhaps with one that was open for the look alone."""
    if sys.platform == "linux":
        return [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    # Elsewhere /dev/fd may show the first three only
    return [fd for fd in range(min(os.sysconf("SC_OPEN_MAX"), _MOST)) if _is_open(fd)]


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
