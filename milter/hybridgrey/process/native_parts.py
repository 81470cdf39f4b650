"""What a native worker is made of, put together: the filter, its store and its sessions, on one loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hybridgrey import logs
from hybridgrey.config.load import Config
from hybridgrey.eventloop import Loop
from hybridgrey.filter.followup import InTurns
from hybridgrey.filter.learning import Learner
from hybridgrey.filter.screen import Screen
from hybridgrey.filter.session import Sessions
from hybridgrey.process.native_helpers import Helpers
from hybridgrey.process.native_task import Calls, Threaded
from hybridgrey.store.connection import Store
from hybridgrey.store.pipeline import Pipeline
from hybridgrey.trouble.reporter import Report

STORE_THREADS = 32


class NativeWorker:
    """A worker's part without libmilter: `native_worker.Registration`."""

    def __init__(
        self,
        screen: Screen,
        store: Store,
        config: Config,
        reports: Report,
        events: InTurns,
        loop: Loop,
        ticks: Sequence[Callable[[], None]],
        learner: Learner | None,
    ) -> None:
        self._store = store
        self._ticks = tuple(ticks)
        self._reports = reports
        self._events = events
        self._learner = learner
        self._probing = False
        self._helpers = Helpers(loop, STORE_THREADS, "store")
        where = store.where
        self.calls: Calls = (
            Pipeline(store, where, loop, self._helpers.run)
            if where is not None
            else Threaded(store, self._helpers)
        )
        self.sessions = Sessions(
            screen,
            config,
            log=logs.get(),
            events=events,
            reports=reports,
            store_well=lambda: store.available,
            learner=learner,
        )

    def turned(self) -> None:
        """Tell all that has happened in a turn."""
        self._events.turned()

    def full(self, error: OSError | None) -> None:
        """Tell of connections that cannot be taken."""
        if error is not None:
            self._reports.failing("connections", error=error.strerror)
        else:
            self._reports.recovered("connections")

    def tick(self) -> None:
        """Do what is to be done once a second; look whether a store that was given up is back."""
        for tick in self._ticks:
            tick()
        if not self._store.available and not self._probing:
            # By a helper, for it may not answer.
            self._probing = True
            self._helpers.run(self._store.probe, self._probed)

    def _probed(self, found: bool | BaseException) -> None:
        self._probing = False
        if isinstance(found, BaseException):
            broken(self._reports, found)

    def close(self) -> None:
        """Tell what has not been told, and let go of the store."""
        self._events.settle()
        if self._learner is not None:
            self._learner.close()
        self._store.close()


def broken(reports: Report, error: BaseException) -> None:
    """A bug beside any session."""
    reports.failing("callback", step="loop", error=repr(error))
    logs.get().error("callback failed", step="loop", exc_info=error)
