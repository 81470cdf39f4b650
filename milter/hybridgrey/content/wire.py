"""A scan done in a thread that waits: a callback of libmilter's, a helper of a loop's, or a command."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from typing import Final, TypeAlias

from hybridgrey.content.question import Scan, ScanError
from hybridgrey.lists.awaited import Wait, poll_only

_CHUNK: Final = 65_536
_PAUSE: Final = 20
"""Milliseconds."""
LATE: Final = "no answer in time"
NO_THREAD: Final = "no thread can be had"
_Place: TypeAlias = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int] | str]


def ask(scan: Scan, wait: Wait = poll_only) -> bytes:
    """The answer's bytes.  Raises ScanError, when the time is over at the latest."""
    try:
        family, where = _place(scan)
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            return _Talk(sock, scan, wait).all(where)
    except OSError as error:
        raise ScanError(error.strerror or type(error).__name__) from None


class _Talk:
    """One request and its answer, on a socket that does not block."""

    def __init__(self, sock: socket.socket, scan: Scan, wait: Wait) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._scan = scan
        self._wait = wait
        self._poll = select.poll()
        self._poll.register(sock, 0)

    def all(self, where: object) -> bytes:
        """The answer."""
        self._connect(where)
        # If it does not hear us out it may have said why.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._send()
        return self._answer()

    def _until(self, events: int) -> None:
        left = self._scan.until - time.monotonic()
        if left <= 0:
            raise ScanError(LATE)
        self._poll.modify(self._sock, events)
        # Rounded up: a wait of a fraction of a millisecond must not become a busy loop.
        self._wait(self._poll, max(1, int(left * 1000 + 0.999)))

    def _connect(self, where: object) -> None:
        while (code := self._sock.connect_ex(where)) == errno.EAGAIN:  # type: ignore[arg-type]  # its family
            # The queue of a unix socket is full (connect(2)): it is busy, and nothing tells of room in it.
            self._check_time()
            self._wait(select.poll(), _PAUSE)
        if code == errno.EINPROGRESS:
            self._until(select.POLLOUT)
            code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not code:
                # Still under way, if it was only the time that came.
                self._check_time()
        if code:
            raise ScanError(os.strerror(code))

    def _check_time(self) -> None:
        if self._scan.until <= time.monotonic():
            raise ScanError(LATE)

    def _send(self) -> None:
        rest = memoryview(self._scan.request)
        while rest:
            try:
                rest = rest[self._sock.send(rest[: 4 * _CHUNK]) :]
            except BlockingIOError:
                self._until(select.POLLOUT)
        if self._scan.dialect.half_close:
            self._sock.shutdown(socket.SHUT_WR)

    def _answer(self) -> bytes:
        dialect, answer = self._scan.dialect, bytearray()
        while not dialect.complete(answer):
            try:
                piece = self._sock.recv(_CHUNK)
            except BlockingIOError:
                self._until(select.POLLIN)
                continue
            if not piece:
                break
            answer += piece
            if len(answer) > dialect.most:
                raise ScanError(f"an answer of more than {dialect.most} bytes")
            self._check_time()
        return bytes(answer)


def _place(scan: Scan) -> _Place:
    """Where to connect.  Raises ScanError, or OSError for a name that is not found."""
    address = scan.address
    if address.family == "unix":
        return socket.AF_UNIX, str(address.path)
    family = socket.AF_INET6 if address.family == "inet6" else socket.AF_INET
    try:
        socket.inet_pton(family, address.host)
    except OSError:
        return _named(address.host, address.port, family, scan.until)
    return family, (address.host, address.port)


def _named(host: str, port: int, family: socket.AddressFamily, until: float) -> _Place:
    """A host by its name, which the system's resolver may take longer for than there is time."""
    places: list[_Place] = []
    errors: list[OSError] = []

    def look() -> None:
        try:
            for kind, _, _, _, where in socket.getaddrinfo(host, port, family, socket.SOCK_STREAM):
                places.append((kind, where))  # type: ignore[arg-type]  # an int only without IPv6
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=look, name="scanner's name", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        raise ScanError(NO_THREAD) from None
    thread.join(max(0.0, until - time.monotonic()))
    if errors:
        raise errors[0]
    if not places:
        raise ScanError(LATE)
    return places[0]
