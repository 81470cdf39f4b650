"""A steady load of milter sessions, whatever the milter does: one process, one epoll loop, open loop.

Run as a program by `world`. `--rate` sessions begin each second, whether the milter keeps up or not. Each
ends as one line of the output file, in the order of their ends:

    BEGUN WAIT KIND NUMBER ANSWER      times in s of the monotonic clock, which all processes share

ANSWER is `c` (continue), an SMTP code, or `!` and what went wrong: refused, reset, silent, … WAIT is the time
from RCPT to its answer, 0 when there was none. The program ends, its open sessions waited for, at SIGTERM.
"""

from __future__ import annotations

import argparse
import errno
import heapq
import itertools
import os
import random
import select
import signal
import socket
import struct
import time
from collections.abc import Iterator

NEGOTIATE = struct.pack("!I", 13) + b"O" + struct.pack("!III", 6, 0x1FF, 0x1FFFFF)
GOODBYE = b"\0\0\0\1A\0\0\0\1Q"
NO_HELO, NO_REPLY_CONNECT = 0x2, 0x1000
PATIENCE = 15.0  # s; a session without an answer by then is "silent"

# The kinds of client in the order in which they come, the first octet of each, and how many there are of it;
# None: each is a new one.
ORDER = ("known", "fresh", "listed", "known", "trusted", "returning", "listed", "known", "fresh", "listed")
NETWORKS = {"known": 33, "fresh": 34, "listed": 11, "trusted": 22, "returning": 35}
POOLS: dict[str, int | None] = {
    "known": 120,
    "fresh": None,
    "listed": None,
    "trusted": None,
    "returning": 40,
}
SPREAD = 2654435761
# What a whole world answers.
WANTED = {
    "known": ("c",),
    "fresh": ("450",),
    "listed": ("554",),
    "trusted": ("c",),
    "returning": ("c", "450"),
}


def address(kind: str, number: int) -> str:
    """The address of a client; neighbours by number share no network."""
    value = number * SPREAD & 0xFFFFFF
    return f"{NETWORKS[kind]}.{value >> 16}.{value >> 8 & 255}.{value & 255}"


def sender(kind: str, number: int) -> str:
    """The envelope sender of a client, in its brackets."""
    return f"<{chr(97 + number % 26)}@{kind}.example>"


RECIPIENT = "<user@example.test>"


def clients(first: int) -> Iterator[tuple[str, int]]:
    """Clients for ever, as (kind, number); the new ones from number `first`."""
    seen = dict.fromkeys(NETWORKS, 0)
    for kind in itertools.cycle(ORDER):
        number, pool = seen[kind], POOLS[kind]
        seen[kind] += 1
        yield kind, number % pool if pool else first + number


def packet(command: bytes, *strings: str) -> bytes:
    """One packet of NUL-terminated strings."""
    data = command + b"".join(text.encode() + b"\0" for text in strings)
    return struct.pack("!I", len(data)) + data


class Session:
    """One connection; `stage` is what it waits for."""

    __slots__ = ("begun", "buffer", "kind", "number", "sent", "socket", "stage", "steps")

    def __init__(self, sock: socket.socket, kind: str, number: int) -> None:
        self.socket = sock
        self.kind, self.number = kind, number
        self.begun = time.monotonic()
        self.buffer = b""
        self.stage = "opening"
        self.steps = 0
        self.sent = 0.0


class Load:
    """The loop."""

    def __init__(self, options: argparse.Namespace) -> None:
        host, _, port = options.address.rpartition(":")
        self.targets = [(host, int(p)) for p in port.split(",")]
        self.chance = random.Random(options.first)
        self.rate: float = options.rate
        self.think: float = options.think
        self.out = open(options.output, "w", buffering=1)  # noqa: SIM115, PTH123  # for the whole run
        self.clients = clients(options.first)
        self.poll = select.epoll()
        self.live: dict[int, Session] = {}
        self.timers: list[tuple[float, int, Session]] = []
        self.order = itertools.count()
        self.ending = False

    def begin(self) -> None:
        """Open a session."""
        kind, number = next(self.clients)
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = Session(sock, kind, number)
        code = sock.connect_ex(self.chance.choice(self.targets))
        self.live[sock.fileno()] = session
        self.poll.register(sock, select.EPOLLOUT)
        if code not in (0, errno.EINPROGRESS):
            self.end(session, "!refused")
            return
        heapq.heappush(self.timers, (session.begun + PATIENCE, next(self.order), session))

    def end(self, session: Session, answer: str, wait: float = 0.0) -> None:
        """Note how a session ended and forget it."""
        self.out.write(f"{session.begun:.4f} {wait:.5f} {session.kind} {session.number} {answer}\n")
        self.poll.unregister(session.socket)
        del self.live[session.socket.fileno()]
        session.socket.close()
        session.stage = "ended"

    def opened(self, session: Session) -> None:
        """The connection is there, or refused."""
        error = session.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self.end(session, "!refused" if error == errno.ECONNREFUSED else f"!{os.strerror(error)}")
            return
        session.stage = "negotiate"
        self.poll.modify(session.socket, select.EPOLLIN)
        session.socket.send(NEGOTIATE)

    def readable(self, session: Session) -> None:
        """Take what came."""
        try:
            data = session.socket.recv(4096)
        except OSError as error:
            self.end(session, f"!{error.strerror} at {session.stage}".replace(" ", "-"))
            return
        if not data:
            self.end(session, f"!closed-at-{session.stage}")
            return
        data = session.buffer + data
        while len(data) >= 5 and len(data) >= (size := 4 + int.from_bytes(data[:4], "big")):
            self.reply(session, data[4:5], data[5:size])
            data = data[size:]
        session.buffer = data

    def reply(self, session: Session, kind: bytes, data: bytes) -> None:
        """One packet of the milter's."""
        if session.stage == "negotiate":
            session.steps = struct.unpack("!I", data[8:12])[0]
            self.connect(session)
        elif session.stage == "connect":
            self.pause(session)
        elif session.stage == "rcpt":
            session.socket.send(GOODBYE)
            answer = data[:3] if kind == b"y" else kind
            self.end(session, answer.decode(), time.monotonic() - session.sent)

    def connect(self, session: Session) -> None:
        """Say who the client is."""
        where = address(session.kind, session.number)
        macros = packet(b"DC", "j", "mx.test", "v", "Postfix 3.7", "{client_addr}", where)
        client = b"Cunknown\x004" + struct.pack("!H", 40000) + where.encode() + b"\0"
        session.stage = "connect"
        session.socket.send(macros + struct.pack("!I", len(client)) + client)
        if session.steps & NO_REPLY_CONNECT:
            self.pause(session)

    def pause(self, session: Session) -> None:
        """The time that a client takes from CONNECT to its recipient."""
        session.stage = "thinking"
        heapq.heappush(self.timers, (time.monotonic() + self.think, next(self.order), session))

    def ask(self, session: Session) -> None:
        """HELO, MAIL and RCPT."""
        helo = b"" if session.steps & NO_HELO else packet(b"H", f"mail.{session.kind}.example")
        session.stage = "rcpt"
        session.sent = time.monotonic()
        parts = (
            helo,
            packet(b"M", sender(session.kind, session.number)),
            packet(b"DR", "i", "4bX1"),
            packet(b"R", RECIPIENT),
        )
        session.socket.send(b"".join(parts))

    def run(self) -> None:
        """Load until told to end."""
        start = time.monotonic()
        begun = 0
        while not self.ending or self.live:
            now = time.monotonic()
            while not self.ending and start + begun / self.rate <= now:
                self.begin()
                begun += 1
            due = start + begun / self.rate if not self.ending else now + 0.1
            if self.timers:
                due = min(due, self.timers[0][0])
            self.turn(max(0.0, due - time.monotonic()))

    def turn(self, pause: float) -> None:
        """One look at the sockets and clocks."""
        for fd, _ in self.poll.poll(pause):
            session = self.live.get(fd)
            if session is not None:
                (self.opened if session.stage == "opening" else self.readable)(session)
        now = time.monotonic()
        while self.timers and self.timers[0][0] <= now:
            session = heapq.heappop(self.timers)[2]
            if session.stage == "thinking":
                self.ask(session)
            elif session.stage != "ended":
                self.end(session, f"!silent-at-{session.stage}")

    def stop(self, *_: object) -> None:
        """Begin no more sessions."""
        self.ending = True


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="HOST:PORT[,PORT…]; one of several is chosen at random")
    parser.add_argument("output")
    parser.add_argument("--rate", type=float, default=100.0, help="sessions a second")
    parser.add_argument("--think", type=float, default=0.05, help="s between CONNECT and RCPT")
    parser.add_argument("--first", type=int, default=0, help="number of the first new client")
    load = Load(parser.parse_args())
    signal.signal(signal.SIGTERM, load.stop)
    load.run()


if __name__ == "__main__":
    main()
