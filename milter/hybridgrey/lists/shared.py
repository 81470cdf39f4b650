"""The wire of one client's questions over sockets that all clients share (see `channels`).

It differs from `exchange` in the sockets only: when a question is asked, sent again or given up, and what a
reply means, is the same code.  Datagrams come from the loop that reads the sockets, which has looked at their
id and question; they wait here until somebody asks for them, and their questions stay open until then.  Who
does not wait is told when the last one has come: read, answers take less room.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Protocol

from hybridgrey.lists import question
from hybridgrey.lists.exchange import AT_ONCE, Came, Exchange, Subject
from hybridgrey.lists.question import Form
from hybridgrey.lists.upstream import Nameservers


class Waiter(Protocol):
    """Who waits for what comes on an exchange."""

    def wake(self) -> None:
        """Something has come."""


class Carrier(Protocol):
    """A socket that carries the questions of many.

    `taken`: whose each id is that was ever used on it, None for one that was answered or given up.
    """

    server: int
    usable: bool
    taken: dict[bytes, Any]

    def transmit(self, message: bytes, /) -> None:
        """Send a question.  Raises OSError."""


class Carriers(Protocol):
    """All of them."""

    def pick(self, servers: Nameservers, server: int, chance: int, questions: int, /) -> Carrier:
        """One that leads to a nameserver; `chance`: 0 to 255, not to be guessed.  Raises OSError."""


class SharedExchange(Exchange[Subject], Generic[Subject]):
    """See the module.  `waiter` is woken, once, when something has come."""

    __slots__ = ("_carriers", "_inbox", "_reader", "_used", "waiter")

    def __init__(
        self, carriers: Carriers, servers: Nameservers, now: float, form: Form = question.LISTS
    ) -> None:
        super().__init__(servers, now, form)
        self._carriers = carriers
        # Of this client's questions: most often one.
        self._used: list[Carrier] = []
        self._inbox: list[tuple[int, bytes]] = []
        self.waiter: Waiter | None = None
        self._reader: Callable[[], None] | None = None

    def when_whole(self, read: Callable[[], None]) -> None:
        """As in Exchange."""
        self._reader = read

    @property
    def wakes(self) -> bool:
        """Whether somebody is to be woken for what has come."""
        return self.waiter is not None or (self._reader is not None and self._whole)

    @property
    def _whole(self) -> bool:
        """Whether as much has come as is open."""
        return len(self._inbox) >= len(self.open)

    @property
    def deaf(self) -> bool:
        """As in Exchange."""
        return not self._used

    def filenos(self) -> list[int]:
        """None: they are not this client's to wait on."""
        return []

    def ask(self, name: bytes, wanted: Sequence[tuple[Subject, bytes]], purpose: int) -> None:
        """As in Exchange."""
        open_, server, count, form = self.open, self._server(), len(wanted), self._form
        bits = os.urandom(2 * count + 1)
        carrier = self._carrier(server, bits[-1], count)
        at = 0
        for subject, tail in wanted:
            ident = bits[at : at + 2]
            at += 2
            ask = name + tail
            while ident in open_ or (carrier is not None and ident in carrier.taken):
                ident = os.urandom(2)
            open_[ident] = subject, ask, purpose
            if carrier is not None:
                carrier.taken[ident] = self
                try:
                    carrier.transmit(ident + form.head + ask + form.foot)
                except OSError as e:
                    self._unreachable(server, e)

    def _carrier(self, server: int, chance: int, questions: int) -> Carrier | None:
        try:
            carrier = self._carriers.pick(self._servers, server, chance, questions)
        except OSError as e:
            # No descriptor, no route: the questions stay open and are asked again.
            self._unreachable(server, e)
            return None
        if carrier not in self._used:
            self._used.append(carrier)
        return carrier

    def _transmit(self, server: int, ident: bytes, ask: bytes) -> None:
        """Send a question again; where it was sent before, as long as that can be."""
        carrier: Carrier | None = next(
            (one for one in self._used if one.server == server and one.usable and self._may(one, ident)), None
        )
        while carrier is None:
            carrier = self._carrier(server, os.urandom(1)[0], 1)
            if carrier is None:
                return
            if not self._may(carrier, ident):
                carrier = None  # somebody else's id there: one in hundreds
        carrier.taken[ident] = self
        form = self._form
        try:
            carrier.transmit(ident + form.head + ask + form.foot)
        except OSError as e:
            self._unreachable(server, e)

    def _may(self, carrier: Carrier, ident: bytes) -> bool:
        return carrier.taken.get(ident, self) is self

    def deliver(self, server: int, datagram: bytes) -> bool:
        """Take a datagram with one of our ids; False if it does not answer our question."""
        asked = self.open.get(datagram[:2])
        if asked is None or not question.answers(datagram, asked[1]):
            return False
        self._inbox.append((server, datagram))
        return True

    def lost(self, server: int, error: OSError) -> None:
        """A socket has told that a nameserver is not there, or has gone itself: ask again."""
        if self.open:
            self._unreachable(server, error)
            self.wake()

    def displaced(self) -> None:
        """The socket was given up: what is open is asked again, at once, from another one."""
        if self.open:
            self.due = AT_ONCE
            self.wake()

    def wake(self) -> None:
        """Tell who waits."""
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            waiter.wake()
        elif (read := self._reader) is not None and self._whole:
            self._reader = None
            read()

    def receive(self) -> Iterator[Came[Subject]]:
        """As in Exchange."""
        inbox = self._inbox
        if not inbox:
            return
        self._inbox = []
        for server, datagram in inbox:
            ident = datagram[:2]
            asked = self.open.get(ident)
            # Not open: the same came twice.
            came = asked and self._read(server, ident, asked, datagram)
            if came:
                self._let_go(ident)
                yield came

    def _let_go(self, ident: bytes) -> None:
        for carrier in self._used:
            if carrier.taken.get(ident) is self:
                carrier.taken[ident] = None

    def release(self) -> None:
        """As in Exchange: the sockets are others' too, and stay."""
        self._used.clear()
        # A dictionary keeps the room for what was in it.
        self.open = {}

    def close(self) -> None:
        """As in Exchange."""
        for ident in self.open:
            self._let_go(ident)
        self._inbox.clear()
        self._reader = None
        super().close()
