"""A libmilter worker's parts, served by callbacks."""

from __future__ import annotations

import sys

from hybridgrey import logs
from hybridgrey.filter.blocking import Blocking
from hybridgrey.filter.followup import Events
from hybridgrey.process.libmilter_pool import Pool
from hybridgrey.process.worker_parts import WorkerParts


class Worker:
    """A worker's part: `worker.Registration`."""

    def __init__(self, parts: WorkerParts[Events], pool: Pool) -> None:
        # The command line works without libmilter, so only a worker imports it.
        from hybridgrey.process.libmilter_engine import Engine

        sys.excepthook = one_line
        self.pool = pool
        self._parts = parts
        self.close = parts.close
        Engine(parts.sessions, Blocking(parts.store, pool.wait)).register()
        parts.events.start()

    @property
    def live(self) -> int:
        """Open sessions."""
        return self._parts.sessions.live

    def tick(self) -> None:
        """Do what is to be done once a second; look whether a store that was given up is back."""
        self._parts.tick()
        self._parts.store.probe()


def one_line(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """For errors that nobody else catches, pymilter's own among them, such as a HELO that is not UTF-8."""
    log = logs.get()
    if isinstance(error, UnicodeDecodeError):
        log.debug("a client's text is not UTF-8", error=str(error))
    else:
        log.error("unexpected error", exc_info=(kind, error, trace))
