"""What the master makes of the children's reports: one line when trouble starts and one when it is over.

``Collector`` does no I/O and has no clock of its own; it is fed with what arrives on the `reporter.Channel`
and returns the lines to log:

    zone failing        warning, once, with the details of the first failure
    zone still failing  warning, each ``SUMMARY`` seconds while failures go on
    zone recovered      info, once, with the failures counted and the seconds it lasted
    zone no longer reported as failing    info, when nobody has said anything for long

Several workers see one trouble at different times, so a recovery must hold for a while before it is told, and
longer each time the same kind comes back soon: flapping is one long trouble, not a flood.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from hybridgrey.trouble.reporter import KINDS_MAX, OTHER, REFRESH, Message, Reporter, decode

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

SUMMARY = 300.0
"""Seconds between the lines about a trouble that goes on."""
HOLD = 2.0
"""Seconds without a failure before a recovery is told."""
HOLD_MAX = 300.0
QUIET = 1800.0
"""Seconds without any report after which a trouble is closed as no longer reported."""
ORPHANED = 60.0
"""The same from when the last process ended that had reported it."""

_MEMORY = 600.0


class Event(NamedTuple):
    """A line to log."""

    level: str
    event: str
    fields: dict[str, Any]


def write(log: FilteringBoundLogger, events: list[Event]) -> None:
    """Log what a collector returned."""
    for level, event, fields in events:
        (log.warning if level == "warning" else log.info)(event, **fields)


@dataclass(slots=True)
class _Trouble:
    """One kind, from its first failure until its recovery was told and forgotten."""

    began: float
    last_failing: float
    next_summary: float
    hold: float
    detail: dict[str, Any]
    sources: dict[int, float] = field(default_factory=dict)  # who last saw it fail, and when
    working: set[int] = field(default_factory=set)  # who last saw it work
    last_ok: float = float("-inf")
    count: int = 0
    told: int = 0
    closed: float | None = None
    alone: float = float("-inf")  # since when no process is left that saw it fail


class Collector:
    """The master's view of all trouble: messages in, lines to log out. `now`: a monotonic clock's seconds."""

    def __init__(self, hold: float = HOLD) -> None:
        self._hold = hold
        self._troubles: dict[str, _Trouble] = {}
        self.ignored = 0
        """Datagrams that were no message."""

    def failing(self) -> list[str]:
        """Return the kinds in trouble now."""
        return [kind for kind, trouble in self._troubles.items() if trouble.closed is None]

    def feed(self, data: bytes, now: float) -> list[Event]:
        """Take one datagram; return the lines it gives rise to."""
        message = decode(data)
        if message is None:
            self.ignored += 1
            return []
        events = self._failing(message, now) if message.failing else self._recovered(message, now)
        return events + self._settle(message.kind, now)

    def tick(self, now: float) -> list[Event]:
        """Return the lines that are due; call it about once a second."""
        return [event for kind in list(self._troubles) for event in self._settle(kind, now)]

    def gone(self, source: int, now: float) -> list[Event]:
        """Take note that a process ended: it will not say any more that its trouble is over."""
        for trouble in self._troubles.values():
            if trouble.sources.pop(source, None) is not None and not trouble.sources:
                trouble.alone = now
        return self.tick(now)

    def _failing(self, message: Message, now: float) -> list[Event]:
        kind = message.kind
        if kind not in self._troubles and len(self._troubles) >= KINDS_MAX:
            kind = OTHER
        trouble = self._troubles.get(kind)
        if trouble is not None and trouble.closed is None:
            trouble.sources[message.source] = trouble.last_failing = now
            trouble.working.discard(message.source)
            trouble.count += message.failures
            return []
        # Back soon after it was told to be over: the next recovery has to hold twice as long.
        hold = self._hold if trouble is None else min(trouble.hold * 2, HOLD_MAX)
        trouble = _Trouble(now, now, now + SUMMARY, hold, message.detail)
        trouble.sources[message.source] = now
        trouble.count = trouble.told = message.failures
        self._troubles[kind] = trouble
        return [_event("warning", kind, "failing", message.detail)]

    def _recovered(self, message: Message, now: float) -> list[Event]:
        trouble = self._troubles.get(message.kind)
        if trouble is None or trouble.closed is not None:
            return []  # its start found no room in the channel, and it is over already
        trouble.count += message.failures
        trouble.sources.pop(message.source, None)
        trouble.working.add(message.source)
        trouble.last_ok = now
        return []

    def _settle(self, kind: str, now: float) -> list[Event]:
        """Return the line that is due for one kind, if any, and forget it when it is long over."""
        trouble = self._troubles.get(kind)
        if trouble is None:
            return []
        if trouble.closed is not None:
            if now - trouble.closed >= max(_MEMORY, 2 * trouble.hold):
                del self._troubles[kind]
            return []
        if self._is_over(trouble, now):
            return [self._close(kind, trouble, "recovered", now)]
        if _is_quiet(trouble, now) and not _seen_to_work(trouble):
            return [self._close(kind, trouble, "no longer reported as failing", now)]
        if now >= trouble.next_summary and trouble.count > trouble.told:
            trouble.next_summary = now + SUMMARY
            trouble.told = trouble.count
            return [_event("warning", kind, "still failing", trouble.detail | _sums(trouble, now))]
        return []

    def _is_over(self, trouble: _Trouble, now: float) -> bool:
        """Tell whether somebody saw it work, and nobody saw it fail for long enough since."""
        # A process without mail has not noticed the recovery yet; one with mail refreshes in time.
        fresh = any(now - seen < REFRESH * 1.5 for seen in trouble.sources.values())
        since = max(trouble.last_ok, trouble.last_failing)
        return _seen_to_work(trouble) and not fresh and now - since >= trouble.hold

    def _close(self, kind: str, trouble: _Trouble, how: str, now: float) -> Event:
        trouble.closed = now
        return _event("info", kind, how, _sums(trouble, now))


def _seen_to_work(trouble: _Trouble) -> bool:
    """Whether somebody saw it work since anybody saw it fail."""
    return bool(trouble.working) and trouble.last_ok >= trouble.last_failing


def _is_quiet(trouble: _Trouble, now: float) -> bool:
    """Whether nobody has said anything for long; who comes after a process that ended has its time, too."""
    if trouble.sources:
        return now - trouble.last_failing >= QUIET
    return now - max(trouble.last_failing, trouble.alone) >= ORPHANED


def _sums(trouble: _Trouble, now: float) -> dict[str, Any]:
    return {"failures": trouble.count, "seconds": round(now - trouble.began, 1)}


def _event(level: str, kind: str, how: str, fields: dict[str, Any]) -> Event:
    noun, _, name = kind.partition(":")
    return Event(level, f"{noun} {how}", ({"name": name} if name else {}) | fields)


class Direct:
    """A ``Report`` for a process of its own, such as a command: no channel, recoveries told at once."""

    def __init__(self, log: FilteringBoundLogger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._collector = Collector(hold=0.0)
        self._reporter = Reporter(self._take, clock)

    def failing(self, kind: str, **detail: object) -> None:
        """Count one failure; the first one is logged."""
        self._reporter.failing(kind, **detail)

    def recovered(self, kind: str) -> None:
        """Log that a kind which failed works again."""
        self._reporter.recovered(kind)

    def _take(self, data: bytes) -> None:
        write(self._log, self._collector.feed(data, self._clock()))
