"""What can be done in the lab: one method for each command of `lab`, which writes with `say`."""

from __future__ import annotations

import inspect
import ipaddress
import json
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from client import MX_HOSTS, NETWORKS
from window import Window

from parts import mxrow, spamrun
from parts.base import PartError
from parts.fieldservers import DOMAIN, MxPostfix
from parts.internet import Host
from parts.mxrow import PROGRAM, Row

Say = Callable[[str], None]
PICTURE = """\
 office         pool            elsewhere      bank           botnet            client networks
 192.0.2.0/24   198.51.100.0/24 203.0.113.0/24 100.65.0.0/24  198.18.0.0/15
 2001:db8:a::   2001:db8:b::    2001:db8:c::   2001:db8:d::   2001:db8:e::
 nobody         a big sender    nobody         on the         half of it on
 knows it       of many hosts   knows it       allowlist      the blocklist
    |               |               |              |              |
    +---------------+------- wan ---+--------------+--------------+
                              |
                            router
                              |
    +---------------+------ front --+--------------+--------------+
    |               |               |              |              |
 mx1             mx2             mx3            names          mailbox
 10.25.0.11      10.25.0.12      10.25.0.13     10.25.0.53     10.25.0.25
 Postfix         Postfix         Sendmail       unbound: all   where mail for
 hybridgrey      hybridgrey      hybridgrey     names; rbldnsd example.test ends
 unbound         unbound         unbound        bl.test
 MX 10           MX 10           MX 20 (backup) wl.test
    |               |               |
    +---------------+------- back --+--------------+--------------+
                                    |              |              |
                                 store1         store2         store3
                                 10.6.0.21      10.6.0.22      10.6.0.23
                                 Redis          Redis
                                 sentinel       sentinel       sentinel
"""
DELAY = 10
"""Seconds; 300 where it is not a playground."""
SETTINGS: Mapping[str, Any] = {"greylist": {"delay": f"{DELAY}s"}}


class LabError(Exception):
    """What was asked cannot be done; the text says why."""


class Playground:
    """A running row and what the commands do with it."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self._killed: list[str] = []
        self._cut: set[tuple[str, str]] = set()
        self._windows: dict[str, Window] = {}

    def page(self, host: str) -> str:
        """The address at which a browser of this machine finds a host's page."""
        if host not in self._windows:
            self._windows[host] = Window(self._row.mx[host].host, mxrow.METRICS_PORT)
        return self._windows[host].url

    def perform(self, request: Mapping[str, Any], say: Say) -> int:
        """Carry out one request; the exit status. Raises nothing that a user can bring about."""
        given = {name: value for name, value in request.items() if name != "do"}
        command = str(request.get("do")).replace("-", "_")
        method = getattr(self, f"do_{command}", None)
        if method is None or not set(given) <= set(inspect.signature(method).parameters):
            say("lab: no such command\n")
            return 1
        try:
            method(say, **given)
        except (LabError, PartError, OSError, ValueError) as error:
            say(f"lab: {error}\n")
            return 1
        return 0

    # -- looking

    def do_map(self, say: Say) -> None:
        """What runs where."""
        say(PICTURE)
        for host, segment in sorted(self._cut):
            say(f" cut: {host} from {segment}\n")
        for name in self._killed:
            say(f" killed: Redis on {name}\n")

    def do_status(self, say: Say) -> None:
        """Hosts, stores and counts."""
        self._say_links(say)
        self._say_stores(say)
        status = self._row.status()
        for host, name in zip(status["hosts"], self._row.mx, strict=True):
            say(f"  hybridgrey on {name}: {host['state']} {'; '.join(host['problems'])}".rstrip() + "\n")
        say("\nrecipients judged, all hosts together\n")
        for one in status["verdicts"]:
            if one["count"]:
                say(f"  {one['count']:>7}  {one['action']:<9} {one['rule']}\n")
        found = ", ".join(f"{number} {name}" for name, number in status["greylist"].items() if number)
        say(f"  greylist: {found or 'nothing yet'}\n")
        say(f"messages in the mailbox: {len(self._row.sink.mails)}\n")

    def _say_links(self, say: Say) -> None:
        cut = ", ".join(f"{host} from {segment}" for host, segment in sorted(self._cut))
        say(f"cables cut: {cut or 'none'}\n")

    def _say_stores(self, say: Say) -> None:
        for name, store in self._row.stores.items():
            if not store.running:
                say(f"  Redis on {name}: killed\n")
                continue
            role = "primary" if store.role() == "master" else "replica"
            say(f"  Redis on {name}: {role}, {len(store.keys())} keys\n")
        say(f"  the sentinels name {self._row.primary()}\n")

    def do_log(self, say: Say, host: str, lines: int, *, everything: bool = False, mta: bool = False) -> None:
        """The last lines of a log."""
        mx = self._row.mx[host]
        if mta or everything:
            text = mx.mta.log_text() if mta else mx.daemon.log_text()
            say("".join(f"{line}\n" for line in text.splitlines()[-lines:]))
            return
        for event in mx.daemon.events("verdict")[-lines:]:
            say(_verdict(event) + "\n")

    def do_mail(self, say: Say) -> None:
        """What has arrived."""
        for mail in self._row.sink.mails[-15:]:
            say(f"  <{mail.sender}> to {', '.join(mail.recipients)}\n")
            for name in ("X-Greylist", "Authentication-Results"):
                for value in mail.header(name):
                    say(f"      {name}: {value}\n")
        count = len(self._row.sink.mails)
        say(f"{count} message{'' if count == 1 else 's'}\n")

    def do_page(self, say: Say, host: str) -> None:
        """Where a browser finds the page."""
        say(f"{self.page(host)}\n")

    def do_where(self, say: Say, host: str) -> None:
        """How to enter a host, for `lab run` and `lab shell`; as JSON."""
        machine = self._host(host)
        # A host without a daemon has no configuration of its own; mx1's serves to ask the stores.
        mx = self._row.mx.get(host, self._row.mx["mx1"])
        environment = {"PS1": f"{host}# "}
        if mx.host is machine and isinstance(mx.mta, MxPostfix):
            environment["MAIL_CONFIG"] = str(mx.mta.config)
        where = {"pid": machine.pid, "hybridgrey": str(PROGRAM), "config": str(mx.daemon.config)}
        say(json.dumps({**where, "environment": environment}))

    # -- mail

    def do_send(
        self,
        say: Say,
        network: str,
        mx: str,
        recipient: str,
        version: int,
        sender: str | None = None,
        address: str | None = None,
        helo: str | None = None,
    ) -> None:
        """Send a message and show the dialogue."""
        source = self._source(network, address, version)
        before = len(self._row.mx[mx].daemon.events("verdict"))
        say(f"{source} ({network}) to {mx}.{DOMAIN}\n")
        with self._row.client(network, mx, source) as client:
            client.ehlo(helo or f"mail.{network}.test")
            client.dialogue.clear()
            sender = f"joe@{network}.test" if sender is None else sender
            answers = client.transaction(sender, [recipient], f"Subject: from {network}\r\n\r\nHello.\r\n")
            for side, line in client.dialogue:
                say(textwrap.indent(line, "    > " if side == "C" else "      ") + "\n")
            client.quit()
        for event in self._row.mx[mx].daemon.await_events("verdict", before + 1)[before:]:
            say(f"  {_verdict(event)}\n")
        if answers[-1].code == 450:
            say(f"  come back to any MX host, from {_around(source)}\n")

    def _source(self, network: str, address: str | None, version: int) -> str:
        if network not in self._row.networks or network not in NETWORKS:
            raise LabError(f"no network {network}")
        known = mxrow.NETWORKS[network]
        if address is None:
            return known.address(version)
        parsed = ipaddress.ip_address(address)
        if parsed not in ipaddress.ip_network(known.of(parsed.version)):
            raise LabError(f"{address} is not in {network}: {known.ipv4}, {known.ipv6}")
        return str(parsed)

    def do_spam(self, say: Say, count: int, version: int) -> None:
        """A run of the botnet."""
        targets = {self._row.mx[name].host.address(version): name for name in MX_HOSTS}
        network = mxrow.NETWORKS["botnet"].of(version)
        words = [sys.executable, spamrun.__file__, "--network", network, "--count", str(count), *targets]
        say(f"{count} clients of {network}, one recipient each …\n")
        with self._row.popen("botnet", words) as run:
            text = run.communicate()[0]
        if run.returncode:
            raise LabError("the spam run failed")
        answers: Counter[str] = Counter(json.loads(text)["answers"])
        meaning = {"450": "greylisted", "554": "refused, on the blocklist", "250": "let in", "451": "put off"}
        for answer, number in sorted(answers.items()):
            target, _, code = answer.partition(" ")
            say(f"  {targets[target]}  {number:>6} x {code} {meaning.get(code, '')}\n")

    # -- breaking and mending

    def do_cut(self, say: Say, host: str, segment: str | None = None) -> None:
        """Pull a cable."""
        for one in self._segments(host, segment):
            self._host(host).cut(one)
            self._cut.add((host, one))
            say(f"{host} is cut off from {one}\n")

    def do_heal(self, say: Say, host: str, segment: str | None = None) -> None:
        """Put a cable back."""
        for one in self._segments(host, segment):
            self._host(host).heal(one)
            self._cut.discard((host, one))
            say(f"{host} is on {one} again\n")

    def do_kill_redis(self, say: Say) -> None:
        """Kill the primary."""
        name = self._row.primary()
        if not self._row.stores[name].running:
            raise LabError(f"Redis on {name} is dead already, and no other was chosen; try lab start-redis")
        self._row.stores[name].kill()
        self._killed.append(name)
        say(f"killed Redis on {name}, the primary; the sentinels choose another within a few seconds\n")

    def do_start_redis(self, say: Say) -> None:
        """Start what was killed."""
        if not self._killed:
            raise LabError("no Redis was killed")
        while self._killed:
            name = self._killed.pop()
            self._row.net.hosts[name].run(self._row.stores[name].start)
            say(f"Redis on {name} is up again\n")

    def _host(self, name: str) -> Host:
        if name not in self._row.net.hosts:
            raise LabError(f"no host {name}; there are {', '.join(self._row.net.hosts)}")
        return self._row.net.hosts[name]

    def _segments(self, host: str, segment: str | None) -> list[str]:
        there = self._host(host).segments
        if segment is not None and segment not in there:
            raise LabError(f"{host} is not on {segment}, but on {', '.join(there)}")
        return there if segment is None else [segment]


def _verdict(event: Mapping[str, Any]) -> str:
    """A verdict as a line for people."""
    listed = ", ".join(f"{name} {' '.join(codes)}" for name, codes in event["lists"].items() if codes)
    words = [
        event["ts"][11:19],
        event["client"],
        f"<{event['sender'].strip('<>')}> to {event['recipient'].strip('<>')}:",
        f"rule {event['rule']}, {event['action']}",
        f"({event['state']})" if event["state"] else "",
        f"[{listed}]" if listed else "",
        f"store: {event['store_error']}" if event.get("store_error") else "",
        f"in {event['wait_ms']:.0f} ms",
    ]
    return " ".join(word for word in words if word)


def _around(address: str) -> str:
    """The network from which a retry counts."""
    bits = 64 if ":" in address else 24
    return str(ipaddress.ip_network(f"{address}/{bits}", strict=False))
