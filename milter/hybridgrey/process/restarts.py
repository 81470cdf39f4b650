"""The master's times, and the one way in which everything that died is started again."""

from __future__ import annotations

import time
from dataclasses import dataclass

from hybridgrey import logs
from hybridgrey.process.backoff import Backoff
from hybridgrey.process.children import Child, how


@dataclass(frozen=True, slots=True)
class Pace:
    """Times in seconds."""

    ready: float = 15.0
    """How long a generation, or a process started again, may take until it serves."""
    grace: float = 5.0
    """What a process gets beyond its own deadline before it is killed."""
    tick: float = 1.0
    first_wait: float = 1.0
    longest_wait: float = 30.0
    healthy: float = 60.0
    """After so long a life a process counts as sound again."""

    def backoff(self) -> Backoff:
        """The pace of restarts for one thing."""
        return Backoff(self.first_wait, self.longest_wait, self.healthy)


class Restarts:
    """When each process may start again, and what is said of it: a crash loop is two lines, not a flood."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._backoffs: dict[tuple[str, int], Backoff] = {}

    def died(self, child: Child, status: int) -> float:
        """Note an unwanted death; the seconds to wait before the next start."""
        backoff = self._backoffs.setdefault((child.role, child.index), self._pace.backoff())
        wait = backoff.died(time.monotonic() - child.started)
        log = logs.get()
        say = log.warning if not backoff.looping or backoff.new_loop else log.debug
        event = "process keeps dying, restarts are spaced out" if backoff.looping else "process died"
        say(event, process=str(child), pid=child.pid, by=how(status), restart_in=wait)
        return wait

    def looping(self, child: Child) -> bool:
        """Whether it has died more than once without a sound life between."""
        backoff = self._backoffs.get((child.role, child.index))
        return backoff is not None and backoff.looping

    def forget(self) -> None:
        """Start afresh, as with a new configuration."""
        self._backoffs.clear()
