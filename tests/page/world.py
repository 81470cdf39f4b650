"""Two MX hosts with one Redis and known traffic, and how to ask their pages.

The counts of the traffic are in ``Traffic``: each test holds what the page shows against them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

from parts import engines
from parts.base import LOOPBACK, accepts, free_port, wait_until
from parts.commandline import run
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.milterpeer import MilterPeer
from parts.redisserver import Redis

BOTH, ONE, OTHER, TRUSTED = "192.0.2.1", "192.0.2.2", "192.0.2.3", "198.51.100.1"
RULES = [
    {"name": "blocklists", "dns": ["bl.test", "dnsbl.test"], "action": "reject"},
    {"name": "allowlists", "dns": ["wl.test"], "action": "accept"},
    {"name": "the rest", "action": "greylist"},
]
MARKUP = "<img src=x onerror=window.hurt=1>"
HELO = "<script>window.hurt=1</script>\u202e"
NOT_REPEATED = 60.0  # s; the keeper writes each 15 s


@dataclass
class Host:
    """One MX host with its daemon, and what it has been sent."""

    name: str
    daemon: Daemon
    url: str
    outcomes: Counter[str] = field(default_factory=Counter)

    def send(
        self, client: str, want: str, count: int = 1, *, sender: str = "a@example.org", helo: str = "x"
    ) -> None:
        """Name recipients; each must be answered as `want`, one of the page's outcomes, says."""
        for _ in range(count):
            code = self.talk(client, sender, helo)
            assert {"": "accept", "5": "reject", "4": "delay"}[code[:1]] == want, code
            self.outcomes[want] += 1

    def talk(self, client: str, sender: str = "a@example.org", helo: str = "x") -> str:
        """Name one recipient; the code of the reply, "" when it passes."""
        with MilterPeer(self.daemon.address) as peer:
            peer.connect("unknown", client)
            peer.helo(helo)
            peer.mail(sender if sender == "<>" else f"<{sender}>")
            reply = peer.rcpt("<b@example.net>")
            peer.quit()
            return reply.code

    def ask(self, name: str, **parameters: str) -> Any:
        """One of the page's questions."""
        return json.loads(self.get(f"/api/{name}?{urlencode(parameters)}"))

    def get(self, path: str) -> bytes:
        """What is served there."""
        with _opener.open(self.url + path, timeout=30) as answer:
            return bytes(answer.read())

    def well(self) -> bool:
        """Whether it answers; for a moment of a reload nobody does."""
        try:
            return self.get("/healthz") == b"ok\n"
        except (OSError, HTTPException):  # or the old keeper ends in the middle of an answer
            return False

    def totals(self, span: str = "hour") -> dict[str, int]:
        """What the page's data say of all hosts; nothing where nobody answers, as in a reload."""
        try:
            rows = self.ask("history", span=span)["outcomes"]
        except (OSError, HTTPException):
            return {}
        return {outcome: sum(row) for outcome, row in rows.items() if sum(row)}


_opener = build_opener(ProxyHandler({}))


@dataclass
class World:
    """All parts."""

    redis: Redis
    dns: FakeDns
    one: Host
    two: Host

    def settled(self) -> None:
        """Wait until both pages know all the traffic."""
        want = dict(self.one.outcomes + self.two.outcomes)
        for host in (self.one, self.two):
            wait_until(lambda host=host: host.totals() == want, f"{host.name} shows {want}", NOT_REPEATED)
            # Kept for ten seconds, perhaps from before the other one had written anything.
            wait_until(
                lambda host=host: host.ask("history", span="hour")["hosts"] == ["mx1.test", "mx2.test"],
                f"{host.name} knows both",
                NOT_REPEATED,
            )
            wait_until(lambda host=host: host.ask("hand")["count"] == 2, "it knows the entries by hand")


def settings(redis: Redis, dns: FakeDns, name: str, port: int, password: str) -> Mapping[str, Any]:
    return {
        "engine": engines.at("page", name),
        "hostname": name,
        "store": {"url": redis.unix_url},
        "dns": {"nameservers": [dns.address]},
        "greylist": {"delay": "1s"},
        "metrics": {"listen": f"{LOOPBACK}:{port}", "password": password},
        "rule": RULES,
    }


@contextmanager
def host(redis: Redis, dns: FakeDns, name: str, *, password: str = "") -> Iterator[Host]:
    """A daemon with its page."""
    port = free_port()
    with Daemon(settings(redis, dns, name, port, password)) as daemon:
        wait_until(lambda: accepts((LOOPBACK, port)), "the page is served")
        yield Host(name, daemon, f"http://{LOOPBACK}:{port}")


@contextmanager
def lists() -> Iterator[FakeDns]:
    """Two blocklists that overlap, and an allowlist."""
    with FakeDns() as dns:
        dns.zone("bl.test", listed={BOTH: "127.0.0.2", ONE: "127.0.0.2"})
        dns.zone("dnsbl.test", listed={BOTH: "127.0.0.4", OTHER: "127.0.0.4"})
        dns.zone("wl.test", listed={TRUSTED: "127.0.0.3"})
        yield dns


@contextmanager
def world() -> Iterator[World]:
    """Both hosts, after their traffic."""
    with (
        lists() as dns,
        Redis() as redis,
        host(redis, dns, "mx1.test") as one,
        host(redis, dns, "mx2.test") as two,
    ):
        one.send(BOTH, "reject", 6)
        one.send(ONE, "reject", 3)
        one.send(TRUSTED, "accept", 8)
        one.send("203.0.113.5", "delay")
        two.send(BOTH, "reject", 2)
        two.send(OTHER, "reject")
        two.send("2001:db8::7", "delay", sender=f"{MARKUP}@evil.example", helo=HELO)
        two.send("2001:db8::7", "delay", sender="<>")
        # The greylisted one of mx1 comes back to mx2, after the delay.
        wait_until(lambda: _comes_back(two), "the greylisted mail passes")
        _by_hand(one.daemon, "allow", "192.0.2.0/24", "--comment", MARKUP)
        _by_hand(one.daemon, "block", "--from", "spam@example.org", "--for", "1d")
        yield World(redis, dns, one, two)


def _by_hand(daemon: Daemon, command: str, *words: str) -> None:
    done = run(command, "-c", daemon.config, *words, environment={"SUDO_USER": "ann"})
    assert done.status == 0, done


def _comes_back(host: Host) -> bool:
    try:
        host.send("203.0.113.5", "accept")
    except AssertionError:
        host.outcomes["delay"] += 1
        return False
    return True
