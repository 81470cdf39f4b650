"""Ways round the rules by the form of an address, through real MTAs: judged is who gets the mail.

The client is on a blocklist but for some rules before it, so 250 means that a rule has let the address in.
"""

from __future__ import annotations

import pytest

from parts.daemon import Daemon
from parts.postfix import Postfix
from parts.redisserver import Redis
from parts.sendmail import Sendmail

pytestmark = pytest.mark.mta

LISTED, UNKNOWN = "192.0.2.99", "203.0.113.7"
RULES = [
    {"name": "bad sender", "senders": ["spam@bad.test"], "action": "reject"},
    {"name": "bounces", "senders": ["<>"], "recipients": ["nobounce.test"], "action": "reject"},
    {"name": "required", "recipients": ["postmaster", "abuse@example.test"], "action": "accept"},
    {"name": "out", "recipients": ["optout.test", "!ceo@optout.test"], "action": "accept"},
    {"name": "virtual", "recipients": ["info@virtual.test"], "action": "accept"},
    {"name": "idn", "recipients": ["münchen.test", "straße.test"], "action": "accept"},
    {"name": "blocked", "clients": ["192.0.2.0/24"], "action": "reject"},
    {"name": "slow", "recipients": ["slow.test"], "action": "greylist", "delay": "1h"},
    {"name": "the rest", "action": "greylist"},
]
BLANKS = " " * 520
LONG = "a" * 260


@pytest.fixture(scope="module")
def daemon(engine):
    with (
        Redis() as redis,
        Daemon(
            {"store": {"url": redis.unix_url}, "greylist": {"delay": "5m"}, "rule": RULES}, unix=True
        ) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def postfix(daemon, with_postfix):
    # Stock: strict_rfc821_envelopes is off.
    with Postfix(daemon.spec) as running:
        yield running


@pytest.fixture(scope="module")
def sendmail(daemon, with_sendmail, tmp_path_factory):
    table = tmp_path_factory.mktemp("table") / "virtual"
    table.write_text("info@virtual.test\tjoe@elsewhere.test\n")
    lines = f"VIRTUSER_DOMAIN(`virtual.test')\nFEATURE(`virtusertable', `text -k0 -v1 {table}')"
    with Sendmail(daemon.spec, lines) as running:
        yield running


def _rcpt(mta, address, sender, recipient):
    """The code of the reply to RCPT."""
    return _answer(mta, address, sender, recipient).code


def _answer(mta, address, sender, recipient):
    """The reply to RCPT, or to MAIL where that is refused."""
    with mta.client(address) as client:
        client.ehlo()
        options = ["SMTPUTF8"] if {"ü", "ß"} & set(sender + recipient) else []
        answer = client.mail(sender, *options)
        return answer if answer.code != 250 else client.rcpt(recipient)


# client, sender, recipient; the code, and the sender, recipient and rule of the verdict.
POSTFIX = [
    (LISTED, "a@x.test", "postmaster@x.test", 250, "a@x.test", "postmaster@x.test", "required"),
    (LISTED, "a@x.test", "postmaster@x:;user", 554, "a@x.test", "user@mx.example.test", "blocked"),
    (LISTED, "a@x.test", "postmaster@x:;user%other.test", 554, "a@x.test", "user@other.test", "blocked"),
    (LISTED, "a@x.test", f"abuse@example.test{BLANKS}:;ceo@z.test", 554, "a@x.test", "ceo@z.test", "blocked"),
    (LISTED, "a@x.test", "@optout.test:user@other.test", 554, "a@x.test", "user@other.test", "blocked"),
    (LISTED, "a@x.test", "optout.test!user@z.test", 554, "a@x.test", "optout.test!user@z.test", "blocked"),
    (LISTED, "a@x.test", "any@optout.test", 250, "a@x.test", "any@optout.test", "out"),
    (LISTED, "a@x.test", "ceo@optout.test", 554, "a@x.test", "ceo@optout.test", "blocked"),
    (LISTED, "a@x.test", "ceo(x)@optout.test", 554, "a@x.test", "ceo@optout.test", "blocked"),
    (LISTED, "a@x.test", "ceo @optout.test", 554, "a@x.test", "ceo@optout.test", "blocked"),
    (LISTED, "a@x.test", '"ceo"@optout.test', 554, "a@x.test", "ceo@optout.test", "blocked"),
    (LISTED, "a@x.test", "CEO@OPTOUT.test.", 554, "a@x.test", "ceo@optout.test", "blocked"),
    (LISTED, "a@x.test", "ceo(ü)@optout.test", 554, "a@x.test", "<ceo(ü)@optout.test>", "blocked"),
    (LISTED, "a@x.test", "\u017fales@optout.test", 554, "a@x.test", "<\u017fales@optout.test>", "blocked"),
    (LISTED, "a@x.test", "u@straße.test", 250, "a@x.test", "u@straße.test", "idn"),
    (LISTED, "a@x.test", "u@strasse.test", 554, "a@x.test", "u@strasse.test", "blocked"),
    (LISTED, "a@x.test", "u@münchen.test", 250, "a@x.test", "u@münchen.test", "idn"),
    (LISTED, "a@x.test", "u@xn--mnchen-3ya.test", 250, "a@x.test", "u@xn--mnchen-3ya.test", "idn"),
    (UNKNOWN, "spam(x)@bad.test", "u@y.test", 554, "spam@bad.test", "u@y.test", "bad sender"),
    (UNKNOWN, "spam @bad.test", "u@y.test", 554, "spam@bad.test", "u@y.test", "bad sender"),
    (UNKNOWN, "x:;spam@bad.test", "u@y.test", 554, "spam@bad.test", "u@y.test", "bad sender"),
    (UNKNOWN, "@a:@b:spam@bad.test", "u@y.test", 554, "spam@bad.test", "u@y.test", "bad sender"),
    (UNKNOWN, "bad.test!spam", "u@y.test", 554, "spam@bad.test", "u@y.test", "bad sender"),
    (UNKNOWN, "spam%bad.test", "u@y.test", 554, "spam@bad.test", "u@y.test", "bad sender"),
    (UNKNOWN, "a" * 520 + ":;spam@bad.test", "u@y.test", 554, "spam@bad.test", "u@y.test", "bad sender"),
    (UNKNOWN, "x:;", "u@nobounce.test", 554, "<>", "u@nobounce.test", "bounces"),
    (UNKNOWN, "", "u@nobounce.test", 554, "<>", "u@nobounce.test", "bounces"),
    (UNKNOWN, "a@x.test", f"{LONG}:;u1@example.test", 450, "a@x.test", "u1@example.test", "the rest"),
    (UNKNOWN, "a@x.test", "User+Tag@Example.test", 450, "a@x.test", "User+Tag@Example.test", "the rest"),
]  # fmt: skip


@pytest.mark.parametrize(("client", "sender", "recipient", "code", "from_", "to", "rule"), POSTFIX)
def test_postfix(postfix, daemon, client, sender, recipient, code, from_, to, rule):
    """What Postfix would deliver is what is judged and told."""
    before = len(daemon.events("verdict"))
    assert _rcpt(postfix, client, sender, recipient) == code
    verdict = daemon.await_events("verdict", before + 1)[-1]
    assert (verdict["sender"], verdict["recipient"], verdict["rule"]) == (from_, to, rule)


# Sendmail refuses groups itself. What it reads in its own way is uncertain: not let in, nor refused for it.
SENDMAIL = [
    (LISTED, "a@x.test", "postmaster@x.test", 250, "required"),
    (LISTED, "a@x.test", "postmaster@x:;user", 553, None),
    (LISTED, "a@x.test", "postmaster%other.test@x.test", 554, "blocked"),
    (LISTED, "a@x.test", "any@optout.test", 250, "out"),
    (LISTED, "a@x.test", "@relay.test:any@optout.test", 250, "out"),
    (LISTED, "a@x.test", "ceo@optout.test", 554, "blocked"),
    (LISTED, "a@x.test", "ceo(x)@optout.test", 554, "blocked"),
    (LISTED, "a@x.test", "ceo @optout.test", 554, "blocked"),
    (LISTED, "a@x.test", "any(x)@optout.test", 554, "blocked"),
    (LISTED, "a@x.test", "optout.test!ceo", 554, "blocked"),
    (LISTED, "a@x.test", '"c\\eo"@optout.test', 554, "blocked"),
    (LISTED, "a@x.test", "info@virtual.test", 250, "virtual"),
    (LISTED, "a@x.test", "u@xn--mnchen-3ya.test", 250, "idn"),
    (UNKNOWN, "spam@bad.test", "u@y.test", 554, "bad sender"),
    (UNKNOWN, "@a,@b:spam@bad.test", "u@y.test", 554, "bad sender"),
    (UNKNOWN, "spam(x)@bad.test", "u1@y.test", 450, "the rest"),
    (UNKNOWN, "spam%bad.test", "u2@y.test", 450, "the rest"),
    (UNKNOWN, "", "u@nobounce.test", 554, "bounces"),
    (UNKNOWN, "j\udcfcr@x.test", "u3@y.test", 450, "the rest"),
]  # fmt: skip


@pytest.mark.parametrize(("client", "sender", "recipient", "code", "rule"), SENDMAIL)
def test_sendmail(sendmail, daemon, client, sender, recipient, code, rule):
    """The path is the address, whatever virtusertable makes of it; what is not plain matches nothing."""
    before = len(daemon.events("verdict"))
    assert _rcpt(sendmail, client, sender, recipient) == code
    if rule:
        assert daemon.await_events("verdict", before + 1)[-1]["rule"] == rule


def test_each_is_a_triplet_of_its_own(postfix, daemon):
    """One passed triplet lets nobody else in that comes in the same form."""
    codes = [_rcpt(postfix, "198.51.100.9", "a@z.test", f"{LONG}:;t{n}@example.test") for n in (1, 2, 3)]
    states = [event["state"] for event in daemon.await_events("verdict")[-3:]]
    assert codes == [450, 450, 450]
    assert states == ["new", "new", "new"]


@pytest.mark.parametrize("path", ["x(ü)@y.test", "y:;x(ü)@y.test", "z" * 500 + ":;x(ü)@y.test"])
def test_an_uncertain_path_waits_like_any_other(postfix, daemon, path):
    """The same path a second time is the same triplet, another one is not."""
    for recipient, state in ((path, "new"), (path, "early"), (f"2{path}", "new")):
        assert _rcpt(postfix, "198.51.100.10", "a@z.test", recipient) == 450
        assert daemon.await_events("verdict")[-1]["state"] == state


@pytest.mark.parametrize(("recipient", "seconds"), [("u@slow.test", 3600), ("u(ü)@x.test", 300)])
def test_an_uncertain_recipient_waits_no_longer_than_any_other(postfix, daemon, recipient, seconds):
    """A greylist rule whose condition is unknown matches, with the plain delay."""
    answer = _answer(postfix, "198.51.100.11", "a@slow.test", recipient)
    assert answer.text.endswith(f"try again in {seconds} seconds")
    assert daemon.await_events("verdict")[-1]["rule"] == "slow"
