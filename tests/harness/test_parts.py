"""The parts that the other tests stand on, each shown to work by itself."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path

import dns.message
import dns.query
import dns.rcode
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from parts import engines, refusingdns
from parts.base import LOOPBACK, PartError, wait_until
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.rbldnsd import Rbldnsd, ip4set, ip6trie
from parts.redisserver import Redis
from parts.unbound import Unbound

TESTS = Path(__file__).parents[1]


def ask(server: FakeDns, name: str, kind: str = "A", timeout: float = 5) -> dns.message.Message:
    return dns.query.udp(dns.message.make_query(name, kind), server.host, timeout=timeout, port=server.port)


def test_redis_keeps_its_data_over_a_crash():
    """A killed Redis comes back on the same addresses with what it had."""
    with Redis() as server:
        server.client().set("k", "v")
        wait_until(lambda: server.client().info("persistence")["aof_pending_bio_fsync"] == 0, "written")
        server.kill()
        with pytest.raises(redis.ConnectionError):
            server.client().ping()
        server.start()
        assert server.client().get("k") == b"v"


def test_redis_speaks_tls_and_knows_its_user():
    """A TLS connection is verified by the part's CA, and only its user gets in."""
    with Redis(tls=True, user="mx", password="s3cret") as server:
        url = f"{server.tls_url}?ssl_ca_certs={server.ca}"
        assert redis.Redis.from_url(url).ping()
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)).ping()


def test_a_frozen_redis_accepts_and_does_not_answer():
    """freeze() makes a store that hangs; thaw() mends it; close() ends it even when frozen."""
    with Redis() as server:
        server.freeze()
        hanging = redis.Redis(port=server.port, socket_timeout=0.2, retry=Retry(NoBackoff(), 0))
        with pytest.raises(redis.TimeoutError):
            hanging.ping()
        server.thaw()
        assert server.client().ping()
        server.freeze()
        process = server.process
    assert process is not None
    assert process.poll() is not None


class SlowReplica(Redis):
    """One that needs minutes for its first append-only file."""

    def __init__(self, primary: Redis) -> None:
        super().__init__()
        follow = ["--replicaof", LOOPBACK, str(primary.port), "--rdb-key-save-delay", "1000000"]
        self._arguments += follow

    def writes(self) -> object:
        """Whether it is about it."""
        return self.client().info("persistence")["aof_rewrite_in_progress"]


def test_a_redis_that_refuses_sigterm_is_ended():
    """A replica that writes its first append-only file stays at SIGTERM; it goes with its part."""
    with Redis() as primary:
        primary.client().mset({f"k{number}": "v" for number in range(1000)})
        with SlowReplica(primary) as replica:
            wait_until(replica.writes, "it writes its append-only file")
            replica.send_signal(signal.SIGTERM)
            wait_until(lambda: "can't exit" in replica.log_text(), "it refuses")
            assert replica.running
            process = replica.process
    assert process is not None
    assert process.returncode == -signal.SIGKILL
    assert not replica.directory.exists()


def test_a_part_that_cannot_start_says_why():
    """The error of a part that ends at its start has its log."""
    server = Redis()
    server._arguments.append("--no-such-option")
    with pytest.raises(PartError, match="no-such-option"):
        server.__enter__()
    assert not server.directory.exists()


def test_rbldnsd_serves_its_zones_and_reloads():
    """ip4set, ip6trie, generic and a text with $ are served; update() changes them."""
    zones = {
        "bl.test": [
            ip4set("192.0.2.1", "198.51.100.0/24 :127.0.0.9:Dynamic $", text="Listed, see http://x/?$")
        ],
        "six.test": ip6trie("2001:db8:1::/48"),
        "gen.test": ("generic", "1.2.0.192 A 127.0.0.7\n"),
        "two.test": [ip4set("192.0.2.1"), ip4set("192.0.2.1", value="127.0.0.4")],
    }
    with Rbldnsd(zones) as lists:
        assert lists.lookup("1.2.0.192.bl.test") == ["127.0.0.2"]
        assert lists.lookup("1.2.0.192.bl.test", "TXT") == ['"Listed, see http://x/?192.0.2.1"']
        assert lists.lookup("7.100.51.198.bl.test") == ["127.0.0.9"]
        assert lists.lookup("2.0.0.127.bl.test") == ["127.0.0.2"]
        assert lists.lookup("1.0.0.127.bl.test") == []
        assert lists.lookup("1.2.0.192.gen.test") == ["127.0.0.7"]
        assert lists.lookup("1.2.0.192.two.test") == ["127.0.0.2", "127.0.0.4"]
        nibbles = ".".join(reversed("20010db8000100000000000000000001"))
        assert lists.lookup(f"{nibbles}.six.test") == ["127.0.0.2"]
        lists.update({"bl.test": ip4set("192.0.2.77")})
        assert lists.lookup("1.2.0.192.bl.test") == []
        assert lists.lookup("77.2.0.192.bl.test") == ["127.0.0.2"]


def test_unbound_answers_from_the_lists_and_caches():
    """A stub zone is asked at its server, and the second time not."""
    with FakeDns() as server, Unbound({"bl.test": server.address}) as resolver:
        server.zone("bl.test", listed={"192.0.2.1": "127.0.0.2"})
        assert resolver.lookup("1.2.0.192.bl.test") == ["127.0.0.2"]
        assert resolver.lookup("1.2.0.192.bl.test") == ["127.0.0.2"]
        assert sum(query.name == "1.2.0.192.bl.test" for query in server.queries) == 1


@pytest.mark.parametrize(
    ("behaviour", "rcode", "codes"),
    [
        ({"listed": {"192.0.2.1": "127.0.0.2"}}, "NOERROR", ["127.0.0.2"]),
        ({"listed": {"192.0.2.1": ["127.0.0.2", "127.0.0.4"]}}, "NOERROR", ["127.0.0.2", "127.0.0.4"]),
        ({}, "NXDOMAIN", []),
        ({"everything": "127.255.255.254"}, "NOERROR", ["127.255.255.254"]),
        ({"rcode": "SERVFAIL"}, "SERVFAIL", []),
        ({"rcode": "REFUSED"}, "REFUSED", []),
        ({"delay": 0.05, "everything": "127.0.0.2"}, "NOERROR", ["127.0.0.2"]),
        ({"listed": {"192.0.2.1": "127.0.0.3"}, "cname": "x.test"}, "NOERROR", ["127.0.0.3"]),
    ],
    ids=str,
)
def test_fakedns_behaves_as_told(behaviour, rcode, codes):
    """A zone's behaviour is what a client sees."""
    with FakeDns() as server:
        server.zone("bl.test", **behaviour)
        reply = ask(server, "1.2.0.192.bl.test")
        assert dns.rcode.to_text(reply.rcode()) == rcode
        assert sorted(r.to_text() for rrset in reply.answer for r in rrset if r.rdtype == 1) == codes
        assert server.count("bl.test") == 1


def test_fakedns_truncates_loses_and_lies():
    """TC is followed by TCP; lost, forged and garbled answers are never accepted by dnspython."""
    listed = {"192.0.2.1": "127.0.0.2"}
    with FakeDns() as server:
        server.zone("tc.test", listed=listed, truncate=True)
        query = dns.message.make_query("1.2.0.192.tc.test", "A")
        reply, used_tcp = dns.query.udp_with_fallback(query, server.host, timeout=5, port=server.port)
        assert used_tcp
        assert reply.answer
        server.zone("lost.test", listed=listed, drop_first=1)
        server.zone("id.test", listed=listed, wrong_id=True)
        server.zone("question.test", wrong_question=True)
        server.zone("silent.test", silent=True)
        server.zone("garbage.test", garbage=True)
        for zone in ("lost", "id", "question", "silent", "garbage"):
            with pytest.raises((dns.exception.DNSException, dns.query.BadResponse)):
                ask(server, f"1.2.0.192.{zone}.test", timeout=0.2)
        assert ask(server, "1.2.0.192.lost.test").answer
        assert server.count("lost.test") == 2


def test_fakedns_has_names_for_addresses():
    """pointer() gives an address a name; a forged one does not lead back."""
    with FakeDns() as server:
        server.pointer("192.0.2.1", "mail.example.org")
        server.pointer("192.0.2.2", "forged.example.org", forged=True)
        assert "mail.example.org." in str(ask(server, "1.2.0.192.in-addr.arpa", "PTR"))
        assert "192.0.2.1" in str(ask(server, "mail.example.org"))
        assert "forged.example.org." in str(ask(server, "2.2.0.192.in-addr.arpa", "PTR"))
        assert "192.0.2.2" not in str(ask(server, "forged.example.org").answer)


def test_fakedns_frees_its_port():
    """A closed server leaves its port to the next."""
    with FakeDns() as server:
        port = server.port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", port))


def test_engines_are_chosen_for_what_there_is():
    """Each row of the table is about a module or a test that exists, in a suite that reads the table."""
    for row in engines.TABLE:
        suite, name = row.split("/")
        assert "parts.engines" in (TESTS / suite / "conftest.py").read_text(), suite
        tests = re.compile(rf"^def {name}\(", re.MULTILINE)
        modules = sorted((TESTS / suite).glob("*.py"))
        assert name in {path.stem for path in modules} or any(tests.search(p.read_text()) for p in modules), (
            row
        )


def test_a_nameserver_that_refuses_is_there_for_all():
    """Whatever comes before, every question is answered at once."""
    host, _, port = refusingdns.address().rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as junk:
        junk.sendto(b"junk", (host, int(port)))
    for name in ("a.test", "b.test"):
        question = dns.message.make_query(name, "TXT", use_edns=True)
        assert dns.query.udp(question, host, timeout=5, port=int(port)).rcode() == dns.rcode.REFUSED
    assert refusingdns.address() == f"{host}:{port}"


@pytest.mark.parametrize("pid_file", ["", "own.pid", "/run/other/own.pid"])
def test_a_daemon_keeps_no_state_in_the_hosts_folder(pid_file):
    """Its state is beside its pid file, or its configuration, whatever the host has in /var/lib."""
    daemon = Daemon({"pid_file": pid_file} if pid_file else None)
    wanted = "/run/other" if "/" in pid_file else str(daemon.directory)
    assert daemon.environment()["STATE_DIRECTORY"] == wanted
    daemon.close()
