"""Sockets to nameservers that all clients of a worker share, read by its loop.

`CHANNELS` connected UDP sockets lead to each nameserver.  A client's questions go out on one of them, picked
at random; a socket has had its day after `MOST_QUESTIONS` questions or a random time of `SHORTEST` to
`LONGEST` seconds, and lingers for late answers while another has its place.  An id is used once on a socket.

*How hard it is to forge an answer.*  The kernel drops what does not come from the nameserver's address and
port, so the forger spoofs both.  He has to hit an open question: its port, its id, and the question itself,
which carries the client's address.

- A socket a client: one port of some 28,000 (Linux's ephemeral ones) and one id of 65,536: 1 in 1.8 billion
  for each datagram.  The port is open for milliseconds, so nobody finds it first.
- These sockets, port unknown: the question is on one of them with one id, so 1 in 1.8 billion as well.
- These sockets, port known: they live long enough to be found (SAD DNS, CVE-2020-25705, scans some 1,000
  ports a second), and then the id alone is left, 1 in 65,536.  Hence `MOST_BAD`: a socket that got so many
  datagrams which answer nothing is closed at once, and its questions are asked again from another.  Whoever
  has found a port has 8 guesses, 1 in 8,192, if the question that he means is on this of the 64 sockets at
  all, and then has to scan for another half a minute.
- And if that goes on, with `MOST_REPLACED` sockets a minute, all questions go over TCP (`stream`) for
  `SIEGE` seconds: in a siege he has 64 guesses, 1 in 1,024 in all, before there is nothing to guess at.

What comes late or twice is known by its id, and is nothing bad.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from hybridgrey.eventloop import Loop
from hybridgrey.lists import question
from hybridgrey.lists.exchange import MAX_BATCH, MAX_DATAGRAM, connected
from hybridgrey.lists.question import Form
from hybridgrey.lists.shared import Carrier, SharedExchange
from hybridgrey.lists.stream import Stream
from hybridgrey.lists.upstream import Nameservers, Server

CHANNELS: Final = 64
MOST_QUESTIONS: Final = 300
SHORTEST: Final = 15.0
LONGEST: Final = 60.0
LINGER: Final = 10.0
"""Seconds for which a socket takes answers when another one has its place."""
MOST_BAD: Final = 8
MOST_REPLACED: Final = 8
SIEGE: Final = 60.0
_FORGED: Final = "datagrams that answer nothing came, as from a forger; questions go over TCP for a while"
_NOBODY: Final = object()
_CHANCE: Final = random.SystemRandom()


class Channel:
    """One connected UDP socket (`shared.Carrier`)."""

    __slots__ = (
        "_bad",
        "_channels",
        "_recv",
        "_send",
        "_sock",
        "expires",
        "left",
        "server",
        "taken",
        "usable",
    )

    def __init__(self, channels: Channels, sock: socket.socket, server: int, now: float) -> None:
        self._channels = channels
        self._sock = sock
        self._recv, self._send = sock.recv, sock.send
        self._bad = 0
        self.server = server
        self.taken: dict[bytes, Any] = {}
        self.usable = True
        self.left = MOST_QUESTIONS
        self.expires = now + _CHANCE.uniform(SHORTEST, LONGEST)

    def transmit(self, message: bytes) -> None:
        """As in Carrier."""
        try:
            self._send(message)
        except OSError as error:
            # Most likely somebody else's: the kernel tells the next one who sends of a datagram that was
            # refused before, and has not sent this one.
            if self.usable:
                self._channels.loop.soon(partial(self._tell, error))
            self._send(message)

    def ready(self, _events: int) -> None:
        """Hand on what has come."""
        recv, get, server = self._recv, self.taken.get, self.server
        woken: list[SharedExchange[Any]] = []
        try:
            for _ in range(MAX_BATCH):
                datagram = recv(MAX_DATAGRAM)
                exchange: Any = get(datagram[:2], _NOBODY)
                if exchange is None:
                    continue
                if exchange is not _NOBODY and exchange.deliver(server, datagram):
                    if exchange.wakes:
                        woken.append(exchange)
                elif self._suspicious():
                    break
        except BlockingIOError:
            pass  # that was all
        except OSError as error:
            # ICMP: whose question it was nobody knows.
            self._tell(error)
        for exchange in woken:
            try:
                exchange.wake()
            except Exception as error:
                # A bug: one client's.
                self._channels.broken(error)

    def _suspicious(self) -> bool:
        """Whether the datagram that answers nothing was one too many."""
        self._bad += 1
        if self._bad < MOST_BAD:
            return False
        self._channels.replace(self)
        return True

    def _tell(self, error: OSError) -> None:
        for exchange in self.asking():
            exchange.lost(self.server, error)

    def asking(self) -> set[SharedExchange[Any]]:
        """Those who have open questions here."""
        return {exchange for exchange in self.taken.values() if exchange is not None}

    def failed(self, error: Exception) -> None:
        """A bug: the socket is given up."""
        self._channels.broken(error)
        self.close()

    def close(self, _number: int = 0) -> None:
        """Take nothing more; what is open is asked again from another socket."""
        if self.usable:
            self.usable = False
            self._channels.loop.release(self._sock.fileno(), self._sock.close)
            for exchange in self.asking():
                exchange.displaced()


class Channels:
    """All of a worker's (`shared.Carriers`)."""

    def __init__(self, loop: Loop, broken: Callable[[Exception], None]) -> None:
        """`broken` is told of what only a bug can raise."""
        self.loop = loop
        self.broken = broken
        self._sets: dict[Server, list[Channel | None]] = {}
        self._streams: dict[Server, Stream] = {}
        # When sockets were replaced for what came on them, and until when UDP is not to be trusted.
        self._replaced: list[float] = []
        self._besieged_until = 0.0
        self._told = True

    def exchange(
        self, servers: Nameservers, now: float, form: Form = question.LISTS, /
    ) -> SharedExchange[Any]:
        """As in `exchange.MakeExchange`."""
        return SharedExchange(self, servers, now, form)

    def pick(self, servers: Nameservers, server: int, chance: int, questions: int) -> Carrier:
        """As in Carriers."""
        where = servers.addresses[server]
        if self._besieged_until:
            if not self._told:
                self._told = True
                servers.failed(server, _FORGED)
            if time.monotonic() < self._besieged_until:
                return self._stream(where, server)
            self._besieged_until = 0.0
        channels = self._sets.get(where)
        if channels is None:
            channels = self._sets[where] = [None] * CHANNELS
        place = chance % CHANNELS
        channel = channels[place]
        if channel is None or not channel.usable or self._spent(channel):
            channel = self._renewed(channels, place, where, server)
        channel.left -= questions
        return channel

    @staticmethod
    def _spent(channel: Channel) -> bool:
        return channel.left <= 0 or channel.expires <= time.monotonic()

    def _renewed(self, channels: list[Channel | None], place: int, where: Server, server: int) -> Channel:
        """A new socket in a place; out of descriptors, one of the others."""
        old, now = channels[place], time.monotonic()
        try:
            channel = channels[place] = self._opened(where, server, now)
        except OSError:
            others = [one for one in channels if one is not None and one.usable]
            if not others:
                raise
            return others[0]
        if old is not None and old.usable:
            self.loop.at(now + LINGER, old.close)
        return channel

    def _opened(self, where: Server, server: int, now: float) -> Channel:
        sock = connected(where)
        channel = Channel(self, sock, server, now)
        self.loop.watch(sock.fileno(), channel)
        return channel

    def replace(self, channel: Channel) -> None:
        """Somebody guesses at a socket: it goes at once, the next one is opened when there is need."""
        now = time.monotonic()
        self._replaced = [at for at in self._replaced if at > now - SIEGE] + [now]
        if len(self._replaced) >= MOST_REPLACED:
            self._replaced.clear()
            self._besieged_until = now + SIEGE
            self._told = False
        channel.close()

    def _stream(self, where: Server, server: int) -> Stream:
        stream = self._streams.get(where)
        if stream is not None and stream.usable and stream.spent:
            self.loop.at(time.monotonic() + LINGER, stream.close)
            stream = None
        if stream is None or not stream.usable:
            stream = self._streams[where] = Stream(self.loop, where, server, self._no_stream)
        return stream

    def _no_stream(self) -> None:
        """A nameserver that is not to be reached over TCP: better UDP than no answer."""
        self._besieged_until = 0.0
