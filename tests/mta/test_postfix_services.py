"""Services of master.cf with a filter of their own or none, as contrib/postfix has them."""

from __future__ import annotations

import pytest

from mta.mailhost import MailHost
from mta.talk import opened, plain, rcpt
from parts import sasl
from parts.base import free_port
from parts.daemon import Daemon
from parts.plainmilter import PlainMilter
from parts.postfix import Postfix
from parts.redisserver import Redis

pytestmark = [pytest.mark.mta, pytest.mark.usefixtures("with_postfix")]

BLOCKED, FRIEND, UNKNOWN = "192.0.2.66", "192.0.2.77", "192.0.2.88"
GREY = "450 4.2.0 Greylisted, please try again in"
RULES = [
    {"name": "authenticated", "authenticated": True, "action": "accept"},
    {"name": "local", "clients": ["127.0.0.0/8", "::1"], "action": "accept"},
    {"name": "friends", "clients": ["friend.example.org"], "action": "accept"},
    {"name": "blocklists", "dns": ["bl.test"], "action": "reject"},
    {"name": "the rest", "action": "greylist"},
]


@pytest.fixture(scope="module")
def mta():
    with MailHost() as running:
        running.dns.zone("bl.test", listed={BLOCKED: "127.0.0.2"})
        yield running


@pytest.fixture(scope="module")
def daemon(mta):
    with Redis() as redis:
        settings = {
            "listen": "inet:8893@127.0.0.1",
            "store": {"url": redis.unix_url},
            "dns": {"nameservers": ["127.0.0.1"]},
            "greylist": {"delay": "1m", "auto_allow_after": 0},
            "rule": RULES,
        }
        with Daemon(settings, namespace=mta.namespace) as running:
            yield running


def test_port_25_is_filtered(mta, daemon):
    """With contrib's main.cf and `listen` as it is by default, in a chroot, names and lists count."""
    assert rcpt(mta, BLOCKED, "a@y.example", "25@x.example")[:3] == "554"
    assert rcpt(mta, UNKNOWN, "a@y.example", "25@x.example").startswith(GREY)
    assert rcpt(mta, FRIEND, "a@y.example", "name@x.example", name="friend.example.org")[:3] == "250"
    assert daemon.verdict("name@x.example")["host"] == "friend.example.org"
    forged = {"name": "friend.example.org", "forged": True}
    assert rcpt(mta, UNKNOWN, "a@y.example", "forged@x.example", **forged).startswith(GREY)


def test_submission_lets_users_pass(mta, daemon):
    """Who has logged in at port 587 passes, whatever lists have the address; nobody else is even judged."""
    with opened(mta, BLOCKED, port=587) as client:
        assert client.mail("a@y.example").code == 530
        assert client.starttls().code == 220
        client.ehlo()
        client.mail("a@y.example")
        assert client.rcpt("before@x.example").code == 554
        client.rset()
        assert client.login(sasl.LOGIN, "wrong").code == 535
        assert client.login(sasl.LOGIN, sasl.PASSWORD).code == 235
        assert client.transaction("a@y.example", ["587@x.example"])[-1].code == 250
    assert mta.sink.wait("587@x.example").header("X-Greylist") == []
    assert daemon.verdict("587@x.example")["rule"] == "authenticated"
    assert "before@x.example" not in daemon.log_text()


def test_a_login_at_port_25_is_a_login(mta, daemon):
    """A real SMTP AUTH through Cyrus SASL, after STARTTLS, is known by {auth_authen}."""
    with opened(mta, BLOCKED) as client:
        assert client.starttls().code == 220
        client.ehlo()
        client.mail("a@y.example")
        assert client.rcpt("login@x.example").code == 554
        client.rset()
        assert client.login(sasl.LOGIN, sasl.PASSWORD).code == 235
        client.mail("a@y.example")
        assert client.rcpt("login@x.example").code == 250
    assert daemon.verdict("login@x.example")["rule"] == "authenticated"


def test_reinjected_mail_is_not_filtered(mta, daemon):
    """What a content filter gives back at port 10025, with XFORWARD or without, is not judged again."""
    with opened(mta, "127.0.0.1", port=10025) as client:
        assert client.command(f"XFORWARD NAME=spam.example ADDR={BLOCKED}").code == 250
        assert client.transaction("a@y.example", ["back@x.example"])[-1].code == 250
    assert mta.sink.wait("back@x.example")
    assert "back@x.example" not in daemon.log_text()


def test_xforward_is_not_told_to_milters():
    """The filter sees a proxy that says XFORWARD, and the client of one that says XCLIENT."""
    settings = {"smtpd_authorized_xforward_hosts": "127.0.0.0/8"}
    with PlainMilter() as milter, Postfix(milter.spec, settings) as mta:
        with mta.connect() as client:
            client.ehlo()
            assert client.command(f"XFORWARD NAME=spam.example ADDR={BLOCKED} HELO=spam").code == 250
            client.transaction("a@y.example", ["b@x.example"])
        assert {call["args"][2] for call in milter.calls("connect")} == {"127.0.0.1"}
        assert milter.calls("rcpt")[0]["{client_addr}"] == "127.0.0.1"
        with mta.client(BLOCKED) as client:
            client.ehlo()
            client.transaction("a@y.example", ["b@x.example"])
        assert milter.calls("rcpt")[1]["{client_addr}"] == BLOCKED


def test_a_service_may_have_a_filter_of_its_own():
    """-o smtpd_milters names another daemon for one port: its rules, its triplets, its log."""
    with Redis() as redis:
        store = {"store": {"url": redis.unix_url}}
        strict = [{"name": "strict", "action": "reject", "text": "5.7.1 Strict"}]
        lax = [{"name": "lax", "action": "accept"}]
        with (
            Daemon({**store, "rule": strict}) as one,
            Daemon({**store, "rule": lax}, unix=True) as two,
            TwoPorts(one, two) as mta,
        ):
            assert rcpt(mta, UNKNOWN, "a@y.example", "one@x.example") == "554 5.7.1 Strict"
            assert rcpt(mta, UNKNOWN, "a@y.example", "two@x.example", port=mta.second)[:3] == "250"
            assert rcpt(mta, UNKNOWN, "a@y.example", "none@x.example", port=mta.third)[:3] == "250"
            assert two.verdict("two@x.example")["rule"] == "lax"
            for log in (one.log_text(), two.log_text()):
                assert "none@x.example" not in log
            assert "two@x.example" not in one.log_text()


class TwoPorts(Postfix):
    """A second port with another filter, and a third without."""

    def __init__(self, one, two):
        self.second, self.third = free_port(), free_port()
        lines = [
            f"127.0.0.1:{self.second} inet n - n - - smtpd",
            f"  -o smtpd_milters={two.spec}",
            f"127.0.0.1:{self.third} inet n - n - - smtpd",
            "  -o smtpd_milters=",
        ]
        super().__init__(one.spec, services=lines)


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination"}, "554 5.7.1"),
        ({"smtpd_relay_restrictions": "permit_mynetworks, defer_unauth_destination"}, "454 4.7.1"),
        (
            {
                "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
                "smtpd_delay_reject": "no",
            },
            "554 5.7.1",
        ),
        ({"smtpd_recipient_restrictions": "check_recipient_access inline:{far.example=REJECT}"}, "554 5.7.1"),
        ({"smtpd_recipient_restrictions": "check_recipient_access inline:{far.example=DEFER}"}, "450 4.7.1"),
    ],
    ids=["reject", "defer", "at once", "recipient", "recipient deferred"],
)
def test_what_postfix_refuses_is_never_judged(settings, refused):
    """Postfix's own restrictions come first; their refusals leave no verdict, and so no triplet."""
    settings = {"relay_domains": "x.example", "mynetworks": "127.0.0.0/8", **settings}
    if "smtpd_recipient_restrictions" in settings:
        settings["relay_domains"] = "x.example far.example"
    rules = [{"name": "the rest", "action": "greylist"}]
    with Redis() as redis, Daemon({"store": {"url": redis.unix_url}, "rule": rules}) as daemon:
        with Postfix(daemon.spec, settings) as mta, opened(mta, UNKNOWN) as client:
            client.mail("a@y.example")
            assert plain(client.rcpt("b@far.example")).startswith(refused)
            assert plain(client.rcpt("b@x.example")).startswith(GREY)
            assert plain(client.rcpt("c@far.example")).startswith(refused)
        assert daemon.verdict("b@x.example")["state"] == "new"
        assert "far.example" not in daemon.log_text()


def test_a_permit_of_postfix_spares_nobody():
    """permit_mynetworks ends Postfix's restrictions, not the filter: milters see every client."""
    rules = [{"name": "the rest", "action": "greylist"}]
    settings = {
        "mynetworks": f"127.0.0.0/8 {UNKNOWN}/32",
        "smtpd_relay_restrictions": "permit_mynetworks, reject",
    }
    with (
        Redis() as redis,
        Daemon({"store": {"url": redis.unix_url}, "rule": rules}) as daemon,
        Postfix(daemon.spec, settings) as mta,
    ):
        assert rcpt(mta, UNKNOWN, "a@y.example", "b@x.example").startswith(GREY)
