"""Questions of all clients over one TCP connection to a nameserver (RFC 7766): nobody can forge that blindly.

It is what `channels` has while somebody guesses at its UDP sockets.  Connected, written and read without a
wait; a server that closes it, as it may after a while, gets the open questions again on the next one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable
from typing import Any, Final

from hybridgrey.eventloop import READ, WRITE, Loop
from hybridgrey.lists.shared import SharedExchange
from hybridgrey.lists.upstream import Server

_SIZE: Final = 2
# Bytes of questions that may wait for a nameserver that does not read.
_MOST_OUTPUT: Final = 1 << 20
# Ids are used once; a connection that has used so many of the 65,536 has had its day.
_MOST_QUESTIONS: Final = 16_384
_CHUNK: Final = 65_536


class Stream:
    """One connection (`shared.Carrier`)."""

    def __init__(
        self,
        loop: Loop,
        where: Server,
        server: int,
        unreachable: Callable[[], None],
    ) -> None:
        """Raises OSError; `unreachable` is called when it turns out later that nobody is there."""
        family, address = where
        self._loop = loop
        self._unreachable = unreachable
        self._connected = self._heard = False
        self._output = b""
        self._input = b""
        self.server = server
        self.usable = True
        self.taken: dict[bytes, Any] = {}
        self._sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(BlockingIOError):  # under way
                self._sock.connect(address)
        except OSError:
            self._sock.close()
            raise
        loop.watch(self._sock.fileno(), self, READ | WRITE)

    @property
    def spent(self) -> bool:
        """Whether no more is to be asked here."""
        return len(self.taken) >= _MOST_QUESTIONS

    def transmit(self, message: bytes) -> None:
        """As in Carrier."""
        if not self.usable or len(self._output) > _MOST_OUTPUT:
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        if not self._output and self._connected:
            self._loop.change(self._sock.fileno(), READ | WRITE)
        self._output += len(message).to_bytes(_SIZE, "big") + message

    def ready(self, events: int) -> None:
        """Connected, answers, or the end."""
        try:
            if not self._connected:
                self._connect()
            self._write()
            if events & ~WRITE:
                self._read()
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)

    def _connect(self) -> None:
        failure = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failure:
            raise OSError(failure, os.strerror(failure))
        self._connected = True

    def _write(self) -> None:
        if self._output:
            try:
                self._output = self._output[self._sock.send(self._output) :]
            except BlockingIOError:
                return
        if not self._output:
            self._loop.change(self._sock.fileno(), READ)

    def _read(self) -> None:
        data = self._sock.recv(_CHUNK)
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "closed by the nameserver")
        data = self._input + data
        at, woken = 0, []
        while len(data) >= at + _SIZE:
            end = at + _SIZE + int.from_bytes(data[at : at + _SIZE], "big")
            if len(data) < end:
                break
            message = data[at + _SIZE : end]
            exchange: SharedExchange[Any] | None = self.taken.get(message[:2])
            if exchange is not None and exchange.deliver(self.server, message):
                self._heard = True
                woken.append(exchange)
            at = end
        self._input = data[at:]
        for exchange in woken:
            exchange.wake()

    def failed(self, _error: Exception) -> None:
        """A bug; as for a connection that breaks."""
        self.close()

    def close(self, _number: int = 0) -> None:
        """Take no more answers."""
        self._end(ConnectionAbortedError(errno.ECONNABORTED, "given up"))

    def _end(self, error: OSError) -> None:
        if not self.usable:
            return
        self.usable = False
        if not self._connected:
            self._unreachable()
        self._loop.release(self._sock.fileno(), self._sock.close)
        for exchange in {one for one in self.taken.values() if one is not None}:
            if self._heard:
                # Servers close when they have answered enough: no reason to wait.
                exchange.displaced()
            else:
                exchange.lost(self.server, error)
