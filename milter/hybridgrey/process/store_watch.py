"""The embedded store's server under watch: started again when it dies."""

from __future__ import annotations

import time

from hybridgrey import logs
from hybridgrey.process.restarts import Pace
from hybridgrey.store.binary import EmbeddedError
from hybridgrey.store.embedded import EmbeddedServer


class StoreWatch:
    """One server, at most one restart pending; `server` is started already."""

    def __init__(self, server: EmbeddedServer, pace: Pace) -> None:
        self._server = server
        self._pace = pace
        self._backoff = pace.backoff()
        self._started = time.monotonic()
        self._start_at: float | None = None

    def tick(self) -> None:
        """Look after it: note its death, start it again when it is time to."""
        now = time.monotonic()
        if self._start_at is not None:
            if now >= self._start_at:
                self._start(now)
        elif (status := self._server.poll()) is not None:
            self._died(now, f"it ended with status {status}")

    def stop(self) -> None:
        """End it, its data written."""
        self._server.stop()

    def _died(self, now: float, why: str) -> None:
        wait = self._backoff.died(now - self._started)
        self._start_at = now + wait
        if not self._backoff.looping or self._backoff.new_loop:
            # Mail goes on as [store] on_failure says
            logs.get().error("embedded store is down", reason=why, restart_in=wait)

    def _start(self, now: float) -> None:
        self._started, self._start_at = now, None
        try:
            self._server.start()
        except EmbeddedError as exc:
            self._died(now, str(exc))
        else:
            logs.get().info("embedded store is up again")
