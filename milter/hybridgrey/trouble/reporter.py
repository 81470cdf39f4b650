"""Trouble, told once: one line when something starts to fail and one when it works again.

A *kind* names what is in trouble: "store", "callback", "zone:LABEL", "nameserver:127.0.0.1:53". Zones by
their label, never by a name that holds a key, for kinds are logged. A worker calls ``failing(kind, …)`` for
each failure and ``recovered(kind)`` for each success, as often as it likes: only changes of state cross the
``Channel``, and every ``REFRESH`` seconds the number of failures.

This module is the children's side; the master's is ``collector``, which turns messages into log lines.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from hybridgrey.cleaning import shown

REFRESH = 10.0
"""Seconds between a reporter's messages about a trouble that goes on."""
KINDS_MAX = 256
MESSAGE_MAX = 2048

OTHER = "other"
"""What a kind is called that found no room."""
_DETAILS_MAX = 12
_VALUE_MAX = 200


class Report(Protocol):
    """What the rest of the program sees of this module: a place to tell trouble to."""

    def failing(self, kind: str, **detail: object) -> None:
        """Say that something failed, once more or for the first time."""

    def recovered(self, kind: str) -> None:
        """Say that it worked."""


class Message(NamedTuple):
    """What one process (`source`: its id) says about one kind; `failures` since its last message."""

    source: int
    kind: str
    failing: bool
    failures: int
    detail: dict[str, Any]


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
                    kind = OTHER
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
