"""A native worker's parts, served on one loop."""

from __future__ import annotations

from hybridgrey import logs
from hybridgrey.eventloop import Loop
from hybridgrey.filter.followup import InTurns
from hybridgrey.process.native_helpers import Helpers
from hybridgrey.process.native_task import Calls, Threaded
from hybridgrey.process.worker_parts import WorkerParts
from hybridgrey.store.pipeline import Pipeline
from hybridgrey.trouble.reporter import Report

STORE_THREADS = 32


class NativeWorker:
    """A worker's part without libmilter: `native_worker.Registration`."""

    def __init__(self, parts: WorkerParts[InTurns], loop: Loop) -> None:
        self._parts = parts
        self._store = store = parts.store
        self._probing = False
        self._helpers = Helpers(loop, STORE_THREADS, "store")
        where = store.where
        self.calls: Calls = (
            Pipeline(store, where, loop, self._helpers.run)
            if where is not None
            else Threaded(store, self._helpers)
        )
        self.sessions = parts.sessions
        self.turned = parts.events.turned
        self.close = parts.close

    def broken(self, error: BaseException) -> None:
        """Tell of a bug beside any session."""
        broken(self._parts.reports, error)

    def full(self, error: OSError | None) -> None:
        """Tell of connections that cannot be taken."""
        reports = self._parts.reports
        if error is not None:
            reports.failing("connections", error=error.strerror)
        else:
            reports.recovered("connections")

    def tick(self) -> None:
        """Do what is to be done once a second; look whether a store that was given up is back."""
        self._parts.tick()
        if not self._store.available and not self._probing:
            # By a helper, for it may not answer.
            self._probing = True
            self._helpers.run(self._store.probe, self._probed)

    def _probed(self, found: bool | BaseException) -> None:
        self._probing = False
        if isinstance(found, BaseException):
            self.broken(found)


def broken(reports: Report, error: BaseException) -> None:
    """A bug beside any session."""
    reports.failing("callback", step="loop", error=repr(error))
    logs.get().error("callback failed", step="loop", exc_info=error)
