"""A port of this machine behind which is one of a host in the lab: the way for a browser to its page."""

from __future__ import annotations

import contextlib
import selectors
import socket
import socketserver
import threading
from typing import cast

from parts.base import LOOPBACK
from parts.internet import Host

PIECE = 65536


class _Connection(socketserver.BaseRequestHandler):
    """One connection, carried on to the host's own loopback, where it counts as the host itself."""

    def handle(self) -> None:
        window = cast("Window", self.server)
        inner = window.host.make_socket(socket.AF_INET, socket.SOCK_STREAM)
        # Whoever hangs up ends it; that nobody listens there is told by the closed connection
        with inner, contextlib.suppress(OSError):
            inner.connect((LOOPBACK, window.port))
            _carry(self.request, inner)


def _carry(one: socket.socket, other: socket.socket) -> None:
    """Hand bytes on, both ways, until one side closes."""
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in selector.select():
                data = cast("socket.socket", key.fileobj).recv(PIECE)
                if not data:
                    return
                key.data.sendall(data)


class Window(socketserver.ThreadingTCPServer):
    """Listens on a free port of this machine's loopback as long as this process lives."""

    daemon_threads = True

    def __init__(self, host: Host, port: int) -> None:
        super().__init__((LOOPBACK, 0), _Connection)
        self.host = host
        self.port = port
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://{LOOPBACK}:{self.server_address[1]}/"
