"""The wire of one client's questions: datagrams to nameservers, and what came in answer to them.

An exchange knows open questions by their id, and of each no more than its bytes, a subject and a purpose that
are the asker's own affair.  They are all of one `Form`: to lists, if nothing else is said.  It sends each
question to the nameserver whose turn it is, sends it again when the time has come, asks another nameserver
where one has an error only, and gives out replies in the order in which they came.  It never waits: `filenos`
are what to watch, `due` is the time of the next retransmission, `receive` is for when something came,
`repeat` for when it is due.  One over sockets that clients share can take its place (see `Resolver`): its
datagrams come from whoever reads them, by way of `answered`.

This one has a connected UDP socket for each nameserver that it asks, all of its own.  The kernel keeps the
answers until somebody looks; a port and ids that nobody can guess mean no reader thread, no lock and no
shared state to get wrong, and cost threads the least CPU of all ways that were measured.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

from hybridgrey.lists import question
from hybridgrey.lists.question import Form
from hybridgrey.lists.upstream import Nameservers, Server

# Seconds after which an unanswered question is asked again; the time doubles with each try.
RETRY_AFTER = 0.4
MAX_DATAGRAM: Final = 4096
# So many datagrams are read in one go at most: a flood of forged ones must not hold the thread.
MAX_BATCH: Final = 1000
# For `due`: nobody has to wait for it.
AT_ONCE: Final = 0.0

Subject = TypeVar("Subject")
# A reply to a question: its subject and purpose, what it says, and the nameserver that has given it.
Came: TypeAlias = "tuple[Subject, int, question.Reply, int]"


class MakeExchange(Protocol):
    """Makes the wire of one client's questions, of one form; `now` in monotonic seconds."""

    def __call__(self, servers: Nameservers, now: float, form: Form = question.LISTS, /) -> Exchange[Any]:
        """An exchange with nothing asked yet."""


def connected(server: Server) -> socket.socket:
    """A UDP socket that takes datagrams from this nameserver only.  Raises OSError."""
    family, where = server
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        sock.connect(where)
    except OSError:
        # Not kept: an unconnected one would take datagrams from everybody.
        sock.close()
        raise
    return sock


class Exchange(Generic[Subject]):
    """Questions under way; used by one thread at a time.

    `open` has them by id, empty when nothing more is expected; `asked_at` and `due` are in monotonic seconds:
    when they were sent last, and when they are to be sent again; `tries` is how often they were.  Once it has
    `ended`, nothing more is sent.
    """

    __slots__ = (
        "_first",
        "_form",
        "_refusals",
        "_retry_step",
        "_servers",
        "_sockets",
        "_turns",
        "asked_at",
        "due",
        "ended",
        "open",
        "tries",
    )

    def __init__(self, servers: Nameservers, now: float, form: Form = question.LISTS) -> None:
        self.open: dict[bytes, tuple[Subject, bytes, int]] = {}
        self.asked_at = now
        self.due = now + RETRY_AFTER
        self.tries = 0
        self.ended = False
        self._servers = servers
        self._form = form
        self._sockets: dict[int, socket.socket] = {}
        # How many nameservers have answered a question with an error, by its id.
        self._refusals: dict[bytes, int] | None = None
        # Nameservers in the order in which they are asked; the first of them.
        self._turns = servers.turns(now) if servers.troubled else servers.usual
        self._first = self._turns[0]
        self._retry_step = RETRY_AFTER

    def when_whole(self, _read: Callable[[], None]) -> None:
        """Have all answers read as soon as they are there, once; here nobody looks before somebody waits."""

    @property
    def deaf(self) -> bool:
        """Whether there is nothing to wait for, whatever is open: no descriptor is left, or no route."""
        return not self._sockets

    def filenos(self) -> list[int]:
        """The descriptors on which answers come."""
        return [sock.fileno() for sock in self._sockets.values()]

    def expects(self, purpose: int) -> bool:
        """Whether a question with this purpose is open."""
        return any(each == purpose for _, _, each in self.open.values())

    def ask(self, name: bytes, wanted: Sequence[tuple[Subject, bytes]], purpose: int) -> None:
        """Send a question about each subject: `name`, labels in wire format, and the end of the question."""
        open_, server, transmit = self.open, self._server(), self._transmit
        ids = os.urandom(2 * len(wanted))
        at = 0
        for subject, tail in wanted:
            ident = ids[at : at + 2]
            at += 2
            while ident in open_:
                ident = os.urandom(2)
            ask = name + tail
            open_[ident] = subject, ask, purpose
            transmit(server, ident, ask)

    def receive(self) -> Iterator[Came[Subject]]:
        """What has come meanwhile; questions may be asked in between."""
        open_, answered = self.open, self.answered
        for server, sock in list(self._sockets.items()):
            recv = sock.recv
            try:
                for _ in range(MAX_BATCH):
                    if not open_:
                        return
                    came = answered(server, recv(MAX_DATAGRAM))
                    if came is not None:
                        yield came
            except BlockingIOError:
                continue
            except OSError as e:
                # ICMP: port, host or network unreachable.
                self._unreachable(server, e)

    def answered(self, server: int, datagram: bytes) -> Came[Subject] | None:
        """What a datagram of a nameserver's answers; None if it answers nothing, or is not the answer yet."""
        ident, open_ = datagram[:2], self.open
        asked = open_.get(ident)
        if asked is None or not question.answers(datagram, asked[1]):
            return None  # late, forged or a duplicate
        return self._read(server, ident, asked, datagram)

    def _read(
        self, server: int, ident: bytes, asked: tuple[Subject, bytes, int], datagram: bytes
    ) -> Came[Subject] | None:
        """What the answer to an open question says; None if another nameserver is asked."""
        reply = self._form.read(datagram, asked[1])
        if not reply.error:
            if self._servers.troubled or server != self._first:
                self._servers.heard(server, asked=self._first)
        elif self._asks_another(server, ident, asked[1]):
            return None
        del self.open[ident]
        return asked[0], asked[2], reply, server

    def _asks_another(self, server: int, ident: bytes, ask: bytes) -> bool:
        """Whether an error is not yet the answer, because another nameserver may know better."""
        servers = len(self._servers)
        if self._refusals is None:
            self._refusals = {}
        refusals = self._refusals[ident] = self._refusals.get(ident, 0) + 1
        if self.ended or refusals >= servers:
            return False
        self._transmit((server + 1) % servers, ident, ask)
        return True

    def repeat(self, now: float) -> None:
        """Ask again what is open, the next nameserver if there is one."""
        if self.due != AT_ONCE:
            self._retry_step *= 2
        self.asked_at = now
        self.due = now + self._retry_step
        self.tries += 1
        server = self._server()
        for ident, (_, ask, _purpose) in list(self.open.items()):
            self._transmit(server, ident, ask)

    def restart(self, now: float) -> None:
        """Begin the schedule anew, for questions that come after all others have been answered."""
        self.asked_at = now
        self.due = now + RETRY_AFTER
        self._retry_step = RETRY_AFTER

    def release(self) -> None:
        """Give the sockets back; to be called as soon as nothing is open."""
        if self._sockets:
            for sock in self._sockets.values():
                sock.close()
            self._sockets.clear()

    def close(self) -> None:
        """Expect nothing more."""
        self.open.clear()
        self.release()

    def _server(self) -> int:
        """Whose turn it is."""
        return self._turns[self.tries % len(self._turns)]

    def _transmit(self, server: int, ident: bytes, ask: bytes) -> None:
        form = self._form
        try:
            sock = self._sockets.get(server) or self._connect(server)
            sock.send(ident + form.head + ask + form.foot)
        except OSError as e:
            # Refused, unreachable, out of descriptors or buffers: the question stays open and is asked again.
            self._unreachable(server, e)

    def _connect(self, server: int) -> socket.socket:
        sock = self._sockets[server] = connected(self._servers.addresses[server])
        return sock

    def _unreachable(self, server: int, error: OSError) -> None:
        """A nameserver is not there: ask the others without delay, each once, then keep to the schedule."""
        self._servers.failed(server, error.strerror or str(error))
        if self.tries < len(self._servers) - 1:
            self.due = AT_ONCE
