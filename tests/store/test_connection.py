"""The store: kinds of URL, connections that die, time limits, and the breaker, on real servers."""

import contextlib
import itertools
import socket
import threading
import time

import pytest
import redis

from hybridgrey.store.connection import Breaker, Script, Store, StoreError
from hybridgrey.store.link import LostError
from hybridgrey.store.redis_py import backend
from parts.base import LOOPBACK, Part, free_port, wait_until
from parts.redisserver import Redis, server_binary

ECHO = Script("return {tonumber(ARGV[1]), #KEYS}")
WRITE = Script("redis.call('SET', KEYS[1], ARGV[1]) return {1}")
TIMEOUT = 0.4


@pytest.fixture
def store(server, changes):
    with contextlib.closing(Store.open(server.unix_url, TIMEOUT, on_change=changes)) as store:
        yield store


def quote(text):
    return text.replace("%", "%25").replace("@", "%40").replace(":", "%3A").replace("/", "%2F")


def secured_urls(part):
    login = f"{part.user}:{quote(part.password)}@"
    ca = f"?ssl_ca_certs={part.ca}"
    return {
        "redis": f"redis://{login}{LOOPBACK}:{part.port}",
        "redis with database": f"redis://{login}{LOOPBACK}:{part.port}/5",
        "unix": f"unix://{login}{part.socket}",
        "unix with database": f"unix://{login}{part.socket}?db=3",
        "rediss": f"rediss://{login}{LOOPBACK}:{part.tls_port}/0{ca}",
        "rediss by name": f"rediss://{login}localhost:{part.tls_port}/0{ca}",
        "rediss unverified": f"rediss://{login}{LOOPBACK}:{part.tls_port}/0?ssl_cert_reqs=none&"
        "ssl_check_hostname=false",
    }


@pytest.mark.parametrize(
    "kind",
    [
        "redis",
        "redis with database",
        "unix",
        "unix with database",
        "rediss",
        "rediss by name",
        "rediss unverified",
    ],
)
def test_urls(secured, kind):
    """Each form of URL logs in, encrypts and answers."""
    with contextlib.closing(Store.open(secured_urls(secured)[kind], 5.0)) as store:
        assert store.run(ECHO, [b"{a}1", b"{a}2"], [7]) == [7, 2]
        assert store.available


def test_the_database_is_selected(secured):
    """A database in the URL is the one that is written."""
    with contextlib.closing(Store.open(secured_urls(secured)["unix with database"], 5.0)) as store:
        store.run(WRITE, [b"where"], [1])
    with secured.client() as client:
        assert client.get("where") is None
        client.select(3)
        assert client.get("where") == b"1"


def test_tls_is_verified_by_default(secured):
    """A certificate of an unknown authority is refused."""
    url = f"rediss://{LOOPBACK}:{secured.tls_port}/0"
    with pytest.raises(StoreError, match=r"(?i)certificate"):
        Store.open(url, 5.0).run(ECHO, [], [1])


SECRET = "hunter22secret"  # looked for in messages


@pytest.mark.parametrize(
    "url",
    [
        f"http://:{SECRET}@host/0",
        f"redis://:{SECRET}@host:port/0",
        f"redis://:{SECRET}@host:99999/0",
        f"redis://:{SECRET}@host/0?no_such_option=1",
        f"redis://:{SECRET}@host/0?socket_timeout=abc",
        f"rediss://:{SECRET}@host/0?ssl_cert_reqs=perhaps",
        f"sentinel://:{SECRET}@host:26379",
        f"sentinel://:{SECRET}@host:26379/name/db",
        f"cluster://:{SECRET}@host:port",
        f"cluster://:{SECRET}@",
        SECRET,
        "",
    ],
)
def test_bad_urls(url):
    """A bad URL is a StoreError at once, and its text shows no secret."""
    with pytest.raises(StoreError) as caught:
        Store.open(url, 1.0)
    assert SECRET not in str(caught.value)


def test_wrong_password_is_not_shown(secured):
    """A refused login is a StoreError that shows neither password."""
    store = Store.open(f"redis://grey:{SECRET}@{LOOPBACK}:{secured.port}", 5.0)
    with pytest.raises(StoreError) as caught:
        store.run(ECHO, [], [1])
    assert SECRET not in str(caught.value)
    assert secured.password not in str(caught.value)


def test_unreachable_servers():
    """A closed port, an absent socket and a name that cannot be are StoreErrors, quickly."""
    for url in (f"redis://{LOOPBACK}:{free_port()}", "unix:///nonexistent/redis.sock", "redis://no..name"):
        with pytest.raises(StoreError):
            Store.open(url, 5.0).run(ECHO, [], [1])


def test_script_errors_leave_as_store_errors(store):
    """An error reply is a StoreError, and the connection stays in use."""
    with pytest.raises(StoreError, match="boom"):
        store.run(Script("return redis.error_reply('boom')"), [], [])
    assert store.run(ECHO, [], [3]) == [3, 0]


def test_connections_are_used_again(server, store):
    """A hundred calls make one connection; a hundred simultaneous ones leave a bounded number."""
    with server.client() as client:
        before = client.info("stats")["total_connections_received"]
        for number in range(100):
            assert store.run(ECHO, [], [number])[0] == number
        assert client.info("stats")["total_connections_received"] == before + 1
        barrier = threading.Barrier(80)

        def call():
            barrier.wait()
            with contextlib.suppress(StoreError):
                store.run(Script("local s = 0 for i = 1, 300000 do s = s + i end return {1}"), [], [])

        threads = [threading.Thread(target=call) for _ in range(80)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: len(client.client_list()) <= 34, "the surplus connections are closed")


def test_answers_never_mix(store):
    """Under many threads each call gets the answer to its own question."""
    wrong = []

    def ask(number):
        for step in range(100):
            if store.run(ECHO, [b"k"], [number * 1000 + step]) != [number * 1000 + step, 1]:
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_restarted_server_is_not_noticed(server, store):
    """After a restart the first call succeeds although all idle connections are dead."""
    store.run(ECHO, [], [1])
    server.kill()
    server.start()
    assert store.run(ECHO, [], [2]) == [2, 0]
    assert store.available


def test_connections_cut_by_the_server(server, store):
    """Idle connections closed by the server are replaced, one call after the other."""
    for number in range(5):
        assert store.run(ECHO, [], [number]) == [number, 0]
        with server.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def test_frozen_server_takes_one_timeout(server, store):
    """A server that accepts and never answers costs about one timeout, not two."""
    store.run(ECHO, [], [1])
    server.freeze()
    begin = time.monotonic()
    with pytest.raises(StoreError, match="no answer in time"):
        store.run(ECHO, [], [1])
    assert TIMEOUT * 0.9 < time.monotonic() - begin < TIMEOUT * 4
    server.thaw()


def test_a_late_answer_is_never_read_by_another(server, store):
    """The reply to a call that timed out is not taken for the reply to the next one."""
    store.run(ECHO, [], [1])
    server.freeze()
    with pytest.raises(StoreError):
        store.run(ECHO, [], [111])
    server.thaw()
    assert store.run(ECHO, [], [222]) == [222, 0]


def test_breaker_on_a_real_outage(server, store, changes):
    """Three failures open the breaker, calls then cost nothing, its return closes it: two reports."""
    store.run(ECHO, [], [1])
    server.freeze()
    for _ in range(3):
        with pytest.raises(StoreError, match="no answer in time"):
            store.run(ECHO, [], [1])
    assert not store.available
    begin = time.monotonic()
    refused = 0
    for _ in range(1000):
        with pytest.raises(StoreError, match="the store is down"):
            store.run(ECHO, [], [1])
        refused += 1
        if time.monotonic() - begin > 0.5:
            break
    assert refused > 100
    assert not store.probe()
    server.thaw()
    wait_until(store.probe, "the probe sees the server")
    assert store.available
    assert store.run(ECHO, [], [5]) == [5, 0]
    assert changes.seen == [(False, "no answer in time"), (True, "")]


@pytest.mark.parametrize("ended", ["stop", "kill"])
def test_breaker_over_a_stopped_server(server, store, changes, ended):
    """A stopped or killed server opens the breaker; without a prober a caller closes it after the return."""
    store.run(ECHO, [], [1])
    getattr(server, ended)()
    for _ in range(5):
        with pytest.raises(StoreError):
            store.run(ECHO, [], [1])
    assert [available for available, _ in changes.seen] == [False]
    server.start()

    def answers():
        with contextlib.suppress(StoreError):
            return store.run(ECHO, [], [1]) == [1, 0]
        return False

    wait_until(answers, "a caller reaches the server again")
    assert [available for available, _ in changes.seen] == [False, True]


def test_probe_sees_a_server_that_only_reads(server, changes):
    """A replica answers PING but cannot serve: the probe does not take it for healthy."""
    with (
        contextlib.closing(Store.open(server.unix_url, TIMEOUT, on_change=changes)) as store,
        server.client() as client,
    ):
        client.execute_command("REPLICAOF", LOOPBACK, free_port())
        for _ in range(3):
            with pytest.raises(StoreError, match="READONLY"):
                store.run(WRITE, [b"k"], [1])
        assert not store.available
        assert not store.probe()
        client.execute_command("REPLICAOF", "NO", "ONE")
        assert store.probe()
        assert store.run(WRITE, [b"k"], [1]) == [1]


def test_full_memory_is_an_outage(server, store):
    """A server at its memory limit refuses writes: StoreError, and the breaker knows."""
    with server.client() as client:
        client.config_set("maxmemory", "1")
        for _ in range(3):
            with pytest.raises(StoreError, match="OOM"):
                store.run(WRITE, [b"k"], [1])
        assert not store.probe()
        client.config_set("maxmemory", "0")
        assert store.probe()


def test_a_server_of_another_protocol():
    """What answers in another protocol is a StoreError, not a traceback."""
    with socket.create_server((LOOPBACK, 0)) as listener:

        def answer():
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(100)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        store = Store.open(f"redis://{LOOPBACK}:{listener.getsockname()[1]}", 5.0)
        with pytest.raises(StoreError):
            store.run(ECHO, [], [1])


def test_a_full_backlog_is_a_store_error(tmp_path):
    """A unix socket whose owner accepts nobody is a StoreError within the timeout."""
    path = str(tmp_path / "s")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        for _ in range(2):
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            waiting.connect_ex(path)
        with pytest.raises(StoreError):
            Store.open(f"unix://{path}", TIMEOUT).run(ECHO, [], [1])


def test_ping(store, server):
    """ping raises when the server is away and does not when it is there."""
    store.ping()
    server.stop()
    with pytest.raises(StoreError):
        store.ping()
    server.start()
    store.ping()


class Clock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_breaker_rules(changes):
    """Closed until three failures in a row; open: one try a second; a success closes."""
    clock = Clock()
    breaker = Breaker(changes, limit=3, pause=1.0, clock=clock)
    for _ in range(2):
        breaker.failed("x")
        breaker.failed("y")
        assert breaker.admits()
        breaker.succeeded()
    assert changes.seen == []
    for reason in "abc":
        breaker.failed(reason)
    assert breaker.open
    assert [breaker.admits() for _ in range(3)] == [False] * 3
    clock.now += 1.0
    assert [breaker.admits() for _ in range(3)] == [True, False, False]
    breaker.failed("d")
    clock.now += 0.9
    assert not breaker.admits()
    clock.now += 0.2
    assert breaker.admits()
    breaker.succeeded()
    assert (breaker.open, breaker.reason) == (False, "")
    assert [breaker.admits() for _ in range(3)] == [True] * 3
    assert changes.seen == [(False, "c"), (True, "")]


def test_prober_spares_the_callers(changes):
    """While a prober fails every second no caller is admitted; three seconds after its last try one is."""
    clock = Clock()
    breaker = Breaker(changes, limit=1, pause=1.0, clock=clock)
    breaker.failed("x")
    for _ in range(10):
        clock.now += 0.99
        breaker.claim()
        assert not breaker.admits()
        clock.now += 0.5
        breaker.failed("x")
        assert not breaker.admits()
    clock.now += 2.6
    assert [breaker.admits() for _ in range(2)] == [True, False]


def test_breaker_under_threads(changes):
    """However many threads fail and succeed, the reports alternate, beginning with an outage."""
    breaker = Breaker(changes, limit=3, pause=0.0)

    def work(number):
        for step in range(300):
            if breaker.admits():
                breaker.failed("x") if (step + number) % 5 else breaker.succeeded()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    states = [available for available, _ in changes.seen]
    assert states
    assert states == [bool(index % 2) for index in range(len(states))]


class SentinelPart(Part):
    """A sentinel that watches one primary."""

    def __init__(self, primary):
        super().__init__()
        self.port = free_port()
        (self.directory / "sentinel.conf").write_text(
            f"port {self.port}\nbind {LOOPBACK}\nsentinel monitor mymaster {LOOPBACK} {primary.port} 1\n"
            "sentinel down-after-milliseconds mymaster 300\nsentinel failover-timeout mymaster 3000\n"
        )

    def command(self):
        return [server_binary(), self.directory / "sentinel.conf", "--sentinel"]

    def ready(self):
        with socket.socket() as probe:
            return probe.connect_ex((LOOPBACK, self.port)) == 0

    def ask(self, *words):
        with redis.Redis(LOOPBACK, self.port, decode_responses=True) as client:
            return client.execute_command(*words)


def test_sentinel_fail_over():
    """The primary is found by its sentinel, and after a fail-over the new one is."""
    with Redis() as one, Redis() as two, SentinelPart(one) as sentinel, two.client() as replica:
        replica.execute_command("REPLICAOF", LOOPBACK, one.port)
        url = f"sentinel://{LOOPBACK}:{free_port()},{LOOPBACK}:{sentinel.port}/mymaster/0"
        with contextlib.closing(Store.open(url, 2.0)) as store:
            wait_until(
                lambda: sentinel.ask("SENTINEL", "CKQUORUM", "mymaster"), "the sentinel sees its primary"
            )
            assert store.run(WRITE, [b"k"], [1]) == [1]
            wait_until(lambda: replica.get("k") == b"1", "the replica has the key")
            wait_until(
                lambda: sentinel.ask("SENTINEL", "REPLICAS", "mymaster") != [],
                "the sentinel sees the replica",
            )
            one.kill()

            def written():
                with contextlib.suppress(StoreError):
                    return store.run(WRITE, [b"k"], [2]) == [1]
                return False

            wait_until(written, "the new primary is written", timeout=30)
            assert replica.get("k") == b"2"


def test_silent_sentinels_share_the_timeout():
    """Sentinels that accept and say nothing are together waited for as long as one, and the log says it."""
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(5)]
        hosts = ",".join(f"{LOOPBACK}:{one.getsockname()[1]}" for one in silent)
        store = stack.enter_context(contextlib.closing(Store.open(f"sentinel://{hosts}/mymaster/0", 2.0)))
        begun = time.monotonic()
        with pytest.raises(StoreError, match=r"^no sentinel can name a working primary mymaster$"):
            store.run(WRITE, [b"k"], [1])
        # Each by itself would have been 10 s.
        assert 1.9 < time.monotonic() - begun < 8


def test_cluster():
    """A cluster of one node is written through cluster://, and its restart is survived."""

    class Node(Redis):
        def command(self):
            options = ["--cluster-enabled", "yes", "--cluster-announce-ip", LOOPBACK]
            return [*super().command(), *options, "--cluster-port", str(free_port())]

    with Node() as node, node.client() as client:
        slots = itertools.chain.from_iterable((first, first + 8191) for first in (0, 8192))
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)
        wait_until(lambda: b"cluster_state:ok" in _info(client), "the cluster is up")
        with contextlib.closing(Store.open(f"cluster://{LOOPBACK}:{node.port}", 2.0)) as store:
            assert store.run(ECHO, [b"{a}1", b"{a}2"], [4]) == [4, 2]
            assert store.run(WRITE, [b"{b}"], [4]) == [1]
            node.kill()
            with pytest.raises(StoreError):
                store.run(WRITE, [b"{b}"], [5])
            node.start()
            wait_until(lambda: b"cluster_state:ok" in _info(node.client()), "the cluster is up again")

            def written():
                with contextlib.suppress(StoreError):
                    return store.run(WRITE, [b"{b}"], [6]) == [1]
                return False

            wait_until(written, "the cluster is written again")


def _info(client):
    raw = client.execute_command("CLUSTER INFO")
    return raw if isinstance(raw, bytes) else repr(raw).replace("'", "").replace(": ", ":").encode()


def test_cluster_over_tls():
    """The TLS options of cluster:// are those of rediss://: the authority is checked."""

    class Node(Redis):
        def command(self):
            return [
                *super().command(),
                "--cluster-enabled",
                "yes",
                "--tls-cluster",
                "yes",
                "--cluster-announce-ip",
                LOOPBACK,
                "--cluster-port",
                str(free_port()),
            ]

    with Node(tls=True) as node, node.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        wait_until(lambda: b"cluster_state:ok" in _info(client), "the cluster is up")
        url = f"cluster://{LOOPBACK}:{node.tls_port}?ssl=true"
        with pytest.raises(StoreError):
            Store.open(url, 2.0).run(ECHO, [b"k"], [1])
        for options in (f"&ssl_ca_certs={node.ca}", "&ssl_cert_reqs=none&ssl_check_hostname=false"):
            with contextlib.closing(Store.open(url + options, 2.0)) as store:
                assert store.run(ECHO, [b"k"], [1]) == [1, 1]


def test_lost_connections_are_store_errors():
    """What the inner module raises for the one repetition is a StoreError too."""
    with pytest.raises(LostError):
        backend(f"redis://{LOOPBACK}:{free_port()}", 1.0).evaluate(ECHO, [], [1], 1.0)
    assert issubclass(LostError, StoreError)


def test_a_flushed_script_cache_is_not_noticed(server, store):
    """The server may forget the script at any time; the call succeeds, and the server has it again."""
    assert store.run(ECHO, [], [1]) == [1, 0]
    with server.client() as client:
        client.script_flush()
        assert store.run(ECHO, [], [2]) == [2, 0]
        assert client.script_exists(ECHO.sha) == [True]


def test_a_store_that_comes_back_empty(server, store):
    """A server that has lost everything is a server like any other."""
    store.run(WRITE, [b"k"], [1])
    with server.client() as client:
        client.flushall()
        client.script_flush()
        assert store.run(WRITE, [b"k"], [2]) == [1]
        assert client.get("k") == b"2"


@pytest.mark.parametrize("login", ["open", "open:"])
def test_a_user_without_a_password(secured, login):
    """A user that needs no password is still the one that is asked for."""
    with secured.client() as client:
        client.acl_setuser("open", enabled=True, nopass=True, keys=["*"], categories=["+@all"])
    with contextlib.closing(Store.open(f"redis://{login}@{LOOPBACK}:{secured.port}", 5.0)) as store:
        assert store.run(ECHO, [b"a"], [7]) == [7, 1]


def test_a_user_without_rights(secured):
    """An account that may not write is a StoreError that says so, and the breaker opens."""
    with secured.client() as client:
        client.execute_command("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read", "+@connection")
        url = f"redis://reader:pw@{LOOPBACK}:{secured.port}"
        with contextlib.closing(Store.open(url, 5.0)) as store:
            for _ in range(3):
                with pytest.raises(StoreError, match=r"NOPERM|permissions"):
                    store.run(WRITE, [b"k"], [1])
            assert not store.available
            assert not store.probe()
            client.execute_command("ACL", "SETUSER", "reader", "+@all")
            assert store.probe()
        client.execute_command("ACL", "DELUSER", "reader")


class Dripping(threading.Thread):
    """A server that accepts and then sends one byte of its answer every `pause` seconds, or all at once."""

    def __init__(self, reply, pause):
        super().__init__(daemon=True)
        self.listener = socket.create_server((LOOPBACK, 0))
        self.port = self.listener.getsockname()[1]
        self.reply, self.pause = reply, pause

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=self.listener.accept()[:1], daemon=True).start()

    def serve(self, connection):
        with connection, contextlib.suppress(OSError):
            while connection.recv(4096):
                for at in range(0, len(self.reply), 1 if self.pause else 100):
                    time.sleep(self.pause)
                    connection.sendall(self.reply[at : at + 1] if self.pause else self.reply)


def test_a_slow_store_takes_its_timeout_at_most():
    """A reply that comes byte by byte does not stretch the wait: the timeout is for the whole call."""
    server = Dripping(b"*2\r\n:1\r\n:0\r\n", TIMEOUT * 0.6)
    server.start()
    with (
        server.listener,
        contextlib.closing(Store.open(f"redis://{LOOPBACK}:{server.port}", TIMEOUT)) as store,
    ):
        begin = time.monotonic()
        with pytest.raises(StoreError, match="no answer in time"):
            store.run(ECHO, [], [1])
        # Twelve bytes would take seven timeouts.
        assert time.monotonic() - begin < TIMEOUT * 5


NO_ANSWERS = (
    b"-LOADING Redis is loading",
    b"-READONLY replica",
    b"-MASTERDOWN x",
    b"-MISCONF disk",
    b"-BUSY script",
    b"-CLUSTERDOWN x",
    b"-MOVED 1 127.0.0.1:1",
    b"-NOAUTH x",
    b"$-1",
    b"*-1",
    b":1",
    b"+OK",
    b"*1000000000",
    b"$1000000000",
    b"\x00\xff",
)


@pytest.mark.parametrize("reply", NO_ANSWERS, ids=lambda reply: reply.split(b" ")[0].decode("latin-1"))
def test_any_answer_is_a_store_error(reply):
    """Whatever a server answers that is no list is a StoreError, in time, and opens the breaker."""
    server = Dripping(reply + b"\r\n", 0)
    server.start()
    url = f"redis://{LOOPBACK}:{server.port}"
    with server.listener, contextlib.closing(Store.open(url, TIMEOUT)) as store:
        for _ in range(3):
            begin = time.monotonic()
            with pytest.raises(StoreError):
                store.run(ECHO, [], [1])
            assert time.monotonic() - begin < TIMEOUT * 6
        assert not store.available


@contextlib.contextmanager
def answering(pieces):
    """A server that answers every question with these pieces, one after the other, and closes; its URL."""

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection = listener.accept()[0]
                with connection, contextlib.suppress(OSError):
                    connection.recv(4096)
                    for piece in pieces():
                        connection.sendall(piece)
                        time.sleep(0 if len(piece) > 1000 else 0.02)  # so that they come one by one

    with socket.create_server((LOOPBACK, 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"redis://{LOOPBACK}:{listener.getsockname()[1]}"


VAST = {
    "in one piece": (b"*200000000\r\n",),
    "in two": (b"*2000", b"00000\r\n"),
    "within a list": (b"*1\r\n*400000000\r\n:1\r\n",),
    "within a list, in pieces": (b"*1\r", b"\n*4000", b"00000\r\n"),
    "of another kind": (b">400000000\r\n:1\r\n",),
    "more than there is room for": (b"*1\r\n*4000000000\r\n:1\r\n",),
}


@pytest.mark.parametrize("pieces", VAST.values(), ids=VAST)
def test_no_room_is_made_for_a_vast_list(pieces):
    """The reader believes a list to be as long as it says, at the cost of memory and of all threads' time."""
    with (
        answering(lambda: pieces) as url,
        contextlib.closing(Store.open(url, 5.0)) as store,
        pytest.raises(StoreError, match="too long"),
    ):
        store.run(ECHO, [], [1])


def test_a_flood_takes_its_timeout_at_most():
    """A reply that comes without a pause, and without an end, does not stretch the wait either."""
    item = b"$1000000\r\n" + b"x" * 1_000_000 + b"\r\n"
    flood = [b"*900000\r\n", *[item] * 400]
    with (
        answering(lambda: flood) as url,
        contextlib.closing(Store.open(url, 0.2)) as store,
        # Not: closed by the server, which is how it ends for who reads all of it.
        pytest.raises(StoreError, match=r"no answer in time|too long"),
    ):
        store.run(ECHO, [], [1])


class Renamed(Redis):
    """A server that knows AUTH by another name, as some are set up against strangers."""

    def command(self):
        return [*super().command(), "--rename-command", "AUTH", "xyzzy"]


@pytest.mark.parametrize(
    "form", ["redis://:{}@{}:{}", "redis://me:{}@{}:{}", "redis://:{}@{}:{}?health_check_interval=0"]
)
def test_what_a_server_was_given_is_not_shown(form):
    """Redis repeats the arguments of a command that it does not know, here a password."""
    with (
        Renamed() as server,
        contextlib.closing(Store.open(form.format(SECRET, LOOPBACK, server.port), 5.0)) as store,
        pytest.raises(StoreError, match="unknown command") as caught,
    ):
        store.run(ECHO, [], [1])
    assert SECRET not in str(caught.value)
