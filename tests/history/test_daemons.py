"""The history that daemons write: over crashes, reloads and restarts it has what their logs have."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridgrey.history import layout
from hybridgrey.history.layout import Step
from hybridgrey.history.reader import Reader
from hybridgrey.store.connection import Store
from parts.base import wait_until
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.milterpeer import MilterPeer
from parts.redisserver import Redis


def send(daemon: Daemon, client: str, sender: str = "<a@example.org>", recipients: int = 1) -> list[str]:
    """Send mail as `client`; the codes of the replies."""
    with MilterPeer(daemon.address) as peer:
        peer.connect("unknown", client)
        peer.helo()
        peer.mail(sender)
        codes = [peer.rcpt(f"<b{number}@example.net>").code for number in range(recipients)]
        peer.quit()
    return codes


def traffic(*daemons: Daemon) -> None:
    """Mail of every kind to each daemon, two recipients each."""
    for daemon in daemons:
        for client in ("192.0.2.99", "192.0.2.98", "192.0.2.97", "192.0.2.7", "198.51.100.1", "2001:db8::1"):
            send(daemon, client, recipients=2)
        send(daemon, "198.51.100.2", "<>")


def restart(daemon: Daemon) -> None:
    """End the daemon in order and start it again."""
    daemon.stop()
    daemon.start()


def process(daemon: Daemon, name: str) -> int:
    """The process id of a child of the daemon, by its name."""
    found = [pid for pid in daemon.processes() if Path(f"/proc/{pid}/comm").read_text().strip() == name]
    return found[0]


def kill(daemon: Daemon, name: str) -> None:
    """Kill a child with -9 and wait for another one in its place."""
    pid = process(daemon, name)
    os.kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        with contextlib.suppress(OSError, IndexError):
            return process(daemon, name) != pid
        return False

    wait_until(replaced, f"another {name}", 30)


def outcome(event: dict[str, object]) -> str:
    """What the log says that the client got."""
    return str(event["outcome"])


def logged(*daemons: Daemon) -> Counter[str]:
    """Recipients by outcome, counted from the logs."""
    return Counter(outcome(event) for daemon in daemons for event in daemon.events("verdict"))


def told(reader: Reader, step: Step, hosts: list[str] | None = None) -> Counter[str]:
    """Recipients by outcome, as the history has them."""
    now = time.time()
    found: Counter[str] = Counter()
    for name, counts in reader.counts(now - 7200, now + 60, step, hosts).items():
        family, *labels = layout.labels_of(name)
        if family == "outcome":
            found[labels[0]] += sum(counts.values())
    return found


@pytest.fixture(scope="module")
def lists() -> Iterator[FakeDns]:
    with FakeDns() as dns:
        dns.zone("bl.test", listed={"192.0.2.99": "127.0.0.2", "192.0.2.98": "127.0.0.2"})
        dns.zone("other.test", listed={"192.0.2.98": "127.0.0.2", "192.0.2.97": "127.0.0.2"})
        dns.zone("wl.test", listed={"198.51.100.1": "127.0.0.2", "192.0.2.97": "127.0.0.2"})
        yield dns


RULES_TOML = [
    {"name": "bl", "dns": ["bl.test", "other.test"], "action": "reject"},
    {"name": "wl", "dns": ["wl.test"], "action": "accept"},
    {"name": "the rest", "action": "greylist"},
]


def configured(dns: FakeDns, url: str, host: str, **more: object) -> dict[str, object]:
    """The settings of a daemon."""
    settings = {
        "hostname": host,
        "store": {"url": url},
        "dns": {"nameservers": [dns.address]},
        "rule": RULES_TOML,
    }
    return settings | more


@pytest.mark.timeout(300)
def test_two_daemons_lose_nothing_and_count_nothing_twice(lists: FakeDns) -> None:
    """Over killed keepers, workers and Redis, reloads and restarts the history has what the logs have."""
    with Redis() as server:
        one = Daemon(configured(lists, server.unix_url, "mx1", pid_file=""))
        two = Daemon(configured(lists, server.unix_url, "mx2"))
        store = Store.open(server.unix_url, 5.0)
        reader = Reader(store)
        with one, two:
            traffic(one, two)
            # Once while all is well, so that batches have been written before what follows.
            wait_until(lambda: told(reader, Step.DAY) == logged(one, two), "all is written", 60)
            began = time.time()
            kill(one, "hg-keeper")
            kill(two, "hg-worker")
            traffic(one, two)
            kill(one, "hg-keeper")
            two.configure(configured(lists, server.unix_url, "mx2", mode="observe"))
            two.reload()
            traffic(one, two)
            server.kill()
            kill(two, "hg-keeper")
            traffic(one, two)
            server.start()
            traffic(one, two)
            restart(one)
            traffic(one, two)
            wait_until(lambda: told(reader, Step.DAY) == logged(one, two), "all is written", 60)
            one.stop()
            two.stop()
            for step in Step:
                assert told(reader, step) == logged(one, two)
                for daemon, name in ((one, "mx1"), (two, "mx2")):
                    assert told(reader, step, [name]) == logged(daemon)
            now = time.time()
            sums = {
                name: sum(moments.values())
                for name, moments in reader.counts(now - 7200, now, Step.DAY).items()
            }
            events = [event for daemon in (one, two) for event in daemon.events("verdict")]
            clients = Counter(str(event["client"]) for event in events)
            assert sums["list_reject:bl.test:sole"] == clients["192.0.2.99"]
            assert sums["list_reject:other.test:sole"] == clients["192.0.2.97"]
            for name in ("bl", "other"):
                assert sums[f"list_reject:{name}.test:shared"] == clients["192.0.2.98"]
            assert sums["claimed_by_both"] == clients["192.0.2.97"]
            states = Counter(event["state"] for event in events if event["state"])
            assert {state: sums.get(f"greylist:{state}", 0) for state in states} == dict(states)
            observed = sum(not event["enforced"] for event in events)
            assert sum(count for name, count in sums.items() if name.endswith(":observed")) == observed > 0
            assert sums["sessions"] == 7 * 2 * 6
            marks = Counter((mark.host, mark.kind) for mark in reader.marks(began - 120, now))
            assert marks["mx1", "start"] == 2
            assert marks["mx2", "start"] == marks["mx2", "mode"] == 1
            assert marks["mx1", "reload"] == marks["mx2", "reload"] == 0
            latest = reader.latest()
            assert len(latest) == len(events)
            assert Counter(str(event["mx"]) for event in latest) == {
                "mx1": len(one.events("verdict")),
                "mx2": len(two.events("verdict")),
            }
            assert reader.tops(now, now)["domain/reject"] == [("example.org", logged(one, two)["rejected"])]
        store.close()


def test_embedded_store(lists: FakeDns, tmp_path: Path) -> None:
    """On one host with its own store the history survives kill -9 of the store and a restart."""
    state = tmp_path / "state"
    if len(str(state)) > 80:
        pytest.skip("the path is too long for a unix socket")
    daemon = Daemon(configured(lists, f"embedded:{state}", "mx1"))
    with daemon:
        traffic(daemon)
        for pid in daemon.processes():
            if "server" in Path(f"/proc/{pid}/comm").read_text():
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: daemon.events("embedded store is up again"), "the store is back", 30)
        traffic(daemon)
        restart(daemon)
        with contextlib.closing(Store.open(f"unix://{state}/store.sock", 5.0)) as store:
            reader = Reader(store)
            wait_until(lambda: told(reader, Step.HOUR) == logged(daemon), "all is written", 60)
            assert reader.marks(0, time.time() + 60)[0].kind == "start"
