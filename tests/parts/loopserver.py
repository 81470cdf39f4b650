"""A loop that carries `hybridgrey.protocol`, for tests of it with real MTAs: one thread, one selector.

It has what a loop must have to be right (short writes, hang-ups) and nothing else: no time-outs, no limits.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from hybridgrey.protocol import replies
from hybridgrey.protocol.connection import Connection
from hybridgrey.protocol.events import Event
from hybridgrey.protocol.terms import Terms
from hybridgrey.protocol.wire import ProtocolError


class Session(Protocol):
    """What a milter does with one connection."""

    def handle(self, event: Event) -> None:
        """Look at an event; what is left unanswered is answered "continue"."""

    def ended(self) -> None:
        """The connection is gone, with or without QUIT."""


Opened = Callable[[Connection], Session]


def listen(spec: str) -> socket.socket:
    """A listening socket at unix:PATH or inet:PORT@HOST."""
    kind, _, rest = spec.partition(":")
    if kind == "unix":
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.bind(rest)
        Path(rest).chmod(0o777)  # the MTA's user must be able to write to it
    else:
        port, _, host = rest.partition("@")
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.bind((host, int(port)))
    made.listen(256)
    made.setblocking(False)
    return made


class _Peer:
    """One MTA's connection."""

    def __init__(self, sock: socket.socket, terms: Terms, opened: Opened) -> None:
        self.sock = sock
        self.connection = Connection(terms)
        self.session = opened(self.connection)

    def turn(self, data: bytes) -> bool:
        """Take `data`, handle all events, send; False at the end of the connection."""
        connection = self.connection
        try:
            if data:
                connection.receive(data)
            while True:
                while (event := connection.next_event()) is not None:
                    self.session.handle(event)
                    if connection.due:
                        connection.reply(replies.CONTINUE)
                if not connection.output:
                    return not connection.closed
                connection.sent(self.sock.send(connection.output))
        except BlockingIOError:
            return not connection.closed
        except (ProtocolError, OSError):
            return False


def serve(listening: socket.socket, terms: Callable[[], Terms], opened: Opened) -> None:
    """Serve for ever; `terms` is asked for each connection."""
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                sock, _ = listening.accept()
                sock.setblocking(False)
                selector.register(sock, selectors.EVENT_READ, _Peer(sock, terms(), opened))
            else:
                _serve_one(selector, key.data)


def _serve_one(selector: selectors.BaseSelector, peer: _Peer) -> None:
    try:
        data = b"" if peer.connection.output else peer.sock.recv(65536)
        alive = bool(data or peer.connection.output)
    except BlockingIOError:
        return
    except OSError:
        data, alive = b"", False
    if alive and peer.turn(data):
        wanted = selectors.EVENT_WRITE if peer.connection.output else selectors.EVENT_READ
        if selector.get_key(peer.sock).events != wanted:
            selector.modify(peer.sock, wanted, peer)
    else:
        selector.unregister(peer.sock)
        peer.sock.close()
        peer.session.ended()
