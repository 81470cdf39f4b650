"""The store over one connection that never waits: URLs, order, loss, time limits, on real servers."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from hybridgrey.filter.awaited import Call
from hybridgrey.store import pipeline
from hybridgrey.store.connection import Script, Store, StoreError
from parts.base import LOOPBACK, free_port
from parts.looped import Looped
from store.test_connection import ECHO, TIMEOUT, WRITE, secured_urls

KINDS = ["redis", "redis with database", "unix", "unix with database", "rediss", "rediss by name"]
BIG = Script("return {tonumber(ARGV[1]), #ARGV[2]}")


@pytest.fixture
def looped(server, changes):
    with opened(server.unix_url, changes) as made:
        yield made


@contextlib.contextmanager
def opened(url, changes=None, timeout=TIMEOUT):
    store = Store.open(url, timeout, on_change=changes)
    with contextlib.closing(store), Looped(store) as made:
        made.store = store
        yield made


def echo(number, *keys):
    return Call(ECHO, keys, (number,))


@pytest.mark.parametrize("kind", KINDS)
def test_urls(secured, kind):
    """Each form of URL logs in, encrypts and answers; many calls and large ones, in their order."""
    with opened(secured_urls(secured)[kind], timeout=20.0) as looped:
        assert looped.ask(Call(ECHO, [b"{a}1", b"{a}2"], [7])) == [[7, 2]]
        for _ in range(2):
            wanted = [[number, 0] for number in range(500)]
            assert looped.ask(*(echo(number) for number in range(500))) == wanted
        large = [Call(BIG, (), (number, b"x" * 100_000)) for number in range(50)]
        assert looped.ask(*large) == [[number, 100_000] for number in range(50)]


def test_the_database_is_selected(secured):
    """A database in the URL is the one that is written."""
    with opened(secured_urls(secured)["unix with database"], timeout=5.0) as looped:
        looped.ask(Call(WRITE, [b"where"], [1]))
    with secured.client() as client:
        assert client.get("where") is None
        client.select(3)
        assert client.get("where") == b"1"


def test_one_connection(server, looped):
    """However many ask, there is one connection, and a turn's calls are one write."""
    with server.client() as client:
        before = client.info("stats")["total_connections_received"]
        for _ in range(20):
            looped.ask(*(echo(number) for number in range(100)))
        assert client.info("stats")["total_connections_received"] == before + 1


def test_a_script_that_the_server_does_not_know(server, looped):
    """It is given in full, once, and those who asked behind it have their answers."""
    with server.client() as client:
        for _ in range(2):
            client.script_flush()
            assert looped.ask(*map(echo, range(20))) == [[number, 0] for number in range(20)]


def test_script_errors(looped):
    """An error reply is the StoreError of one call, and the connection stays in use."""
    bad = Call(Script("return redis.error_reply('boom')"), (), ())
    odd = Call(Script("return 'text'"), (), ())
    answers = looped.ask(echo(1), bad, echo(2), odd, echo(3))
    assert [answers[0], answers[2], answers[4]] == [[1, 0], [2, 0], [3, 0]]
    assert "boom" in str(answers[1])
    assert "not a list of integers" in str(answers[3])


def test_unreachable_servers():
    """A closed port, an absent socket, an impossible name: StoreErrors, one failure for all that waited."""
    for url in (f"redis://{LOOPBACK}:{free_port()}", "unix:///nonexistent/redis.sock", "redis://no..name"):
        with opened(url, timeout=20.0) as looped:
            answers = looped.ask(*map(echo, range(10)))
            assert all(isinstance(one, StoreError) for one in answers)
            assert looped.store.available
            for _ in range(2):
                looped.ask(echo(1))
            assert not looped.store.available
            (refused,) = looped.ask(echo(1))
            assert "the store is down" in str(refused)


def test_wrong_password_is_not_shown(secured):
    """A refused login is a StoreError that shows neither password."""
    with opened(f"redis://grey:hunter22secret@{LOOPBACK}:{secured.port}", timeout=5.0) as looped:
        (error,) = looped.ask(echo(1))
    assert isinstance(error, StoreError)
    assert "hunter22secret" not in str(error)
    assert secured.password not in str(error)


def test_a_restarted_server_is_not_noticed(server, looped):
    """The end of an idle connection is seen at once: the next call goes over a new one."""
    looped.ask(echo(1))
    server.kill()
    server.start()
    looped.turn_for(0.05)
    assert looped.ask(echo(2)) == [[2, 0]]
    assert looped.store.available


def test_connections_cut_by_the_server(server, looped):
    """One call after the other, a new connection for each."""
    for number in range(5):
        assert looped.ask(echo(number)) == [[number, 0]]
        with server.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        looped.turn_for(0.05)


class Recorder:
    """A server that counts the scripts it is given, answers some, and then hangs up or goes on in silence."""

    def __init__(self, answered, *, hang=False):
        self.commands = 0
        self.listening = socket.create_server((LOOPBACK, 0))
        self.url = f"redis://{LOOPBACK}:{self.listening.getsockname()[1]}"
        self._answered, self._hang = answered, hang
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listening.accept()
                with connection:
                    left = self._answered
                    while data := connection.recv(65536):
                        count = data.count(b"EVALSHA")
                        self.commands += count
                        for number in range(min(count, left)):
                            connection.sendall(b"*2\r\n:%d\r\n:0\r\n" % number)
                        left -= count
                        if left <= 0 and not self._hang:
                            break

    def close(self):
        self.listening.close()


def test_what_may_have_run_is_not_repeated():
    """A connection that breaks takes the calls that are on it with it: each is sent once, and is an error."""
    with contextlib.closing(Recorder(3)) as server, opened(server.url, timeout=20.0) as looped:
        answers = looped.ask(*map(echo, range(8)))
        assert answers[:3] == [[0, 0], [1, 0], [2, 0]]
        assert {str(one) for one in answers[3:]} == {"closed by the server"}
        assert server.commands == 8
        assert looped.store.available


def test_a_frozen_server_takes_one_timeout(server, looped, changes):
    """Calls to a server that accepts and never answers end in their time; three open the breaker."""
    looped.ask(echo(1))
    server.freeze()
    begin = time.monotonic()
    answers = looped.ask(echo(1), echo(2), echo(3))
    assert TIMEOUT * 0.9 < time.monotonic() - begin < TIMEOUT * 4
    assert {str(one) for one in answers} == {"no answer in time"}
    (refused,) = looped.ask(echo(4))
    assert "the store is down" in str(refused)
    server.thaw()
    looped.until(looped.store.probe)
    assert looped.ask(echo(5)) == [[5, 0]]
    assert changes.seen == [(False, "no answer in time"), (True, "")]


def test_a_late_answer_is_never_read_by_another(server, looped):
    """The answer to a call that has had its time is thrown away, and the next ones are right."""
    looped.ask(echo(1))
    server.freeze()
    assert [str(one) for one in looped.ask(echo(111))] == ["no answer in time"]
    server.thaw()
    assert looped.ask(echo(222), echo(333)) == [[222, 0], [333, 0]]


def test_a_call_with_less_time_than_others(server, looped, changes):
    """It ends in its own time and only once; the store is not blamed, and the next answers are right."""
    looped.ask(echo(1))
    server.freeze()
    hasty = Call(ECHO, (), (111,), TIMEOUT / 20)
    begin = time.monotonic()
    answers = looped.ask(*[hasty] * 4)
    assert time.monotonic() - begin < TIMEOUT
    assert {str(one) for one in answers} == {"no answer in time"}
    server.thaw()
    assert looped.ask(echo(222), echo(333)) == [[222, 0], [333, 0]]
    assert changes.seen == []


def test_a_connection_that_hangs_is_given_up():
    """One on which nothing comes for twice the time makes way for a new one."""
    server = Recorder(0, hang=True)
    with contextlib.closing(server), opened(server.url) as looped:
        looped.ask(echo(1))
        looped.until(lambda: looped.calls._link is None, 10)


def test_a_server_that_is_no_primary_any_more(server, looped):
    """READONLY is repeated once over a new connection; a second one is an error, and the breaker's."""
    looped.ask(Call(WRITE, [b"k"], [1]))
    with server.client() as client:
        client.execute_command("REPLICAOF", LOOPBACK, free_port())
        before = client.info("stats")["total_connections_received"]
        answers = looped.ask(*(Call(WRITE, [b"k"], [number]) for number in range(4)))
        assert all("READONLY" in str(one) for one in answers)
        assert client.info("stats")["total_connections_received"] == before + 1
        client.execute_command("REPLICAOF", "NO", "ONE")
        looped.until(looped.store.probe)
        assert looped.ask(Call(WRITE, [b"k"], [1])) == [[1]]


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b":1\r\n:2\r\n:3\r\n", b"*9999999\r\n"]
)
def test_a_server_of_another_protocol(said):
    """What answers otherwise is a StoreError, not a traceback, and nothing is kept of it."""
    listening = socket.create_server((LOOPBACK, 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                connection.recv(100)
                connection.sendall(said)

    threading.Thread(target=serve, daemon=True).start()
    with contextlib.closing(listening):
        url = f"redis://{LOOPBACK}:{listening.getsockname()[1]}"
        with opened(url) as looped:
            (error,) = looped.ask(echo(1))
            assert isinstance(error, StoreError)


def test_an_old_idle_connection_is_not_trusted(server, looped, monkeypatch):
    """After a minute without a word a firewall may have forgotten it: the next call has a new one."""
    looped.ask(echo(1))
    monkeypatch.setattr(pipeline, "MAX_AGE", 0.0)
    with server.client() as client:
        before = client.info("stats")["total_connections_received"]
        assert looped.ask(echo(2)) == [[2, 0]]
        assert client.info("stats")["total_connections_received"] == before + 1


def test_nobody_is_answered_twice_when_all_fails_at_once(server, looped):
    """Kills, freezes and floods: each call has one answer (`Looped.ask` sees to it), and the loop lives."""
    for round_ in range(6):
        calls = [echo(number) for number in range(50)]
        (server.freeze if round_ % 2 else server.kill)()
        looped.ask(*calls)
        (server.thaw if round_ % 2 else server.start)()
        looped.until(lambda: looped.store.available or looped.store.probe())
        looped.ask(*calls)
    looped.until(lambda: looped.ask(echo(9)) == [[9, 0]])
