"""What no honest client says: it is judged, logged on one line, and answered safely."""

from __future__ import annotations

import json

import pytest

from mta.talk import opened, plain
from parts.base import wait_until
from parts.daemon import Daemon
from parts.milterpeer import MilterPeer
from parts.redisserver import Redis

pytestmark = pytest.mark.mta

GREYLISTED = "450 4.2.0 Greylisted, please try again in"
RULES = [
    {"name": "manual", "clients": ["mail.example.org", ".trusted.example"], "action": "accept"},
    {"name": "helo", "helo": ["bad.helo.example"], "action": "reject", "text": "5.7.1 No 100% of it"},
    {"name": "senders", "senders": ["friend@y.example"], "action": "accept"},
    {"name": "the rest", "action": "greylist"},
]

# What goes between the angle brackets. Each MTA may refuse some by itself; a milter is told the others.
ADDRESSES = {
    "8-bit": b"jos\xe9@x.example",
    "UTF-8": "josé@пример.example".encode(),
    "percent": b"%s%n%d%%@x.example",
    "percent hack": b"joe%y.example@x.example",
    "quoted": b'"joe \\" doe @ here"@x.example',
    "quoted at": b'"@"@x.example',
    "source-routed": b"@a.example,@b.example:joe@x.example",
    "bang path": b"a!b!joe",
    "no domain": b"joe",
    "empty domain": b"joe@",
    "empty local part": b"@x.example",
    "address literal": b"joe@[192.0.2.1]",
    "IPv6 literal": b"joe@[IPv6:2001:db8::1]",
    "over-long local part": b"a" * 300 + b"@x.example",
    "over-long domain": b"joe@" + b"b" * 60 + b".example" * 40,
    "over-long quoted": b'"' + b"q " * 200 + b'"@x.example',
    "control characters": b"a\x01\x1b[31m\x7f@x.example",
    "JSON": b'a","event":"verdict@x.example',
    "tabs": b"a\tb@x.example",
    "backslash": b"a\\@x.example",
    "brackets": b"a<b>c@x.example",
    "surrogate": b"\xed\xa0\x80@x.example",
    "BATV": b"prvs=0123456789=joe@x.example",
    "SRS": b"SRS0=HHH=TT=y.example=joe@x.example",
}
HELOS = {
    "8-bit": b"h\xe9lo",
    "percent": b"%s.%n",
    "over-long": b"h" * 400,
    "literal": b"[192.0.2.1]",
    "control": b"a\x07b",
    "spaces": b"a b c",
}


@pytest.fixture(scope="module")
def daemon(engine):
    with Redis() as redis:
        settings = {
            "store": {"url": redis.unix_url},
            "greylist": {"delay": "1m", "auto_allow_after": 0},
            "rule": RULES,
        }
        with Daemon(settings, unix=True) as running:
            yield running


@pytest.fixture
def verdicts(daemon):
    """The verdicts since the test began, when there are so many."""
    before = len(daemon.events("verdict"))

    def since(count):
        wait_until(lambda: len(daemon.events("verdict")) >= before + count, f"{count} verdicts")
        return daemon.events("verdict")[before:]

    return since


def is_safe(answer: str) -> bool:
    return answer.isascii() and answer.isprintable() and len(answer) < 512


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES)
def test_addresses_through_an_mta(mta, address, verdicts):
    """Judged, or refused by the MTA itself; after it the session goes on and the next recipient is judged."""
    with opened(mta, "192.0.2.1") as client:
        client.mail(b"odd@y.example")
        answer = client.rcpt(address)
        judged = "Greylisted, please try again in" in answer.text
        assert judged or answer.code in (500, 501, 550, 553, 554, 555), answer
        client.rset()
        sender = client.mail(address)
        if sender.code != 250:
            client.rset()
            client.mail(b"odd@y.example")
        assert plain(client.rcpt("after@x.example")).startswith(GREYLISTED)
        assert client.command("NOOP").code == 250
    assert verdicts(1 + judged)[-1]["recipient"].strip("<>") == "after@x.example"


@pytest.mark.parametrize("name", HELOS.values(), ids=HELOS)
def test_helo_names_through_an_mta(mta, name, verdicts):
    """A strange HELO keeps nobody from being judged."""
    with mta.client("192.0.2.1") as client:
        if client.ehlo(name).code != 250:
            client.ehlo("plain.example")
        client.mail("a@y.example")
        assert plain(client.rcpt("helo@x.example")).startswith(GREYLISTED)
    assert verdicts(1)[0]["recipient"].strip("<>") == "helo@x.example"


def test_a_rules_text_may_have_a_percent_sign(mta, verdicts):
    """`%` in a reply's text arrives as it is."""
    with mta.client("192.0.2.1") as client:
        client.ehlo("bad.helo.example")
        client.mail("a@y.example")
        answer = plain(client.rcpt("percent@x.example"))
    assert answer == "554 5.7.1 No 100% of it"
    assert verdicts(1)[0]["rule"] == "helo"


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES)
def test_addresses_straight_to_the_milter(daemon, address, verdicts):
    """Whatever an MTA lets through is judged as sender and as recipient, in one safe log line each."""
    with MilterPeer(daemon.address) as peer:
        peer.connect()
        peer.mail(b"<" + address + b">")
        for recipient in (b"<" + address + b">", address, b"<plain@x.example>"):
            reply = peer.rcpt(recipient)
            assert reply.text.startswith(GREYLISTED)
            assert is_safe(reply.text)
        peer.quit()
    for event in verdicts(3):
        assert (event["recipient"] + event["sender"]).isprintable()
        assert len(json.dumps(event)) < 4096
    assert daemon.log_text().isascii()


@pytest.mark.parametrize(
    "host",
    [b"h\xff\xfe.example", "почта.example".encode(), b"%s%n", b"x" * 1000, b"a\nb.example", b"", b"."],
    ids=["8-bit", "UTF-8", "percent", "long", "newline", "empty", "dot"],
)
@pytest.mark.parametrize("helo", [b"plain.example", b"\xff\xfe"], ids=["helo", "8-bit helo"])
def test_host_names_straight_to_the_milter(daemon, host, helo, verdicts):
    """A host name that is none matches nothing, and the client is judged by its address."""
    with MilterPeer(daemon.address) as peer:
        peer.connect(host, "192.0.2.9")
        peer.helo(helo)
        peer.mail()
        reply = peer.rcpt("<hosts@x.example>")
        assert reply.text.startswith(GREYLISTED), reply
        peer.quit()
    assert verdicts(1)[0]["client"] == "192.0.2.9"


@pytest.mark.parametrize("resolve", ["FORGED", "FAIL", "TEMP"])
def test_an_unverified_name_straight_to_the_milter(daemon, resolve):
    """With {client_resolve} other than OK a host name that is in a rule does not match."""
    with MilterPeer(daemon.address) as peer:
        peer.connect("mail.example.org", "192.0.2.9", macros={"{client_resolve}": resolve})
        peer.mail()
        assert peer.rcpt("<resolve@x.example>").code == "450"
        peer.quit()
    with MilterPeer(daemon.address) as peer:
        peer.connect("mail.example.org", "192.0.2.9", macros={"{client_resolve}": "OK"})
        peer.mail()
        assert peer.rcpt("<resolve@x.example>").passes
        peer.quit()


@pytest.mark.parametrize(("version", "known"), [("", False), ("8.17.1", False), ("Postfix 3.7.11", True)])
def test_a_name_without_a_word_on_it(daemon, version, known):
    """Without {client_resolve} a host name counts only from Postfix, which has checked it."""
    with MilterPeer(daemon.address) as peer:
        peer.connect("mail.example.org", "192.0.2.9", macros={"{client_resolve}": "", "v": version})
        peer.mail()
        assert peer.rcpt("<word@x.example>").passes is known
        peer.quit()


def test_a_client_whose_host_name_was_lost(daemon, verdicts):
    """After a host name that is not UTF-8 the HELO still counts, and an IPv6 client still has its network."""
    for address, helo, sender, begins in (
        ("2001:db8::1", "bad.helo.example", "<lost@y.example>", "554 5.7.1 No 100%"),
        ("2001:db8::1", "plain.example", "<lost@y.example>", GREYLISTED),
        ("2001:db8::2", "plain.example", "<lost@y.example>", GREYLISTED),
    ):
        with MilterPeer(daemon.address) as peer:
            peer.connect(b"h\xff.example", address, macros={"{client_addr}": f"IPv6:{address}"})
            peer.helo(helo)
            peer.mail(sender)
            assert peer.rcpt("<lost@x.example>").text.startswith(begins)
            peer.quit()
    _, first, second = verdicts(3)
    assert (first["client"], first["state"]) == ("2001:db8::1", "new")
    assert (second["client"], second["state"]) == ("2001:db8::2", "early")
