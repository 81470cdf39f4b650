"""Forked processes of the master: their start, their word that they are ready, their end.

A child gets a pipe; it writes one byte when it serves.  Signals are blocked around the fork, so that none
meant for the child runs a handler of the parent or writes into the parent's wakeup pipe.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from hybridgrey import logs
from hybridgrey.process.loop import Loop

_PR_SET_NAME = 15  # linux/prctl.h

Ready = Callable[[], None]


@dataclass(slots=True)
class Child:
    """A running process: `role` is worker or keeper, `index` its number among its likes of one generation.

    `slot` is its place in shared memory (`metrics.shared.Counters`), which no other living process has.
    """

    role: str
    index: int
    slot: int
    pid: int
    ready_fd: int
    ready: bool = False
    started: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        return f"{self.role} {self.index}"

    def kill(self, number: int) -> None:
        """Send a signal; a process that is gone, but not yet reaped, takes it in silence."""
        os.kill(self.pid, number)

    def reap(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None


def fork(role: str, index: int, slot: int, loop: Loop, body: Callable[[Ready], NoReturn]) -> Child:
    """Run `body` in a new process; it gets what it must call when it is ready, and never returns.

    The caller must have no thread.  The child starts with default signal actions, but for INT and HUP:
    a terminal sends them to all of its processes, and they are meant for the master.
    Raises OSError when no process can be had.
    """
    read_end, write_end = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _child(role, loop, read_end, write_end, body)
    except OSError:
        os.close(read_end)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(write_end)
    os.set_blocking(read_end, False)
    return Child(role, index, slot, pid, read_end)


def _child(
    role: str, loop: Loop, read_end: int, write_end: int, body: Callable[[Ready], NoReturn]
) -> NoReturn:
    def ready() -> None:
        os.write(write_end, b"R")
        os.close(write_end)

    try:
        _call_yourself(f"hg-{role}")
        loop.leave_in_child()
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.close(read_end)
        body(ready)
    except BaseException:
        logs.get().exception("child process failed")
    finally:
        os._exit(os.EX_SOFTWARE)


def _call_yourself(name: str) -> None:
    """Show in ``ps -o comm``, top and pstree which process is which; at most 15 characters."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def how(status: int) -> str:
    """An exit status of `Child.reap` in words: ``status 70``, ``SIGKILL``."""
    return signal.Signals(-status).name if status < 0 else f"status {status}"
