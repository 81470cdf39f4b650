"""What a worker of either engine is made of, put together: the filter, its store and its sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from hybridgrey import logs
from hybridgrey.config.load import Config
from hybridgrey.filter.followup import Events
from hybridgrey.filter.learning import Learner
from hybridgrey.filter.screen import Screen
from hybridgrey.filter.session import Sessions
from hybridgrey.store.connection import Store
from hybridgrey.trouble.reporter import Report

E = TypeVar("E", bound=Events)


class WorkerParts(Generic[E]):
    """The parts of one worker."""

    def __init__(
        self,
        screen: Screen,
        store: Store,
        config: Config,
        reports: Report,
        events: E,
        ticks: Sequence[Callable[[], None]],
        learner: Learner | None,
    ) -> None:
        """`ticks`: what is to be called once a second."""
        self.store = store
        self.reports = reports
        self.events = events
        self._ticks = ticks
        self._learner = learner
        self.sessions = Sessions(
            screen,
            config,
            log=logs.get(),
            events=events,
            reports=reports,
            store_well=lambda: store.available,
            learner=learner,
        )

    def tick(self) -> None:
        """Take over what the keeper has published."""
        for tick in self._ticks:
            tick()

    def close(self) -> None:
        """Tell what has not been told, and let go of the store."""
        self.events.settle()
        if self._learner is not None:
            self._learner.close()
        self.store.close()
