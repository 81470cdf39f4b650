"""A private Postfix on loopback ports, beside whatever Postfix the machine has; needs root.

    with Postfix(milters=daemon.spec) as mta, mta.client("192.0.2.1", "mail.example.org") as client:
        client.ehlo()

Accepts mail for everybody and hands it to its `sink`, so that tests can read what was delivered. Clients take
their address by XCLIENT, which any loopback client may use.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from parts import sasl, smtp
from parts.base import LOOPBACK, Part, accepts, free_port, has_ipv6
from parts.fakedns import FakeDns
from parts.namespace import Namespace
from parts.sink import Sink

DAEMONS = "/usr/lib/postfix/sbin"
QUEUES = "active bounce corrupt defer deferred flush hold incoming private maildrop public pid saved trace"
SMTPD = "n - n - - smtpd"
MASTER = """\
{services}
pickup     unix  n  -  n  60  1  pickup
cleanup    unix  n  -  n  -   0  cleanup
qmgr       unix  n  -  n  300 1  qmgr
tlsmgr     unix  -  -  n  -   1  tlsmgr
rewrite    unix  -  -  n  -   -  trivial-rewrite
bounce     unix  -  -  n  -   0  bounce
defer      unix  -  -  n  -   0  bounce
trace      unix  -  -  n  -   0  bounce
verify     unix  -  -  n  -   1  verify
proxymap   unix  -  -  n  -   -  proxymap
smtp       unix  -  -  n  -   -  smtp
relay      unix  -  -  n  -   -  smtp
showq      unix  n  -  n  -   -  showq
error      unix  -  -  n  -   -  error
retry      unix  -  -  n  -   -  error
discard    unix  -  -  n  -   -  discard
anvil      unix  -  -  n  -   1  anvil
postlog    unix-dgram n - n - 1  postlogd
"""


def missing() -> str:
    """Why Postfix cannot be run here; empty when it can."""
    if os.geteuid() != 0:
        return "Postfix needs root"
    return "" if Path(DAEMONS, "master").exists() else "Postfix is not installed"


def own_spelling(spec: str) -> str:
    """libmilter's inet:PORT@HOST as Postfix writes it: inet:HOST:PORT."""
    kind, _, rest = spec.partition(":")
    port, at, host = rest.partition("@")
    return f"inet:{host}:{port}" if at and kind.startswith("inet") else spec


class Postfix(Part):
    """The MTA; `port` on 127.0.0.1 and, where there is IPv6, ::1.

    `front` is what listens there, as columns 3 to 8 of master.cf, nothing if empty; `services` are further
    lines of it, and `more` ones of main.cf.
    """

    def __init__(
        self,
        milters: str = "",
        settings: Mapping[str, str] | None = None,
        *,
        front: str = SMTPD,
        services: Sequence[str] = (),
        more: str = "",
    ) -> None:
        super().__init__()
        self._settle()
        self.queue = self.directory / "queue"
        self._more = more
        self._front, self._services = front, services
        self.maillog = self.directory / "maillog"
        self.config = self.directory / "config"
        self._prepare()
        self._configure({"smtpd_milters": own_spelling(milters), **(settings or {})})

    def _settle(self) -> None:
        """Choose where to listen and to deliver."""
        self.port = free_port()
        self.sink = Sink()

    def _prepare(self) -> None:
        """What `postfix check` would make, without its second of shell commands."""
        queue = self.queue
        for path in (self.config, queue, self.directory / "data", *(queue / name for name in QUEUES.split())):
            path.mkdir()
            path.chmod(0o700 if path.parent == queue else 0o755)
        for name in (
            "active",
            "bounce",
            "corrupt",
            "defer",
            "deferred",
            "flush",
            "hold",
            "incoming",
            "saved",
        ):
            shutil.chown(queue / name, "postfix")
        for name in ("private", "trace"):
            shutil.chown(queue / name, "postfix")
        shutil.chown(self.directory / "data", "postfix")
        (queue / "pid").chmod(0o755)
        for name, mode in (("maildrop", 0o730), ("public", 0o710)):
            shutil.chown(queue / name, "postfix", "postdrop")
            (queue / name).chmod(mode)

    def _configure(self, settings: Mapping[str, str]) -> None:
        addresses = [LOOPBACK, "[::1]"] if has_ipv6() else [LOOPBACK]
        services = [f"{host}:{self.port} inet {self._front}" for host in addresses if self._front]
        text = MASTER.format(services="\n".join([*services, *self._services]))
        (self.config / "master.cf").write_text(text)
        main = {
            "compatibility_level": "3.6",
            "queue_directory": str(self.queue),
            "data_directory": f"{self.directory}/data",
            "daemon_directory": DAEMONS,
            "command_directory": "/usr/sbin",
            "maillog_file": str(self.maillog),
            "maillog_file_prefixes": str(self.directory),
            "mail_owner": "postfix",
            "setgid_group": "postdrop",
            "myhostname": "mx.example.test",
            "mydestination": "",
            "mynetworks": "127.0.0.0/8 [::1]/128",
            "inet_interfaces": ", ".join(addresses),
            "inet_protocols": "all" if len(addresses) > 1 else "ipv4",
            "relayhost": f"[{LOOPBACK}]:{self.sink.port}",
            "alias_maps": "",
            "alias_database": "",
            # Loopback only, and everything goes to the sink: nothing to protect.
            "smtpd_relay_restrictions": "reject_unauth_destination",
            "relay_domains": "static:all",
            "allow_untrusted_routing": "yes",
            "smtpd_peername_lookup": "no",
            "smtp_host_lookup": "native",
            "smtpd_authorized_xclient_hosts": "127.0.0.0/8 [::1]/128",
            "smtpd_client_connection_count_limit": "0",
            # A refused recipient must not be slowed down in tests.
            "smtpd_error_sleep_time": "0",
            "smtpd_soft_error_limit": "1000",
            "smtpd_hard_error_limit": "1000",
            "smtpd_tls_security_level": "none",
            "smtputf8_enable": "yes",
            "in_flow_delay": "0",
            "milter_default_action": "accept",
            "milter_connect_timeout": "5s",
        }
        main |= settings
        path = self.config / "main.cf"
        path.write_text("".join(f"{name} = {value}\n" for name, value in main.items()) + self._more)
        # Postfix waits two seconds for a young main.cf, lest it reads half of it.
        os.utime(path, (1_000_000_000, 1_000_000_000))

    def command(self) -> list[str]:
        return [f"{DAEMONS}/master", "-c", str(self.config), "-d"]

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "MAIL_CONFIG": str(self.config), "MAIL_LOGTAG": "postfix"}

    def start(self) -> None:
        self.sink.__enter__()
        super().start()

    def ready(self) -> bool:
        return accepts((LOOPBACK, self.port))

    def log_text(self) -> str:
        return super().log_text() + (
            self.maillog.read_text(errors="replace") if self.maillog.exists() else ""
        )

    def connect(self, host: str = LOOPBACK, port: int = 0) -> smtp.Client:
        """A client with its real, loopback address."""
        return smtp.Client((host, port or self.port))

    def client(
        self, address: str, name: str = "", *, forged: bool = False, login: str = "", port: int = 0
    ) -> smtp.Client:
        """A client that comes from `address`; with a verified `name`, or only a claim to it when `forged`."""
        client = self.connect(port=port)
        client.ehlo()
        attributes = {"ADDR": address, "NAME": "[UNAVAILABLE]" if forged or not name else name}
        attributes["REVERSE_NAME"] = name or "[UNAVAILABLE]"
        if login:
            attributes["LOGIN"] = login
        answer = client.xclient(**attributes)
        if answer.code != 220:
            client.close()
            raise AssertionError(f"XCLIENT: {answer}")
        client.dialogue.clear()
        return client

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.sink.__exit__(None, None, None)


class HousedPostfix(Postfix):
    """The same in a namespace: port 25, clients that really come from their address, names by `dns`."""

    def _settle(self) -> None:
        self.namespace = Namespace()
        self.namespace.__enter__()
        self.port = 25
        self.dns = FakeDns(port=53, make_socket=self.namespace.make_socket)
        self.sink = Sink(make_socket=self.namespace.make_socket)

    def _configure(self, settings: Mapping[str, str]) -> None:
        super()._configure({"smtpd_peername_lookup": "yes", **settings})

    def command(self) -> list[str]:
        return [str(word) for word in self.namespace.inside(super().command())]

    def start(self) -> None:
        self.dns.__enter__()
        super().start()

    def ready(self) -> bool:
        with self.namespace.make_socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.settimeout(5)
            return probe.connect_ex((LOOPBACK, self.port)) == 0

    def client(
        self, address: str, name: str = "", *, forged: bool = False, login: str = "", port: int = 0
    ) -> smtp.Client:
        """A client that comes from `address`; its PTR record `name` does not lead back if forged."""
        if name:
            self.dns.pointer(address, name, forged=forged)
        target = ("::1" if ":" in address else LOOPBACK, port or self.port)
        client = smtp.Client(target, sock=self.namespace.connect_from(address, target))
        return client.logged_in(login, sasl.PASSWORD) if login else client

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.dns.__exit__(None, None, None)
            self.namespace.close()
