"""`hybridgrey.protocol` behind real MTAs: clients, mail and calls are what they are with libmilter."""

from __future__ import annotations

import itertools
import json
import re

import pytest

from mta.conftest import MTAS, require
from parts.base import wait_until
from parts.milterpeer import MilterPeer
from parts.twinmilter import ALL_EDITS, ENGINES, LISTS, TwinMilter

pytestmark = pytest.mark.mta

CLIENT = "192.0.2.7"
LONG_LINE = "x" * 5000
BIG = "".join(f"{number:07} {'y' * 60}\r\n" for number in range(2500))
# Nothing in it is left for the MTA to add.
HEAD = "From: <a@example.org>\r\nTo: <b@example.net>\r\nDate: Sat, 28 Nov 2026 12:00:00 +0000\r\n"
HEAD += "Message-ID: <1@example.org>\r\nSubject: first\r\nX-Many: 1\r\nX-Many: 2\r\nX-Many: 3\r\n"
SHORT = HEAD + "\r\nx\r\n"
WORDS = ("ok", "reject", "tempfail", "said", "lines", "long")


def envelope(client):
    """Every answer at RCPT, then a message for those that passed."""
    return client.transaction(
        "plain@example.org", [f"{word}@example.net" for word in WORDS], HEAD + "\r\nx\r\n"
    )


def edited(client):
    """Headers added, inserted, changed and deleted."""
    return client.transaction("edit@example.org", ["edited@example.net"], SHORT)


def odd_content(client):
    """Eight bits, long lines, empty headers, a folded one, dots, no body, a body of several pieces."""
    answers = []
    for number, body in enumerate(
        [
            "",
            "\r\nb\u00fccher \u0442\u0435\u0441\u0442\r\n",
            f"X-Empty:\r\nX-Folded: a\r\n\tb\r\n c\r\n\r\n{LONG_LINE}\r\n.\r\n..x\r\n",
            "\r\n" + BIG,
        ]
    ):
        answers += client.transaction("plain@example.org", [f"odd{number}@example.net"], HEAD + body)
    return answers


def many(client):
    """Several messages, RSET at every place, another EHLO, unknown words."""
    answers = [client.mail("one@example.org"), client.rset(), client.rset()]
    answers += [client.mail("two@example.org"), client.rcpt("ok@example.net"), client.rset()]
    answers += [
        client.mail("three@example.org"),
        client.rcpt("reject@example.net"),
        client.ehlo("again.test"),
    ]
    answers += [client.mail("four@example.org", "SIZE=100"), client.rcpt("many@example.net")]
    answers += [
        client.rcpt("reject@example.net"),
        client.rcpt("many+2@example.net"),
        client.data(SHORT),
    ]
    answers += [client.command("FOO bar"), client.command("NOOP")]
    return [*answers, *client.transaction("five@example.org", ["many+3@example.net"], SHORT), client.quit()]


def pipelined(client):
    """All commands in one write (RFC 2920)."""
    lines = ["MAIL FROM:<plain@example.org>", "RCPT TO:<reject@example.net>", "RCPT TO:<piped@example.net>"]
    lines += ["RSET", "MAIL FROM:<edit@example.org>", "RCPT TO:<piped@example.net>", "DATA"]
    client.socket.sendall("".join(line + "\r\n" for line in lines).encode())
    answers = [client.answer() for _ in lines]
    client.socket.sendall(f"{HEAD}\r\nx\r\n.\r\nRSET\r\n".encode())
    return [*answers, client.answer(), client.answer()]


def verdicts_at_the_end(client):
    """Refused, delayed by progress, other recipients, discarded, let through early."""
    answers = []
    for sender, recipient in [
        ("refuse", "refused"),
        ("slow", "slowed"),
        ("plain", "discard"),
        ("edit", "accept"),
        ("plain", "last"),
    ]:
        answers += client.transaction(
            f"{sender}@example.org", [f"{recipient}@example.net"], HEAD + "\r\nx\r\n"
        )
    return answers


def hangs_up(client):
    """A client that goes in the midst of a message."""
    client.mail("plain@example.org")
    answers = [client.rcpt("ok@example.net"), client.command("DATA")]
    client.socket.sendall(HEAD.encode())
    client.close()
    return answers


def null_sender(client):
    """A bounce."""
    return client.transaction("", ["bounced@example.net"], SHORT)


def text_of_any_kind(client):
    """A reply whose text is not ASCII."""
    return client.transaction("plain@example.org", ["eight@example.net"], SHORT)


SCENES = {
    one.__name__: one
    for one in (
        envelope,
        edited,
        odd_content,
        many,
        pipelined,
        verdicts_at_the_end,
        hangs_up,
        null_sender,
        text_of_any_kind,
    )
}
# Steps that a greylisting milter leaves out and answers not: as few commands as can be.
LEAN = 0x200 | 0x20 | 0x40 | 0x10 | 0x100 | 0x2000 | 0x4000
# Nothing left out, and every reply that can be spared is.
SILENT = 0x80 | 0x1000 | 0x2000 | 0x4000 | 0x10000 | 0x20000 | 0x40000 | 0x80000
TERMS = {"all": 0, "lean": LEAN, "silent": SILENT, "spaces": 0x100000 | 0x400}


class Pair:
    """One MTA for each engine."""

    def __init__(self, stack, part):
        self.milters = {engine: stack(TwinMilter(engine)) for engine in ENGINES}
        self.mtas = {engine: stack(part(milter.spec)) for engine, milter in self.milters.items()}

    def play(self, scene, steps):
        """A scene with both engines: answers, calls and new mail of each."""
        return {engine: self._play(engine, scene, steps) for engine in ENGINES}

    def _play(self, engine, scene, steps):
        milter, mta = self.milters[engine], self.mtas[engine]
        milter.terms(ALL_EDITS | LISTS, steps)
        calls, mails = len(milter.calls()), len(mta.sink.mails)
        ends = closes(milter)
        with mta.client(CLIENT, "mail.example.org") as client:
            client.ehlo()
            answers = [scrubbed(str(answer)) for answer in scene(client)]
        wait_until(lambda: closes(milter) > ends, "the MTA has left the milter")
        wanted = sum(answer.startswith("250 2.0.0") and "queued" in answer for answer in answers)
        wanted += sum("Message accepted for delivery" in answer for answer in answers)
        # A discarded message and one for nobody are accepted and never come.
        wanted -= scene is verdicts_at_the_end
        wait_until(lambda: len(mta.sink.mails) >= mails + wanted, "the mail is delivered")
        said = [tidy(call) for call in milter.calls()[calls:] if call["call"] != "abort"]
        # Before it: the client before it became another by XCLIENT, and who has looked whether the MTA is up.
        begin = next(at for at, call in enumerate(said) if call["args"][2:3] == [CLIENT])
        return answers, said[begin:], sorted(map(seen, mta.sink.mails[mails:]))


def closes(milter):
    """How many sessions have ended."""
    return milter.log_text().count('{"call": "close"')


def scrubbed(text):
    """An answer or a macro without queue ids, which differ."""
    text = re.sub(r"queued as \w+", "queued", text)
    return re.sub(r"\b[0-9A-Za-z]{10,20}\b(?= Message accepted)", "ID", text)


def tidy(call):
    """A call without what differs between two runs."""
    call = json.loads(json.dumps(call))
    call["macros"] = {name: "ID" if name in ("i", "{i}") else value for name, value in call["macros"].items()}
    if call["call"] == "unknown":
        # After a message libmilter still knows its macros, and this package not.
        call["macros"] = {}
    if call["call"] == "connect":
        call["args"][3] = "PORT" if call["args"][3] != "0" else "0"
    return call


def seen(mail):
    """A delivered message: its envelope, its headers but for those of the way, its body."""
    head, _, body = mail.data.replace(b"\r\n", b"\n").partition(b"\n\n")
    kept = re.sub(rb"(?m)^(Received|Message-I[dD]|Date|DKIM-Signature):.*\n?(?:[ \t].*\n?)*", b"", head)
    return mail.sender, mail.recipients, kept, body


@pytest.fixture(scope="module", params=MTAS)
def pair(request):
    """The MTA of this name, twice."""
    module, part = MTAS[request.param]
    require(module.missing())
    opened = []

    def stack(context):
        opened.append(context)
        return context.__enter__()

    try:
        yield Pair(stack, part)
    finally:
        for one in reversed(opened):
            one.__exit__(None, None, None)


def _until_data(calls):
    return list(itertools.takewhile(lambda call: call["call"] != "data", calls))


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("scene", SCENES)
def test_the_same_with_both_engines(pair, scene, terms):
    """Answers to the client, calls with their macros, and the mail delivered are the same."""
    played = pair.play(SCENES[scene], TERMS[terms])
    (answers, calls, mails), ours = played["libmilter"], played["native"]
    assert ours[0] == answers
    if scene == "hangs_up":
        # What Postfix had not yet sent when the client was gone it may keep to itself.
        calls, ours = _until_data(calls), (ours[0], _until_data(ours[1]), ours[2])
    assert ours[1] == calls
    assert ours[2] == mails
    assert calls or scene == "hangs_up"


def test_texts_arrive_as_they_are(pair):
    """A percent sign is one, a text of several lines has them all, a long one its length."""
    answers, calls, mails = pair.play(envelope, 0)["native"]
    assert answers[0].startswith("250 ")
    assert answers[3] == "554 5.7.1 100% no, 50%d %s %%"
    assert answers[4] == "451 4.7.1 one\n4.7.1 two 2%\n4.7.1 three"
    assert answers[5].endswith("x" * 900)
    assert [call["args"][0] for call in calls if call["call"] == "rcpt"] == [
        f"<{word}@example.net>" for word in WORDS
    ]
    assert [mail[1] for mail in mails] == [("ok@example.net",)]


@pytest.mark.parametrize("terms", ["all", "spaces"])
def test_headers_arrive_as_they_are(pair, terms):
    """Added, inserted at the top, changed and deleted, with one space after the colon."""
    ((_, _, head, _),) = pair.play(edited, TERMS[terms])["native"][2]
    lines = head.decode().split("\n")
    assert lines[0] == "X-Top: top" or "X-Top: top" in lines[:3]
    assert "Subject: changed" in lines
    assert [line for line in lines if line.startswith("X-Many")] == ["X-Many: one", "X-Many: 3"]
    assert "X-Added: first" in lines
    assert "X-Eight: b\u00fccher" in lines


def test_a_login_does_not_outlive_its_transaction(pair):
    """Through a real MTA too: no macro of MAIL is seen at the CONNECT or HELO of a later client."""
    _, calls, _ = pair.play(many, 0)["native"]
    for call in calls:
        if call["call"] in ("connect", "helo"):
            assert "{mail_addr}" not in call["macros"]
            assert "{rcpt_addr}" not in call["macros"]
        if call["call"] == "mail":
            assert "{rcpt_addr}" not in call["macros"]


def test_quit_nc():
    """Another client on the same connection, without a new offer, has no macro of the one before.

    Not with libmilter: it takes QUIT_NC only after the end of a message, and leaves the MTA waiting else.
    """
    with TwinMilter("native") as milter:
        milter.terms(macros={})
        with MilterPeer(milter.address) as peer:
            peer.connect("a.example", "192.0.2.1", macros={"{auth_authen}": "x"})
            peer.helo()
            peer.mail()
            assert peer.rcpt("<said@example.net>").code == "554"
            peer.quit_for_next()
            assert peer.connect("b.example", "192.0.2.2").passes
            peer.mail()
            assert peer.rcpt("<reject@example.net>").kind == "reject"
            peer.quit()
        wait_until(lambda: closes(milter) >= 2, "both sessions have ended")
        connects = [call for call in milter.calls() if call["call"] == "connect"]
        assert [call["args"][2] for call in connects] == ["192.0.2.1", "192.0.2.2"]
        assert "{auth_authen}" not in connects[1]["macros"]
