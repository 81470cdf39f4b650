"""What workers of both engines have in common: their terms, the orders they take, the process they run in.

A worker ignores TERM, INT and HUP, which a terminal or an admin may send to all processes.  The order to
drain is USR1; a second one means at once.  USR2 only ends a sleep, when the master has died.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Final, NoReturn

from hybridgrey import logs

DRAIN: Final = signal.SIGUSR1
"""What the master sends to make a worker finish; twice to make it leave at once."""
WAKE: Final = signal.SIGUSR2
FAILED: Final = os.EX_SOFTWARE
_IGNORED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# The garbage collector's thresholds.  Sessions leave no cycles behind, but the caches are many small objects,
# and looking through them at Python's pace was a tenth of the work.
_COLLECT = (100_000, 50, 50)


@dataclass(frozen=True, slots=True)
class Terms:
    """How a worker is to run: its CPU (None: any) and its times in seconds.

    `shared`: others take connections from the same socket.
    """

    cpu: int | None = None
    shared: bool = False
    drain_timeout: float = 30.0
    tick: float = 1.0


class Worker(ABC):
    """The main thread of a worker."""

    def __init__(self, listening: socket.socket, terms: Terms, wake_fd: int) -> None:
        """Make the process fit: it takes orders, hears of its master's death, and stays on its CPU.

        `wake_fd` does not block; each signal writes to it.
        """
        self._listening = listening
        self._terms = terms
        self._master = os.getppid()
        self._orders = 0
        self._tick_failed = False
        self._take_signals(wake_fd)
        _die_with_parent()
        gc.set_threshold(*_COLLECT)
        _pin(terms.cpu)

    @abstractmethod
    def start(self) -> None:
        """Put the parts together and take connections."""

    @abstractmethod
    def run(self) -> None:
        """Serve until an order to drain comes or the master is gone, then drain."""

    @property
    def _wanted(self) -> bool:
        """Whether it is to go on: no order to drain has come, and the master lives."""
        return not self._orders and os.getppid() == self._master

    @property
    def _hurried(self) -> bool:
        """Whether open sessions are not to be waited for."""
        return self._orders > 1

    def _keep_house(self, work: Callable[[], None]) -> None:
        """Housekeeping is never worth the sessions; what fails is said once, not every second."""
        try:
            work()
            self._tick_failed = False
        except Exception:
            if not self._tick_failed:
                logs.get().exception("housekeeping failed")
            self._tick_failed = True

    @staticmethod
    def _tell_end(cut: int) -> None:
        """The end, with so many sessions open."""
        log = logs.get()
        if cut:
            log.warning("worker leaves sessions behind", sessions=cut)
        else:
            log.debug("worker drained")

    def _take_signals(self, wake_fd: int) -> None:
        signal.set_wakeup_fd(wake_fd, warn_on_full_buffer=False)
        signal.signal(DRAIN, self._ordered)
        signal.signal(WAKE, lambda _number, _frame: None)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())

    def _ordered(self, _number: int, _frame: FrameType | None) -> None:
        self._orders += 1


def serve(make: Callable[[], Worker], ready: Callable[[], None]) -> NoReturn:
    """Run a worker in this forked process and leave with an exit status: 0 drained, else a failure.

    `ready` is called when connections are taken.
    """
    status = FAILED
    try:
        worker = make()
        worker.start()
        ready()
        worker.run()
        status = 0
    except BaseException:
        logs.get().exception("worker failed")
    finally:
        os._exit(status)


def _die_with_parent() -> None:
    """Let the kernel wake us when the master dies; where it cannot, the next tick sees it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, WAKE.value, 0, 0, 0)


def _pin(cpu: int | None) -> None:
    """Stay on one CPU: the interpreter's lock does not wander between caches, which halves the work.

    And a thread that wakes waits until the running one pauses (SCHED_BATCH, see sched(7)): at once it would
    most often find the interpreter taken, and beside a busy MTA several sessions are then served in one go.
    """
    if cpu is not None and hasattr(os, "sched_setaffinity"):
        try:
            os.sched_setaffinity(0, {cpu})
            if hasattr(os, "SCHED_BATCH"):
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        except OSError as exc:
            # The CPU was taken from us since the master looked (a cpuset changed): slower, not wrong
            logs.get().debug("worker not bound to a CPU", cpu=cpu, error=exc.strerror)
