"""A judgement driven by the loop: resumed when what it awaits is there, or its time is over.

Each wait has a number.  An answer, a timer or a helper that comes for an earlier one finds another number
and does nothing: so no generator is resumed twice, however late or often something comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, Protocol

from hybridgrey.content import wire
from hybridgrey.content.question import ScanError
from hybridgrey.eventloop import Loop
from hybridgrey.filter.awaited import Answers, Awaited, Call, Scan, Steps, T
from hybridgrey.lists.awaited import OverTcp, wait_for
from hybridgrey.lists.question import Reply
from hybridgrey.lists.shared import SharedExchange
from hybridgrey.process.native_helpers import Helpers
from hybridgrey.store.connection import Store, StoreError

Answered = Callable[[list[int] | StoreError], None]


class Calls(Protocol):
    """The store, as far as a judgement needs it."""

    def call(self, call: Call, answered: Answered, /) -> None:
        """Run a script and hand over its answer later.  Raises StoreError when it is known to be down."""


class Threaded:
    """A store of several servers (`Calls`): its client waits, and so it is called by helpers."""

    def __init__(self, store: Store, helpers: Helpers) -> None:
        self._store = store
        self._helpers = helpers

    def call(self, call: Call, answered: Answered, /) -> None:
        """As in Calls."""
        self._helpers.run(partial(self._store.run, *call), partial(_hand_over, answered))


def _hand_over(answered: Answered, answer: list[int] | BaseException) -> None:
    """What a helper has brought; a bug is no reason to keep mail waiting."""
    if isinstance(answer, BaseException) and not isinstance(answer, StoreError):
        answer = StoreError(repr(answer))
    answered(answer)


def _asked_over_tcp(awaited: OverTcp, until: float) -> Reply | None:
    """The answer, None if there is none in what time is left."""
    left = until - time.monotonic()
    return wait_for(awaited._replace(seconds=left)) if left > 0 else None


class Waits:
    """What it takes to wait: a loop, a store, and threads for questions over TCP and for scans.

    A scanner that hangs must not keep the lists waiting, so `scanning` are threads of their own.
    """

    def __init__(self, loop: Loop, calls: Calls, helpers: Helpers, scanning: Helpers | None = None) -> None:
        self.at = loop.at
        self.call = calls.call
        self.help = helpers.run
        self.scan = (scanning or helpers).run


class Task(Generic[T]):
    """One generator on its way.

    `done` is called with what it returns, perhaps before `begin` returns; `failed` with what it raises,
    which is a bug.
    """

    __slots__ = ("_done", "_exchange", "_failed", "_number", "_steps", "_waits")

    def __init__(
        self,
        waits: Waits,
        steps: Steps[T],
        done: Callable[[T], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._waits = waits
        self._steps = steps
        self._done = done
        self._failed = failed
        self._number = 0
        self._exchange: SharedExchange[Any] | None = None

    def begin(self) -> None:
        """Go as far as it goes without a wait."""
        self._go_on(self._steps.send, None)

    def wake(self) -> None:
        """As in `shared.Waiter`: something has come on the exchange that is awaited."""
        self._exchange = None
        self._go_on(self._steps.send, None)

    def close(self) -> None:
        """Nobody wants to know any more."""
        self._number += 1
        self._listen_no_more()
        self._steps.close()

    def _go_on(self, step: Callable[[Any], Awaited], value: object) -> None:
        while True:
            try:
                awaited = step(value)
            except StopIteration as stop:
                self._number += 1
                self._done(stop.value)
                return
            except Exception as error:
                self._number += 1
                self._failed(error)
                return
            try:
                self._await(awaited)
            except (StoreError, ScanError) as error:
                step, value = self._steps.throw, error
            except Exception as error:
                # No thread can be had, for one.
                self.close()
                self._failed(error)
                return
            else:
                return

    def _await(self, awaited: Awaited) -> None:
        number = self._number = self._number + 1
        if isinstance(awaited, Answers):
            exchange = awaited.exchange
            if isinstance(exchange, SharedExchange):
                exchange.waiter = self
                self._exchange = exchange
            self._waits.at(awaited.until, self._timed_out, number)
        elif isinstance(awaited, Call):
            self._waits.call(awaited, partial(self._came, number))
        elif isinstance(awaited, Scan):
            self._scan(awaited, number)
        else:
            # Strangers can have many answers truncated, and helpers are few: to wait for one counts, too.
            until = time.monotonic() + awaited.seconds
            self._waits.help(partial(_asked_over_tcp, awaited, until), partial(self._came, number))
            self._waits.at(until, self._timed_out, number)

    def _scan(self, scan: Scan, number: int) -> None:
        """Raises ScanError: a mail whose score cannot be asked for is not let in for it."""
        try:
            self._waits.scan(partial(wire.ask, scan), partial(self._came, number))
        except RuntimeError:
            # Queued it may be all the same, for a thread that is there; its answer finds another number.
            raise ScanError(wire.NO_THREAD) from None

    def _timed_out(self, number: int) -> None:
        if number == self._number:
            self._listen_no_more()
            self._go_on(self._steps.send, None)

    def _came(self, number: int, value: object) -> None:
        """An answer of the store's or of a helper's; an error is thrown in."""
        if number == self._number:
            raised = isinstance(value, BaseException)
            self._go_on(self._steps.throw if raised else self._steps.send, value)

    def _listen_no_more(self) -> None:
        if self._exchange is not None:
            self._exchange.waiter = None
            self._exchange = None
