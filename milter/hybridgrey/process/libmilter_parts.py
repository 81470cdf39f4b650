"""What a libmilter worker is made of, put together: the filter, its store and its sessions, by callbacks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from hybridgrey import logs
from hybridgrey.config.load import Config
from hybridgrey.filter.blocking import Blocking
from hybridgrey.filter.followup import Events
from hybridgrey.filter.learning import Learner
from hybridgrey.filter.screen import Screen
from hybridgrey.filter.session import Sessions
from hybridgrey.process.libmilter_pool import Pool
from hybridgrey.store.connection import Store
from hybridgrey.trouble.reporter import Report


class Worker:
    """A worker's part: `worker.Registration`."""

    def __init__(
        self,
        screen: Screen,
        store: Store,
        config: Config,
        reports: Report,
        events: Events,
        pool: Pool,
        ticks: Sequence[Callable[[], None]],
        learner: Learner | None,
    ) -> None:
        """`ticks`: what is to be called once a second."""
        # The command line works without libmilter, so only a worker imports it.
        from hybridgrey.process.libmilter_engine import Engine

        sys.excepthook = one_line
        self.pool = pool
        self._store = store
        self._ticks = ticks
        self._events = events
        self._learner = learner
        self._sessions = Sessions(
            screen,
            config,
            log=logs.get(),
            events=events,
            reports=reports,
            store_well=lambda: store.available,
            learner=learner,
        )
        Engine(self._sessions, Blocking(store, pool.wait)).register()
        events.start()

    @property
    def live(self) -> int:
        """Open sessions."""
        return self._sessions.live

    def tick(self) -> None:
        """Take over what the keeper has published; look whether a store that was given up is back."""
        for tick in self._ticks:
            tick()
        self._store.probe()

    def close(self) -> None:
        """Tell what has not been told, and let go of the store."""
        self._events.settle()
        if self._learner is not None:
            self._learner.close()
        self._store.close()


def one_line(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """For errors that nobody else catches, pymilter's own among them, such as a HELO that is not UTF-8."""
    log = logs.get()
    if isinstance(error, UnicodeDecodeError):
        log.debug("a client's text is not UTF-8", error=str(error))
    else:
        log.error("unexpected error", exc_info=(kind, error, trace))
