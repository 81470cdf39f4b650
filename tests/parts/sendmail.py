"""A private Sendmail in namespaces of its own, unpacked by contrib/setup/sendmail; needs root.

    with Sendmail(milter="unix:/run/x.sock") as mta:
        with mta.client("192.0.2.1", "mail.example.org") as client:
            client.ehlo()

Clients really come from their address, and their names are what `mta.dns` says; a forged one has a PTR record
that does not lead back. Like the private Postfix it takes mail for everybody and hands it to its `sink`.
The filter stands in its configuration as contrib/sendmail has it. A milter is reached by a unix socket, or by
an inet one inside `mta.namespace`.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from parts import namespace, sasl, smtp
from parts.base import Part
from parts.fakedns import FakeDns
from parts.namespace import Namespace
from parts.sink import Sink

ROOT = Path(__file__).parents[2] / ".work" / "sendmail"
BINARY = ROOT / "usr/libexec/sendmail/sendmail"
CF = ROOT / "usr/share/sendmail/cf"
SNIPPET = Path(__file__).parents[2] / "contrib/sendmail/hybridgrey.m4"
# The parts live below /tmp.
SAFE = "TrustStickyBit"
MC = """\
divert(-1)
define(`_CF_DIR_', `{cf}/')
include(`{cf}/m4/cf.m4')
divert(0)dnl
VERSIONID(`tests')
OSTYPE(`linux')
define(`confDOMAIN_NAME', `mx.example.test')
define(`confPID_FILE', `{d}/pid')
define(`confDONT_BLAME_SENDMAIL', `{safe}')
define(`confTO_IDENT', `0')
define(`confTO_ICONNECT', `5s')
define(`confREFUSE_LA', `1000')
define(`confQUEUE_LA', `1000')
define(`confBAD_RCPT_THROTTLE', `0')
define(`confMAX_DAEMON_CHILDREN', `200')
define(`confPRIVACY_FLAGS', `')
define(`confLOG_LEVEL', `14')
undefine(`ALIAS_FILE')
define(`QUEUE_DIR', `{d}/queue')
define(`STATUS_FILE', `{d}/statistics')
define(`HELP_FILE', `')
define(`SMART_HOST', `relay:[127.0.0.1]')
define(`RELAY_MAILER_ARGS', `TCP $h {sink}')
FEATURE(`nocanonify')
FEATURE(`accept_unresolvable_domains')
FEATURE(`accept_unqualified_senders')
{relay}
FEATURE(`no_default_msa')
define(`confAUTH_MECHANISMS', `PLAIN LOGIN')
TRUST_AUTH_MECH(`PLAIN LOGIN')
DAEMON_OPTIONS(`Family=inet, Name=MTA, Addr=127.0.0.1, Port=25')
DAEMON_OPTIONS(`Family=inet6, Name=MTA6, Addr=::1, Port=25, M=O')
{lines}
MAILER(`smtp')
LOCAL_CONFIG
# Sendmail drops all of its environment but this.
ESASL_CONF_PATH={d}/sasl
"""


def missing() -> str:
    """Why Sendmail cannot be run here; empty when it can."""
    if reason := namespace.missing():
        return reason
    if not shutil.which("saslpasswd2"):
        return "saslpasswd2 is not installed"
    return "" if BINARY.exists() else "Sendmail is not unpacked: run contrib/setup/sendmail"


class Sendmail(Part):
    """The MTA, with its namespace, its resolver `dns` and its `sink`."""

    def __init__(
        self, milters: str = "", lines: str = "", *, relay: str = "FEATURE(`promiscuous_relay')"
    ) -> None:
        """`milters` is the filter's socket, `lines` are further ones of the .mc, `relay` says for whom."""
        super().__init__()
        self.namespace = Namespace()
        self.namespace.__enter__()
        self.dns = FakeDns(port=53, make_socket=self.namespace.make_socket)
        self.sink = Sink(make_socket=self.namespace.make_socket)
        self.config = self.directory / "sendmail.cf"
        sasl.make(self.directory / "sasl", "Sendmail", self.namespace.host)
        if milters:
            lines += f"\ndefine(`HYBRIDGREY_SOCKET', `{milters}')dnl\ninclude(`{SNIPPET}')dnl"
        self._configure(lines, relay)

    def _configure(self, lines: str, relay: str) -> None:
        for name in ("queue", "spool"):
            (self.directory / name).mkdir(mode=0o700)
        values = {"cf": CF, "d": self.directory, "safe": SAFE, "sink": self.sink.port}
        text = MC.format(**values, lines=lines, relay=relay)
        (self.directory / "sendmail.mc").write_text(text)
        made = subprocess.run(["m4", self.directory / "sendmail.mc"], capture_output=True, check=True)
        self.config.write_bytes(made.stdout)

    def command(self) -> list[str | Path]:
        return self.namespace.inside(
            [BINARY, "-C", str(self.config), "-bD", "-q1h", "-X", self.directory / "traffic"]
        )

    def start(self) -> None:
        self.dns.__enter__()
        self.sink.__enter__()
        super().start()

    def ready(self) -> bool:
        with self.namespace.make_socket(2, 1) as probe:
            probe.settimeout(5)
            return probe.connect_ex(("127.0.0.1", 25)) == 0

    def log_text(self) -> str:
        traffic = self.directory / "traffic"
        return super().log_text() + (traffic.read_text(errors="replace") if traffic.exists() else "")

    def client(self, address: str, name: str = "", *, forged: bool = False, login: str = "") -> smtp.Client:
        """A client from `address`, logged in or not; its PTR record `name` does not lead back if forged."""
        if name:
            self.dns.pointer(address, name, forged=forged)
        target = ("::1" if ":" in address else "127.0.0.1", 25)
        client = smtp.Client(target, sock=self.namespace.connect_from(address, target))
        return client.logged_in(login, sasl.PASSWORD) if login else client

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.sink.__exit__(None, None, None)
            self.dns.__exit__(None, None, None)
            self.namespace.close()
