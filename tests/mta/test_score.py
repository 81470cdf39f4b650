"""By score, through real MTAs: SpamAssassin's own spamd, rspamd, and one that scores as it is told."""

from __future__ import annotations

import re
import time

import pytest

from mta.conftest import MTAS, require
from mta.talk import opened, plain, send
from parts import rspamd, sendmail, spamd
from parts.daemon import Daemon
from parts.rspamd import Rspamd
from parts.spamd import GTUBE, ScriptedSpamd, Spamd

pytestmark = pytest.mark.mta

SENDER = "news@sender.example"
RULES = [
    {"name": "ok", "recipients": ["ok@x.example"], "action": "accept"},
    {"name": "spam", "score": ">=14", "action": "greylist"},
]
REAL = {"spamd": (spamd.missing, Spamd), "rspamd": (rspamd.missing, Rspamd)}


def settings(redis, scanner, **more):
    return {
        "store": {"url": redis.unix_url},
        "greylist": {"delay": "3s"},
        "content": {"scanner": scanner.spec, "timeout": "20s"},
        "rule": RULES,
        **more,
    }


@pytest.fixture(scope="module")
def scanner():
    with ScriptedSpamd() as running:
        yield running


@pytest.fixture(scope="module")
def daemon(redis, scanner, engine):
    with Daemon(settings(redis, scanner), unix=True) as running:
        yield running


@pytest.fixture(scope="module", params=MTAS)
def mta(request, daemon):
    """Each MTA with each engine."""
    module, part = MTAS[request.param]
    require(module.missing())
    with part(daemon.spec) as running:
        yield running


@pytest.fixture
def name(mta, daemon, scanner, request):
    scanner.answer = 0.0
    scanner.requests.clear()
    engine = daemon.settings["engine"]
    return (
        re.sub("[^a-z0-9-]", "-", f"{request.node.name}-{type(mta).__name__}-{engine}".lower())[:60]
        + "@x.example"
    )


def said(mta, recipient, content, client="192.0.2.1"):
    """The answers to MAIL, RCPT, DATA and the message."""
    with opened(mta, client) as connection:
        answers = connection.transaction(SENDER, [recipient], content)
        connection.quit()
    return [plain(one) for one in answers]


@pytest.mark.parametrize("mta_name", MTAS)
@pytest.mark.parametrize("scanner_name", REAL)
def test_gtube(redis, mta_name, scanner_name):
    """Spam is greylisted at its end and let in at the retry; other mail is let in at once."""
    (missing, part), (module, mta_part) = REAL[scanner_name], MTAS[mta_name]
    require(missing() or module.missing())
    recipient = f"{scanner_name}-{mta_name}@x.example"
    mail = "From: a@sender.example\r\nSubject: hello\r\n\r\n{}\r\n"
    with (
        part() as real,
        Daemon(settings(redis, real), unix=True) as daemon,
        mta_part(daemon.spec) as mta,
    ):
        assert said(mta, f"ham-{recipient}", mail.format("How do you do?"))[-1].startswith("250 ")
        answers = said(mta, recipient, mail.format(GTUBE))
        assert re.search(r"450 4\.2\.0 Greylisted", answers[-1])
        assert daemon.verdict(recipient)["score"] >= 14
        time.sleep(3.1)
        assert said(mta, recipient, mail.format(GTUBE))[-1].startswith("250 ")
        (header,) = mta.sink.wait(recipient).header("X-Greylist")
        assert header.startswith("delayed ")
        assert daemon.verdict(recipient)["reason"] == "passed"


MESSAGES = {
    "8-bit": b"Subject: gr\xfc\xdfe\r\n\r\n\xe4\xf6\xfc\xff\r\n",
    "bare LF": b"Subject: x\r\n\r\none\ntwo\r\n",
    "no body": b"Subject: x\r\n\r\n",
    "no header": b"\r\ntext\r\n",
    "folded": b"Subject: one\r\n\ttwo\r\n three\r\n\r\ntext\r\n",
    "dots": b"Subject: x\r\n\r\n..\r\n..a\r\n",
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_what_the_scanner_sees(mta, scanner, name, kind):
    """What is delivered, below the lines of this host; and the message arrives."""
    if kind == "bare LF" and isinstance(mta, sendmail.Sendmail):
        return  # Debian's refuses it and hangs up, since the smuggling of 2023
    assert send_bytes(mta, name, MESSAGES[kind]).startswith("250 ")
    delivered = mta.sink.wait(name)
    (request,) = scanner.requests
    head, _, message = request.partition(b"\r\n\r\n")
    assert head == b"CHECK SPAMC/1.5\r\nContent-length: %d" % len(message)
    assert message.startswith(b"Return-Path: <news@sender.example>\r\nReceived: from client.test (")
    assert b"[192.0.2.1])" in message
    body = message.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n").rstrip(b"\n")
    assert body == raw_body(delivered).replace(b"\r\n", b"\n").rstrip(b"\n")


def send_bytes(mta, recipient, content):
    return said(mta, recipient, content)[-1]


def raw_body(mail):
    return mail.data.partition(b"\r\n\r\n")[2] or mail.data.partition(b"\n\n")[2]


def test_ten_megabytes(mta, daemon, scanner, name):
    """A message that is too large is greylisted as one of whom nothing is known, and then let in, whole."""
    content = b"Subject: large\r\n\r\n" + b"x" * 78 + b"\r\n"
    content += (b"y" * 78 + b"\r\n") * (10_000_000 // 80)
    assert said(mta, name, content)[-1].startswith("450 ")
    assert daemon.verdict(name)["scan_error"] == "the message is too large"
    time.sleep(3.1)
    assert said(mta, name, content)[-1].startswith("250 ")
    assert len(mta.sink.wait(name).data) > 10_000_000
    assert scanner.requests == []


def test_two_recipients(mta, scanner, name):
    """After a pending one another comes alone; after one that is accepted a pending one is greylisted."""
    with opened(mta, "192.0.2.1") as connection:
        connection.mail(SENDER)
        assert connection.rcpt(name).code == 250
        assert plain(connection.rcpt("ok@x.example")).startswith("452 4.5.3 ")
        assert connection.data("Subject: x\r\n\r\nx\r\n").code == 250
        connection.mail(SENDER)
        assert connection.rcpt("ok@x.example").code == 250
        assert connection.rcpt(f"b-{name}").code == 450
        assert connection.data("Subject: x\r\n\r\nx\r\n").code == 250
        connection.quit()
    assert len(scanner.requests) == 1


def test_a_scanner_that_is_down(mta, redis, name):
    """Mail is delayed once, and never refused or lost."""
    with ScriptedSpamd() as gone:
        pass
    with Daemon(settings(redis, gone), unix=True) as daemon, type(mta)(daemon.spec) as other:
        for number in range(5):
            assert "Greylisted" in send(other, "192.0.2.1", SENDER, f"{number}-{name}")
        time.sleep(3.1)
        for number in range(5):
            recipient = f"{number}-{name}"
            assert send(other, "192.0.2.1", SENDER, recipient).startswith("250 ")
            other.sink.wait(recipient)
