"""The keeper as a real process: pages over real HTTP, hostile clients, a taken port, its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from hybridgrey import logs
from hybridgrey.metrics.shared import Board, Shared
from hybridgrey.outcome import Outcome
from hybridgrey.page import server, site
from hybridgrey.process import assembly, keeper
from hybridgrey.store.connection import Store
from hybridgrey.trouble.collector import Direct
from hybridgrey.trouble.reporter import Channel, Reporter, decode
from parts.base import free_port
from parts.redisserver import Redis

PATIENCE = 30.0


def until(found: Callable[[], Any]) -> Any:
    """Wait until `found()` is true and return it; fail when that takes too long."""
    deadline = time.monotonic() + PATIENCE
    while not (value := found()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)
    return value


class Kept:
    """A keeper in a forked process, with its log."""

    def __init__(self, shared: Shared, *, without: socket.socket | None = None, **settings: Any) -> None:
        self.shared = shared
        self.channel = Channel()
        reader, writer = os.pipe()
        parent = os.getpid()
        settings = {"listen": ("127.0.0.1", 0), "parent": parent} | settings
        self.pid = os.fork()
        if self.pid == 0:
            status = 99
            try:
                os.close(reader)
                if without is not None:  # a listening socket lives until its last copy is closed
                    without.close()
                logs.configure("debug", "json", os.fdopen(writer, "w"))
                status = keeper.run(shared, self.channel.reporter(), **settings)
            finally:
                os._exit(status)
        os.close(writer)
        self.log = reader
        self._seen = b""
        self.status: int | None = None

    def lines(self) -> list[dict[str, Any]]:
        os.set_blocking(self.log, False)
        try:
            self._seen += os.read(self.log, 1 << 16)
        except BlockingIOError:
            return [json.loads(line) for line in self._seen.splitlines()]
        return [json.loads(line) for line in self._seen.splitlines()]

    def line(self, event: str) -> dict[str, Any]:
        found = until(lambda: [line for line in self.lines() if line["event"] == event])
        return dict(found[0])

    @property
    def port(self) -> int:
        return int(self.line("metrics served")["port"])

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def ended(self) -> bool:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is not None

    def close(self) -> None:
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.log)
        self.channel.close()


@pytest.fixture
def shared() -> Shared:
    made = Shared.create([("the rest", "greylist")], [("zen.spamhaus.org", "zen.spamhaus.org")])
    made.board.set_workers(2, 2)
    made.board.set_ready(True)
    return made


@pytest.fixture
def keep(shared: Shared) -> Iterator[Callable[..., Kept]]:
    made: list[Kept] = []

    def start(**settings: Any) -> Kept:
        made.append(Kept(shared, **settings))
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_only_a_new_address_is_news(keep: Callable[..., Kept]) -> None:
    """A keeper after a reload says at debug level that it serves where the one before it did."""
    levels = []
    one = keep()
    listen = ("127.0.0.1", one.port)
    levels.append(one.line("metrics served")["level"])
    os.kill(one.pid, signal.SIGTERM)
    until(one.ended)
    for where in (listen, ("127.0.0.1", 0)):
        kept = keep(listen=where)
        levels.append(kept.line("metrics served")["level"])
    assert levels == ["info", "debug", "info"]


def test_metrics_of_other_processes(keep: Callable[..., Kept], shared: Shared) -> None:
    """A scrape shows what another process has counted, also after the keeper started."""
    kept = keep()
    meter = shared.meter(shared.counters.lease())
    meter.decided("the rest", "greylist", Outcome.GREYLISTED, 0.0)
    response, body = kept.get("/metrics")
    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/plain")
    assert b'hybridgrey_verdicts_total{action="greylist",enforced="true",rule="the rest"} 1.0\n' in body
    meter.decided("the rest", "greylist", Outcome.GREYLISTED, 0.0)
    assert b'rule="the rest"} 2.0\n' in kept.get("/metrics")[1]


def test_openmetrics_is_negotiated(keep: Callable[..., Kept]) -> None:
    """A client that asks for OpenMetrics gets it."""
    response, body = keep().get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert response.headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


PAGES = [
    ("GET", "/healthz", 200),
    ("HEAD", "/healthz", 200),
    ("HEAD", "/metrics", 200),
    ("GET", "/metrics?name=x", 200),
    ("GET", "/", 404),
    ("GET", "/../etc/passwd", 404),
    ("GET", "/" + "x" * 4000, 414),
    ("POST", "/metrics", 501),
    ("DELETE", "/healthz", 501),
]


@pytest.mark.parametrize(
    ("method", "path", "status"), PAGES, ids=[f"{row[0]} {row[1][:20]}" for row in PAGES]
)
def test_pages(keep: Callable[..., Kept], method: str, path: str, status: int) -> None:
    """Two pages, two methods; the rest is refused, and HEAD has no body."""
    response, body = keep().get(path, method)
    assert response.status == status
    assert (body == b"") is (method == "HEAD")
    assert "Python" not in (response.headers["Server"] or "")


HEALTH: list[tuple[str, tuple[int, int], bool, Mapping[str, str], list[str]]] = [
    ("all well", (2, 2), True, {"store": ""}, []),
    ("starting", (0, 2), False, {}, ["not ready: not accepting connections", "workers: 0 of 2 alive"]),
    ("one worker down", (1, 2), True, {}, ["workers: 1 of 2 alive"]),
    ("never told", (0, 0), True, {}, ["workers: 0 of 0 alive"]),
    ("store down", (2, 2), True, {"store": "connection refused"}, ["store: connection refused"]),
    ("hostile text", (2, 2), True, {"store": "a\nok"}, [r"store: a\nok"]),
]


@pytest.mark.parametrize(
    ("workers", "ready", "checks", "want"), [row[1:] for row in HEALTH], ids=[row[0] for row in HEALTH]
)
def test_health_table(
    workers: tuple[int, int], ready: bool, checks: Mapping[str, str], want: list[str]
) -> None:
    """Each thing that is wrong has its own line."""
    board = Board()
    board.set_workers(*workers)
    board.set_ready(ready)
    health = keeper.Health(board, {name: lambda said=said: said for name, said in checks.items()})
    assert health.reasons() == want


def test_health_over_http(keep: Callable[..., Kept], shared: Shared) -> None:
    """A worker that is missing is 503 with the reason, and 200 once it is back."""
    kept = keep()
    assert kept.get("/healthz")[1] == b"ok\n"
    shared.board.set_workers(1, 2)
    response, body = kept.get("/healthz")
    assert (response.status, body) == (503, b"workers: 1 of 2 alive\n")
    shared.board.set_workers(2, 2)
    assert kept.get("/healthz")[0].status == 200


def test_checks_are_asked_seldom() -> None:
    """However often the page is read, a check is asked once in a while."""
    asked = []
    now = [100.0]
    board = Board()
    board.set_workers(1, 1)
    board.set_ready(True)
    health = keeper.Health(board, {"store": lambda: asked.append(1) or "down"}, lambda: now[0])
    for _ in range(50):
        assert health.reasons() == ["store: down"]
    assert len(asked) == 1
    now[0] += keeper.CHECK_SECONDS
    health.reasons()
    assert len(asked) == 2


def test_a_check_that_raises_keeps_its_secret() -> None:
    """A check that raises counts as failed; what it says is not shown."""

    def check() -> str:
        raise ConnectionError("redis://:geheim@host")

    board = Board()
    board.set_workers(1, 1)
    board.set_ready(True)
    assert keeper.Health(board, {"store": check}).reasons() == ["store: failed (ConnectionError)"]


def test_a_taken_port_is_one_report(keep: Callable[..., Kept], monkeypatch: pytest.MonkeyPatch) -> None:
    """While another has the port the keeper says so once and runs on; it serves when the port is free."""
    monkeypatch.setattr(keeper, "RETRY", 0.1)
    monkeypatch.setattr(keeper, "HANDOVER_PAUSE", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        kept = keep(listen=taken.getsockname(), without=taken)
        first = decode(until(kept.channel.receive)[0])
        time.sleep(0.5)
        assert not kept.ended()
        assert kept.channel.receive() == []
    assert first is not None
    assert (first.kind, first.failing) == ("metrics listener", True)
    assert first.detail["address"].startswith("127.0.0.1:")
    assert kept.get("/healthz")[0].status == 200
    second = decode(until(kept.channel.receive)[0])
    assert second is not None
    assert (second.kind, second.failing) == ("metrics listener", False)


def test_handover_is_silent(keep: Callable[..., Kept]) -> None:
    """A keeper that follows another on the same port waits a moment for it and reports nothing."""
    old = keep()
    new = keep(listen=("127.0.0.1", old.port))
    os.kill(old.pid, signal.SIGTERM)
    until(old.ended)
    assert new.get("/healthz")[0].status == 200
    assert new.channel.receive() == []


def test_off() -> None:
    """Without a listen address there is no HTTP, prometheus_client is not even imported, and tasks run."""
    # A process that has imported nothing yet, for this one has.
    code = """
import os, sys, threading
from hybridgrey.process import keeper
from hybridgrey.metrics.shared import Shared
class Silent:
    def failing(self, kind, **detail): pass
    def recovered(self, kind): pass
def task(stop):
    print(any("prometheus" in name for name in sys.modules), flush=True)
    os.kill(os.getpid(), 15)
sys.exit(keeper.run(Shared.create([], []), Silent(), listen=None, parent=os.getppid(), tasks=[task]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stdout, done.returncode) == ("False\n", 0), done.stderr


def test_term_ends_it(keep: Callable[..., Kept]) -> None:
    """SIGTERM ends it with status 0, with an idle client connected and a task that heeds its event."""
    reader, writer = os.pipe()

    def task(stop: threading.Event) -> None:
        stop.wait()
        os.write(writer, b"stopped")

    kept = keep(tasks=[task])
    with socket.create_connection(("127.0.0.1", kept.port)):
        os.kill(kept.pid, signal.SIGTERM)
        until(kept.ended)
    assert kept.status == 0
    assert os.read(reader, 100) == b"stopped"
    os.close(reader)
    os.close(writer)


def test_a_deaf_task_does_not_hold_it(keep: Callable[..., Kept]) -> None:
    """A task that ignores its event does not keep the process from ending."""
    kept = keep(tasks=[lambda stop: time.sleep(3600)])
    assert kept.port
    os.kill(kept.pid, signal.SIGTERM)
    until(kept.ended)
    assert kept.status == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_the_terminals_signals_are_the_masters(keep: Callable[..., Kept], number: int) -> None:
    """Ctrl-C and a hang-up reach every process of the terminal; the keeper waits for the master's word."""
    kept = keep()
    assert kept.port
    os.kill(kept.pid, number)
    assert kept.get("/healthz")[0].status == 200


def test_it_ends_with_its_master(shared: Shared) -> None:
    """When the master is killed the keeper ends by itself."""
    reader, writer = os.pipe()
    if (master := os.fork()) == 0:
        try:
            os.close(reader)
            Kept(shared, tasks=[lambda stop: os.write(writer, b"!")])
            time.sleep(60)
        finally:
            os._exit(0)
    os.close(writer)
    assert os.read(reader, 1) == b"!"
    os.kill(master, signal.SIGKILL)
    os.waitpid(master, 0)
    # The keeper holds the other end of the pipe: it reads as ended when the keeper has.
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_a_task_that_raises(keep: Callable[..., Kept], monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in a task is logged with its frames once, reported, and the task is run again."""
    monkeypatch.setattr(keeper, "TASK_PAUSE", 0.05)
    tries = Shared.create([], []).board

    def task(stop: threading.Event) -> None:
        tries.set_workers(tries.alive + 1, 0)
        if tries.alive < 4:
            raise ValueError("a\nbug")
        stop.wait()

    kept = keep(tasks=[task])
    line = kept.line("keeper task failed")
    assert line["exception"] == r"ValueError: a\nbug"
    assert " task" in line["traceback"]
    until(lambda: tries.alive == 4)
    assert [line["event"] for line in kept.lines()].count("keeper task failed") == 1
    assert kept.get("/healthz")[0].status == 200


def test_a_task_that_is_told_to_end_has_not_recovered(
    keep: Callable[..., Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a failed task ends with its keeper says nothing of it; one that comes to its end has recovered."""
    monkeypatch.setattr(keeper, "TASK_PAUSE", 0.05)
    monkeypatch.setattr(keeper, "STOP_SECONDS", PATIENCE)
    rounds = Shared.create([], []).board

    def failed_once() -> bool:
        rounds.set_workers(rounds.alive + 1, 0)
        return rounds.alive <= 2

    def long(stop: threading.Event) -> None:
        if failed_once():
            raise ValueError("a bug")
        stop.wait()

    def short(stop: threading.Event) -> None:
        if failed_once():
            raise ValueError("a bug")

    kept = keep(tasks=[long, short])
    until(lambda: rounds.alive == 4)
    os.kill(kept.pid, signal.SIGTERM)
    until(kept.ended)
    said = [found for data in kept.channel.receive() if (found := decode(data))]
    assert len([one for one in said if one.failing]) == 2
    assert [one.kind.rpartition(".")[2] for one in said if not one.failing] == ["short"]


def test_a_store_that_has_not_answered_has_not_recovered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the watch is no answer of the store's; an answer is."""
    monkeypatch.setattr(assembly, "WATCH_SECONDS", 0.05)
    with Redis() as redis:
        for url, wanted in ((f"redis://127.0.0.1:{free_port()}", {True}), (redis.unix_url, {True, False})):
            said: list[bool] = []
            reporter = Reporter(lambda data: said.append(bool((found := decode(data)) and found.failing)))  # noqa: B023
            reporter.failing("store", error="told before")
            stop = threading.Event()
            store = Store.open(url, 5.0)
            watch = threading.Thread(target=assembly._watch, args=(store, reporter, stop))
            watch.start()
            until(lambda: store.reason or False in said)  # noqa: B023 (called here)
            stop.set()
            watch.join()
            store.close()
            assert set(said) == wanted


def test_slow_clients_do_not_shut_others_out(
    keep: Callable[..., Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that send a byte at a time are ended, and a scrape gets through."""
    monkeypatch.setattr(server, "REQUEST_SECONDS", 1.0)
    kept = keep()
    slow = [socket.create_connection(("127.0.0.1", kept.port)) for _ in range(server.REQUESTS_MAX + 5)]

    def answered() -> bool:
        for one in slow:
            try:
                one.send(b"G")
            except OSError:
                continue
        try:
            return kept.get("/healthz")[0].status == 200
        except OSError:
            return False

    try:
        until(answered)
    finally:
        for one in slow:
            one.close()


class Crowd:
    """Connections to a keeper that do what they like."""

    def __init__(self, kept: Kept, number: int, said: bytes = b"", **options: int) -> None:
        self.members = []
        for _ in range(number):
            one = socket.socket()
            for name, value in options.items():
                one.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
            one.connect(("127.0.0.1", kept.port))
            one.sendall(said)
            self.members.append(one)

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.members:
            one.close()


def threads(kept: Kept) -> int:
    return len(list(Path(f"/proc/{kept.pid}/task").iterdir()))


class Odd:
    """A site with an answer that is large and one that must be waited for."""

    headers: Mapping[str, str] = {}

    def __init__(self, gate: int) -> None:
        self.gate = gate
        self.large = bytes(8 << 20)

    def answer(self, target: str, headers: Mapping[str, str], *, loopback: bool) -> site.Answer:
        body = b"ok\n"
        if target == "/slow":
            os.read(self.gate, 1)
        if target == "/large":
            body = self.large
        return site.Answer(HTTPStatus.OK, site.PLAIN, body, {})


SILENT = [
    (b"", {}),
    (b"GET /metr", {}),
    (b"GET /healthz HTTP/1.0\r\nX-A: b\r\n", {}),
    (b"GET /large HTTP/1.0\r\n\r\n", {"SO_RCVBUF": 2048}),
]


@pytest.mark.parametrize(("said", "options"), SILENT, ids=["silent", "line", "headers", "slow reader"])
def test_who_holds_connections_starves_nobody(
    keep: Callable[..., Kept], said: bytes, options: Mapping[str, int]
) -> None:
    """With hundreds that say nothing, go on for ever or do not read, each that asks is answered at once.

    None of them has been there for as long as a request may take.
    """
    gate, hand = os.pipe()
    kept = keep(site=lambda health: Odd(gate))
    assert kept.get("/healthz")[0].status == 200
    with Crowd(kept, 100, said, **options):
        for _ in range(3):
            assert kept.get("/healthz")[1] == b"ok\n"
            assert kept.get("/metrics")[0].status == 200
        assert threads(kept) <= 2 * server.REQUESTS_MAX + 3
        with Crowd(kept, 100, said, **options):
            assert kept.get("/healthz")[1] == b"ok\n"
    until(lambda: threads(kept) <= 3)
    os.close(gate)
    os.close(hand)


def test_answers_that_wait_leave_a_lane_for_health(
    keep: Callable[..., Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the store silent and everybody at the page, /healthz is answered; others shall come back."""
    monkeypatch.setattr(server, "BUSY_SECONDS", 0.2)
    gate, hand = os.pipe()
    kept = keep(site=lambda health: Odd(gate))
    with Crowd(kept, 100, b"GET /slow HTTP/1.0\r\n\r\n") as crowd:
        assert kept.get("/healthz")[1] == b"ok\n"
        assert kept.get("/metrics")[0].status == 503
        os.write(hand, bytes(200))
        until(lambda: kept.get("/metrics")[0].status == 200)
        answered = [one for one in crowd.members if b"200 OK" in received(one)]
        assert len(answered) >= server.REQUESTS_MAX // 2
    os.close(gate)
    os.close(hand)


def received(client: socket.socket) -> bytes:
    client.settimeout(PATIENCE)
    try:
        return client.recv(100)
    except ConnectionResetError:
        return b""


def test_a_request_without_end(keep: Callable[..., Kept]) -> None:
    """Headers are read up to a bound, whoever sends them."""
    kept = keep()
    lines = b"".join(b"X-%d: %s\r\n" % (n, bytes(60_000).replace(b"\0", b"a")) for n in range(3))
    with Crowd(kept, 1, b"GET /metrics HTTP/1.0\r\n") as crowd:
        with suppress(ConnectionError):
            crowd.members[0].sendall(lines)
        assert received(crowd.members[0]).startswith((b"HTTP/1.0 431", b""))
    assert kept.get("/healthz")[0].status == 200


@pytest.mark.parametrize(
    ("address", "want"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_who_counts_as_one(address: str, want: str) -> None:
    """One address, or one network of IPv6, whose addresses cost nothing."""
    assert server._neighbourhood(address) == want


GARBAGE = [
    b"\r\n\r\n",
    b"\xff\xfe\x00\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET /metrics HTTP/9.9\r\n\r\n",
    b"A" * 70_000,
]


@pytest.mark.parametrize("data", GARBAGE, ids=lambda data: repr(data[:20]))
def test_garbage(keep: Callable[..., Kept], data: bytes) -> None:
    """Bytes that are no request harm nobody."""
    kept = keep()
    with socket.create_connection(("127.0.0.1", kept.port), timeout=PATIENCE) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        try:
            while client.recv(4096):
                pass
        except ConnectionResetError:
            assert len(data) > 65_536  # the answer came before all was read
    assert kept.get("/healthz")[0].status == 200


@pytest.mark.parametrize(
    ("address", "want"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::1%lo", True),
        ("192.0.2.1", False),
        ("::ffff:192.0.2.1", False),
        ("fe80::1%eth0", False),
        ("0.0.0.0", False),
    ],
)
def test_loopback(address: str, want: bool) -> None:
    """What is connected to on a loopback address comes from this host."""
    assert server.is_loopback(address) is want


def test_ipv6(keep: Callable[..., Kept]) -> None:
    """An IPv6 address can be listened on."""
    kept = keep(listen=("::1", 0))
    connection = HTTPConnection("::1", kept.port, timeout=PATIENCE)
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()


def test_a_bad_address_is_a_report_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address this host does not have is reported like a taken port, and the loop ends when told to."""
    monkeypatch.setattr(keeper, "HANDOVER_PAUSE", 0.0)
    monkeypatch.setattr(keeper, "RETRY", 0.01)
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        logs.configure("info", "json", stream)
        shared, stop = Shared.create([], []), threading.Event()
        served = site.Site(shared, list)
        arguments = (("192.0.2.1", 0), shared.board, lambda: served, Direct(logs.get()), stop)
        thread = threading.Thread(target=keeper.serve, args=arguments)
        thread.start()
        line = json.loads(os.read(reader, 4096))
        stop.set()
        thread.join(PATIENCE)
    os.close(reader)
    assert not thread.is_alive()
    assert line["event"] == "metrics listener failing"
    assert line["address"] == "192.0.2.1:0"
