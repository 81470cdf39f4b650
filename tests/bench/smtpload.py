"""A load of SMTP clients from addresses of their own: one process, one epoll loop. Prints one JSON object.

Run as a program, inside a network namespace where the clients' networks are local (see __main__.py). A
session: greeting, EHLO, `--think` ms of silence, MAIL, RCPT, and a message if the recipient passes; QUIT.
A client that is told to come back (4yz) does so after `--retry` seconds, twice at most.

What counts is what ends after `--warmup` seconds; a verdict that is not the one that the lists ask for is
counted as wrong.
"""

from __future__ import annotations

import argparse
import collections
import heapq
import itertools
import json
import select
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench import population
from bench.milterload import percentiles

IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; Python has no name for it
TRIES = 3
BODY = b"Some words of a message.\r\n" * 40
now = time.perf_counter


@dataclass(slots=True)
class Client:
    """One that has a message to send, over several attempts."""

    kind: str
    number: int
    attempt: int = 0


class Session:
    """One attempt; `step` is the command whose reply it waits for."""

    __slots__ = ("begun", "buffer", "client", "code", "sent", "socket", "step", "waits")

    def __init__(self, client: Client, sock: socket.socket) -> None:
        self.client, self.socket = client, sock
        self.buffer = b""
        self.step = "greeting"
        self.code = ""
        self.begun = self.sent = now()
        self.waits: dict[str, float] = {}


class Load:
    """The loop and what it has seen."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.people = population.clients(options.first)
        self.poll = select.epoll()
        self.live: dict[int, Session] = {}
        self.timers: list[tuple[float, int, Session | Client]] = []
        self.order = itertools.count()
        self.counting = False
        self.begun = 0
        self.all_sessions = self.sessions = self.clients = self.wrong = 0
        self.waits: dict[str, list[float]] = collections.defaultdict(list)
        self.answers: collections.Counter[str] = collections.Counter()
        self.errors: collections.Counter[str] = collections.Counter()

    # -- one session

    def begin(self, client: Client) -> None:
        """Connect from the client's address."""
        client.attempt += 1
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((population.address(client.kind, client.number), 0))
        sock.connect_ex(("127.0.0.1", self.options.port))
        self.live[sock.fileno()] = Session(client, sock)
        self.poll.register(sock, select.EPOLLIN)

    def new(self) -> None:
        """A client that nobody has seen."""
        self.begun += 1
        self.begin(Client(*next(self.people)))

    def say(self, session: Session, step: str) -> None:
        """Send a command."""
        session.step, session.sent = step, now()
        try:
            session.socket.send(self.text(session.client, step))
        except OSError as error:
            self.end(session, str(error))

    def text(self, client: Client, step: str) -> bytes:
        """What a client sends at a step."""
        name = f"s{client.number}@{client.kind}{client.number}.example"
        match step:
            case "ehlo":
                return f"EHLO a{client.attempt}.mail{client.number}.{client.kind}.example\r\n".encode()
            case "mail":
                return f"MAIL FROM:<{name}>\r\n".encode()
            case "rcpt":
                return f"RCPT TO:<u{client.number % 499}@example.test>\r\n".encode()
            case "message":
                return f"From: <{name}>\r\nSubject: number {client.number}\r\n\r\n".encode() + BODY + b".\r\n"
            case _:
                return step.upper().encode() + b"\r\n"

    def readable(self, session: Session) -> None:
        """Take what came; a reply ends with a line whose code is not followed by a dash."""
        try:
            data = session.socket.recv(8192)
        except BlockingIOError:
            return
        except OSError as error:
            self.end(session, str(error))
            return
        if not data:
            self.end(session, f"closed at {session.step}")
            return
        session.buffer += data
        last = session.buffer[:-1].rpartition(b"\n")[2]
        if session.buffer.endswith(b"\n") and last[3:4] != b"-":
            session.buffer = b""
            self.reply(session, last[:3].decode())

    def reply(self, session: Session, code: str) -> None:
        """One reply, whole."""
        session.waits[session.step] = now() - session.sent
        passed = code[0] in "23"
        if session.step == "quit":
            self.end(session)
        elif not passed or session.step == "message":
            session.code = f"{code} at {session.step}"
            session.waits["verdict"] = now() - session.begun
            self.say(session, "quit")
        elif session.step == "ehlo" and self.options.think:
            session.step = "thinking"
            self.later(self.options.think / 1000, session)
        else:
            steps = {"greeting": "ehlo", "ehlo": "mail", "mail": "rcpt", "rcpt": "data", "data": "message"}
            self.say(session, steps[session.step])

    def end(self, session: Session, error: str = "") -> None:
        """Forget a session, remember what it measured."""
        self.poll.unregister(session.socket)
        del self.live[session.socket.fileno()]
        session.socket.close()
        session.step = "ended"
        client = session.client
        self.all_sessions += 1
        if error:
            self.errors[error] += 1
            return
        if self.counting:
            self.count(session)
        if session.code[0] == "4" and client.attempt < TRIES:
            self.later(self.options.retry, client)

    def count(self, session: Session) -> None:
        """One session of the time that counts."""
        client, code = session.client, session.code[0]
        self.sessions += 1
        self.clients += client.attempt == 1
        for step, wait in session.waits.items():
            self.waits[step].append(wait)
        self.answers[f"{client.kind} {client.attempt} {session.code}"] += 1
        wanted = {"block": "5", "trusted": "2", "unknown": "4" if client.attempt == 1 else "2"}
        self.wrong += code != wanted[client.kind]

    def later(self, seconds: float, what: Session | Client) -> None:
        """Come back to something."""
        heapq.heappush(self.timers, (now() + seconds, next(self.order), what))

    # -- the loop

    def run(self) -> dict[str, object]:
        """Load until the time is over; the figures, times in ms."""
        start = now()
        end: float = start + self.options.seconds
        while (at := now()) < end:
            self.counting = at >= start + self.options.warmup
            self.turn(min(self.more(start), end - at, 0.05))
        counted = self.options.seconds - self.options.warmup
        return {
            "seconds": self.options.seconds,
            "all_sessions": self.all_sessions,
            "sessions_per_s": self.sessions / counted,
            "clients_per_s": self.clients / counted,
            "sessions": self.sessions,
            "wrong": self.wrong,
            "load_cpu": time.process_time(),
            "waits_ms": {step: percentiles(values) for step, values in self.waits.items()},
            "answers": dict(sorted(self.answers.items())),
            "errors": dict(self.errors),
        }

    def more(self, start: float) -> float:
        """Begin what is due; how long there is nothing more to begin."""
        while self.timers and self.timers[0][0] <= now():
            if isinstance(self.timers[0][2], Client) and len(self.live) >= self.options.concurrency:
                break
            what = heapq.heappop(self.timers)[2]
            if isinstance(what, Client):
                self.begin(what)
            elif what.step == "thinking":
                self.say(what, "mail")
        pause = max(0.0, self.timers[0][0] - now()) if self.timers else 1.0
        rate: float = self.options.rate
        if not rate:
            while len(self.live) < self.options.concurrency:
                self.new()
            return pause if len(self.live) < self.options.concurrency else max(pause, 0.001)
        while (due := start + self.begun / rate) <= now():
            self.new()
        return min(pause, max(0.0, due - now()))

    def turn(self, pause: float) -> None:
        """One look at the sockets."""
        for fd, _ in self.poll.poll(max(0.0, pause)):
            session = self.live.get(fd)
            if session is not None:
                self.readable(session)


def main(arguments: Sequence[str]) -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int, help="on 127.0.0.1")
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--warmup", type=float, default=3.0)
    parser.add_argument("--rate", type=float, default=0.0, help="new clients a second; 0: closed loop")
    parser.add_argument("--think", type=float, default=0.0, help="ms of silence before MAIL")
    parser.add_argument("--retry", type=float, default=2.6, help="seconds")
    parser.add_argument("--first", type=int, default=0, help="number of the first client of each kind")
    print(json.dumps(Load(parser.parse_args(arguments)).run()))


if __name__ == "__main__":
    main(sys.argv[1:])
