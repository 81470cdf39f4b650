"""Commands of README and guides beside OpenDKIM, another milter and a policy service, which go on working."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from hybridgrey.hand.correspondents import PREFIX
from mta.conftest import require
from mta.mailhost import MailHost
from mta.talk import opened, rcpt
from parts import opendkim
from parts.base import wait_until
from parts.daemon import Daemon
from parts.greylisters import Postgrey
from parts.guides import blocks, only
from parts.opendkim import DOMAIN, OpenDkim
from parts.plainmilter import PlainMilter
from parts.redisserver import Redis

pytestmark = [pytest.mark.mta, pytest.mark.usefixtures("with_postfix")]

BLOCKED, UNKNOWN = "192.0.2.66", "192.0.2.88"
SENDER = f"a@{DOMAIN}"
MESSAGE = f"From: <{SENDER}>\r\nTo: <b@x.example>\r\nSubject: signed\r\n\r\nHello.\r\n"
GREY = "450 4.2.0 Greylisted, please try again in"
OTHERS = """\
smtpd_milters = {dkim}, {plain}
non_smtpd_milters = $smtpd_milters
smtpd_restriction_classes = asks_policy
asks_policy = check_policy_service unix:{policy}
smtpd_recipient_restrictions = {restrictions}
"""
RESTRICTIONS = "check_recipient_access inline:{closed@x.example=REJECT, policy@x.example=asks_policy}"
RULES = [
    {"name": "authenticated", "authenticated": True, "action": "accept", "learn": True},
    {"name": "local", "clients": ["127.0.0.0/8", "::1"], "action": "accept"},
    {"name": "blocklists", "dns": ["bl.test"], "action": "reject"},
    {"name": "the rest", "action": "greylist"},
]


class Host:
    """The mail host, its other filters, and our daemon at the address that `listen` has by default."""

    def __init__(self, mta, dkim, plain, folder, daemon, redis):
        self.mta, self.dkim, self.plain = mta, dkim, plain
        self.daemon, self.redis = daemon, redis
        # The programs of the snippets, for this Postfix instead of the machine's.
        config = f"-c {mta.config}"
        self.bin = folder
        self._program("postconf", f'exec /usr/sbin/postconf {config} "$@"')
        self._program("postfix", '[ "$1" = reload ]')

    def _program(self, name, text):
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def run(self, line):
        """One command of a snippet, as a shell runs it."""
        environment = {**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}"}
        subprocess.run(["bash", "-c", line], check=True, env=environment)
        # Postfix waits two seconds for a young main.cf, lest it reads half of it.
        os.utime(self.mta.config / "main.cf", (1_000_000_000, 1_000_000_000))

    def milters(self, *options):
        """The milters of main.cf, or what `options` of postconf ask for."""
        options = options or ("-h", "smtpd_milters")
        command = ["/usr/sbin/postconf", "-c", str(self.mta.config), *options]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def reload(self):
        """What `postfix reload` does, without its checks of the machine's folders."""
        os.kill(int((self.mta.queue / "pid/master.pid").read_text()), signal.SIGHUP)

    def others_work(self, tag):
        """OpenDKIM signs for users and the host, the other milter adds its header, the policy is asked."""
        with opened(self.mta, "127.0.0.1") as client:
            assert client.transaction(SENDER, [f"own-{tag}@x.example"], MESSAGE)[-1].code == 250
        self.submit(f"user-{tag}@x.example")
        self.pickup(f"cron-{tag}@x.example")
        for who in ("own", "user", "cron"):
            mail = self.mta.sink.wait(f"{who}-{tag}@x.example")
            assert len(mail.header("DKIM-Signature")) == 1, who
            assert mail.header("X-Plain") == ["seen"], who
            assert mail.header("X-Greylist") == []
        assert "see postgrey" in rcpt(self.mta, UNKNOWN, f"{tag}@y.example", "policy@x.example")
        assert rcpt(self.mta, UNKNOWN, "a@y.example", "closed@x.example")[:3] == "554"

    def submit(self, recipient):
        """Mail of a user who logs in at port 587."""
        with opened(self.mta, "127.0.0.1", port=587) as client:
            assert client.starttls().code == 220
            client.ehlo()
            assert client.xclient(ADDR=BLOCKED, LOGIN="joe").code == 220
            client.ehlo()
            assert client.transaction(SENDER, [recipient], MESSAGE)[-1].code == 250

    def learnt(self, recipient):
        """Whom hybridgrey knows after a user has written to somebody, and OpenDKIM has signed it."""
        self.submit(recipient)
        assert len(self.mta.sink.wait(recipient).header("DKIM-Signature")) == 1
        with self.redis.client() as client:
            return {key.removeprefix(PREFIX) for key in client.scan_iter(PREFIX + b"*")}

    def pickup(self, recipient):
        """Mail of a program of the host, which Postfix takes from its queue folder."""
        command = ["/usr/sbin/sendmail", "-C", self.mta.config, "-f", SENDER, recipient]
        subprocess.run(command, input=MESSAGE.replace("\r", "").encode(), check=True)

    def misses(self):
        """Whether smtpd, asked once more, says that our filter is not there."""
        rcpt(self.mta, UNKNOWN, "a@y.example", "b@x.example")
        return "connect to Milter service inet:127.0.0.1:8894: Connection refused" in self.mta.log_text()

    def judged(self, tag):
        """Whether hybridgrey judges who comes to port 25."""
        return rcpt(self.mta, BLOCKED, f"{tag}@y.example", "b@x.example").startswith(
            "554 5.7.1 Service unavail"
        )


@pytest.fixture
def host(tmp_path):
    require(opendkim.missing())
    require("" if Path("/usr/sbin/postgrey").exists() else "postgrey is not installed")
    with Redis() as redis, OpenDkim() as dkim, PlainMilter(unix=True) as plain_, Policy() as policy:
        more = OTHERS.format(
            dkim=dkim.spec, plain=plain_.spec, policy=policy.address, restrictions=RESTRICTIONS
        )
        with MailHost(more) as mta:
            mta.dns.zone("bl.test", listed={BLOCKED: "127.0.0.2"})
            settings = {
                "listen": "inet:8893@127.0.0.1",
                "store": {"url": redis.unix_url},
                "dns": {"nameservers": ["127.0.0.1"]},
                "greylist": {"delay": "1m", "auto_allow_after": 0},
                "rule": RULES,
            }
            with Daemon(settings, namespace=mta.namespace) as daemon:
                yield Host(mta, dkim, plain_, tmp_path, daemon, redis)


class Policy(Postgrey):
    """Debian's postgrey, which stands for any policy service; everybody may connect."""

    def command(self):
        return [*super().command(), "--greylist-text=see postgrey"]

    def ready(self):
        if not super().ready():
            return False
        Path(self.address).chmod(0o777)
        return True


def commands(guide):
    """The lines of a guide's blocks that change main.cf."""
    lines = [line for block in blocks("sh") if block.guide == guide for line in block.text.splitlines()]
    return [line for line in lines if line.startswith("postconf -h")]


def test_other_filters_stay(host):
    """After the README's command hybridgrey is asked first, and all others work as before."""
    host.others_work("before")
    assert not host.judged("before")
    (line,) = commands("README.md")
    host.run(line)
    first, _, rest = host.milters().partition("} ")
    assert first.startswith("{ inet:127.0.0.1:8893,")
    assert rest == f"{host.dkim.spec}, {host.plain.spec}"
    host.reload()
    wait_until(lambda: host.judged("after"), "hybridgrey is asked")
    assert rcpt(host.mta, UNKNOWN, "a@y.example", "b@x.example").startswith(GREY)
    host.others_work("after")
    # Once more: nothing is there twice.
    once = host.milters()
    host.run(line)
    assert host.milters() == once


def test_the_unix_socket_takes_the_place_of_the_inet_socket(host):
    """The guide's command for a unix socket leaves one filter of ours, and the others."""
    inet, unix = commands("mta.md")
    host.run(inet)
    for _ in range(2):
        host.run(unix)
        assert re.split(r"[\s,]+", host.milters()) == [
            *["{", "unix:hybridgrey/milter.sock", "default_action=accept", "connect_timeout=5s", "}"],
            host.dkim.spec,
            host.plain.spec,
        ]


def test_submission_with_filters_of_its_own(host):
    """The guide's lines put ours before OpenDKIM there; users teach, and their mail is signed."""
    lines = only("mta.md", "sh submission")
    # The rig's domains are all relay_domains, which are its own.
    host.run("postconf -e relay_domains=")
    where = "submission/inet/smtpd_milters"
    inherited = host.milters("-P", "*/inet/smtpd_milters")
    host.run(lines)
    assert host.milters("-P", "*/inet/smtpd_milters") == inherited == ""
    host.run(f"postconf -P {where}={host.dkim.spec}")
    host.reload()
    host.learnt("before@x.example")
    for _ in range(2):
        host.run(lines)
        assert host.milters("-P", where) == f"{where} = $submission_hybridgrey"
        assert host.milters("-h", "submission_hybridgrey").split() == [
            *["{", "inet:127.0.0.1:8893,", "default_action=accept,", "connect_timeout=5s", "}"],
            host.dkim.spec,
        ]
    host.reload()
    wait_until(lambda: host.learnt("after@x.example") == {b"after@x.example"}, "whom a user writes to")
    assert {one["rule"] for one in host.daemon.events("verdict")} == {"authenticated"}


def test_one_filter_away_leaves_the_others(host):
    """default_action=accept holds for ours only, and mail goes on without it."""
    (line,) = commands("README.md")
    host.run(line.replace(":8893, ", ":8894, ").replace(":8893", ":8894"))
    host.reload()
    wait_until(host.misses, "ours is missed")
    host.others_work("away")


def test_restrictions_of_the_guide_stay(host):
    """main.cf of *Coming from postgrey*, after: policy service, table and relaying are as before."""
    lines = only("from-postgrey.md", "main.cf after").replace("closed@example.org", "closed@x.example")
    lines = lines.replace("check_policy_service unix:private/quota", RESTRICTIONS.replace("closed", "other"))
    _, _, value = lines.partition("=")
    host.run(
        f"postconf -e 'smtpd_recipient_restrictions = {' '.join(value.split())}' relay_domains=x.example"
    )
    host.run(commands("from-postgrey.md")[0])
    host.reload()
    wait_until(lambda: host.judged("restricted"), "hybridgrey is asked")
    host.others_work("restricted")
    assert "Relay access denied" in rcpt(host.mta, UNKNOWN, "a@y.example", "b@far.example")
