"""The guide about a row of MX hosts, with its addresses, in a namespace: Sentinel, and a Cluster."""

import re
import shlex
import subprocess
import tomllib
from itertools import count

import pytest

from parts import namespace
from parts.base import Part, wait_until
from parts.daemon import Daemon
from parts.guides import blocks, only
from parts.milterpeer import MilterPeer
from parts.namespace import Namespace
from parts.redisserver import server_binary

GUIDE = "mx-row.md"
SENTINELS = ("192.0.2.11", "192.0.2.12", "192.0.2.13")
ONE, TWO = "192.0.2.21", "192.0.2.22"
PASSWORD = "correct-horse"
GREYLIST = {"delay": "1s", "auto_allow_after": 0}
RULES = [{"name": "the rest", "action": "greylist"}]


@pytest.fixture(scope="module", autouse=True)
def _permitted():
    if reason := namespace.missing():
        pytest.skip(reason)


@pytest.fixture
def inside():
    with Namespace() as made:
        yield made


class Server(Part):
    """A Redis, or a sentinel, at an address of the guide."""

    def __init__(self, inside, address, text, *words):
        super().__init__()
        self.inside, self.address, self.words = inside, address, words
        # Debian's own file has the folder.  The hosts are one here, so each is told which address is its own.
        own = f"dir {self.directory}\nbind-source-addr {address}\n"
        (self.directory / "config").write_text(text + own)

    def command(self):
        return self.inside.inside([server_binary(), self.directory / "config", *self.words])

    def ready(self):
        return "Ready to accept" in self.log_text() or "+monitor" in self.log_text()

    def ask(self, *words):
        """What redis-cli says."""
        port = re.search(r"^port (\d+)$", (self.directory / "config").read_text(), re.MULTILINE)[1]
        command = ["redis-cli", "-h", self.address, "-p", port, "--no-auth-warning", "-a", PASSWORD, *words]
        return subprocess.run(self.inside.inside(command), capture_output=True, text=True, check=True).stdout


def settings(words):
    """The guide's configuration, with a delay for tests and an endpoint for each."""
    given = tomllib.loads(only(GUIDE, words))
    return {**given, "greylist": GREYLIST, "rule": RULES, "metrics": {"listen": ""}}


def rcpt(daemon, recipient):
    """The code that a client's recipient gets."""
    with MilterPeer(daemon.address) as peer:
        peer.connect("client.example", "203.0.113.1")
        peer.mail("<a@sender.example>")
        return peer.rcpt(f"<{recipient}>").text[:3]


def passes(daemon, recipient):
    """A first attempt waits, and the retry passes."""
    assert rcpt(daemon, recipient) == "450"
    wait_until(lambda: rcpt(daemon, recipient) != "450", "the retry passes", 30)
    assert daemon.verdict(recipient)["state"] in ("passed", "known")


def test_the_row_with_sentinel(inside):
    """Redis, replica and three sentinels as the guide has them; the primary dies, nothing is forgotten."""
    text = only(GUIDE, "redis.conf")
    assert f"bind {ONE}" in text
    text = text.replace(" 127.0.0.1", "")
    other = text.replace(ONE, TWO) + only(GUIDE, "redis.conf redis2")
    with Server(inside, ONE, text) as one, Server(inside, TWO, other) as two:
        wait_until(lambda: "master_link_status:up" in two.ask("INFO", "replication"), "the replica follows")
        row = [
            Server(inside, where, f"bind {where}\n{only(GUIDE, 'sentinel.conf')}", "--sentinel")
            for where in SENTINELS
        ]
        with row[0], row[1], row[2], Daemon(settings("toml"), unix=True, namespace=inside) as daemon:
            wait_until(
                lambda: "num-other-sentinels\n2\n" in row[0].ask("SENTINEL", "MASTER", "hybridgrey"), "three"
            )
            wait_until(lambda: TWO in row[0].ask("SENTINEL", "REPLICAS", "hybridgrey"), "the replica is seen")
            passes(daemon, "before@x.example")
            wait_until(lambda: "before@x.example" in two.ask("KEYS", "*"), "the replica has it")
            one.kill()
            wait_until(lambda: "role:master" in two.ask("INFO", "replication"), "the replica is primary", 60)
            # Until the daemon has found it, unknown senders are let in.
            strangers = (f"stranger{n}@x.example" for n in count())
            wait_until(lambda: rcpt(daemon, next(strangers)) == "450", "the new primary is asked", 60)
            assert rcpt(daemon, "before@x.example") != "450"
            wait_until(lambda: daemon.verdict("before@x.example")["state"] == "known", "known", 5)
            passes(daemon, "after@x.example")


def test_the_cluster(inside):
    """Six nodes with the guide's lines, made a Cluster by its command, greylist."""
    line = only(GUIDE, "sh cluster").strip()
    addresses = [word.partition(":")[0] for word in shlex.split(line) if word.endswith(":6379")]
    assert len(addresses) == 6
    text = only(GUIDE, "redis.conf cluster").replace(" 127.0.0.1", "")
    assert f"bind {addresses[0]}\n" in text
    nodes = [Server(inside, where, text.replace(addresses[0], where)) for where in addresses]
    try:
        for node in nodes:
            node.__enter__()
        done = subprocess.run(
            inside.inside(shlex.split(line)), capture_output=True, text=True, check=False, timeout=100
        )
        assert "[OK] All 16384 slots covered." in done.stdout, done
        # Each node finds out by itself.
        wait_until(lambda: all("cluster_state:ok" in node.ask("cluster", "info") for node in nodes), "ok", 30)
        with Daemon(settings("toml cluster"), unix=True, namespace=inside) as daemon:
            passes(daemon, "cluster@x.example")
    finally:
        for node in nodes:
            node.__exit__(None, None, None)


def test_every_redis_block_is_used():
    """No configuration of a server in the guides is left untried."""
    used = {"redis.conf", "redis.conf redis2", "redis.conf cluster", "sentinel.conf"}
    found = {block.words for block in blocks("redis.conf", "sentinel.conf")}
    assert found == used
    assert {block.words for block in blocks("sh")} == {"sh", "sh cluster", "sh submission"}
