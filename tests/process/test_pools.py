"""The pools of a host: resolved by the keeper, kept on disk, taken over by workers; nobody waits for them."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest
from structlog.testing import capture_logs

from hybridgrey.config import load
from hybridgrey.lists.resolv import nameservers
from hybridgrey.metrics.shared import Board
from hybridgrey.policy.rule import Pools
from hybridgrey.process import pools, statefiles
from hybridgrey.process.pools import Current, Resolving
from hybridgrey.spf import poolstate
from hybridgrey.spf.cache import Cache
from parts.base import LOOPBACK, free_port, wait_until
from parts.commandline import run as command
from parts.daemon import Daemon, toml
from parts.fakedns import FakeDns
from parts.milterpeer import MilterPeer

CLIENT, OTHER = ip_address("192.0.2.7").packed, ip_address("198.51.100.7").packed
NEVER = threading.Event()
A, B = "a.test", "b.test"


@dataclass
class Reports:
    """What was told, and is not over."""

    kinds: dict[str, dict] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def failing(self, kind, **fields):
        self.kinds[kind] = fields
        self.told.append(f"{kind} failing")

    def recovered(self, kind):
        if self.kinds.pop(kind, None) is not None:
            self.told.append(f"{kind} recovered")


@pytest.fixture
def dns():
    with FakeDns() as server:
        yield server


class Host:
    """The parts of one host, without processes."""

    def __init__(self, dns, folder, *domains):
        settings = {
            "dns": {"nameservers": [dns if isinstance(dns, str) else dns.address], "timeout": "1s"},
            "store": {"url": f"embedded:{folder}"},
            "rule": [{"name": "pools", "pools": list(domains or (A,)), "action": "accept"}],
        }
        path = folder / "hybridgrey.toml"
        path.write_text(toml(settings))
        self.config = load.load(path)
        self.bulletin = pools.new_bulletin()
        self.board = Board()
        self.reports = Reports()
        pools.start(self.bulletin, self.config)
        self.names = pools.domains(self.config)
        self.worker = Current(self.names, self.bulletin, pools.widths(self.config))
        by = pools.carrier(self.config, timeout=0.3)
        self.keeper = Resolving(
            self.names,
            by,
            self.bulletin,
            self.board,
            self.reports,
            path=pools.place(self.config),
            nameservers=nameservers(self.config.dns.nameservers),
        )

    def round(self, *, due=True):
        """A round of the keeper's, of all domains if they are to be due."""
        if due:
            self.keeper._due = dict.fromkeys(self.keeper._due, 0.0)
            self.keeper._carrier.cache = Cache()
        self.keeper.round(NEVER)
        self.worker.tick()

    def of(self, client=CLIENT):
        return self.worker.of(client, None)


def within(*names):
    return Pools(frozenset(names))


def unknown(*names):
    return Pools(unknown=frozenset(names))


def spf(dns, name, text):
    dns.record(name, "TXT", f'"v=spf1 {text}"')


def test_resolved_in_the_background(dns, tmp_path):
    """Unknown at first; then known, with figures for the status."""
    spf(dns, A, "ip4:192.0.2.0/24 include:more.test -all")
    spf(dns, "more.test", "ip6:2001:db8::/32 -all")
    host = Host(dns, tmp_path)
    assert host.of() == unknown(A)
    assert host.board.pools[:3] == (1, 1, 0)
    host.round()
    assert host.of() == within(A)
    assert host.of(OTHER) == within()
    found = host.board.pools
    assert found[:3] == (1, 0, 2)
    assert found.oldest == pytest.approx(time.time(), abs=60)
    assert found.problems == 0


def test_follows_what_dns_says(dns, tmp_path):
    """When its time is over a domain is asked again; meanwhile it is not."""
    spf(dns, A, "ip4:192.0.2.0/24 -all")
    host = Host(dns, tmp_path)
    host.round()
    spf(dns, A, "ip4:198.51.100.0/24 -all")
    host.round(due=False)
    assert host.of() == within(A)
    host.round()
    assert host.of() == within()
    assert host.of(OTHER) == within(A)


@pytest.mark.parametrize(
    ("ttl", "least", "most"), [(0, 300, 331), (3600, 3200, 3970), (10**6, 77_000, 96_000)]
)
def test_when_it_is_asked_again(dns, tmp_path, ttl, least, most):
    """By the TTL, between five minutes and about a day, not all at once."""
    spf(dns, A, "ip4:192.0.2.0/24 -all")
    dns.ttl = ttl
    host = Host(dns, tmp_path)
    host.round()
    assert least <= host.keeper._due[A] - time.monotonic() + 1 <= most


def test_a_failure_is_tried_again_ever_later(dns, tmp_path):
    """After about one, two, four minutes, up to 25."""
    dns.zone(A, rcode="SERVFAIL")
    host = Host(dns, tmp_path)
    for seconds in (60, 120, 240, 480, 960, 1500, 1500):
        host.round()
        assert host.keeper._due[A] - time.monotonic() == pytest.approx(seconds, rel=0.15)
    assert list(host.reports.kinds) == [f"pool:{A}"]
    assert host.board.pools.problems == 1
    assert host.of() == unknown(A)


def test_what_was_good_stays(dns, tmp_path):
    """Over a failure, a partial answer, and a restart with no nameserver; the trouble is told."""
    spf(dns, A, "ip4:192.0.2.0/24 include:more.test -all")
    spf(dns, "more.test", "ip4:198.51.100.0/24 -all")
    host = Host(dns, tmp_path)
    host.round()
    assert host.of(OTHER) == within(A)
    dns.zone("more.test", rcode="SERVFAIL")
    host.round()
    assert host.of(OTHER) == within(A)
    assert host.reports.kinds[f"pool:{A}"]["use"] == "the networks known before"
    again = Host(f"{LOOPBACK}:{free_port()}", tmp_path, A, B)
    assert again.of() == Pools(frozenset({A}), frozenset({B}))
    again.round()
    assert again.of() == Pools(frozenset({A}), frozenset({B}))
    assert set(again.reports.kinds) == {"pools"}
    dns.zones = {}
    third = Host(dns, tmp_path)
    third.round()
    assert third.reports.kinds == {}


ALL_FAIL = {
    "refused": {"rcode": "REFUSED"},
    "broken": {"rcode": "SERVFAIL"},
    "no such name": {"rcode": "NXDOMAIN"},
    "silent": {"silent": True},
}


@pytest.mark.parametrize("how", ALL_FAIL)
def test_none_resolves(dns, tmp_path, how):
    """It is one trouble, with the cause; resolved they are said to be when they are, each asked at once."""
    dns.zone("test", **ALL_FAIL[how])
    names = [f"{letter}.test" for letter in "abcde"]
    host = Host(dns, tmp_path, *names)
    with capture_logs() as said:
        host.round()
        host.round()
    assert said == []
    assert host.reports.told == ["pools failing", "pools failing"]
    told = host.reports.kinds["pools"]
    assert "another nameserver" in told["reason"]
    assert (told["domains"], told["nameservers"]) == (5, dns.address)
    assert host.of() == (Pools() if how == "no such name" else unknown(*names))
    dns.zones = {}
    for name in names[1:]:
        spf(dns, name, "ip4:192.0.2.0/24 -all")
    host.reports.told.clear()
    host.keeper._due[names[2]] = 0.0
    host.keeper._carrier.cache = Cache()
    with capture_logs() as said:
        for _ in range(3):
            host.round(due=False)
    assert host.reports.told == ["pools recovered", f"pool:{names[0]} failing"]
    assert [one["event"] for one in said] == ["pools are resolved"]
    assert (said[0]["domains"], said[0]["networks"]) == (4, 4)
    assert host.of() == within(*names[1:])


def test_none_resolves_any_more(dns, tmp_path):
    """When the first domain fails the others are asked: one trouble, though their times are not over."""
    for name in (A, B, "c.test"):
        spf(dns, name, "ip4:192.0.2.0/24 -all")
    host = Host(dns, tmp_path, A, B, "c.test")
    host.round()
    dns.zone("test", rcode="REFUSED")
    host.keeper._due[B] = 0.0
    host.keeper._carrier.cache = Cache()
    host.round(due=False)
    assert host.reports.told == ["pools failing"]
    assert host.board.pools.problems == 3
    assert host.of() == within(A, B, "c.test")


def test_one_domain_fails_alone(dns, tmp_path):
    """Another one that works says that it is not the nameserver; once told, it is not asked again."""
    for name in (A, B, "c.test"):
        spf(dns, name, "ip4:192.0.2.0/24 -all")
    host = Host(dns, tmp_path, A, B, "c.test")
    host.round()
    dns.zone(B, rcode="SERVFAIL")
    dns.queries.clear()
    for _ in range(3):
        host.keeper._due[B] = 0.0
        host.keeper._carrier.cache = Cache()
        host.round(due=False)
    assert set(host.reports.told) == {f"pool:{B} failing"}
    others = [query.name for query in dns.queries if not query.name.startswith(B)]
    assert len(others) == 1


def test_a_round_that_is_broken_off_tells_nothing(dns, tmp_path):
    """Who is stopped has not found that none resolves."""
    dns.zone("test", rcode="REFUSED")
    host = Host(dns, tmp_path, A, B)
    stopped = threading.Event()
    stopped.set()
    host.keeper._resolve(A)
    host.keeper.round(stopped)
    assert host.reports.told == []


def test_a_confirmation_outlives_a_reload(dns, tmp_path):
    """The keeper of a new configuration knows when each domain was resolved last, though nothing is new."""
    spf(dns, A, "ip4:192.0.2.0/24 -all")
    host = Host(dns, tmp_path)
    host.round()
    host.keeper._states[A] = host.keeper._states[A]._replace(at=5.0)
    host.keeper._publish()
    host.round()
    assert host.bulletin.generation == 2
    after = Resolving(
        host.names, host.keeper._carrier, host.bulletin, host.board, host.reports, path=host.keeper._path
    )
    assert after._states[A].at == pytest.approx(time.time(), abs=60)


def test_a_part_is_better_than_nothing(dns, tmp_path):
    """A pool that was never whole: who is in it is, of the others nobody knows."""
    spf(dns, A, "ip4:192.0.2.0/24 include:more.test -all")
    dns.zone("more.test", rcode="SERVFAIL")
    host = Host(dns, tmp_path)
    host.round()
    assert host.of() == within(A)
    assert host.of(OTHER) == unknown(A)


@pytest.mark.parametrize(
    "text", ["+all", "ip4:0.0.0.0/1 ip4:128.0.0.0/1", "ptr", "exists:%{i}.x.test", "bad::"]
)
def test_records_that_give_no_pool(dns, tmp_path, text):
    """Hostile and broken records are known to have nobody in them."""
    spf(dns, A, text)
    host = Host(dns, tmp_path)
    host.round()
    assert host.of() == within()


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 100, b"[" * 10_000])
def test_a_bad_file_is_told_and_replaced(dns, tmp_path, content):
    """It costs the state, and nothing else."""
    spf(dns, A, "ip4:192.0.2.0/24 -all")
    path = tmp_path / pools.FILE
    path.write_bytes(content)
    host = Host(dns, tmp_path)
    assert host.of() == unknown(A)
    host.round()
    assert host.of() == within(A)
    assert A in poolstate.parse(statefiles.read(path, poolstate.MAX_BYTES))


def test_no_place_for_the_file(dns, tmp_path, monkeypatch):
    """Pools work all the same, and it is told."""
    spf(dns, A, "ip4:192.0.2.0/24 -all")
    host = Host(dns, tmp_path)

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(statefiles, "replace", full)
    host.round()
    assert host.of() == within(A)
    assert list(host.reports.kinds) == ["pools file"]


def test_domains_that_are_no_longer_named(dns, tmp_path):
    """They leave the state with the next change."""
    spf(dns, A, "ip4:192.0.2.0/24 -all")
    spf(dns, B, "ip4:198.51.100.0/24 -all")
    Host(dns, tmp_path, A, B).round()
    host = Host(dns, tmp_path, B)
    host.round()
    assert set(pools.last(host.config)) == {B}


def settings(nameserver, metrics=""):
    rules = [
        {"name": "pools", "pools": ["file:pools"], "action": "accept"},
        {"name": "rest", "action": "greylist"},
    ]
    return {
        "dns": {"nameservers": [nameserver], "timeout": "1s"},
        "metrics": {"listen": metrics},
        "rule": rules,
    }


def judged(daemon, recipient, client="192.0.2.7"):
    """The verdict on a client; recipients differ, for the last verdict on each is looked up."""
    with MilterPeer(daemon.address) as peer:
        peer.connect(address=client)
        peer.helo()
        peer.mail()
        peer.rcpt(f"<{recipient}>")
    return daemon.verdict(recipient)


@pytest.mark.parametrize("engine", ["libmilter", "native"])
def test_a_daemon_from_its_first_start_on(dns, tmp_path, engine):
    """Greylisted while nothing is known, let in as soon as it is, with no nameserver too after a restart.

    A reload that names more domains keeps those that are known.
    """
    dns.zone(A, silent=True)
    metrics = f"{LOOPBACK}:{free_port()}"
    store = {"store": {"url": f"embedded:{tmp_path}/store"}, "engine": engine}
    with Daemon(settings(dns.address, metrics) | store, files={"pools": f"{A}  # a\n"}) as daemon:
        assert judged(daemon, "first@a.test")["outcome"] == "greylisted"
        (said,) = daemon.await_events("pools are unknown until they are resolved")
        assert said["domains"] == 1
        daemon.stop()
        dns.zones = {}
        spf(dns, A, "ip4:192.0.2.0/24 -all")
        daemon.start()
        daemon.await_events("pools are resolved")
        names = (f"second{n}@a.test" for n in range(100))
        wait_until(lambda: judged(daemon, next(names))["outcome"] == "accepted", "the worker's turn")
        verdict = daemon.events("verdict")[-1]
        assert (verdict["rule"], verdict["reason"]) == ("pools", "pool")
        assert judged(daemon, "other@a.test", "198.51.100.7")["outcome"] == "greylisted"
        shown = command("status", "-c", daemon.config)
        assert "1 domain, 1 network, the oldest resolved" in shown.output
        daemon.stop()
        daemon.configure(settings(f"{LOOPBACK}:{free_port()}", metrics) | store, {"pools": f"{A}\n"})
        daemon.start()
        assert judged(daemon, "third@a.test")["outcome"] == "accepted"
        daemon.configure(daemon.settings, {"pools": f"{A}\n{B}\n"})
        daemon.reload()
        assert judged(daemon, "fourth@a.test")["outcome"] == "accepted"
        status = lambda: command("status", "-c", daemon.config).output  # noqa: E731
        wait_until(lambda: "2 domains, 1 network" in status(), "the new keeper")
        assert "1 not resolved yet" in status()


def test_a_daemon_whose_nameserver_knows_no_domain(dns, tmp_path):
    """One line for all of them, none that they are resolved; `status` says it in words."""
    own = settings(dns.address, f"{LOOPBACK}:{free_port()}")
    own["store"] = {"url": f"embedded:{tmp_path}/store"}
    with Daemon(own, files={"pools": f"{A}\n{B}\nc.test\n"}) as daemon:
        (told,) = daemon.await_events("pools failing")
        assert told["error"] == f"no record of {A}"
        shown = command("status", "-c", daemon.config).lines
        assert "warning: none can be resolved now (see hybridgrey pools), 3 domains, 0 networks" in shown
        assert not daemon.events("pool failing") + daemon.events("pools are resolved")


def test_no_rule_names_a_pool(dns, tmp_path):
    """Nothing is asked, kept or shown."""
    rules = [{"name": "rest", "action": "greylist"}]
    plain = {"sender_pools": False}
    store = {"url": f"embedded:{tmp_path}/store"}
    with Daemon(
        {"dns": {"nameservers": [dns.address]}, "store": store, "rule": rules, "greylist": plain}
    ) as daemon:
        assert judged(daemon, "b@a.test")["outcome"] == "greylisted"
        assert not list(tmp_path.rglob(pools.FILE))
    assert [query for query in dns.queries if query.kind == "TXT"] == []


def test_the_command(dns, tmp_path):
    """Shows each domain, what is wrong with it, and the networks alone."""
    spf(dns, A, "ip4:192.0.2.0/24 ip4:203.0.113.0/24 ip6:2001:db8::/32 -all")
    host = Host(dns, tmp_path, A, B)
    file = tmp_path / "hybridgrey.toml"
    shown = command("pools", "-c", file)
    assert shown.status == 1
    assert f"no record of {B}" in shown.output
    assert next(line for line in shown.lines if line.startswith(A)).split()[1:3] == ["2", "1"]
    host.round()
    assert "ago" in command("pools", "-c", file).output
    dns.zone("test", rcode="REFUSED")
    shown = command("pools", "-c", file)
    assert shown.lines[0] == "warning: none of 2 pools can be resolved"
    assert f"they were asked through {dns.address}: check [dns] nameservers" in shown.error
    assert json.loads(command("pools", "-c", file, "--json").output)["none_resolves"] is True
    del dns.zones["test"]
    alone = command("pools", "-c", file, "--networks", A.upper())
    assert alone.lines == ["192.0.2.0/24", "203.0.113.0/24", "2001:db8::/32"]
    assert alone.status == 0
    assert '"networks": [' in command("pools", "-c", file, "--json").output


def test_explain_says_which_pool(dns, tmp_path):
    """By what a daemon has on disk, or else by asking."""
    spf(dns, A, "ip4:192.0.2.0/24 -all")
    host = Host(dns, tmp_path)
    file = tmp_path / "hybridgrey.toml"
    assert f"pools: yes ({A})" in command("explain", "-c", file, "192.0.2.7").output
    host.round()
    dns.record(A, "TXT", '"v=spf1 -all"')
    assert f"pools: yes ({A})" in command("explain", "-c", file, "192.0.2.7").output
    assert A not in command("explain", "-c", file, "198.51.100.7").output
    dns.zone(B, silent=True)
    dns.zone(A, silent=True)
    (tmp_path / pools.FILE).unlink()
    assert "not resolved yet" in command("explain", "-c", file, "192.0.2.7").output
