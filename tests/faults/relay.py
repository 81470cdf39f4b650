"""A nameserver that can fail: a UDP relay in front of a real one.

    relay.mute = True              no answer to anything
    relay.loss = 0.2               this share of datagrams is lost, each way
    relay.silent = {"bl.test"}     no answer for these zones
    relay.world = {"bl.test"}      every name of these zones is listed, the test points too

`shut` closes the port, so that the kernel refuses; `open` takes it again.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import threading
from types import TracebackType
from typing import Self

from parts.base import LOOPBACK, free_port

LISTED = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x7f\x00\x00\x02"
Peer = tuple[str, int]


def wire(zone: str) -> bytes:
    """A zone's labels as they end a question's name."""
    return b"".join(bytes((len(label),)) + label.encode() for label in zone.split(".")) + b"\0"


class Relay:
    """One nameserver; `address` is what the configuration takes."""

    def __init__(self, upstream: Peer) -> None:
        self.port = free_port()
        self.mute = False
        self.loss = 0.0
        self.silent: set[str] = set()
        self.world: set[str] = set()
        self._upstream = upstream
        self._chance = random.Random(5)
        self._asked: dict[int, tuple[Peer, bytes]] = {}
        self._next = 0
        self._closed = False

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def __enter__(self) -> Self:
        self._back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._back.connect(self._upstream)
        self._back.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._front: socket.socket | None = None
        self.open()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        self._thread.join(5)
        self.shut()
        self._back.close()

    def open(self) -> None:
        """Take the port."""
        front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        front.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        front.bind((LOOPBACK, self.port))
        self._front = front

    def shut(self) -> None:
        """Leave the port."""
        front, self._front = self._front, None
        if front is not None:
            front.close()

    def mend(self) -> None:
        """Be a good nameserver again."""
        self.mute, self.loss, self.silent, self.world = False, 0.0, set(), set()
        if self._front is None:
            self.open()

    def _serve(self) -> None:
        while not self._closed:
            front = self._front
            with contextlib.suppress(OSError, ValueError):  # shut meanwhile: look again
                ready, _, _ = select.select([self._back, *([front] if front else [])], [], [], 0.05)
                for sock in ready:
                    self._drain(sock, front)

    def _drain(self, sock: socket.socket, front: socket.socket | None) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            while True:
                data, peer = sock.recvfrom(4096)
                if self.mute or self._chance.random() < self.loss or front is None:
                    continue
                if sock is self._back:
                    self._answer(front, data)
                else:
                    self._question(front, data, peer)

    def _question(self, front: socket.socket, data: bytes, peer: Peer) -> None:
        if any(wire(zone) in data for zone in self.silent):
            return
        if any(wire(zone) + b"\0\1" in data for zone in self.world):
            head = data[:2] + b"\x81\x80" + data[4:6] + b"\0\1\0\0\0\0"
            front.sendto(head + data[12:] + LISTED, peer)
            return
        self._next = (self._next + 1) % 65536
        self._asked[self._next] = peer, data[:2]
        self._back.send(self._next.to_bytes(2, "big") + data[2:])

    def _answer(self, front: socket.socket, data: bytes) -> None:
        asked = self._asked.pop(int.from_bytes(data[:2], "big"), None)
        if asked is not None:
            peer, ident = asked
            front.sendto(ident + data[2:], peer)
