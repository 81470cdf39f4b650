"""The processes of one configuration: a keeper and its workers, from the first fork to the last exit.

A reload brings a new generation beside the old one; when all of it is ready the old one is drained.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterable
from typing import NoReturn, Protocol

from hybridgrey.config.load import Config
from hybridgrey.eventloop import Loop as EventLoop
from hybridgrey.metrics.shared import Shared
from hybridgrey.process import engines, native_worker, serving, worker
from hybridgrey.process.children import Child, Ready, fork
from hybridgrey.process.loop import Loop

WORKER = "worker"
KEEPER = "keeper"


class Parts(Protocol):
    """What one configuration puts into its processes; made in the master, used in its children.

    `worker` builds what serves sessions and makes it known to libmilter; `keeper` runs the one process
    without sessions (metrics, health of zones) until SIGTERM, and calls `ready` when it serves.
    """

    @property
    def shared(self) -> Shared:
        """The memory that all processes share; a slot of it goes to each worker."""
        ...

    def worker(self, slot: int) -> worker.Registration:
        """What serves the sessions of the worker with this slot."""
        ...

    def native(self, slot: int, loop: EventLoop) -> native_worker.Registration:
        """The same without libmilter, on a loop."""
        ...

    def keeper(self, ready: Ready) -> NoReturn:
        """Run the process without sessions."""
        ...


Build = Callable[[Config, Shared | None], Parts]
"""What a configuration puts into the processes; the second is the shared memory of the one before."""


class Generation:
    """One configuration at work."""

    def __init__(
        self, number: int, config: Config, parts: Parts, loop: Loop, listening: socket.socket
    ) -> None:
        self.number = number
        self.config = config
        self.children: list[Child] = []
        self.retired = False
        self.keeper_needed = True
        """Its first look at the lists is worth a wait, but mail does not depend on it."""
        self.shared = parts.shared
        self._parts = parts
        self._loop = loop
        self._listening = listening
        self._cpus = _cpus() if config.pin_workers else []

    @property
    def ready(self) -> bool:
        """Do all of its processes serve?  The keeper counts as long as `keeper_needed`."""
        wanted = [child for child in self.children if child.role == WORKER or self.keeper_needed]
        count = self.config.worker_count + self.keeper_needed
        return len(wanted) == count and all(child.ready for child in wanted)

    @property
    def workers(self) -> list[Child]:
        """Its living workers."""
        return [child for child in self.children if child.role == WORKER]

    def fork(self, role: str, index: int, on_ready: Callable[[Child], None]) -> Child:
        """Start one process; `on_ready` is called when it serves.  Raises OSError."""
        slot = self.shared.counters.lease()
        body = self._worker(index, slot) if role == WORKER else self._keeper
        try:
            child = fork(role, index, slot, self._loop, body)
        except OSError:
            self.shared.counters.release(slot)
            raise
        self.children.append(child)
        self._loop.on_readable(child.ready_fd, lambda: self._heard(child, on_ready))
        return child

    def reap(self) -> Iterable[tuple[Child, int]]:
        """The processes that have ended since the last call, each with its status, negative for a signal."""
        for child in list(self.children):
            status = child.reap()
            if status is not None:
                self.children.remove(child)
                self._close(child)
                self.shared.counters.release(child.slot)
                yield child, status

    def drain(self) -> None:
        """Let the workers finish their sessions; one that serves none yet has nothing to finish."""
        self.retired = True
        for child in self.workers:
            child.kill(serving.DRAIN if child.ready else signal.SIGKILL)

    def end_keeper(self) -> None:
        """Tell the keeper to end."""
        for child in self.children:
            if child.role == KEEPER:
                child.kill(signal.SIGTERM)

    def kill(self) -> None:
        """End whatever still runs."""
        for child in self.children:
            child.kill(signal.SIGKILL)

    def _worker(self, index: int, slot: int) -> Callable[[Ready], NoReturn]:
        cpu = self._cpus[index % len(self._cpus)] if self._cpus else None
        terms = serving.Terms(
            cpu=cpu, shared=self.config.worker_count > 1, drain_timeout=self.config.drain_timeout
        )

        def body(ready: Ready) -> NoReturn:
            parts = self._parts
            if engines.chosen(self.config.engine) == engines.NATIVE:
                native_worker.serve(self._listening, lambda loop: parts.native(slot, loop), ready, terms)
            worker.serve(self._listening, lambda: parts.worker(slot), ready, terms)

        return body

    def _keeper(self, ready: Ready) -> NoReturn:
        # A metrics reader must not hold the port of a daemon that is gone
        self._listening.close()
        self._parts.keeper(ready)

    def _heard(self, child: Child, on_ready: Callable[[Child], None]) -> None:
        said = os.read(child.ready_fd, 1)
        self._close(child)
        if said:  # nothing: it died first, and SIGCHLD tells
            child.ready = True
            on_ready(child)

    def _close(self, child: Child) -> None:
        if child.ready_fd >= 0:
            self._loop.forget(child.ready_fd)
            os.close(child.ready_fd)
            child.ready_fd = -1


def _cpus() -> list[int]:
    """The CPUs to spread workers over; none when there is nothing to choose from."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    allowed = sorted(os.sched_getaffinity(0))
    return allowed if len(allowed) > 1 else []
