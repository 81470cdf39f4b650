"""A row of MX hosts in an internet of their own: what `make lab` shows and tests/field tries. Needs root.

    with Row() as row:
        print(row.send("office", "mx1", "joe@office.test", "ann@example.test"))

    office pool elsewhere bank botnet          client networks, IPv4 and IPv6
          |  wan
        router
          |  front
    mx1 mx2 mx3   names   mailbox              Postfix, Postfix, Sendmail; names and lists; where mail ends
          |  back
    store1 store2 store3                       Redis, its replica, and three sentinels

Each MX host has its own hybridgrey, resolver and MTA. mx3 is the backup: the last in the MX record of
example.test; it passes on to mx1 and mx2, which have its address in allow_clients.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import dns.reversename
from prometheus_client.parser import text_string_to_metric_families

from parts import internet, sendmail
from parts.base import LOOPBACK, Part, wait_until
from parts.daemon import Daemon, Settings, merged
from parts.fieldservers import (
    DOMAIN,
    PRIMARY,
    Authority,
    MxPostfix,
    MxSendmail,
    Resolver,
    Sentinel,
    StoreServer,
)
from parts.internet import Host, Internet
from parts.rbldnsd import Rbldnsd, ip4set, ip6trie
from parts.sink import Sink
from parts.smtp import Client

PROGRAM = Path(sys.executable).with_name("hybridgrey")
BLOCKLIST, ALLOWLIST = "bl.test", "wl.test"


@dataclass(frozen=True, slots=True)
class Network:
    """Where clients are: one IPv4 and one IPv6 network, and what is to be known of them."""

    ipv4: str
    ipv6: str
    what: str

    def of(self, version: int) -> str:
        """The network of an IP version."""
        return self.ipv6 if version == 6 else self.ipv4

    def address(self, version: int = 4, number: int = 10) -> str:
        """An address in it."""
        return str(ipaddress.ip_network(self.of(version))[number])


NETWORKS = {
    "office": Network("192.0.2.0/24", "2001:db8:a::/48", "nobody knows it"),
    "pool": Network("198.51.100.0/24", "2001:db8:b::/48", "a big sender that retries from any address"),
    "elsewhere": Network("203.0.113.0/24", "2001:db8:c::/48", "nobody knows it either"),
    "bank": Network("100.65.0.0/24", "2001:db8:d::/48", f"on the allowlist {ALLOWLIST}"),
    "botnet": Network("198.18.0.0/15", "2001:db8:e::/48", f"its lower half is on the blocklist {BLOCKLIST}"),
}
LISTED = {4: "198.18.0.0/16", 6: "2001:db8:e::/49"}
"""What is on the blocklist, by IP version."""
LISTS = {
    BLOCKLIST: [
        ip4set(LISTED[4], text="A botnet, see https://bl.test/$"),
        ip6trie(LISTED[6], text="A botnet, see https://bl.test/$"),
    ],
    ALLOWLIST: [
        ip4set("100.65.0.0/24", value="127.0.5.2"),
        ip6trie("2001:db8:d::/48", value="127.0.5.2"),
    ],
}
MX_HOSTS = {"mx1": 10, "mx2": 10, "mx3": 20}
"""The MX hosts and their preferences."""
STORES = ("store1", "store2", "store3")
RULES = [
    {"name": "authenticated", "authenticated": True, "action": "accept"},
    {"name": "local", "clients": ["127.0.0.0/8", "::1"], "action": "accept"},
    {"name": "manual", "clients": ["file:allow_clients"], "action": "accept"},
    {"name": "blocklists", "dns": [BLOCKLIST], "action": "reject"},
    {"name": "allowlists", "dns": [f"{ALLOWLIST}=127.0.[0..255].[2..3]"], "action": "accept"},
    {"name": "the rest", "action": "greylist"},
]
METRICS_PORT = 9893


def missing() -> str:
    """Why the row cannot be run here; empty when it can."""
    return internet.missing() or sendmail.missing()


@dataclass(slots=True)
class Mx:
    """An MX host and what runs on it."""

    host: Host
    resolver: Resolver
    daemon: Daemon
    mta: MxPostfix | MxSendmail

    def hybridgrey(self, *words: str, check: bool = True) -> str:
        """The output of a hybridgrey command on this host, with its daemon's configuration."""
        command, *rest = words
        return self.host.command_line(PROGRAM, command, "-c", self.daemon.config, *rest, check=check)

    @property
    def metrics(self) -> str:
        """Where its daemon shows its counts."""
        return f"http://{self.host.address()}:{METRICS_PORT}"

    def counted(self, family: str, *labels: str) -> Counter[tuple[str, ...]]:
        """A counter as Prometheus sees it, by the values of its labels in the order given."""
        total: Counter[tuple[str, ...]] = Counter()
        for metric in text_string_to_metric_families(self.get("/metrics")):
            for sample in metric.samples:
                if sample.name == f"hybridgrey_{family}_total":
                    total[tuple(sample.labels[label] for label in labels)] += int(sample.value)
        return total

    def get(self, path: str) -> str:
        """What its daemon serves at a path, for the host itself."""

        def ask() -> str:
            connection = http.client.HTTPConnection(LOOPBACK, METRICS_PORT, timeout=10)
            with contextlib.closing(connection):
                connection.request("GET", path)
                return connection.getresponse().read().decode()

        return self.host.run(ask)


class Row:
    """The internet with all its servers."""

    def __init__(self, settings: Settings | None = None, own: Mapping[str, Settings] | None = None) -> None:
        """`settings` are for the daemons of all MX hosts, `own` those of single ones by name."""
        self.net = Internet()
        self.networks: dict[str, Host] = {}
        self.mx: dict[str, Mx] = {}
        self.stores: dict[str, StoreServer] = {}
        self.sentinels: dict[str, Sentinel] = {}
        self._settings = settings or {}
        self._own = own or {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.net)
            self._lay()
            self._build(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    # -- what there is

    def _lay(self) -> None:
        """Segments and hosts."""
        self.net.segment("wan", ("10.1.0.1/24", "2001:db8:1::1/64"))
        self.net.segment("front", ("10.25.0.1/24", "2001:db8:25::1/64"))
        self.net.segment("back")
        for number, (name, network) in enumerate(NETWORKS.items(), 11):
            links = {"wan": (f"10.1.0.{number}/24", f"2001:db8:1::{number}/64")}
            behind = (network.ipv4, network.ipv6)
            self.networks[name] = self.net.host(f"{name}.test", links, networks=behind, resolver="127.0.0.1")
        for number, name in enumerate(MX_HOSTS, 11):
            self.net.host(
                f"{name}.{DOMAIN}",
                {"front": _front(number), "back": (f"10.6.0.{number}/24",)},
                resolver="127.0.0.1",
            )
        self.names = self.net.host("names.test", {"front": _front(53)})
        self.mailbox = self.net.host(f"mailbox.{DOMAIN}", {"front": _front(25)})
        for number, name in enumerate(STORES, 21):
            self.net.host(f"{name}.{DOMAIN}", {"back": (f"10.6.0.{number}/24",)})

    def _build(self, stack: contextlib.ExitStack) -> None:
        """Servers, from those that are asked to those that ask."""
        hosts = self.net.hosts
        self.authority = stack.enter_context(self.names.serving(Authority(self._records())))
        # Made there, because it looks for a free port on that host's address.
        lists = self.names.run(lambda: Rbldnsd(LISTS, host=self.names.address()))
        self.lists = stack.enter_context(self.names.serving(lists))
        self.sink = Sink(address=(self.mailbox.address(), 25), make_socket=self.mailbox.make_socket)
        stack.enter_context(self.sink)
        first = hosts["store1"].address()
        for name, follows in (("store1", ""), ("store2", first)):
            self.stores[name] = stack.enter_context(hosts[name].serving(StoreServer(follows)))
        for name in STORES:
            self.sentinels[name] = stack.enter_context(hosts[name].serving(Sentinel(first)))
        wait_until(self._guarded, "the sentinels know the replica and each other", 60)
        with ThreadPoolExecutor() as pool:
            for mx in pool.map(self._mx, MX_HOSTS):
                self.mx[mx.host.short] = mx
        self._start(stack, [mx.resolver for mx in self.mx.values()])
        self._start(stack, [mx.daemon for mx in self.mx.values()])
        self._start(stack, [mx.mta for mx in self.mx.values()])

    def _start(self, stack: contextlib.ExitStack, parts: list[Part]) -> None:
        """Start one part on each MX host, all at a time."""
        hosts = [mx.host for mx in self.mx.values()]
        for part in parts:
            stack.push(part.__exit__)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda host, part: host.run(part.__enter__), hosts, parts))

    def _mx(self, name: str) -> Mx:
        """An MX host's servers, not yet started."""
        host = self.net.hosts[name]
        lists = dict.fromkeys(LISTS, self.lists.address.replace(":", "@"))
        # Both ways to reach a milter are in use.
        daemon = Daemon(files={"allow_clients": self._backups()}, unix=name != "mx2")
        sentinels = ",".join(f"{self.net.hosts[store].address()}:26379" for store in STORES)
        settings: Settings = {
            "dns": {"nameservers": []},  # those of the host
            "listen": daemon.spec,
            "store": {"url": f"sentinel://{sentinels}/{PRIMARY}/0"},
            "metrics": {"listen": f"0.0.0.0:{METRICS_PORT}"},
            "log": {"level": "info"},
            "rule": RULES,
        }
        daemon.configure(merged(merged(settings, self._settings), self._own.get(name, {})))
        mta: MxPostfix | MxSendmail
        addresses = [str(one.ip) for one in host.addresses]
        if name == "mx3":
            mta = MxSendmail(host.name, daemon.spec, addresses)
        else:
            mta = MxPostfix(host.name, self.sink, daemon.spec, addresses)
        return Mx(host, Resolver(self.names.address(), lists), daemon, mta)

    def _backups(self) -> str:
        """allow_clients: the backup MX has judged already what it passes on."""
        backup = self.net.hosts["mx3"]
        return "# our backup MX\n" + "".join(f"{backup.address(version)}\n" for version in (4, 6))

    def _records(self) -> list[str]:
        """Every name: the MX record of the domain, hosts, and a mail host in each client network."""
        records = [
            f"{DOMAIN}. 60 IN MX {preference} {name}.{DOMAIN}." for name, preference in MX_HOSTS.items()
        ]
        named = [(f"{name}.{DOMAIN}", self.net.hosts[name].address(v)) for name in MX_HOSTS for v in (4, 6)]
        for name, network in NETWORKS.items():
            named += [(f"mail.{name}.test", network.address(version)) for version in (4, 6)]
        for name, address in named:
            records.append(f"{name}. 60 IN {'AAAA' if ':' in address else 'A'} {address}")
            records.append(f"{dns.reversename.from_address(address)} 60 IN PTR {name}.")
        return records

    def _guarded(self) -> bool:
        """Whether every sentinel knows the replica and both others."""
        views = [sentinel.primary() for sentinel in self.sentinels.values()]
        return all(view["num-slaves"] == 1 and view["num-other-sentinels"] == 2 for view in views)

    # -- what can be done with it

    def client(self, network: str, mx: str, address: str = "", *, version: int = 4) -> Client:
        """An SMTP connection from a network to an MX host, from its tenth address if from no other."""
        source = address or NETWORKS[network].address(version)
        target = (self.mx[mx].host.address(6 if ":" in source else 4), 25)
        return Client(target, sock=self.networks[network].connect(source, target))

    def send(
        self, network: str, mx: str, sender: str, recipient: str, address: str = "", *, version: int = 4
    ) -> str:
        """Send a message; the last answer: to the recipient when that was refused, else to the message."""
        with self.client(network, mx, address, version=version) as client:
            client.ehlo(f"mail.{network}.test")
            answer = client.transaction(sender, [recipient])[-1]
            client.quit()
        return str(answer)

    def primary(self) -> str:
        """The name of the store that the sentinels name."""
        address = self.sentinels["store3"].primary()["ip"]
        return next(name for name in STORES if self.net.hosts[name].address() == address)

    def counted(self, family: str, *labels: str) -> Counter[tuple[str, ...]]:
        """A counter of all MX hosts together."""
        return sum((mx.counted(family, *labels) for mx in self.mx.values()), Counter())

    def status(self) -> Any:
        """`hybridgrey status` for all MX hosts, asked on a host that has no daemon."""
        urls = [word for mx in self.mx.values() for word in ("--url", mx.metrics)]
        return json.loads(self.mailbox.command_line(PROGRAM, "status", "--json", *urls, check=False))

    def popen(self, network: str, words: Sequence[str]) -> subprocess.Popen[str]:
        """A process in a client network whose output can be read."""
        return self.networks[network].run(
            lambda: subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        )


def _front(number: int) -> tuple[str, str]:
    return (f"10.25.0.{number}/24", f"2001:db8:25::{number}/64")
