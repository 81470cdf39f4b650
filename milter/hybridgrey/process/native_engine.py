"""The filter without libmilter: connections of MTAs on the worker's loop, each step a step of a session.

`protocol` reads and writes, `filter.session` decides, `native_task` waits; here is what lies between: reads
and writes that never block, and the end of a connection, which may come at any moment, in the midst of a
verdict too.  Nothing is read while a reply waits for an MTA that does not read, nor while more has come than
a verdict under way lets be handled; so what one connection can make us keep is bounded.

A step that fails is told and answered by passing the mail on, as with libmilter.  Anything else that fails
costs the connection.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from hybridgrey.eventloop import READ, WRITE, Loop
from hybridgrey.filter import forged
from hybridgrey.filter.reply import Reply
from hybridgrey.filter.session import Session, Sessions
from hybridgrey.process.native_task import Task, Waits
from hybridgrey.protocol import events, replies, wire
from hybridgrey.protocol.connection import MOST_OUTPUT, Connection
from hybridgrey.protocol.wire import ProtocolError

CHUNK: Final = 65_536
_OURS: Final = frozenset(name.encode() for name in forged.FIELDS)
_UNKNOWN: Final = "unknown"


class Engine:
    """What all connections of a worker share."""

    def __init__(self, loop: Loop, sessions: Sessions, waits: Waits, *, over_tcp: bool = False) -> None:
        """`over_tcp`: whether connections are not those of a unix socket."""
        self._over_tcp = over_tcp
        self.loop = loop
        self.sessions = sessions
        self.waits = waits
        self.peers: set[Peer] = set()
        self.now = 0.0
        """Monotonic seconds, to the second or so: for who has been silent too long."""

    def accept(self, sock: socket.socket) -> None:
        """Serve a connection."""
        sock.setblocking(False)
        if self._over_tcp:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = Peer(self, sock)
        self.peers.add(peer)
        self.loop.watch(sock.fileno(), peer)

    def end_silent(self, seconds: float) -> None:
        """Close connections on which nothing has come for so long."""
        for peer in [one for one in self.peers if one.heard + seconds < self.now]:
            peer.close()


class Peer:
    """One connection of an MTA; the `session.Context` of the client that it is about."""

    __slots__ = (
        "_connection",
        "_engine",
        "_fd",
        "_macro",
        "_session",
        "_sessions",
        "_sock",
        "_task",
        "_turning",
        "_watched",
        "heard",
    )

    def __init__(self, engine: Engine, sock: socket.socket) -> None:
        self._engine = engine
        self._sessions = engine.sessions
        self._sock = sock
        self._fd = sock.fileno()
        self._connection = connection = Connection(engine.sessions.terms)
        self._macro = connection.macro
        self._session: Session | None = None
        self._task: Task[Reply | None] | None = None
        self._turning = False
        self._watched = READ
        self.heard = engine.now

    # -- the socket

    def ready(self, ready: int) -> None:
        """As in `eventloop.Watcher`."""
        watched = self._watched
        if ready & watched & READ or watched == READ:
            try:
                data = self._sock.recv(CHUNK)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.close()
                return
            self.heard = self._engine.now
            self._turn(data)
        elif watched == WRITE:
            self._turn(b"")
        else:
            # Told although nothing is watched: both ways are closed.
            self.close()

    def _turn(self, data: bytes) -> None:
        """Take what has come, do what can be done, send what there is to say."""
        connection = self._connection
        self._turning = True
        try:
            if data:
                connection.receive(data)
            while True:
                self._handle(connection)
                output = connection.output
                if not output:
                    break
                connection.sent(self._sock.send(output))
                if connection.output or len(output) < MOST_OUTPUT:
                    # The rest when the MTA has read; or nothing was held back for lack of room.
                    break
        except BlockingIOError:
            pass  # the rest when the MTA has read
        except (ProtocolError, OSError):
            self.close()
            return
        finally:
            self._turning = False
        if connection.closed and not connection.output:
            self.close()
            return
        # Without a verdict under way all that has come is taken.
        full = self._task is not None and connection.full
        wanted = WRITE if connection.output else 0 if full else READ
        if wanted != self._watched:
            self._watched = wanted
            self._engine.loop.change(self._fd, wanted)

    def _handle(self, connection: Connection) -> None:
        next_event = connection.next_event
        while (event := next_event()) is not None:
            _HANDLERS[event.__class__](self, event)
            if self._task is not None:
                return
            if connection.due:
                connection.reply(replies.CONTINUE)

    def close(self) -> None:
        """The end, whoever has made it."""
        engine = self._engine
        if self not in engine.peers:
            return
        engine.peers.discard(self)
        engine.loop.release(self._fd, self._sock.close, alone=True)
        task, self._task = self._task, None
        if task is not None:
            task.close()
        self._leave()

    def failed(self, error: Exception) -> None:
        """As in `eventloop.Watcher`: this connection is lost, and no other."""
        self._sessions.failed("connection", error)
        self.close()

    # -- the steps

    def _opened(self) -> Session:
        # After QUIT_NC an MTA goes on with a new client without a new negotiation.
        session = self._session = Session()
        self._sessions.open(session)
        return session

    def _leave(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            self._sessions.close(session)

    def _negotiated(self, _event: events.Negotiate) -> None:
        self._opened()

    def _connect(self, event: events.Connect) -> None:
        session = self._session or self._opened()
        where = event.address if event.family in "46" else _UNKNOWN
        name = event.host.decode("utf-8", "surrogateescape")
        try:
            self._sessions.connect(session, self, name, where)
        except Exception as e:
            self._sessions.failed("connect", e)

    def _helo(self, event: events.Helo) -> None:
        session = self._session or self._opened()
        try:
            self._sessions.hello(session, event.name.decode("utf-8", "surrogateescape"))
        except Exception as e:
            self._sessions.failed("hello", e)

    def _mail(self, event: events.Mail) -> None:
        session = self._session or self._opened()
        try:
            self._sessions.mail(session, self, event.path)
        except Exception as e:
            self._sessions.failed("envfrom", e)

    def _rcpt(self, event: events.Rcpt) -> None:
        session = self._session or self._opened()
        steps = self._sessions.recipient(session, self, event.path)
        task = self._task = Task(self._engine.waits, steps, self._judged, self._not_judged)
        task.begin()

    def _judged(self, reply: Reply | None) -> None:
        self._answer("envrcpt", reply)

    def _answer(self, step: str, reply: Reply | None) -> None:
        self._task = None
        if self._turning:
            self._say(step, reply)
            return
        # Whoever has brought the last answer has nothing to do with what fails here.
        try:
            self._say(step, reply)
            self._turn(b"")
        except Exception as e:
            self.failed(e)

    def _say(self, step: str, reply: Reply | None) -> None:
        self._connection.reply(replies.CONTINUE if reply is None else self._refusal(step, reply))

    def _not_judged(self, error: Exception) -> None:
        self._sessions.failed("envrcpt", error)
        self._judged(None)

    def _refusal(self, step: str, reply: Reply) -> bytes:
        try:
            return _frame(reply)
        except ValueError as e:
            self._sessions.failed(step, e)
            return replies.CONTINUE

    def _header(self, event: events.Header) -> None:
        session = self._session
        if session is not None and session.message is not None:
            session.message.header(event.name, event.value)
        field = event.name.lower()
        agreement = self._connection.agreement
        # Headers that an MTA sends all the same are not for us.
        if field in _OURS and agreement is not None and agreement.actions & wire.CHANGE_HEADERS:
            session = self._session or self._opened()
            try:
                self._sessions.header(session, self, field.decode(), event.value)
            except Exception as e:
                self._sessions.failed("header", e)

    def _body(self, event: events.Body) -> None:
        message = None if self._session is None else self._session.message
        agreement = self._connection.agreement
        if (message is None or not message.body(event.chunk)) and agreement is not None:
            self._connection.reply(replies.SKIP if agreement.steps & wire.CAN_SKIP else replies.CONTINUE)

    def _end(self, event: events.EndOfMessage) -> None:
        session = self._session or self._opened()
        if session.message is None:
            self._say("eom", self._ended(session))
            return
        if event.chunk:
            session.message.body(event.chunk)
        steps = self._sessions.scored(session, self)
        task = self._task = Task(self._engine.waits, steps, self._scored, self._not_scored)
        task.begin()

    def _ended(self, session: Session) -> Reply | None:
        try:
            return self._sessions.end(session, self)
        except Exception as e:
            self._sessions.failed("eom", e)
            return None

    def _scored(self, reply: Reply | None) -> None:
        self._answer("eom", self._ended(self._session or self._opened()) if reply is None else reply)

    def _not_scored(self, error: Exception) -> None:
        self._sessions.failed("eom", error)
        self._scored(None)

    def _abort(self, _event: events.Abort) -> None:
        session = self._session
        if session is not None and session.pending is not None:
            try:
                self._sessions.abort(session)
            except Exception as e:
                self._sessions.failed("abort", e)

    def _quit_nc(self, _event: events.QuitNc) -> None:
        self._leave()

    def _nothing(self, _event: events.Event) -> None:
        """Nobody wants to know."""

    # -- what a session asks of the MTA (`session.Context`)

    def getsymval(self, name: str, /) -> str | None:
        """As in `macros.Symbols`."""
        value = self._macro(_wire_name(name))
        return None if value is None else value.decode()

    def addheader(self, name: str, value: str, index: int = -1, /) -> None:
        """As in `headers.Fields`."""
        field, text = name.encode(), value.encode("utf-8", "surrogateescape")
        if index < 0:
            self._connection.add_header(field, text)
        else:
            self._connection.insert_header(index, field, text)

    def chgheader(self, name: str, index: int, value: str | None, /) -> None:
        """As in `headers.Fields`."""
        text = b"" if value is None else value.encode("utf-8", "surrogateescape")
        self._connection.change_header(index, name.encode(), text)


_HANDLERS: Final[dict[type, Callable[[Peer, Any], None]]] = {
    events.Negotiate: Peer._negotiated,
    events.Connect: Peer._connect,
    events.Helo: Peer._helo,
    events.Mail: Peer._mail,
    events.Rcpt: Peer._rcpt,
    events.Data: Peer._nothing,
    events.Header: Peer._header,
    events.EndOfHeaders: Peer._nothing,
    events.Body: Peer._body,
    events.EndOfMessage: Peer._end,
    events.Unknown: Peer._nothing,
    events.Abort: Peer._abort,
    events.Quit: Peer._nothing,
    events.QuitNc: Peer._quit_nc,
}


@lru_cache(maxsize=256)
def _frame(reply: Reply) -> bytes:
    """Most clients get the same words."""
    return replies.refusal(reply.code, reply.enhanced, reply.text)


@lru_cache(maxsize=64)
def _wire_name(name: str) -> bytes:
    return name.encode()
