"""What workers of both engines have in common: their terms, the orders they take, the process they run in.

A worker ignores TERM, INT and HUP, which a terminal or an admin may send to all processes.  The order to
drain is USR1; a second one means at once.  USR2 only ends a sleep, when the master has died.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
from dataclasses import dataclass
from typing import Final

from hybridgrey import logs

DRAIN: Final = signal.SIGUSR1
"""What the master sends to make a worker finish; twice to make it leave at once."""
WAKE: Final = signal.SIGUSR2
FAILED: Final = os.EX_SOFTWARE
IGNORED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

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


def settle_in(terms: Terms) -> None:
    """Make the process fit for a worker: it hears of its master's death, and stays on its CPU."""
    _die_with_parent()
    gc.set_threshold(*_COLLECT)
    _pin(terms.cpu)


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
