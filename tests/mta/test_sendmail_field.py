"""What only Sendmail has: its macros about a client's name, real logins, its flags, local submission."""

from __future__ import annotations

import subprocess

import pytest

from mta.talk import opened, plain, rcpt, send
from parts import sasl
from parts.base import wait_until
from parts.daemon import Daemon
from parts.redisserver import Redis
from parts.sendmail import BINARY, SNIPPET, Sendmail

pytestmark = [pytest.mark.mta, pytest.mark.usefixtures("with_sendmail")]

GREY = "450 4.2.0 Greylisted, please try again in"
RULES = [
    {"name": "authenticated", "authenticated": True, "action": "accept"},
    {"name": "local", "clients": ["127.0.0.0/8", "::1"], "action": "accept"},
    {"name": "friends", "clients": ["friend.example.org", ".friends.example.net"], "action": "accept"},
    {"name": "the rest", "action": "greylist"},
]


@pytest.fixture(scope="module")
def settings():
    with Redis() as redis:
        yield {
            "store": {"url": redis.unix_url},
            "greylist": {"delay": "1m", "auto_allow_after": 0},
            "rule": RULES,
        }


@pytest.fixture(scope="module")
def daemon(settings, engine):
    with Daemon(settings, unix=True) as running:
        yield running


@pytest.fixture(scope="module")
def mta(daemon):
    with Sendmail(daemon.spec) as running:
        # A name server that cannot say, for one network and for names of one domain.
        running.dns.zone("113.0.203.in-addr.arpa", rcode="SERVFAIL")
        running.dns.zone("broken.friends.example.net", rcode="SERVFAIL")
        yield running


def test_the_snippet_as_it_stands(settings):
    """include(`hybridgrey.m4') with nothing defined reaches a daemon with the default `listen`."""
    with Sendmail(lines=f"include(`{SNIPPET}')dnl") as mta:
        own = {**settings, "listen": "inet:8893@127.0.0.1"}
        with Daemon(own, namespace=mta.namespace) as daemon:
            assert rcpt(mta, "192.0.2.1", "a@y.example", "stands@x.example").startswith(GREY)
            assert daemon.verdict("stands@x.example")["client"] == "192.0.2.1"


@pytest.mark.parametrize(
    ("resolve", "address", "name", "forged"),
    [
        ("OK", "192.0.2.30", "friend.example.org", False),
        ("OK", "192.0.2.31", "mx.friends.example.net", False),
        ("OK", "2001:db8::30", "friend.example.org", False),
        ("FAIL", "192.0.2.32", "", False),
        ("FAIL", "2001:db8::32", "", False),
        ("FORGED", "192.0.2.33", "friend.example.org", True),
        ("FORGED", "2001:db8::33", "mx2.friends.example.net", True),
        ("TEMP", "203.0.113.34", "", False),
        ("TEMP", "192.0.2.35", "broken.friends.example.net", False),
    ],
)
def test_a_name_counts_only_when_it_is_verified(mta, daemon, resolve, address, name, forged):
    """{client_resolve} decides: with FAIL, FORGED and TEMP no rule knows the client by its name."""
    person = f"{resolve}-{address.replace(':', '-')}@x.example".lower()
    answer = rcpt(mta, address, "a@y.example", person, name=name, forged=forged)
    verdict = daemon.verdict(person)
    if resolve == "OK":
        assert (answer[:3], verdict["rule"], verdict["host"]) == ("250", "friends", name)
    else:
        assert answer.startswith(GREY)
        assert (verdict["rule"], verdict["host"]) == ("the rest", None)
    assert verdict["client"] == address


def test_a_login_counts_and_a_failed_one_does_not(mta, daemon):
    """AUTH is known by {auth_authen}, holds over RSET and a further EHLO, and a wrong password is nobody."""
    with opened(mta, "192.0.2.40") as client:
        assert client.login(sasl.LOGIN, "wrong").code == 535
        client.mail("a@y.example")
        assert plain(client.rcpt("nobody@x.example")).startswith(GREY)
        client.rset()
        assert client.login(sasl.LOGIN, sasl.PASSWORD).code == 235
        client.mail("a@y.example")
        assert client.rcpt("joe1@x.example").code == 250
        client.rset()
        client.mail("a@y.example")
        assert client.rcpt("joe2@x.example").code == 250
        client.ehlo("again.example")
        client.mail("a@y.example")
        assert client.rcpt("joe3@x.example").code == 250
    rules = [daemon.verdict(f"{who}@x.example")["rule"] for who in ("nobody", "joe1", "joe2", "joe3")]
    assert rules == ["the rest", "authenticated", "authenticated", "authenticated"]


def test_a_claimed_login_is_none(mta):
    """MAIL FROM … AUTH=<joe@…> (RFC 4954) is the sender's own word and makes nobody a user."""
    with opened(mta, "192.0.2.41") as client:
        client.mail("a@y.example", f"AUTH={sasl.LOGIN}@mx.example.test")
        assert plain(client.rcpt("claim@x.example")).startswith(GREY)


@pytest.mark.parametrize(("flags", "wanted"), [("", "250"), ("F=T, ", "451"), ("F=R, ", "550")])
def test_without_the_daemon_the_flags_decide(flags, wanted):
    """No flag: mail passes; F=T: it is deferred; F=R: refused."""
    lines = f"define(`HYBRIDGREY_FLAGS', `{flags}')dnl" if flags else ""
    with Sendmail("unix:/nowhere/milter.sock", lines) as mta, mta.client("192.0.2.1") as client:
        answers = [client.greeting, client.ehlo(), client.mail("a@y.example")]
        if all(answer.code < 300 for answer in answers):
            answers.append(client.rcpt("b@x.example"))
        assert str(answers[-1]).startswith(wanted), client.dialogue


def test_a_daemon_that_ends_in_mid_session_lets_mail_pass(settings):
    """Killed between two recipients; the message goes on without the filter, and the next client too."""
    with Daemon({**settings, "workers": 1}, unix=True) as daemon, Sendmail(daemon.spec) as mta:
        with opened(mta, "192.0.2.50") as client:
            client.mail("a@y.example")
            assert plain(client.rcpt("killed@x.example")).startswith(GREY)
            daemon.kill()
            wait_until(lambda: client.rcpt("killed@x.example").code == 250, "a pass without the filter")
            assert client.data().code == 250
        assert send(mta, "192.0.2.51", "a@y.example", "next@x.example")[:3] == "250"


def test_mail_from_the_host_itself_passes(mta, daemon):
    """`sendmail -bs`, whose client has no address, and a client at 127.0.0.1 are not greylisted."""
    command = mta.namespace.inside([BINARY, "-C", str(mta.config), "-bs"])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for line, wanted in (
            (b"HELO here", b"220 "),
            (b"MAIL FROM:<root@mx.example.test>", b"250 "),
            (b"RCPT TO:<stdin@x.example>", b"250 "),
            (b"DATA", b"250 "),
            (b"Subject: test\r\n\r\nHello.\r\n.", b"354 "),
            (b"QUIT", b"250 "),
        ):
            assert process.stdout.readline().startswith(wanted), line
            process.stdin.write(line + b"\r\n")
            process.stdin.flush()
    verdict = daemon.verdict("stdin@x.example")
    assert (verdict["client"], verdict["state"]) == ("unknown", None)
    assert mta.sink.wait("stdin@x.example")
    assert send(mta, "127.0.0.1", "root@mx.example.test", "loop@x.example")[:3] == "250"


def test_what_sendmail_refuses_is_never_judged(settings):
    """A recipient that Sendmail does not relay for leaves no verdict, and so no triplet."""
    relay = "RELAY_DOMAIN(`x.example')"
    with Daemon(settings, unix=True) as daemon, Sendmail(daemon.spec, relay=relay) as mta:
        with opened(mta, "192.0.2.60") as client:
            client.mail("a@y.example")
            assert client.rcpt("far@away.example").code == 550
            assert plain(client.rcpt("near@x.example")).startswith(GREY)
        assert daemon.verdict("near@x.example")["action"] == "greylist"
        assert "far@away.example" not in daemon.log_text()
