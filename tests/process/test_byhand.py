"""Entries by hand on a host: from the store to the workers and to disk, and what holds without a store."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hybridgrey import envelope
from hybridgrey.address import packed
from hybridgrey.hand import keptcopy
from hybridgrey.hand.entries import About, read
from hybridgrey.hand.register import KEY, Register
from hybridgrey.policy.conditions import NO_ENTRY, ByHand, Hand
from hybridgrey.process import byhand, statefiles
from hybridgrey.process.bulletin import Bulletin
from hybridgrey.process.byhand import Current, Follower
from hybridgrey.store.connection import Store
from parts.base import wait_until
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.milterpeer import MilterPeer
from parts.redisserver import Redis

A, B = read(About.CLIENT, "192.0.2.1"), read(About.CLIENT, "192.0.2.2")
BY = {"who": "ann", "host": "mx1", "comment": ""}
MARK = "this store"
SOMEBODY = envelope.read("a@example.org"), envelope.read("b@example.net")


@dataclass
class Reports:
    """What was told."""

    failing_: list[str] = field(default_factory=list)

    def failing(self, kind, **fields):
        self.failing_.append(f"{kind}: {fields['error']}")

    def recovered(self, kind, **_fields):
        self.failing_ = [one for one in self.failing_ if not one.startswith(kind)]


@pytest.fixture(scope="module")
def server():
    with Redis() as part:
        yield part


@pytest.fixture
def register(server):
    with server.client() as client:
        client.flushall()
    with contextlib.closing(Store.open(server.unix_url, 1.0)) as store:
        yield Register(store)


class Host:
    """The parts of one host."""

    def __init__(self, server, path, url=None):
        self.path = path
        self.bulletin = byhand.new_bulletin()
        self.reports = Reports()
        byhand.start(self.bulletin, path, MARK)
        self.register = Register(Store.open(url or server.unix_url, 1.0))
        self.follower = Follower(self.register, self.bulletin, self.reports, store=MARK, path=path)
        self.worker = Current(self.bulletin, self.register)

    def look(self):
        self.follower.look()
        self.worker.tick()
        return self

    @property
    def said(self):
        """What the worker has, in words."""
        return sorted(f"{e.kind} {e.subject.text}" for e in self.worker.table.entries)


@pytest.fixture
def host(server, register, tmp_path):
    return Host(server, tmp_path / byhand.FILE)


def test_workers_follow_the_store(host, register):
    """What a command writes is in a worker's memory after one look each, and what it takes back is not."""
    assert host.look().said == []
    register.put(Hand.BLOCK, [A, B], 0, **BY)
    assert host.look().said == ["block 192.0.2.1", "block 192.0.2.2"]
    assert host.worker.of(packed("192.0.2.1"), None, None, *SOMEBODY) == ByHand(blocked=True)
    register.put(Hand.ALLOW, [A], 0, **BY)
    register.take([B])
    assert host.look().said == ["allow 192.0.2.1"]
    assert host.worker.of(packed("192.0.2.2"), None, None, *SOMEBODY) == NO_ENTRY
    assert host.reports.failing_ == []


def test_a_look_that_finds_nothing_new_publishes_nothing(host, register):
    """The table is the same object, and the file is not written again."""
    register.put(Hand.BLOCK, [A], 0, **BY)
    table, status = host.look().worker.table, host.path.stat()
    assert host.look().worker.table is table
    assert host.path.stat() == status


def test_the_copy_holds_without_a_store(host, server, register, tmp_path):
    """A host that starts while the store is away has what it knew; and it ends by the clock."""
    register.put(Hand.BLOCK, [A], 0, **BY)
    register.put(Hand.ALLOW, [B], 600, **BY)
    host.look()
    assert host.path.stat().st_mode & 0o777 == 0o600
    away = Host(server, host.path, "unix:///nowhere.sock")
    assert away.look().said == ["allow 192.0.2.2", "block 192.0.2.1"]
    away.bulletin.set_offset(601.0)
    assert away.look().said == ["block 192.0.2.1"]
    assert away.reports.failing_ == []


def test_a_copy_of_another_store_does_not_hold(host, server, register):
    """Two daemons of a machine may share the folder."""
    register.put(Hand.BLOCK, [A], 0, **BY)
    host.look()
    bulletin = byhand.new_bulletin()
    byhand.start(bulletin, host.path, "another store")
    assert bulletin.generation == 0


def test_a_host_without_a_copy_asks_the_store_at_once(server, register, tmp_path):
    """It serves before its keeper has looked."""
    register.put(Hand.BLOCK, [A], 0, **BY)
    assert Host(server, tmp_path / "none").said == ["block 192.0.2.1"]
    assert Host(server, None).said == ["block 192.0.2.1"]


def test_a_store_that_has_lost_all_gets_it_back(host, server, register):
    """From a host that has it; a host that starts later has it, too."""
    register.put(Hand.BLOCK, [A], 0, **BY)
    host.look()
    with server.client() as client:
        client.flushall()
    assert host.look().said == ["block 192.0.2.1"]
    assert [e.subject for e in register.read().entries()] == [A]
    register.take([A])
    assert host.look().said == []


def test_another_store_has_entries_of_its_own(host, server, register):
    """A reload that changes the store brings none along, neither to the workers nor into the store."""
    register.put(Hand.BLOCK, [A], 0, **BY)
    host.look()
    with server.client() as client:
        client.flushall()
    Follower(register, host.bulletin, host.reports, store="another", path=None).look()
    host.worker.tick()
    assert host.said == []
    assert register.look().version == 0


def test_without_a_rule_that_asks_nothing_is_read(host, register):
    """A worker whose rules name no entries has none, and waits for no store."""
    register.put(Hand.BLOCK, [A], 0, **BY)
    host.look()
    worker = Current(host.bulletin, None)
    worker.tick()
    assert not worker.table


def test_entries_end_while_the_store_is_down(host, server, register):
    """By the store's clock as it was last known."""
    register.put(Hand.BLOCK, [A], 60, **BY)
    register.put(Hand.BLOCK, [B], 0, **BY)
    host.look()
    server.stop()
    try:
        assert host.look().said == ["block 192.0.2.1", "block 192.0.2.2"]
        host.bulletin.set_offset(61.0)
        host.worker.tick()
        assert host.said == ["block 192.0.2.2"]
    finally:
        server.start()
    assert abs(host.look().bulletin.offset) < 5


def test_a_clock_that_was_wrong_for_a_moment_ends_nothing(host, register):
    """Entries whose time seemed to be over hold again once the clock is right."""
    register.put(Hand.BLOCK, [A], 60, **BY)
    register.put(Hand.ALLOW, [B], 3600, **BY)
    assert host.look().said == ["allow 192.0.2.2", "block 192.0.2.1"]
    for wrong, said in ((61.0, ["allow 192.0.2.2"]), (7200.0, [])):
        host.bulletin.set_offset(wrong)
        host.worker.tick()
        assert host.said == said
    assert host.look().said == ["allow 192.0.2.2", "block 192.0.2.1"]


def workers(daemon):
    """The processes of a daemon that listen for an MTA: its children but for the keeper."""
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    return [int(child) for child in children]


def test_entries_hold_over_a_reload_and_a_crash(server, register):
    """New processes have them from the first session on."""
    rules = [{"by_hand": "block", "action": "reject"}, {"action": "accept"}]
    settings = {"store": {"url": server.unix_url}, "workers": 1, "rule": rules}

    def said():
        with MilterPeer(daemon.address) as peer:
            peer.connect("unknown", "192.0.2.1")
            peer.mail("<a@example.org>")
            return peer.rcpt("<b@example.net>").code

    with Daemon(settings, crashes=True) as daemon:
        register.put(Hand.BLOCK, [A], 0, **BY)
        wait_until(lambda: said() == "554", "the entry holds")
        server.stop()
        daemon.configure(settings | {"hostname": "mx.example.org"})
        daemon.reload()
        assert said() == "554"
        before = workers(daemon)
        for child in before:
            os.kill(child, signal.SIGKILL)
        wait_until(lambda: len(set(workers(daemon)) - set(before)) >= 2, "all are back")
        wait_until(lambda: said() == "554", "the entry holds")
        server.start()


def test_an_allowed_sender_needs_spf(server, register):
    """Who is allowed by the sender's address passes where SPF does; elsewhere the other rules decide."""
    rules = [
        {"by_hand": "allow", "action": "accept"},
        {"by_hand": "block", "action": "reject"},
        {"action": "greylist"},
    ]
    register.put(Hand.ALLOW, [read(About.SENDER, "news@partner.test")], 0, **BY)
    register.put(Hand.BLOCK, [read(About.SENDER, "partner.test")], 0, **BY)
    with FakeDns() as dns:
        dns.record("partner.test", "TXT", '"v=spf1 ip4:192.0.2.1 -all"')
        nameservers = {"nameservers": [dns.nameserver], "timeout": "5s"}
        settings = {"store": {"url": server.unix_url}, "workers": 1, "dns": nameservers, "rule": rules}

        def said(client, sender):
            with MilterPeer(daemon.address) as peer:
                peer.connect("unknown", client)
                peer.helo("mx.partner.test")
                peer.mail(f"<{sender}>")
                return peer.rcpt("<b@example.net>").code

        with Daemon(settings) as daemon:
            wait_until(lambda: said("192.0.2.9", "x@partner.test") == "554", "the entries hold")
            assert said("192.0.2.1", "news@partner.test") == ""
            assert said("192.0.2.9", "news@partner.test") == "450"
            assert said("192.0.2.1", "x@partner.test") == "554"
            assert daemon.events("verdict")[-3]["reason"] == "allowed by hand"


@pytest.mark.parametrize("content", [b"", b"x", b"[]", b"\xff" * 99, b'{"store":"this store"}', b"[" * 99999])
def test_a_hostile_file_is_refused(server, register, tmp_path, caplog, content):
    """It is told, and the daemon starts; the next change replaces it."""
    path = tmp_path / byhand.FILE
    path.write_bytes(content)
    host = Host(server, path)
    assert host.said == []
    register.put(Hand.BLOCK, [A], 0, **BY)
    assert host.look().said == ["block 192.0.2.1"]
    assert keptcopy.parse(path.read_bytes())[1] == MARK


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder", "loose folder"])
def test_a_file_that_is_not_ours_is_not_read(server, register, tmp_path, kind):
    """Whoever can put it there must not say who is let in."""
    good = Host(server, tmp_path / "good")
    register.put(Hand.ALLOW, [A], 0, **BY)
    good.look()
    folder = tmp_path / "state"
    folder.mkdir()
    path = folder / byhand.FILE
    if kind == "link":
        path.symlink_to(good.path)
    elif kind == "hard link":
        os.link(good.path, path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(good.path.read_bytes())
        folder.chmod(0o777)
    bulletin = byhand.new_bulletin()
    byhand.start(bulletin, path, MARK)
    assert bulletin.generation == 0


def test_a_folder_that_cannot_be_written_is_told(server, register, tmp_path):
    """Workers follow all the same."""
    host = Host(server, tmp_path / "missing" / byhand.FILE)
    register.put(Hand.BLOCK, [A], 0, **BY)
    assert host.look().said == ["block 192.0.2.1"]
    assert host.reports.failing_ == ["entries by hand: No such file or directory"]
    (tmp_path / "missing").mkdir()
    register.put(Hand.BLOCK, [B], 0, **BY)
    host.look()
    assert host.reports.failing_ == []


def test_more_than_there_may_be_is_told(host, server, register):
    """What holds goes on holding."""
    register.put(Hand.BLOCK, [A], 0, **BY)
    host.look()
    with server.client() as client:
        client.hset(KEY, mapping={str(n): b"x" for n in range(6000)} | {"version": str(2**52)})
    assert host.look().said == ["block 192.0.2.1"]
    assert "more than 5000" in host.reports.failing_[0]


def test_a_bulletin_gives_what_was_published():
    """The newest, whole, and nothing when it was overwritten while it was read."""
    bulletin = Bulletin(8)
    assert bulletin.read() is None
    for generation, text in enumerate((b"one", b"", b"three", b"12345678"), 1):
        bulletin.publish(text)
        assert bulletin.read() == (generation, text)
    with pytest.raises(ValueError, match="larger"):
        bulletin.publish(b"123456789")
    bulletin._memory[0:1] = b"?"  # the place of the fourth
    assert bulletin.read() is None


def test_where_files_of_state_stand(tmp_path, monkeypatch):
    """With an embedded store, in systemd's folder, else beside the pid file."""
    from hybridgrey.config.load import load
    from parts.daemon import toml

    def folder(**settings):
        path = tmp_path / "hg.toml"
        path.write_text(toml({"rule": [{"action": "accept"}]} | settings))
        return statefiles.folder(load(path))

    redis = {"store": {"url": "redis://127.0.0.1/0"}, "pid_file": str(tmp_path / "run" / "hg.pid")}
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert folder(store={"url": f"embedded:{tmp_path}/state"}) == tmp_path / "state"
    if not os.access("/var/lib/hybridgrey", os.W_OK):
        assert folder(**redis) == tmp_path / "run"
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}/one:{tmp_path}/two")
    assert folder(**redis) == tmp_path / "one"
