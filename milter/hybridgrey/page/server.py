"""HTTP for the page, the metrics and ``/healthz``: threads, sockets, and who has to go when it gets full.

Anybody who reaches the port may hold connections and say nothing, send or read a byte a second, or come back
for ever.  ``/healthz`` and a scrape must be answered all the same, for who asks takes silence for death:

- There are at most `REQUESTS_MAX` connections, each for `REQUEST_SECONDS` in all.  A newcomer finds room: of
  the address that has most, the oldest connection whose answer is not just being made is ended.  Who asks at
  once, as everybody honest does, has been answered long before its turn.
- Half of them at most may have an answer other than ``/healthz`` made, which can wait for the store.
- A request has `HEAD_MAX` octets at most.

`waitress` would read slow requests in one loop; but once it has as many connections as it may, it takes no
more until one times out, which is the fault that this is about.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any, BinaryIO

from hybridgrey import logs

if TYPE_CHECKING:
    from hybridgrey.page.site import Answer, Site

REQUESTS_MAX = 32
REQUEST_SECONDS = 10.0
HEAD_MAX = 80 * 1024
"""Octets of a request line, of which the base class reads 64 KiB to refuse it, and headers."""
BUSY_SECONDS = 2.0
"""How long a request waits for others to be answered."""

_LINE_MAX = 2048
_POLL = 0.5
_BACKLOG = 128


def is_loopback(address: str) -> bool:
    """Whether only this host can have connected to an address, as getsockname() gives it."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def _neighbourhood(address: str) -> str:
    """Who may be one and the same: an IPv4 address, or the /64 of an IPv6 one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.IPv6Network((int(ip) >> 64 << 64, 64)))


class _Head:
    """What a client sends, up to `HEAD_MAX` octets."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._left = HEAD_MAX

    def readline(self, size: int = -1) -> bytes:
        """The next line; raises HTTPException, which the base class answers with 431."""
        line = self._stream.readline(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(line)
        if self._left < 0:
            raise HTTPException("the request is too large")
        return line

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD; the base class answers 501 to the rest. HTTP/1.0: one request a connection."""

    server: Server
    timeout = 5.0
    server_version = "hybridgrey"
    sys_version = ""

    def setup(self) -> None:
        """Bound what is read."""
        super().setup()
        self.rfile: Any = _Head(self.rfile)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        if len(self.requestline) > _LINE_MAX:
            self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)
            return
        answer = self._found()
        if answer is None:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "Busy")
            return
        headers = {
            "Content-Type": answer.content_type,
            "Content-Length": str(len(answer.body)),
            "Cache-Control": "no-store",
        }
        self.send_response(answer.status)
        for name, value in {**headers, **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(answer.body)

    def _found(self) -> Answer | None:
        """The site's answer; None if too many are waiting for theirs."""
        asked = {name.lower(): value for name, value in self.headers.items()}
        loopback = is_loopback(self.connection.getsockname()[0])
        quick = self.path.partition("?")[0] == "/healthz"
        with self.server.answering(self.connection, quick=quick) as free:
            return self.server.site.answer(self.path, asked, loopback=loopback) if free else None

    def end_headers(self) -> None:
        """What browsers are told with every answer, the base class's own refusals among them."""
        for name, value in self.server.site.headers.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet: scrapes are no events."""


@dataclass(slots=True)
class _Guest:
    """A connection: from whom, since when, and whether its answer is being made."""

    peer: str
    since: float
    answering: bool = False


class Server(ThreadingMixIn, TCPServer):
    """A thread for each connection.

    TCPServer, not http.server's own: that looks up the host's name in DNS when it binds.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = _BACKLOG
    timeout = _POLL

    def __init__(self, listen: tuple[str, int], site: Site) -> None:
        self.address_family = socket.AF_INET6 if ":" in listen[0] else socket.AF_INET
        self.site = site
        # Held for a moment only; told when an answer is made, and when a connection has to go.
        self._turn = threading.Condition()
        self._answers = 0
        self._guests: dict[socket.socket, _Guest] = {}
        # Told to go; their threads have not ended yet.
        self._leaving: set[socket.socket] = set()
        super().__init__(listen, _Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ANN401  # as in the base
        """Find room for a connection; where there is none the caller closes it."""
        with self._turn:
            if len(self._guests) >= REQUESTS_MAX and not self._make_room():
                return False
            # A moment: they have been woken, and newcomers wait in the kernel's queue meanwhile.
            if not self._turn.wait_for(lambda: len(self._leaving) < REQUESTS_MAX, _POLL):
                return False
            self._guests[request] = _Guest(_neighbourhood(client_address[0]), time.monotonic())
            return True

    def _make_room(self) -> bool:
        counts = Counter(guest.peer for guest in self._guests.values())
        idle = [(counts[g.peer], -g.since, request) for request, g in self._guests.items() if not g.answering]
        if not idle:
            return False
        self._end(max(idle, key=lambda one: one[:2])[2])
        return True

    def _end(self, request: socket.socket) -> None:
        """Wake a connection's thread, whatever it waits for, so that it ends."""
        del self._guests[request]
        self._leaving.add(request)
        with suppress(OSError):  # the client has gone first
            request.shutdown(socket.SHUT_RDWR)
        self._turn.notify_all()

    @contextmanager
    def answering(self, request: socket.socket, *, quick: bool) -> Iterator[bool]:
        """While an answer is made nobody else may have its place; one that is not `quick` waits for its turn.

        Yields whether it has come, in time and before the connection had to go.
        """
        with self._turn:
            self._turn.wait_for(lambda: quick or self._has_turn(request), BUSY_SECONDS)
            guest = self._guests.get(request)
            if guest is None or not (quick or self._has_turn(request)):
                guest = None
            else:
                guest.answering = True
                self._answers += not quick
        try:
            yield guest is not None
        finally:
            if guest is not None:
                with self._turn:
                    guest.answering = False
                    self._answers -= not quick
                    self._turn.notify_all()

    def _has_turn(self, request: socket.socket) -> bool:
        return self._answers < REQUESTS_MAX // 2 or request not in self._guests

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401  # as in the base
        """Close a connection and forget it."""
        with self._turn:  # else `_end` might shut down another that has got its descriptor meanwhile
            self._guests.pop(request, None)
            self._leaving.discard(request)
            super().shutdown_request(request)
            self._turn.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  # as in the base
        """Log a failed request at debug level: a client that went away is no event."""
        logs.get().debug("metrics request failed", exc_info=True)

    def close_overdue(self) -> None:
        """End requests that take too long: the handler's time limit is for each read, not for all of them."""
        last = time.monotonic() - REQUEST_SECONDS
        with self._turn:
            for request in [one for one, guest in self._guests.items() if guest.since < last]:
                self._end(request)
