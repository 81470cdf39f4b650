"""The servers of a row of MX hosts, for hosts of an `Internet`; they are at their well-known ports.

`Authority` knows every name of the internet, `Resolver` asks it as an MX host's own resolver does.
`StoreServer` and `Sentinel` keep the greylist. `MxPostfix` and `MxSendmail` receive mail for `DOMAIN`.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dns.exception
import dns.message
import dns.query
import redis

from parts.base import LOOPBACK, Part, accepts
from parts.postfix import Postfix
from parts.redisserver import Redis, server_binary
from parts.sendmail import BINARY, CF, SAFE, SNIPPET
from parts.sink import Sink

DOMAIN = "example.test"
PRIMARY = "mymaster"
UNBOUND = """\
server:
  interface: 0.0.0.0
  interface: ::0
  access-control: 0.0.0.0/0 allow
  access-control: ::0/0 allow
  do-not-query-localhost: no
  username: ""
  chroot: ""
  directory: "{directory}"
  pidfile: "{directory}/pid"
  use-syslog: no
  num-threads: 1
  msg-cache-size: 1m
  rrset-cache-size: 2m
  module-config: "iterator"
  qname-minimisation: no
{lines}
remote-control:
  control-enable: no
{zones}
"""


class _Unbound(Part):
    """An unbound on port 53."""

    def __init__(self, lines: Sequence[str], zones: Sequence[str] = ()) -> None:
        super().__init__()
        self.config = self.directory / "unbound.conf"
        text = "\n".join(f"  {line}" for line in lines)
        self.config.write_text(UNBOUND.format(directory=self.directory, lines=text, zones="\n".join(zones)))

    def command(self) -> list[str]:
        return ["unbound", "-d", "-c", str(self.config)]

    def ready(self) -> bool:
        query = dns.message.make_query("localhost", "A")
        with contextlib.suppress(dns.exception.Timeout, OSError):
            dns.query.udp(query, LOOPBACK, timeout=0.3)
            return True
        return False


class Authority(_Unbound):
    """The nameserver for all names there are; the records are master-file lines."""

    def __init__(self, records: Sequence[str]) -> None:
        soa = ". 3600 IN SOA ns.test. hostmaster.test. 1 600 300 86400 60"
        data = [f"local-data: '{record}'" for record in (soa, *records)]
        super().__init__(["local-zone: . static", "local-zone: test. nodefault", *data])


class Resolver(_Unbound):
    """A caching resolver; `lists`: DNS lists and where they are asked, as ADDRESS@PORT."""

    def __init__(self, authority: str, lists: Mapping[str, str]) -> None:
        zones = [f"stub-zone:\n  name: {zone}\n  stub-addr: {server}" for zone, server in lists.items()]
        zones.append(f"forward-zone:\n  name: .\n  forward-addr: {authority}")
        super().__init__(["local-zone: test. nodefault", "unblock-lan-zones: yes"], zones)


class StoreServer(Redis):
    """A Redis on port 6379; `follows` is the primary's address for a replica."""

    def __init__(self, follows: str = "") -> None:
        super().__init__()
        self.port = 6379
        self._follows = follows

    def command(self) -> list[str | Path]:
        options = ["--port", "6379", "--bind", "0.0.0.0", "--protected-mode", "no"]
        if self._follows:
            options += ["--replicaof", self._follows, "6379"]
        return [*super().command(), *options]

    def role(self) -> str:
        """Primary ("master") or replica ("slave")."""
        return str(self.client().info("replication")["role"])


class Sentinel(Part):
    """One of three sentinels, two of which decide."""

    def __init__(self, primary: str) -> None:
        super().__init__()
        (self.directory / "sentinel.conf").write_text(
            f'port 26379\nbind 0.0.0.0\nprotected-mode no\ndir "{self.directory}"\n'
            f"unixsocket {self.directory}/sentinel.sock\n"
            f"sentinel monitor {PRIMARY} {primary} 6379 2\n"
            f"sentinel down-after-milliseconds {PRIMARY} 1500\n"
            f"sentinel failover-timeout {PRIMARY} 5000\n"
        )

    def command(self) -> list[str | Path]:
        return [server_binary(), self.directory / "sentinel.conf", "--sentinel"]

    def ready(self) -> bool:
        return accepts(str(self.directory / "sentinel.sock"))

    def primary(self) -> dict[str, Any]:
        """What it knows of the primary, by the names of SENTINEL MASTER."""
        path = f"{self.directory}/sentinel.sock"
        with redis.Redis(unix_socket_path=path, decode_responses=True, socket_timeout=5) as client:
            known: dict[str, Any] = client.sentinel_master(PRIMARY)
        return known


QUICK_QUEUE = {"queue_run_delay": "1s", "minimal_backoff_time": "2s", "maximal_backoff_time": "3s"}


class FieldPostfix(Postfix):
    """A Postfix on port 25 of its host; `sink`, where it delivers to, is somebody else's."""

    def __init__(
        self, name: str, sink: Sink, milter: str, settings: Mapping[str, str], addresses: Sequence[str] = ()
    ) -> None:
        """Listens on loopback and `addresses`."""
        self.sink = sink
        bound = [f"[{address}]" if ":" in address else address for address in addresses]
        services = [f"{one}:25 inet n - n - - smtpd" for one in bound]
        super().__init__(milter, {"myhostname": name, **QUICK_QUEUE, **settings}, services=services)

    def _settle(self) -> None:
        self.port = 25

    def start(self) -> None:
        Part.start(self)

    def close(self) -> None:
        Part.close(self)


class MxPostfix(FieldPostfix):
    """An MX host's Postfix, for mail to DOMAIN."""

    def __init__(self, name: str, sink: Sink, milter: str, addresses: Sequence[str]) -> None:
        settings = {
            "inet_interfaces": "all",
            "inet_protocols": "all",
            "relay_domains": DOMAIN,
            "relayhost": f"[{sink.host}]:{sink.port}",
            "smtpd_peername_lookup": "yes",
            "smtpd_authorized_xclient_hosts": "",
        }
        super().__init__(name, sink, milter, settings, addresses)


class SendingPostfix(FieldPostfix):
    """A sender's Postfix: takes mail on loopback and delivers by MX records from its two addresses."""

    def __init__(self, name: str, sink: Sink, ipv4: str, ipv6: str) -> None:
        settings = {
            "inet_interfaces": "loopback-only",
            "inet_protocols": "all",
            "relayhost": "",
            "smtp_bind_address": ipv4,
            "smtp_bind_address6": ipv6,
            "smtp_host_lookup": "dns",
            "smtp_connect_timeout": "1s",
        }
        super().__init__(name, sink, "", settings)


MC = """\
divert(-1)
define(`_CF_DIR_', `{cf}/')
include(`{cf}/m4/cf.m4')
divert(0)dnl
VERSIONID(`tests')
OSTYPE(`linux')
define(`confDOMAIN_NAME', `{name}')
define(`confPID_FILE', `{d}/pid')
define(`confDONT_BLAME_SENDMAIL', `{safe}')
define(`confTO_IDENT', `0')
define(`confTO_ICONNECT', `5s')
define(`confTO_CONNECT', `5s')
define(`confREFUSE_LA', `1000')
define(`confQUEUE_LA', `1000')
define(`confMIN_QUEUE_AGE', `1s')
define(`confTO_HOSTSTATUS', `0s')
undefine(`ALIAS_FILE')
define(`QUEUE_DIR', `{d}/queue')
define(`STATUS_FILE', `{d}/statistics')
define(`HELP_FILE', `')
FEATURE(`nocanonify')
FEATURE(`accept_unresolvable_domains')
FEATURE(`no_default_msa')
RELAY_DOMAIN(`{domain}')
{listening}
define(`HYBRIDGREY_SOCKET', `{milter}')dnl
include(`{snippet}')dnl
MAILER(`smtp')
"""


class MxSendmail(Part):
    """A Sendmail as the backup MX of DOMAIN: what it accepts it passes on to the better ones."""

    def __init__(self, name: str, milter: str, addresses: Sequence[str]) -> None:
        """Listens on loopback and `addresses`."""
        super().__init__()
        # Each by itself: without an address its IPv6 socket would take the IPv4 port, too.
        listening = [
            f"DAEMON_OPTIONS(`Family={'inet6' if ':' in address else 'inet'}, Name=MTA{number}, "
            f"Addr={address}, Port=25')"
            for number, address in enumerate((LOOPBACK, *addresses))
        ]
        self.queue = self.directory / "queue"
        self.queue.mkdir(mode=0o700)
        self.config = self.directory / "sendmail.cf"
        values = {"cf": CF, "d": self.directory, "safe": SAFE, "snippet": SNIPPET}
        words = {"name": name, "domain": DOMAIN, "milter": milter, "listening": "\n".join(listening)}
        text = MC.format(**values, **words)
        (self.directory / "sendmail.mc").write_text(text)
        made = subprocess.run(["m4", self.directory / "sendmail.mc"], capture_output=True, check=True)
        self.config.write_bytes(made.stdout)

    def command(self) -> list[str | Path]:
        return [BINARY, "-C", str(self.config), "-bD", "-q2s", "-X", self.directory / "traffic"]

    def ready(self) -> bool:
        return accepts((LOOPBACK, 25))

    def log_text(self) -> str:
        traffic = self.directory / "traffic"
        return super().log_text() + (traffic.read_text(errors="replace") if traffic.exists() else "")
