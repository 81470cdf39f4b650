"""A scanner that answers, and one that is down, hangs, drips, lies or floods: a score, or unknown in time."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hybridgrey.config import scanner as places
from hybridgrey.content import scanner as scanners
from hybridgrey.content import wire
from hybridgrey.content.message import Envelope, Message
from hybridgrey.content.question import ScanError
from hybridgrey.content.scanner import DOWN, TOO_LARGE, Scanned, Scanner
from hybridgrey.lists.upstream import NoReporter
from hybridgrey.policy.conditions import UNKNOWN
from parts import rspamd, spamd
from parts.base import free_port, has_ipv6
from parts.rspamd import Rspamd
from parts.spamd import GTUBE, ScriptedSpamd, Spamd

ENVELOPE = Envelope("192.0.2.1", helo="mail.example.org", sender="a@example.org", name="mx.test", at=1e9)


class Told(NoReporter):
    def __init__(self) -> None:
        self.told: list[str] = []

    def failing(self, kind: str, **detail: object) -> None:
        self.told.append(f"{kind} {detail['error']}")

    def recovered(self, kind: str) -> None:
        self.told.append(f"{kind} ok")


def made(
    spec: str, *, timeout: float = 10.0, reporter: Told | None = None, **more: Callable[[], float]
) -> Scanner:
    place = places.parse(spec)
    assert place is not None
    return Scanner(place, timeout=timeout, max_size=100_000, reporter=reporter or Told(), **more)


def scan(scanner: Scanner, body: bytes = b"Hello.\r\n") -> Scanned:
    message = scanner.message()
    message.header(b"From", b"a@example.org")
    message.header(b"Subject", b"hello")
    message.body(body)
    return run(scanner, message)


def run(scanner: Scanner, message: Message) -> Scanned:
    steps = scanner.scan(ENVELOPE, message)
    try:
        asked = next(steps)
        try:
            answer = wire.ask(asked)
        except ScanError as error:
            steps.throw(error)
        else:
            steps.send(answer)
    except StopIteration as stop:
        found: Scanned = stop.value
        return found
    raise AssertionError("a scan asks once")


Script = Callable[[socket.socket], None]


def hang(_peer: socket.socket) -> None:
    threading.Event().wait(20)


def lie(peer: socket.socket) -> None:
    peer.sendall(b"\xff\xfe" * 50)
    peer.close()


def drip(peer: socket.socket) -> None:
    while True:
        peer.sendall(b"S")
        time.sleep(0.02)


def flood(peer: socket.socket) -> None:
    while True:
        peer.sendall(b"S" * 10_000)


def deaf(peer: socket.socket) -> None:
    peer.sendall(b"SPAMD/1.1 76 EX_PROTOCOL\r\n\r\n")
    peer.shutdown(socket.SHUT_WR)
    threading.Event().wait(20)


BAD: dict[str, tuple[Script, str]] = {
    "hangs": (hang, wire.LATE),
    "drips": (drip, wire.LATE),
    "floods": (flood, "an answer of more than 8192 bytes"),
    "closes": (lambda peer: peer.close(), ""),
    "does not read": (deaf, "spamd says 76 EX_PROTOCOL"),
    "nonsense": (lie, ""),
}


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", free_port())) as server:
        yield server


@pytest.mark.parametrize("name", BAD)
def test_a_bad_scanner(listening: socket.socket, name: str) -> None:
    """The score is unknown, for a reason, at the end of the time at the latest."""
    script, wanted = BAD[name]

    def serve() -> None:
        peer, _ = listening.accept()
        with peer:
            try:
                script(peer)
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    began = time.monotonic()
    found = scan(made(f"spamd:inet:{listening.getsockname()[1]}@127.0.0.1", timeout=0.5), b"x" * 90_000)
    assert found.score is UNKNOWN
    assert wanted in found.error
    assert found.error
    assert time.monotonic() - began < 5


def test_nobody_is_there(tmp_path: Path) -> None:
    """A place without a scanner, a socket that is not there, a name that is not known."""
    for spec, wanted in (
        (f"spamd:inet:{free_port()}@127.0.0.1", "Connection refused"),
        (f"spamd:unix:{tmp_path}/none", "No such file or directory"),
        ("rspamd:http://nobody.invalid:11333", ""),
    ):
        found = scan(made(spec))
        assert found.score is UNKNOWN
        assert wanted in found.error
        assert found.error


def test_a_unix_socket(tmp_path: Path) -> None:
    """spamd on a socket in the file system, whose answer comes in pieces."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                while peer.recv(65_536):
                    pass  # up to its half close
                for piece in (b"SPAMD/1.1 0 EX_", b"OK\r\nSpam: False ; 1.", b"5 / 5.0\r\n\r", b"\n"):
                    peer.sendall(piece)

        threading.Thread(target=serve, daemon=True).start()
        assert scan(made(f"spamd:unix:{path}")).score == 1.5


@pytest.mark.parametrize("room", [True, False])
def test_a_full_unix_socket(tmp_path: Path, room: bool) -> None:
    """One that is busy is waited for, up to the time that there is."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server, contextlib.ExitStack() as guests:
        server.bind(str(path))
        server.listen(0)
        waiting = guests.enter_context(socket.socket(socket.AF_UNIX))
        waiting.connect(str(path))

        def serve() -> None:
            time.sleep(0.2)
            for _ in range(2):
                peer, _ = server.accept()
                with peer:
                    peer.sendall(b"SPAMD/1.1 0 EX_OK\r\nSpam: False ; 1.5 / 5.0\r\n\r\n")

        if room:
            threading.Thread(target=serve, daemon=True).start()
            assert scan(made(f"spamd:unix:{path}")).score == 1.5
        else:
            assert scan(made(f"spamd:unix:{path}", timeout=0.3)).error == wire.LATE


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_by_name_and_ipv6() -> None:
    """localhost is looked up."""
    with ScriptedSpamd(2.5) as server:
        assert scan(made(f"spamd:inet:{server.server_address[1]}@localhost")).score == 2.5


def test_no_thread_to_look_a_name_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host at its limits gives no score, and no error."""

    def full(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", full)
    assert scan(made(f"spamd:inet:{free_port()}@localhost")).error == wire.NO_THREAD


def test_the_breaker() -> None:
    """After three failures in a row nobody is asked, but for one try in each pause; a success ends that."""
    later, told = [0.0], Told()
    tries: list[tuple[bool, bool]] = []
    with ScriptedSpamd(b"nonsense") as server:
        scanner = made(server.spec, reporter=told, now=lambda: time.monotonic() + later[0])
        scanner.told = lambda worked, left_alone: tries.append((worked, left_alone))
        for _ in range(scanners.LIMIT):
            assert not scanner.down
            assert scan(scanner).error == "no answer of spamd's"
        assert scanner.down
        assert scan(scanner) == Scanned(UNKNOWN, DOWN)
        assert len(server.requests) == scanners.LIMIT
        later[0] += scanners.PAUSE
        assert not scanner.down
        assert scan(scanner).error == "no answer of spamd's"
        assert scan(scanner).error == DOWN
        later[0] += scanners.PAUSE
        server.answer = 1.0
        assert scan(scanner).score == 1.0
        assert not scanner.down
        assert scan(scanner).score == 1.0
    assert told.told == ["scanner no answer of spamd's"] * 4 + ["scanner ok"] * 2
    assert tries == [(False, False)] * 2 + [(False, True)] * 2 + [(True, False)] * 2


def test_what_is_too_large_is_not_sent() -> None:
    """It costs the scanner nothing, and is no failure of its."""
    with ScriptedSpamd() as server:
        scanner = made(server.spec)
        for _ in range(2 * scanners.LIMIT):
            assert scan(scanner, b"x" * 100_001) == Scanned(UNKNOWN, TOO_LARGE)
        assert server.requests == []
        assert scan(scanner).score == 0.0


REAL = {"spamd": (spamd.missing, Spamd), "rspamd": (rspamd.missing, Rspamd)}


@pytest.mark.parametrize("name", REAL)
def test_the_real_ones(name: str) -> None:
    """GTUBE scores high, an ordinary mail does not; 8-bit, bare LF, NUL and no body at all have a score."""
    missing, part = REAL[name]
    if reason := missing():
        pytest.skip(reason)
    with part() as server:
        scanner = made(server.spec, timeout=60)
        spam, ham = scan(scanner, GTUBE.encode() + b"\r\n"), scan(scanner)
        assert isinstance(spam.score, float), spam.error
        assert isinstance(ham.score, float), ham.error
        assert spam.score > 14 > ham.score
        for body in (b"", b"bare\nLF\n", b"\xff\xfe\0 8-bit\r\n", b"x" * 90_000):
            assert isinstance(scan(scanner, body).score, float)
        empty = scanner.message()
        assert isinstance(run(scanner, empty).score, float)
