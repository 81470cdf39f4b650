"""postscreen in front, as contrib/postfix has it: what it stops, what comes to us, and from which address."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mta.talk import opened, plain, rcpt
from parts.base import wait_until
from parts.daemon import Daemon
from parts.postfix import HousedPostfix

pytestmark = [pytest.mark.mta, pytest.mark.usefixtures("with_postfix")]

CONTRIB = Path(__file__).parents[2] / "contrib/postfix"
BLOCKED, SCREENED, FRIEND = "192.0.2.66", "192.0.2.67", "192.0.2.77"
SENDER = "a@y.example"
GREY = "450 4.2.0 Greylisted, please try again in"
RULES = [
    {"name": "friends", "clients": ["friend.example.org"], "action": "accept"},
    {"name": "blocklists", "dns": ["bl.test"], "action": "reject"},
    {"name": "the rest", "action": "greylist"},
]


class Screened(HousedPostfix):
    """Port 25 as contrib has it, chrooted; `own` settings of postscreen's stand after its lines."""

    def __init__(self, **own):
        services = (CONTRIB / "master.cf.postscreen").read_text().splitlines()
        more = (CONTRIB / "main.cf.postscreen").read_text()
        more += "".join(f"{name} = {value}\n" for name, value in own.items())
        super().__init__(front="", services=services, more=more)
        self.dns.zone("bl.test", listed={BLOCKED: "127.0.0.2", "2001:db8::66": "127.0.0.2"})
        self.dns.zone("screen.test", listed={SCREENED: "127.0.0.2"})

    def _configure(self, settings):
        for name in ("etc", "dev"):
            (self.queue / name).mkdir()
        # dnsblog asks from inside the chroot; the resolver's file is Debian's own way to let it.
        (self.queue / "etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
        del settings["smtpd_milters"]
        super()._configure({**settings, "postscreen_greet_wait": "1s"})


class Filtered:
    """The two together, the daemon at its default address in the same namespace."""

    def __init__(self, redis, **own):
        self.mta = Screened(**own)
        settings = {
            "listen": "inet:8893@127.0.0.1",
            "store": {"url": redis.unix_url},
            "dns": {"nameservers": ["127.0.0.1"]},
            "greylist": {"delay": "1m", "auto_allow_after": 0},
            "rule": RULES,
        }
        self.daemon = Daemon(settings, namespace=self.mta.namespace)

    def __enter__(self):
        self.mta.__enter__()
        self.daemon.__enter__()
        return self

    def __exit__(self, *error):
        try:
            self.daemon.__exit__(*error)
        finally:
            self.mta.__exit__(*error)


@pytest.fixture(scope="module")
def plain_screen(redis):
    with Filtered(redis) as running:
        yield running


def test_clients_come_through_with_address_and_name(plain_screen):
    """Behind postscreen a listed client is rejected by us, a known one passes, others are greylisted."""
    mta, daemon = plain_screen.mta, plain_screen.daemon
    answer = rcpt(mta, BLOCKED, SENDER, "listed@x.example")
    assert answer.startswith(f"554 5.7.1 Service unavailable; client [{BLOCKED}] blocked using bl.test")
    assert rcpt(mta, "2001:db8::66", SENDER, "six@x.example")[:3] == "554"
    assert rcpt(mta, FRIEND, SENDER, "name@x.example", name="friend.example.org")[:3] == "250"
    assert rcpt(mta, "192.0.2.88", SENDER, "grey@x.example").startswith(GREY)
    assert daemon.verdict("six@x.example")["client"] == "2001:db8::66"
    assert daemon.verdict("name@x.example")["host"] == "friend.example.org"


def test_a_zombie_never_comes_to_us(plain_screen):
    """Who speaks before the greeting is sent away by postscreen, and not judged."""
    mta, daemon = plain_screen.mta, plain_screen.daemon
    sock = mta.namespace.connect_from("192.0.2.90", ("127.0.0.1", 25))
    with sock:
        sock.sendall(f"EHLO z\r\nMAIL FROM:<{SENDER}>\r\nRCPT TO:<zombie@x.example>\r\n".encode())
        said = b""
        while data := sock.recv(4096):
            said += data
            if b"550 5.5.1" in said:
                break
    assert b"550 5.5.1 Protocol error" in said
    wait_until(lambda: "PREGREET" in mta.log_text(), "postscreen's log")
    assert "zombie@x.example" not in daemon.log_text()


def test_lists_before_are_postscreens_and_lists_after_are_ours(redis):
    """With postscreen_dnsbl_sites its lists reject first, with its words; ours judge the rest."""
    sites = {"postscreen_dnsbl_sites": "screen.test", "postscreen_dnsbl_action": "enforce"}
    with Filtered(redis, **sites) as running:
        answer = rcpt(running.mta, SCREENED, SENDER, "screened@x.example")
        assert answer == f"550 5.7.1 Service unavailable; client [{SCREENED}] blocked using screen.test"
        assert rcpt(running.mta, BLOCKED, SENDER, "ours@x.example").startswith("554 5.7.1")
        assert running.daemon.verdict("ours@x.example")["rule"] == "blocklists"
        assert "screened@x.example" not in running.daemon.log_text()


def test_its_deep_tests_make_a_client_wait_twice(redis):
    """With the tests after the greeting on, a first visit gets postscreen's 450, the second our 450."""
    deep = {"postscreen_pipelining_enable": "yes", "postscreen_pipelining_action": "enforce"}
    with Filtered(redis, **deep) as running:
        client = "192.0.2.91"
        first = rcpt(running.mta, client, SENDER, "twice@x.example")
        assert first.startswith("450 4.3.2 Service currently unavailable")
        assert "twice@x.example" not in running.daemon.log_text()
        assert rcpt(running.mta, client, SENDER, "twice@x.example").startswith(GREY)


def test_the_lines_are_postfixs_own(plain_screen):
    """postconf knows every name of contrib's lines and finds no fault with the services."""
    config = ["-c", str(plain_screen.mta.config)]
    names = [
        line.partition("=")[0].strip()
        for name in ("main.cf", "main.cf.socket", "main.cf.postscreen")
        for line in (CONTRIB / name).read_text().splitlines()
        if line and line[0] not in "# "
    ]
    assert len(names) >= 8
    done = subprocess.run(["postconf", *config, *names], capture_output=True, text=True, check=True)
    assert "unknown parameter" not in done.stderr
    services = subprocess.run(["postconf", *config, "-M"], capture_output=True, text=True, check=True)
    assert "postscreen" in services.stdout


def test_a_session_that_postscreen_knows_goes_on(plain_screen):
    """Several messages on one connection that came through postscreen are judged one by one."""
    with opened(plain_screen.mta, BLOCKED) as client:
        for _ in range(2):
            client.mail(SENDER)
            assert plain(client.rcpt("again@x.example"))[:3] == "554"
            client.rset()
