"""The store over one connection that never waits: calls go out one after the other, answers come in order.

Each call has the time that one has with a connection of its own (`link`), connecting included; who has waited
so long gets a StoreError, and the answer that comes too late is thrown away when it is its turn.  A call may
have less time than others; that it has been too little is not held against the store.  The
connection is made by somebody who may wait, a helper; what is asked meanwhile goes out when it stands.

A call whose command may have been carried out is not repeated: where the connection breaks, all that are on
it fail.  It is repeated where the server itself says that it has done nothing: once when it does not know
the script, and once, over a new connection, when it is no primary any more.  A server that closes an idle
connection is noticed at once and costs nobody anything.

To the breaker one connection that breaks, or cannot be made, is one failure, however many wait for it.
"""

from __future__ import annotations

import ssl
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import hiredis

from hybridgrey.breaker import Breaker
from hybridgrey.eventloop import READ, WRITE, Loop
from hybridgrey.store.connection import Call, Store, StoreError
from hybridgrey.store.link import (
    ELSEWHERE,
    INCOMPLETE,
    MAX_AGE,
    Guard,
    Link,
    LostError,
    Where,
    clean,
    pack,
    reason,
)

Answered = Callable[[list[int] | StoreError], None]
Help = Callable[[Callable[[], Link], Callable[[Link | BaseException], None]], None]
"""Has a thread do what waits; then calls, in the loop's thread, with what came of it."""

_CHUNK: Final = 65_536
_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_TOO_LATE: Final = "no answer in time"


class _Asked:
    """A call on its way; only the first answer counts."""

    __slots__ = ("_answered", "breaker", "call", "deadline", "repeated")

    def __init__(self, call: Call, breaker: Breaker, deadline: float, answered: Answered) -> None:
        self.call = call
        self.breaker = breaker
        self.deadline = deadline
        self._answered: Answered | None = answered
        self.repeated = False

    def answer(self, answer: list[int] | StoreError) -> None:
        """Hand over what came of it."""
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(answer)

    def expire(self, _number: int) -> None:
        """The time is over that it has, less than the store has."""
        self.answer(StoreError(_TOO_LATE))

    def command(self) -> bytes:
        """By the script's digest."""
        script, keys, args, _ = self.call
        return pack("EVALSHA", script.sha, len(keys), *keys, *args)

    def whole_command(self) -> bytes:
        """For a server that does not know the script."""
        script, keys, args, _ = self.call
        return pack("EVAL", script.text, len(keys), *keys, *args)


class Pipeline:
    """The one connection of a loop to the server at `where`; used by the loop's thread."""

    def __init__(self, store: Store, where: Where, loop: Loop, help_: Help) -> None:
        self._store = store
        self._where = where
        self._loop = loop
        self._help = help_
        self._link: Link | None = None
        self._connecting = False
        # It is of no use any more, once what is on it is answered.
        self._leaving = False
        self._unsent: deque[_Asked] = deque()
        self._sent: deque[_Asked] = deque()
        # So many of the first in `_sent` have had their time.
        self._late = 0
        self._output: list[bytes] = []
        self._blocked = False
        self._flushing = False
        self._timing = False
        self._used = 0.0
        self._begin(None)

    def _begin(self, link: Link | None) -> None:
        self._link = link
        self._reader = hiredis.Reader(notEnoughData=INCOMPLETE)
        self._guard = Guard()
        self._output.clear()
        self._blocked = self._leaving = False

    def call(self, call: Call, answered: Answered) -> None:
        """Run a script; `answered` is called later. Raises StoreError when the breaker is open."""
        breaker = self._store.admitted(call.keys)
        now = time.monotonic()
        asked = _Asked(call, breaker, now + self._store.timeout, answered)
        if self._link is not None and not self._sent and now - self._used > MAX_AGE:
            # A firewall on the way may have forgotten it.
            self._drop()
        if call.seconds is not None and call.seconds < self._store.timeout:
            self._loop.at(now + call.seconds, asked.expire)
        self._put(asked)
        if not self._timing:
            self._timing = True
            self._loop.at(asked.deadline, self._expire)

    def _put(self, asked: _Asked) -> None:
        if self._link is None or self._leaving:
            self._unsent.append(asked)
            self._connect()
        else:
            self._send(asked, asked.command())

    def _send(self, asked: _Asked, command: bytes) -> None:
        self._sent.append(asked)
        self._output.append(command)
        if not self._flushing:
            # All of a turn in one write.
            self._flushing = True
            self._loop.soon(self._flush)

    # -- connecting

    def _connect(self) -> None:
        if not self._connecting and self._link is None:
            self._connecting = True
            self._help(partial(_connected, self._where, self._store.timeout), self._came)

    def _came(self, found: Link | BaseException) -> None:
        self._connecting = False
        if not isinstance(found, Link):
            unsent = list(self._unsent)
            self._unsent.clear()
            self._fail(unsent, reason(found))
            return
        found.socket.setblocking(False)
        self._begin(found)
        self._used = time.monotonic()
        self._loop.watch(found.socket.fileno(), self)
        waiting, self._unsent = self._unsent, deque()
        for asked in waiting:
            self._send(asked, asked.command())
        if isinstance(found.socket, ssl.SSLSocket):
            # The handshake's last bytes may be with the library already: no event tells of them.
            self.ready(READ)

    # -- the wire

    def _flush(self) -> None:
        self._flushing = False
        link = self._link
        if link is None or self._blocked or not self._output:
            return
        data = b"".join(self._output)
        try:
            sent = link.socket.send(data)
        except _NOT_NOW:
            sent = 0
        except OSError as error:
            self._lost(reason(error))
            return
        self._output.clear()
        if sent < len(data):
            self._output.append(data[sent:])
            self._blocked = True
            self._loop.change(link.socket.fileno(), READ | WRITE)

    def ready(self, events: int) -> None:
        """As in `eventloop.Watcher`."""
        link = self._link
        if link is None:
            return
        if events & WRITE and self._blocked:
            self._blocked = False
            self._loop.change(link.socket.fileno(), READ)
            self._flush()
        try:
            while self._link is link and self._read(link):
                pass
        except _NOT_NOW:
            pass
        except (OSError, hiredis.HiredisError) as error:
            self._lost(reason(error))
            return
        if self._leaving and not self._sent:
            self._drop()
            if self._unsent:
                self._connect()

    def _read(self, link: Link) -> bool:
        """Take what is there; whether there may be more."""
        data = link.socket.recv(_CHUNK)
        if not data:
            raise ConnectionResetError("closed by the server")
        self._guard.look(data)
        reader = self._reader
        reader.feed(data)
        while (reply := reader.gets()) is not INCOMPLETE:
            self._guard.whole()
            self._take(reply)
            if self._link is not link:
                return False
        # A TLS record may hold more than a chunk, and the kernel would not tell.
        return len(data) == _CHUNK or isinstance(link.socket, ssl.SSLSocket)

    def _take(self, reply: Any) -> None:  # noqa: ANN401  # what hiredis makes of it
        if not self._sent:
            raise hiredis.ProtocolError("a reply to nothing")
        asked = self._sent.popleft()
        self._used = time.monotonic()
        if self._late:
            self._late -= 1
        elif isinstance(reply, hiredis.ReplyError):
            self._refused(asked, str(reply))
        else:
            self._answer(asked, reply)

    def _answer(self, asked: _Asked, reply: object) -> None:
        try:
            answer = self._store.checked(asked.breaker, reply, asked.call.keys)
        except StoreError as error:
            asked.answer(error)
        else:
            asked.answer(answer)

    def _refused(self, asked: _Asked, text: str) -> None:
        """An error reply: the script has not run, or not to its end."""
        word = text.split(" ", 1)[0]
        if word == "NOSCRIPT":
            self._send(asked, asked.whole_command())
            return
        if word in ELSEWHERE:
            self._leaving = True
            self._where.forget()
            if not asked.repeated:
                asked.repeated = True
                self._unsent.append(asked)
                return
        self._fail([asked], clean(text))

    # -- the end of calls and of connections

    def _fail(self, all_asked: list[_Asked], why: str) -> None:
        if all_asked:
            first = all_asked[0]
            self._store.failed(first.breaker, why, first.call.keys)
        for asked in all_asked:
            asked.answer(StoreError(why))

    def _expire(self, _number: int) -> None:
        """End the calls that have had their time; nobody waits for a server that does not answer at all."""
        now, sent, unsent = time.monotonic(), self._sent, self._unsent
        late = []
        while self._late < len(sent) and sent[self._late].deadline <= now:
            late.append(sent[self._late])
            self._late += 1
        while unsent and unsent[0].deadline <= now:
            late.append(unsent.popleft())
        hangs = self._late and sent[0].deadline + self._store.timeout <= now
        if self._late < len(sent):
            first = sent[self._late].deadline
        elif unsent:
            first = unsent[0].deadline
        else:
            first = now + self._store.timeout
        self._timing = bool(sent or unsent)
        if self._timing:
            self._loop.at(first, self._expire)
        if hangs:
            self._lost(_TOO_LATE)
        for asked in late:
            # Each by itself: the breaker is to see how many in a row.
            self._fail([asked], _TOO_LATE)

    def _lost(self, why: str) -> None:
        """The connection is gone, and so is what was on it."""
        sent = list(self._sent)[self._late :]
        self._drop()
        self._where.forget()
        self._fail(sent, why)
        if self._unsent:
            self._connect()

    def failed(self, error: Exception) -> None:
        """As in `eventloop.Watcher`."""
        self._lost(reason(error))

    def _drop(self) -> None:
        link = self._link
        self._sent.clear()
        self._late = 0
        self._begin(None)
        if link is not None:
            self._loop.release(link.socket.fileno(), link.close)


def _connected(where: Where, timeout: float) -> Link:
    """A connection; where a remembered address proves wrong, one to the address that is right now."""
    end = time.monotonic() + timeout
    remembered = where.remembered
    try:
        return where.link(timeout)
    except LostError:
        where.forget()
        left = end - time.monotonic()
        if not remembered or left <= 0:
            raise
    return where.link(left)
