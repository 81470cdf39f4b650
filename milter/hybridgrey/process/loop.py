"""The master's event loop: descriptors, timers and signals in one thread.

The master forks all its life, and a process with threads must not, so there is no asyncio executor and no
thread here.  Signals come through `signal.set_wakeup_fd`: no signal is lost between a look and a sleep.
"""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import signal
import time
from collections.abc import Callable
from types import FrameType

Handler = Callable[[], None]


def _noted(_number: int, _frame: FrameType | None) -> None:
    """The number is in the wakeup pipe by now; the loop does the work."""


class Loop:
    """Calls back until `stop`.  What a handler raises ends the loop: it is a bug."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Handler]] = []
        self._order = itertools.count()
        self._signals: dict[int, Handler] = {}
        self._running = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._take_signals)

    @property
    def signals(self) -> frozenset[int]:
        """The signals that have a handler."""
        return frozenset(self._signals)

    def on_signal(self, number: int, handler: Handler) -> None:
        """Call `handler` after the signal; several at once may become one call."""
        self._signals[number] = handler
        signal.signal(number, _noted)

    def on_readable(self, fd: int, handler: Handler) -> None:
        """Call `handler` whenever `fd` can be read, until `forget(fd)`."""
        self._selector.register(fd, selectors.EVENT_READ, handler)

    def forget(self, fd: int) -> None:
        """Watch `fd` no longer."""
        self._selector.unregister(fd)

    def later(self, seconds: float, handler: Handler) -> None:
        """Call `handler` once, `seconds` from now."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), handler))

    def every(self, seconds: float, handler: Handler) -> None:
        """Call `handler` every `seconds`, as long as the loop runs."""

        def again() -> None:
            handler()
            self.later(seconds, again)

        self.later(seconds, again)

    def run(self) -> None:
        """Serve until `stop` is called."""
        self._running = True
        while self._running:
            for key, _events in self._selector.select(self._until_next()):
                # A handler before this one may have closed it, and even opened another one in its place
                if self._selector.get_map().get(key.fd) is key:
                    key.data()
            self._fire()

    def stop(self) -> None:
        """Return from `run` after the handlers of this round."""
        self._running = False

    def leave_in_child(self) -> None:
        """In a forked child: drop what belongs to the parent's loop.

        Nothing is unregistered: an epoll descriptor is shared with the parent, and so is its table.
        """
        signal.set_wakeup_fd(-1)
        for number in self._signals:
            signal.signal(number, signal.SIG_DFL)
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _take_signals(self) -> None:
        for number in sorted(set(os.read(self._wake_read, 4096))):
            self._signals.get(number, _ignore)()

    def _until_next(self) -> float | None:
        if not self._timers:
            return None
        return max(0.0, self._timers[0][0] - time.monotonic())

    def _fire(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()


def _ignore() -> None:
    """A signal without a handler of ours, e.g. one that a library has set."""
