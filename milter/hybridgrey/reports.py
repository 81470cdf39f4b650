"""Trouble, told once: one line when something starts to fail and one when it works again.

A *kind* names what is in trouble: "store", "callback", "zone:LABEL", "nameserver:127.0.0.1:53". Zones by
their label, never by a name that holds a key, for kinds are logged. A worker calls ``failing(kind, …)`` for
each failure and ``recovered(kind)`` for each success, as often as it likes: only changes of state cross the
``Channel``, and every ``REFRESH`` seconds the number of failures.

The master feeds what arrives to a ``Collector``, which does no I/O and has no clock of its own:

    zone failing        warning, once, with the details of the first failure
    zone still failing  warning, each ``SUMMARY`` seconds while failures go on
    zone recovered      info, once, with the failures counted and the seconds it lasted

Several workers see one trouble at different times, so a recovery must hold for a while before it is told, and
longer each time the same kind comes back soon: flapping is one long trouble, not a flood.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from structlog.typing import FilteringBoundLogger

from hybridgrey.cleaning import shown

REFRESH = 10.0
"""Seconds between a reporter's messages about a trouble that goes on."""
SUMMARY = 300.0
"""Seconds between the lines about a trouble that goes on."""
HOLD = 2.0
"""Seconds without a failure before a recovery is told."""
HOLD_MAX = 300.0
QUIET = 1800.0
"""Seconds without any report after which a trouble is closed as no longer reported."""
ORPHANED = 60.0
"""The same once every process that reported it has ended."""
KINDS_MAX = 256
MESSAGE_MAX = 2048

_OTHER = "other"
_MEMORY = 600.0
_DETAILS_MAX = 12
_VALUE_MAX = 200


class Report(Protocol):
    """What the rest of the program sees of this module: a place to tell trouble to."""

    def failing(self, kind: str, **detail: object) -> None:
        """Say that something failed, once more or for the first time."""

    def recovered(self, kind: str) -> None:
        """Say that it worked."""


class Event(NamedTuple):
    """A line to log."""

    level: str
    event: str
    fields: dict[str, Any]


class Message(NamedTuple):
    """What one process (`source`: its id) says about one kind; `failures` since its last message."""

    source: int
    kind: str
    failing: bool
    failures: int
    detail: dict[str, Any]


def write(log: FilteringBoundLogger, events: list[Event]) -> None:
    """Log what a collector returned."""
    for level, event, fields in events:
        (log.warning if level == "warning" else log.info)(event, **fields)


class Channel:
    """A datagram socket pair from all children to the master; made by the master before it forks.

    One for the whole life of the master: a child uses ``reporter``, the master watches ``fileno`` and calls
    ``receive``.
    """

    def __init__(self) -> None:
        self._master, self._child = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._master.setblocking(False)
        self._child.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor to watch for reading, in the master."""
        return self._master.fileno()

    def reporter(self) -> Reporter:
        """Return this process's end; call it after the fork."""
        return Reporter(self._child.send)

    def receive(self) -> list[bytes]:
        """Return what has arrived, without waiting; at most 100 messages, so that the master stays awake."""
        arrived: list[bytes] = []
        try:
            while len(arrived) < 100:
                arrived.append(self._master.recv(MESSAGE_MAX))
        except BlockingIOError:
            return arrived
        return arrived

    def close(self) -> None:
        """Close both ends of this process."""
        self._master.close()
        self._child.close()


@dataclass(slots=True)
class _State:
    detail: dict[str, object]
    sent_at: float = float("-inf")
    unsent: int = 0


class Reporter:
    """A process's voice: thread safe, never waits, never raises.

    ``send`` takes a datagram and raises OSError when there is no room. What could not be sent is kept and
    goes with the next call about that kind, so the master's last word is right in the end.
    """

    def __init__(self, send: Callable[[bytes], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._clock = clock
        self._states: dict[str, _State] = {}
        self._lock = threading.Lock()
        self.dropped = 0
        """Messages that found no room; their counts went along later."""

    def failing(self, kind: str, **detail: object) -> None:
        """Count one failure of `kind`; `detail`: what to log with the first one, no secrets."""
        with self._lock:
            state = self._states.get(kind)
            if state is None:
                if len(self._states) >= KINDS_MAX:
                    kind = _OTHER
                state = self._states.setdefault(kind, _State(detail))
            state.unsent += 1
            if (now := self._clock()) - state.sent_at >= REFRESH and self._tell(kind, state, failing=True):
                state.sent_at = now

    def recovered(self, kind: str) -> None:
        """Say that `kind` works; costs a dictionary look-up when it did before."""
        if kind not in self._states:
            return
        with self._lock:
            state = self._states.get(kind)
            if state is None:
                return
            # Kept if there is no room: the next success tries again.
            if self._tell(kind, state, failing=False):
                del self._states[kind]

    def _tell(self, kind: str, state: _State, *, failing: bool) -> bool:
        try:
            self._send(encode(Message(os.getpid(), kind, failing, state.unsent, state.detail)))
        except OSError:  # full or closed: the master is busy or gone, and mail does not wait for it
            self.dropped += 1
            return False
        state.unsent = 0
        return True


def encode(message: Message) -> bytes:
    """Return a message as a datagram of at most ``MESSAGE_MAX`` bytes, without details that don't fit."""
    # Cut but not cleaned: the logger cleans, and doing it twice would escape the escapes.
    detail = {key: _bounded(value) for key, value in list(message.detail.items())[:_DETAILS_MAX]}
    head = [message.source, message.kind[:_VALUE_MAX], message.failing, message.failures]
    data = json.dumps([*head, detail]).encode()
    return data if len(data) <= MESSAGE_MAX else json.dumps([*head, {}]).encode()


def _bounded(value: object) -> str | int | float | None:
    if value is None or isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < 1 << 63):
        return value
    return shown(value)[:_VALUE_MAX]


def decode(data: bytes) -> Message | None:
    """Return the message in a datagram, or None for anything that is none."""
    try:
        parts = json.loads(data)
    except (ValueError, RecursionError):
        return None
    match parts:
        case [int(source), str(kind), bool(failing), int(failures), dict(detail)] if failures >= 0 and kind:
            return Message(source, kind[:_VALUE_MAX], failing, min(failures, 1 << 53), _sound(detail))
    return None


def _sound(detail: dict[str, Any]) -> dict[str, Any]:
    # Keys become keyword arguments of the logger: its own names would collide.
    return {
        key: value
        for key, value in list(detail.items())[:_DETAILS_MAX]
        if key.isidentifier()
        and key not in {"event", "self", "name"}
        and isinstance(value, (str, int, float))
    }


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
            trouble.sources.pop(source, None)
        return self.tick(now)

    def _failing(self, message: Message, now: float) -> list[Event]:
        kind = message.kind
        if kind not in self._troubles and len(self._troubles) >= KINDS_MAX:
            kind = _OTHER
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
        if now - trouble.last_failing >= (QUIET if trouble.sources else ORPHANED) and not trouble.working:
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
        return bool(trouble.working) and not fresh and now - since >= trouble.hold

    def _close(self, kind: str, trouble: _Trouble, how: str, now: float) -> Event:
        trouble.closed = now
        return _event("info", kind, how, _sums(trouble, now))


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
