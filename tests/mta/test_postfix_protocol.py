"""Less common SMTP through Postfix: SMTPUTF8 addresses, CHUNKING, pipelining, parameters."""

from __future__ import annotations

import time

import pytest

from mta.talk import opened, plain, send
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.postfix import Postfix
from parts.redisserver import Redis

pytestmark = [pytest.mark.mta, pytest.mark.usefixtures("with_postfix")]

BLOCKED, ALLOWED, UNKNOWN = "192.0.2.66", "192.0.2.77", "192.0.2.88"
GREY = "450 4.2.0 Greylisted, please try again in"
RULES = [
    {"name": "friends", "senders": ["freund@bücher.example", ".münchen.example"], "action": "accept"},
    {"name": "people", "recipients": ["jürgen@", "日本@x.example"], "action": "accept"},
    {"name": "blocklists", "dns": ["bl.test"], "action": "reject"},
    {"name": "allowlists", "dns": ["wl.test"], "action": "accept"},
    {"name": "the rest", "action": "greylist"},
]
MESSAGE = "From: <a@y.example>\r\nTo: <b@x.example>\r\nSubject: test\r\n\r\nHällo.\r\n"


@pytest.fixture(scope="module")
def daemon(engine):
    with Redis() as redis, FakeDns() as dns:
        dns.zone("bl.test", listed={BLOCKED: "127.0.0.2"})
        dns.zone("wl.test", listed={ALLOWED: "127.0.5.2"})
        settings = {
            "store": {"url": redis.unix_url},
            "dns": {"nameservers": [dns.address]},
            "greylist": {"delay": "1s", "auto_allow_after": 0},
            "rule": RULES,
        }
        with Daemon(settings, unix=True) as running:
            yield running


@pytest.fixture(scope="module")
def mta(daemon):
    with Postfix(daemon.spec) as running:
        yield running


@pytest.mark.parametrize(
    ("sender", "recipient", "rule"),
    [
        ("freund@bücher.example", "u1@x.example", "friends"),
        ("Freund@BÜCHER.example", "u2@x.example", "friends"),
        ("freund@xn--bcher-kva.example", "u3@x.example", "friends"),
        ("x@post.münchen.example", "u4@x.example", "friends"),
        ("feind@bücher.example", "u5@x.example", "blocklists"),
        ("a@y.example", "jürgen@x.example", "people"),
        ("a@y.example", "日本@x.example", "people"),
        ("a@y.example", "日本語@x.example", "blocklists"),
    ],
)
def test_addresses_in_utf8_are_matched(mta, daemon, sender, recipient, rule):
    """Rules know an internationalised address in either spelling of its domain."""
    with opened(mta, BLOCKED) as client:
        assert client.mail(sender, "SMTPUTF8").code == 250
        answer = plain(client.rcpt(recipient))
    assert answer[:3] == ("554" if rule == "blocklists" else "250")
    verdict = daemon.verdict(recipient)
    assert (verdict["rule"], verdict["sender"]) == (rule, sender)


def test_an_address_in_utf8_is_greylisted_as_others(mta):
    """Its triplet is the same in another case, and another for another person's."""
    first, second, other = "grün@bücher.example", "GRÜN@BÜCHER.example", "gelb@bücher.example"
    with opened(mta, UNKNOWN) as client:
        client.mail(first, "SMTPUTF8")
        assert plain(client.rcpt("größe@x.example")).startswith(GREY)
        client.rset()
        time.sleep(1.1)
        client.mail(other, "SMTPUTF8")
        assert plain(client.rcpt("größe@x.example")).startswith(GREY)
        client.rset()
        client.mail(second, "SMTPUTF8")
        assert client.rcpt("größe@x.example").code == 250
        assert client.data(MESSAGE).code == 250
    assert len(mta.sink.wait("größe@x.example").header("X-Greylist")) == 1


@pytest.mark.parametrize(
    "chunks",
    [(MESSAGE,), (MESSAGE[:40], MESSAGE[40:]), (MESSAGE, ""), tuple(MESSAGE)],
    ids=["one", "two", "empty last", "bytes"],
)
def test_a_message_in_chunks_has_its_headers(mta, chunks):
    """BDAT (RFC 3030) ends in the same end of message as DATA."""
    person = f"bdat{len(chunks)}-{len(chunks[0])}@x.example"
    with opened(mta, ALLOWED) as client:
        client.mail("a@y.example")
        assert client.rcpt(person).code == 250
        assert [answer.code for answer in client.bdat(*chunks)] == [250] * len(chunks)
    (results,) = mta.sink.wait(person).header("Authentication-Results")
    assert "dnswl=pass" in results
    assert mta.sink.wait(person).data.endswith("Hällo.\r\n".encode())


def test_chunks_without_a_recipient_are_refused(mta):
    """BDAT after a rejected recipient is refused, and the connection goes on in step."""
    with opened(mta, BLOCKED) as client:
        client.mail("a@y.example")
        assert plain(client.rcpt("bdat-none@x.example"))[:3] == "554"
        assert client.bdat(MESSAGE)[0].code in (503, 554)
        client.rset()
        client.mail("freund@bücher.example", "SMTPUTF8")
        assert client.rcpt("bdat-next@x.example").code == 250
        assert client.bdat(MESSAGE)[0].code == 250


def test_a_pipelined_message_gets_its_answers_in_order(mta):
    """All commands in one segment (RFC 2920): each recipient's own answer."""
    with opened(mta, BLOCKED) as client:
        commands = ["MAIL FROM:<a@y.example>", "RCPT TO:<p1@x.example>", "RCPT TO:<p2@x.example>", "DATA"]
        client.send("\r\n".join(commands))
        codes = [client.answer().code for _ in commands]
    assert codes == [250, 554, 554, 554]


def test_parameters_change_nothing(mta, daemon):
    """SIZE, BODY, RET, ENVID, NOTIFY and ORCPT are no part of an address."""
    with opened(mta, UNKNOWN) as client:
        client.mail("a@y.example", "SIZE=1000", "BODY=8BITMIME", "RET=HDRS", "ENVID=QQ314159")
        answer = client.rcpt("params@x.example", "NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;params@x.example")
        assert plain(answer).startswith(GREY)
    verdict = daemon.verdict("params@x.example")
    assert (verdict["sender"], verdict["recipient"]) == ("a@y.example", "params@x.example")


def test_bare_and_quoted_addresses_are_one(mta):
    """A quoted local part that need not be, and another case of the domain, lead to the same triplet."""
    assert send(mta, UNKNOWN, '"joe"@y.example', "quoted@x.example").startswith(GREY)
    time.sleep(1.1)
    assert send(mta, UNKNOWN, "joe@Y.Example", "quoted@x.example")[:3] == "250"
