"""Redis as more than one server: a primary with a replica under Sentinel, a Cluster of three shards."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator

import redis

from parts.base import LOOPBACK, Part, accepts, free_port, wait_until
from parts.redisserver import Redis, server_binary

SLOTS = ((0, 5460), (5461, 10922), (10923, 16383))


class Sentinel(Part):
    """A sentinel that watches one primary and decides alone."""

    def __init__(self, primary: Redis) -> None:
        super().__init__()
        self.port = free_port()
        (self.directory / "sentinel.conf").write_text(
            f"port {self.port}\nbind {LOOPBACK}\nsentinel monitor mymaster {LOOPBACK} {primary.port} 1\n"
            "sentinel down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 5000\n"
        )

    def command(self) -> list[object]:  # type: ignore[override]
        return [server_binary(), self.directory / "sentinel.conf", "--sentinel"]

    def ready(self) -> bool:
        return accepts((LOOPBACK, self.port))

    def ask(self, *words: object) -> object:
        """A command to the sentinel."""
        with redis.Redis(LOOPBACK, self.port, decode_responses=True) as client:
            return client.execute_command(*words)


class Node(Redis):
    """A node of a Cluster."""

    def __init__(self) -> None:
        super().__init__()
        # The default, 10000 above, may be a client's.
        self.bus = free_port()

    def command(self) -> list[object]:  # type: ignore[override]
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1500"]
        # With one shard gone the others serve on; a replica need not be up to date to the second.
        options += ["--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0"]
        return [
            *super().command(),
            *options,
            "--cluster-announce-ip",
            LOOPBACK,
            "--cluster-port",
            str(self.bus),
        ]

    def stop(self, number: int = signal.SIGTERM, timeout: float = 20.0) -> int | None:
        """End the node; a replica that writes its first append-only file refuses, and is asked again."""
        process = self.process
        end = time.monotonic() + timeout
        while process is not None and process.poll() is None and time.monotonic() < end:
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
        return super().stop(number, timeout)

    def info(self, name: str) -> str:
        """A line of CLUSTER INFO."""
        lines = self.client().execute_command("CLUSTER", "INFO")
        text = lines.decode() if isinstance(lines, bytes) else repr(lines)
        return next(line for line in text.splitlines() if line.startswith(name)).partition(":")[2]

    def ident(self) -> str:
        """The node's name within the Cluster."""
        name = self.client().execute_command("CLUSTER", "MYID")
        return str(name.decode())

    def role(self) -> str:
        """Primary ("master") or replica ("slave")."""
        return str(self.client().info("replication")["role"])


class Cluster:
    """Three primaries, each with a third of the slots, and a replica of the first."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.primaries, self.replica = nodes[:3], nodes[3]

    @property
    def url(self) -> str:
        """All primaries, so that the loss of one does not keep a worker from starting."""
        return "cluster://" + ",".join(f"{LOOPBACK}:{node.port}" for node in self.primaries)

    def make(self) -> None:
        """Join the nodes and give out the slots."""
        for node, (first, last) in zip(self.primaries, SLOTS, strict=True):
            node.client().execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
        for node in self.nodes[1:]:
            first = self.nodes[0]
            node.client().execute_command("CLUSTER", "MEET", LOOPBACK, first.port, first.bus)
        wait_until(self._all_known, "the nodes know each other")
        self.replica.client().execute_command("CLUSTER", "REPLICATE", self.primaries[0].ident())
        wait_until(self._whole, "the cluster is whole")

    def _all_known(self) -> bool:
        return all(node.info("cluster_known_nodes") == "4" for node in self.nodes)

    def _whole(self) -> bool:
        linked = self.replica.client().info("replication").get("master_link_status") == "up"
        return linked and all(node.info("cluster_state") == "ok" for node in self.nodes)

    def move(self, slot: int, source: Node, target: Node, *, pause: object = None) -> int:
        """Migrate a slot with its keys while it is served; the number of keys."""
        one, two = source.client(), target.client()
        two.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.ident())
        one.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.ident())
        moved = 0
        while keys := one.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10):
            for key in keys:
                one.execute_command("MIGRATE", LOOPBACK, target.port, key, 0, 5000)
                moved += 1
        for node in (target, source):
            node.client().execute_command("CLUSTER", "SETSLOT", slot, "NODE", target.ident())
        return moved


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """A whole Cluster."""
    with contextlib.ExitStack() as stack:
        made = Cluster([stack.enter_context(Node()) for _ in range(4)])
        made.make()
        yield made


@contextlib.contextmanager
def under_sentinel() -> Iterator[tuple[Redis, Redis, Sentinel]]:
    """(primary, replica, sentinel), the replica up to date."""
    with Redis() as one, Redis() as two, Sentinel(one) as sentinel:
        two.client().execute_command("REPLICAOF", LOOPBACK, one.port)
        wait_until(lambda: sentinel.ask("SENTINEL", "REPLICAS", "mymaster"), "the sentinel sees the replica")
        wait_until(
            lambda: two.client().info("replication")["master_link_status"] == "up", "the replica follows"
        )
        yield one, two, sentinel
