"""A load of milter sessions, as an MTA opens them: one process, one epoll loop. Prints one JSON object.

Run as a program by `rig.load`, so that its CPU time is its own. A session: negotiation, CONNECT, and after
`--think` ms HELO, MAIL and RCPT in one write, as Postfix sends steps whose reply was negotiated away; then
ABORT and QUIT, whatever the answer, so that every milter under test gets the same commands. A step that the
milter negotiated away is left out.

Closed loop: `--concurrency` sessions at all times. Open loop: `--rate` sessions begin each second, whether
the milter keeps up or not; how late the generator itself was is told as `late_ms`.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import errno
import heapq
import itertools
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Sequence

from bench import population

NEGOTIATE = struct.pack("!I", 13) + b"O" + struct.pack("!III", 6, 0x1FF, 0x1FFFFF)
GOODBYE = b"\0\0\0\1A\0\0\0\1Q"
NO_HELO, NO_REPLY_CONNECT = 0x2, 0x1000
now = time.perf_counter
Address = str | tuple[str, int]


def packet(command: bytes, *strings: str) -> bytes:
    """One packet of NUL-terminated strings."""
    data = command + b"".join(text.encode() + b"\0" for text in strings)
    return struct.pack("!I", len(data)) + data


class Session:
    """One connection; `stage` is what it waits for."""

    __slots__ = ("begun", "buffer", "kind", "number", "sent", "socket", "stage", "steps")

    def __init__(self, sock: socket.socket, kind: str, number: int, begun: float) -> None:
        self.socket = sock
        self.kind, self.number, self.begun = kind, number, begun
        self.buffer = b""
        self.stage = "negotiate"
        self.steps = 0
        self.sent = begun


class Load:
    """The loop and what it has seen."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.address: Address = options.address
        if ":" in options.address:
            host, _, port = options.address.rpartition(":")
            self.address = (host, int(port))
        mix = dict(zip(population.MIX, map(int, options.mix.split(",")), strict=True))
        self.clients = population.clients(options.first, options.pool, mix)
        self.poll = select.epoll()
        self.live: dict[int, Session] = {}
        self.waiting: list[tuple[float, int, Session]] = []
        self.order = itertools.count()
        self.begun = self.done = 0
        self.late = 0.0
        self.waits: dict[str, list[float]] = {"rcpt": [], "session": []}
        self.answers: collections.Counter[str] = collections.Counter()
        self.errors: collections.Counter[str] = collections.Counter()

    # -- one session

    def begin(self, due: float) -> bool:
        """Open a session; False when the milter's queue of connections is full."""
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        code = sock.connect_ex(self.address)
        if code == errno.EAGAIN:
            sock.close()
            return False
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            raise OSError(code, os.strerror(code))
        kind, number = next(self.clients)
        session = Session(sock, kind, number, due)
        self.live[sock.fileno()] = session
        self.begun += 1
        if code == 0:
            self.poll.register(sock, select.EPOLLIN)
            sock.send(NEGOTIATE)
        else:
            session.stage = "opening"
            self.poll.register(sock, select.EPOLLOUT)
        return True

    def connect(self, session: Session) -> None:
        """Say who the client is."""
        where = population.address(session.kind, session.number)
        macros = packet(b"DC", "j", "mx.test", "v", "Postfix 3.7", "{client_addr}", where)
        client = b"Cunknown\x004" + struct.pack("!H", 40000) + where.encode() + b"\0"
        session.stage = "connect"
        session.socket.send(macros + struct.pack("!I", len(client)) + client)
        if session.steps & NO_REPLY_CONNECT:
            self.think(session)

    def think(self, session: Session) -> None:
        """What the client does before it names a recipient."""
        if self.options.think:
            heapq.heappush(self.waiting, (now() + self.options.think / 1000, next(self.order), session))
        else:
            self.ask(session)

    def ask(self, session: Session) -> None:
        """HELO, MAIL and RCPT."""
        number = session.number
        helo = b"" if session.steps & NO_HELO else packet(b"H", f"mail{number}.{session.kind}.example")
        sender = f"<s{number}@{session.kind}{number % 1000}.example>"
        session.stage = "rcpt"
        session.sent = now()
        session.socket.send(
            b"".join(
                (helo, packet(b"M", sender), packet(b"DR", "i", "4bX1"), packet(b"R", "<u@example.test>"))
            )
        )

    def readable(self, session: Session) -> None:
        """Take what came."""
        try:
            data = session.socket.recv(4096)
        except BlockingIOError:
            return
        except OSError as error:
            self.end(session, error.strerror)
            return
        if not data:
            self.end(session, f"closed at {session.stage}")
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
            self.think(session)
        elif session.stage == "rcpt":
            at = now()
            self.waits["rcpt"].append(at - session.sent)
            self.answers[f"{session.kind} {(data[:3] if kind == b'y' else kind).decode()}"] += 1
            session.socket.send(GOODBYE)
            self.waits["session"].append(at - session.begun)
            self.end(session)

    def end(self, session: Session, error: str | None = None) -> None:
        """Forget a session."""
        if error:
            self.errors[error] += 1
        self.poll.unregister(session.socket)
        del self.live[session.socket.fileno()]
        session.socket.close()
        session.stage = "ended"
        self.done += 1

    # -- the loop

    def run(self) -> float:
        """Load until the time is over, then let the open sessions end; how long it took."""
        start = now()
        end: float = start + self.options.seconds
        while now() < end and (not self.options.count or self.begun < self.options.count):
            self.turn(self.start_more(start, end))
        finished = now()
        limit = finished + 10
        while self.live and now() < limit:
            self.turn(0.05)
        if self.live:
            self.errors["unfinished"] += len(self.live)
        return finished - start

    def start_more(self, start: float, end: float) -> float:
        """Begin the sessions that are due; how long there is nothing more to begin."""
        rate: float = self.options.rate
        count = self.options.count or sys.maxsize
        if not rate:
            while len(self.live) < self.options.concurrency and self.begun < count:
                if not self.begin(now()):
                    return 0.001
            return end - now()
        while (due := start + self.begun / rate) <= now() and self.begun < count:
            if len(self.live) >= self.options.concurrency or not self.begin(due):
                return 0.001
            self.late = max(self.late, now() - due)
        return due - now()

    def turn(self, pause: float) -> None:
        """One look at the sockets and clocks."""
        if self.waiting:
            pause = min(pause, self.waiting[0][0] - now())
        for fd, _ in self.poll.poll(max(0.0, pause)):
            session = self.live.get(fd)
            if session is None:
                continue
            if session.stage == "opening":
                self.opened(session)
            else:
                self.readable(session)
        while self.waiting and self.waiting[0][0] <= now():
            session = heapq.heappop(self.waiting)[2]
            if session.stage == "connect":
                self.ask(session)

    def opened(self, session: Session) -> None:
        """A TCP connection is there; a refused one is seen at the next turn, by reading."""
        session.stage = "negotiate"
        self.poll.modify(session.socket, select.EPOLLIN)
        with contextlib.suppress(OSError):
            session.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            session.socket.send(NEGOTIATE)

    def result(self, seconds: float) -> dict[str, object]:
        """The figures; times in ms."""
        used = time.process_time()
        return {
            "decisions": len(self.waits["rcpt"]),
            "seconds": seconds,
            "load_cpu": used,
            "late_ms": self.late * 1000,
            "rcpt_ms": percentiles(self.waits["rcpt"]),
            "session_ms": percentiles(self.waits["session"]),
            "answers": dict(sorted(self.answers.items())),
            "errors": dict(self.errors),
        }


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and the longest, in ms."""
    values = sorted(seconds) or [0.0]
    rows = {f"p{p}": values[min(len(values) - 1, len(values) * p // 100)] for p in (50, 95, 99)}
    return {key: round(value * 1000, 3) for key, value in (rows | {"max": values[-1]}).items()}


def main(arguments: Sequence[str]) -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="a path, or HOST:PORT")
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--count", type=int, default=0, help="end after so many sessions")
    parser.add_argument("--rate", type=float, default=0.0, help="sessions a second; 0: closed loop")
    parser.add_argument("--think", type=float, default=0.0, help="ms between CONNECT and RCPT")
    parser.add_argument("--first", type=int, default=0, help="number of the first client of each kind")
    parser.add_argument("--pool", type=int, default=0, help="distinct clients; 0: each one new")
    parser.add_argument("--mix", default=population.SHARES, help="shares of block, trusted, unknown")
    load = Load(parser.parse_args(arguments))
    print(json.dumps(load.result(load.run())))


if __name__ == "__main__":
    main(sys.argv[1:])
