"""An event loop, that of native workers: descriptors, timers, and what other threads hand over; one thread.

A *turn* is one look at the kernel and all that follows from it.  Whoever watches a descriptor is called with
its events and must neither block nor trust that there is anything to read: another worker may have taken it.
What a watcher lets go of is closed at the end of the turn, so that no descriptor's number can come to mean
another one while events of the old one are still to be told.

A timer cannot be taken back.  Who sets one hands over a number, and does nothing when it is not the number he
waits for any more: that costs less than to look for an entry among thousands.
"""

from __future__ import annotations

import heapq
import os
import select
import selectors
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any, Final, Protocol

READ: Final = 1
"""EPOLLIN and POLLIN."""
WRITE: Final = 4
"""EPOLLOUT and POLLOUT."""


class Watcher(Protocol):
    """What watches a descriptor."""

    def ready(self, events: int, /) -> None:
        """Something is to be read or can be written, or the other side has gone."""

    def failed(self, error: Exception, /) -> None:
        """`ready` has raised: a bug.  Let go of the descriptor, else it is told again at once."""


class Poller(Protocol):
    """As `select.epoll`."""

    def register(self, fd: int, events: int, /) -> None:
        """Watch a descriptor."""

    def modify(self, fd: int, events: int, /) -> None:
        """Watch it for something else."""

    def unregister(self, fd: int, /) -> None:
        """Watch it no longer."""

    def poll(self, timeout: float | None, /) -> list[tuple[int, int]]:
        """Wait for so many seconds at most; descriptors and their events."""


class Selected:
    """A `Poller` by the best that the system has, kqueue for one."""

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        self._selector = selector or selectors.DefaultSelector()

    def register(self, fd: int, events: int, /) -> None:
        """As in Poller; a selector does not know how to watch for nothing."""
        if events:
            self._selector.register(fd, _of_selector(events))

    def modify(self, fd: int, events: int, /) -> None:
        """As in Poller."""
        known = fd in self._selector.get_map()
        if known and events:
            self._selector.modify(fd, _of_selector(events))
        elif known:
            self._selector.unregister(fd)
        else:
            self.register(fd, events)

    def unregister(self, fd: int, /) -> None:
        """As in Poller."""
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def poll(self, timeout: float | None, /) -> list[tuple[int, int]]:
        """As in Poller."""
        told = self._selector.select(timeout)
        return [(key.fd, READ * (events & 1) | WRITE * (events >> 1)) for key, events in told]


def _of_selector(events: int) -> int:
    reading = selectors.EVENT_READ if events & READ else 0
    return reading | (selectors.EVENT_WRITE if events & WRITE else 0)


def _poller() -> Poller:
    return select.epoll() if hasattr(select, "epoll") else Selected()


class Loop:
    """See the module.  Only `post` may be called by other threads."""

    def __init__(
        self, poller: Poller | None = None, broken: Callable[[Exception], None] | None = None
    ) -> None:
        """`broken` is told what a timer or anything else that has no watcher raises; without it all ends."""
        self._poller = poller or _poller()
        # epoll forgets what is closed everywhere (epoll(7)), and is asked for nothing before that.
        self._forgets = hasattr(select, "epoll") and isinstance(self._poller, select.epoll)
        self._broken = broken or self.failed
        self._watchers: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._order = count()
        self._soon: deque[Callable[[], None]] = deque()
        self._posted: deque[Callable[[], None]] = deque()
        self._turns: list[Callable[[], None]] = []
        self._closing: list[Callable[[], object]] = []
        self._wake_read, self.wake_fd = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self.wake_fd, False)
        self._poller.register(self._wake_read, READ)
        self._watchers[self._wake_read] = self._woken

    def watch(self, fd: int, watcher: Watcher, events: int = READ) -> None:
        """Call `watcher.ready` whenever there is something, until `release`."""
        self._poller.register(fd, events)
        self._watchers[fd] = watcher.ready

    def change(self, fd: int, events: int) -> None:
        """Watch a descriptor for other events; for none, one is told of its end only, if at all."""
        self._poller.modify(fd, events)

    def release(self, fd: int, close: Callable[[], object], *, alone: bool = False) -> None:
        """Watch a descriptor no longer; `close` it at the end of the turn.

        `alone`: no other process has what it stands for, so that nothing is left of it when it is closed.
        """
        if not (alone and self._forgets):
            self._poller.unregister(fd)
        del self._watchers[fd]
        self._closing.append(close)

    def at(self, when: float, call: Callable[[Any], None], number: object = 0) -> None:
        """Call `call(number)` at a moment in monotonic seconds."""
        heapq.heappush(self._timers, (when, next(self._order), call, number))

    def soon(self, call: Callable[[], None]) -> None:
        """Call when what is under way is done, still in this turn."""
        self._soon.append(call)

    def each_turn(self, call: Callable[[], None]) -> None:
        """Call at the end of each turn."""
        self._turns.append(call)

    def post(self, call: Callable[[], None]) -> None:
        """Have the loop's thread call; for other threads."""
        self._posted.append(call)
        # A full pipe wakes, too.
        try:
            os.write(self.wake_fd, b"\0")
        except BlockingIOError:
            return

    def turn(self, most: float) -> None:
        """One turn, that waits for `most` seconds at most."""
        watchers = self._watchers
        for fd, events in self._poller.poll(self._pause(most)):
            ready = watchers.get(fd)
            if ready is not None:
                try:
                    ready(events)
                except Exception as error:
                    ready.__self__.failed(error)  # type: ignore[attr-defined]  # a bound method's
        if self._timers:
            self._fire()
        self._do_soon()
        for call in self._turns:
            call()
        if self._closing:
            closing, self._closing = self._closing, []
            for close in closing:
                close()

    def _pause(self, most: float) -> float:
        if self._soon:
            return 0.0
        if self._timers:
            return max(0.0, min(most, self._timers[0][0] - time.monotonic()))
        return most

    def _fire(self) -> None:
        timers, now = self._timers, time.monotonic()
        while timers and timers[0][0] <= now:
            _, _, call, number = heapq.heappop(timers)
            try:
                call(number)
            except Exception as error:
                self._broken(error)

    def _do_soon(self) -> None:
        soon = self._soon
        while soon:
            call = soon.popleft()
            try:
                call()
            except Exception as error:
                self._broken(error)

    def _woken(self, _events: int) -> None:
        # Signals write here, too; what they are for is done by their handlers.
        os.read(self._wake_read, 4096)
        posted = self._posted
        while posted:
            self._soon.append(posted.popleft())

    def failed(self, error: Exception) -> None:
        """As in Watcher, for what wakes the loop: without that it is worth nothing."""
        raise error
