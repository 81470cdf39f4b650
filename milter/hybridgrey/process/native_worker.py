"""One worker without libmilter: its loop takes connections from the shared socket until it is to drain.

Draining is as in `worker`: no more connections are taken, the open ones come to their own end, up to the
deadline.  What the process is given and what it is told is the same, too (`serving`).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Final, NoReturn, Protocol

from hybridgrey.eventloop import READ, Loop
from hybridgrey.filter.session import Sessions
from hybridgrey.process import serving
from hybridgrey.process.native_engine import Engine
from hybridgrey.process.native_helpers import Helpers
from hybridgrey.process.native_task import Calls, Waits

IDLE: Final = 7210.0
"""Seconds after which a connection without a word is closed: libmilter's (MI_TIMEOUT)."""
_SWEEP: Final = 60.0
# So many connections are taken in one turn: with fewer a rush costs turns, and others are to have some, too.
_MOST_AT_ONCE: Final = 16
# Seconds for which none is taken where none can be had.
_REST: Final = 1.0
# And for which it is the others' turn to take some.
_TURN: Final = 0.001
_TCP_THREADS: Final = 16
# A scan that finds no thread waits for one, in its own time.
_SCAN_THREADS: Final = 32


class Registration(Protocol):
    """What serves the sessions of a worker."""

    @property
    def sessions(self) -> Sessions:
        """Their steps."""
        ...

    @property
    def calls(self) -> Calls:
        """The store."""
        ...

    def turned(self) -> None:
        """Tell what has happened; at the end of each turn."""
        ...

    def broken(self, error: Exception) -> None:
        """Tell of a bug beside any session."""
        ...

    def tick(self) -> None:
        """Housekeeping, called about once a second; must not block."""
        ...

    def full(self, error: OSError | None) -> None:
        """No connection can be taken, or again."""
        ...

    def close(self) -> None:
        """Flush what has not been written; called once, when no session is served any more."""
        ...


def serve(
    listening: socket.socket,
    register: Callable[[Loop], Registration],
    ready: Callable[[], None],
    terms: serving.Terms,
) -> NoReturn:
    """Run a worker as in `serving`; `register` builds what serves on a loop."""
    serving.serve(lambda: _Worker(listening, terms, register), ready)


class _Worker(serving.Worker):
    """The process's only thread, but for those that wait in its place."""

    def __init__(
        self, listening: socket.socket, terms: serving.Terms, register: Callable[[Loop], Registration]
    ) -> None:
        self._register = register
        self._accepting = self._resting = self._refused = False
        self._swept = 0.0
        self._loop = Loop(broken=self._broken)
        super().__init__(listening, terms, self._loop.wake_fd)

    def start(self) -> None:
        """As in `serving.Worker`."""
        loop = self._loop
        self._registration = made = self._register(loop)
        tcp, scanning = Helpers(loop, _TCP_THREADS, "tcp"), Helpers(loop, _SCAN_THREADS, "scanner")
        over_tcp = self._listening.family != socket.AF_UNIX
        self._engine = Engine(loop, made.sessions, Waits(loop, made.calls, tcp, scanning), over_tcp=over_tcp)
        self._engine.now = time.monotonic()
        self._listening.setblocking(False)
        self._accept_again()
        loop.each_turn(self._turned)

    def run(self) -> None:
        """As in `serving.Worker`."""
        self._tick(0)
        while self._wanted:
            self._loop.turn(self._terms.tick)
        self._drain()

    def _drain(self) -> None:
        """Take no more connections, let the open ones come to their end, up to the deadline."""
        if self._accepting:
            self._loop.release(self._listening.fileno(), self._listening.close)
            self._accepting = False
        else:
            self._listening.close()
        self._resting = False
        deadline = time.monotonic() + self._terms.drain_timeout
        while self._engine.peers and not self._hurried:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._loop.turn(min(left, self._terms.tick))
        cut = len(self._engine.peers)
        for peer in list(self._engine.peers):
            peer.close()
        self._registration.close()
        self._tell_end(cut)

    # -- taking connections

    def ready(self, _events: int) -> None:
        """As in `eventloop.Watcher`, for the listening socket."""
        served = False
        try:
            for _ in range(_MOST_AT_ONCE):
                sock, _address = self._listening.accept()
                served = True
                self._engine.accept(sock)
        except (BlockingIOError, ConnectionAbortedError, InterruptedError):
            pass  # another worker has taken it, or the MTA has gone
        except OSError as error:
            # Out of descriptors or memory, or whatever accept(2) has of the network's.
            self._rest(error)
            return
        if served and self._terms.shared:
            # Another worker's turn: all wake, and the same one would be the first each time.
            self._pause(_TURN)
        if self._refused:
            self._refused = False
            self._registration.full(None)

    def _rest(self, error: OSError) -> None:
        """What waits at the socket would wake us again at once, for nothing."""
        self._refused = True
        self._registration.full(error)
        self._pause(_REST)

    def _pause(self, seconds: float) -> None:
        self._resting = True
        self._loop.change(self._listening.fileno(), 0)
        self._loop.at(time.monotonic() + seconds, self._rested)

    def _rested(self, _number: int) -> None:
        if self._resting:
            self._resting = False
            self._loop.change(self._listening.fileno(), READ)

    def _accept_again(self) -> None:
        self._loop.watch(self._listening.fileno(), self, READ)
        self._accepting = True

    def failed(self, error: Exception) -> None:
        """As in `eventloop.Watcher`: a worker that cannot take connections is worth nothing."""
        raise error

    # -- housekeeping

    def _turned(self) -> None:
        try:
            self._registration.turned()
        except Exception as error:
            # Words about mail are never worth the mail.
            self._broken(error)

    def _broken(self, error: Exception) -> None:
        self._registration.broken(error)

    def _tick(self, _number: int) -> None:
        now = self._engine.now = time.monotonic()
        self._loop.at(now + self._terms.tick, self._tick)
        self._keep_house(self._look_after)

    def _look_after(self) -> None:
        self._registration.tick()
        now = self._engine.now
        if now - self._swept > _SWEEP:
            self._swept = now
            self._engine.end_silent(IDLE)
