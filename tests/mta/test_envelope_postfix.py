"""Our reading of envelope paths held against Postfix's own: random paths, and what is delivered.

``HYBRIDGREY_PATHS=1000000`` sends that many; ``HYBRIDGREY_PATHS_SEED`` begins elsewhere.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator, Sequence

import pytest

from hybridgrey import address, envelope
from parts.base import wait_until
from parts.pathmilter import PathMilter
from parts.postfix import Postfix
from parts.smtp import Client

pytestmark = [pytest.mark.mta, pytest.mark.usefixtures("with_postfix"), pytest.mark.timeout(3600)]

PATHS = int(os.environ.get("HYBRIDGREY_PATHS", "20000"))
SEED = int(os.environ.get("HYBRIDGREY_PATHS_SEED", "13"))
BATCH = 100
SETTINGS = {
    "mydestination": "loc.test",
    "local_transport": "relay:$relayhost",
    "local_recipient_maps": "",
    "smtpd_recipient_limit": "100000",
    "smtpd_junk_command_limit": "1000000",
    "smtpd_hard_error_limit": "1000000",
    "smtpd_soft_error_limit": "1000000",
    "smtp_destination_recipient_limit": "1000",
    "relay_destination_recipient_limit": "1000",
}

LOCALS = [
    "user",
    "postmaster",
    "ceo",
    "spam",
    "a.b",
    "a..b",
    ".a",
    "a.",
    "User+Detail",
    "",
    "x" * 70,
    "y" * 300,
]
DOMAINS = [
    "x.test",
    "loc.test",
    "OPTOUT.test",
    "other.test",
    "b_c.test",
    "[127.0.0.1]",
    "[IPv6:::1]",
    "x.test.",
]
WIDE = ["jürgen", "straße", "İ", "ﬀ", "ΑΣ", "日本", "\uff41"]
WIDE_DOMAINS = ["münchen.test", "straße.test", "\uff58.test", "日本.test", "x。test", "☃.test"]
ODD = [
    *"@<>()[]\\,;:\" \t.!%'`|{}~^#&*=?/+-_\x01\x7f",
    *("\\@", "\\\\", '\\"', "(c)", "((x)y)", "  ", "a", "7"),
]


class Grammar:
    """Paths as a hostile client writes them, most of them near to what an MTA takes."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.number = 0

    def path(self, *, wide: bool) -> bytes:
        """A path without brackets."""
        self.number += 1
        text = self._address(wide=wide)
        for _ in range(self._few(0.35)):
            text = self._wrapped(text, wide=wide)
        for _ in range(self._few(0.25)):
            at = self.random.randint(0, len(text))
            text = text[:at] + self.random.choice(ODD) + text[at + self.random.randint(0, 1) :]
        raw = text.encode()
        if self.random.random() < 0.01:
            raw += bytes([self.random.randint(128, 255)])
        return raw

    def _few(self, chance: float) -> int:
        number = 0
        while number < 4 and self.random.random() < chance:
            number += 1
        return number

    def _address(self, *, wide: bool) -> str:
        pick = self.random.choice
        local = pick(WIDE) if wide and self.random.random() < 0.4 else pick(LOCALS)
        local += str(self.number) if self.random.random() < 0.8 else ""
        if self.random.random() < 0.2:
            local = '"' + local + "".join(pick(ODD) for _ in range(self._few(0.5))) + '"'
        domain = pick(WIDE_DOMAINS) if wide and self.random.random() < 0.4 else pick(DOMAINS)
        return pick([f"{local}@{domain}"] * 6 + [local, f"{local}%{domain}", f"{domain}!{local}"])

    def _wrapped(self, text: str, *, wide: bool) -> str:
        pick = self.random.choice
        other = pick(DOMAINS)
        long = "z" * self.random.choice([1, 100, 260, 520])
        shapes = [
            f"x:;{text}",
            f"postmaster@{other}:;{text}",
            f"group:{text};",
            f"group:{text},{self._address(wide=wide)};",
            f"{long}:;{text}",
            f"abuse@{other}{' ' * len(long)}:;{text}",
            f"@{other}:{text}",
            f"@{other},@x.test:{text}",
            f"@{other}:@x.test:{text}",
            f"{text}@{other}",
            f"{text}%{other}",
            f"{text}%{other}@loc.test",
            f"{text}%{other}@[127.0.0.1]",
            f"{other}!{text}",
            f"loc.test!{other}!{text}",
            f"({text}){text}",
            text.replace("@", "(x)@", 1),
            text.replace("@", " @ ", 1),
            text.replace("@", "@(\\))", 1),
            text.replace("@", "\\@", 1) + f"@{other}",
            f"phrase <{text}>",
            f"<{text}>",
            f"{text} {long}",
            f'"{text}"@{other}',
            text.replace(".", '"."', 1),
            text.upper(),
        ]
        return pick(shapes)


@pytest.fixture(scope="module")
def milter():
    with PathMilter() as running:
        yield running


@pytest.fixture(scope="module")
def mta(milter):
    with Postfix(milter.spec, SETTINGS) as running:
        yield running


def _accepted(client: Client, commands: Sequence[bytes]) -> int:
    """Send commands in one piece; how many were accepted."""
    client.socket.sendall(b"".join(command + b"\r\n" for command in commands))
    return sum(client.answer().code == 250 for _ in commands)


def _send(mta: Postfix, grammar: Grammar) -> tuple[int, int]:
    """Messages to random recipients from random senders; how many paths and messages were sent."""
    sent = messages = 0
    with mta.connect() as client:
        client.ehlo()
        while sent < PATHS:
            client.dialogue.clear()
            wide = grammar.random.random() < 0.3
            client.rset()
            sent += 1 + BATCH
            parameter = b" SMTPUTF8" if wide else b""
            if client.command(b"MAIL FROM:<%s>%s" % (grammar.path(wide=wide), parameter)).code != 250:
                client.command(b"MAIL FROM:<s%d@x.test>%s" % (sent, parameter))
            commands = [b"RCPT TO:<%s>" % grammar.path(wide=wide) for _ in range(BATCH)]
            if _accepted(client, commands):
                answer = client.data(f"Subject: {messages}\r\n\r\nx\r\n")
                assert answer.code == 250, answer
                messages += 1
    return sent, messages


def _identity(path: str) -> tuple[str, str]:
    """Local part and domain of an address as Postfix hands it on: quoted where need be."""
    local, at, domain = path.rpartition("@")
    if not at:
        local, domain = path, ""
    if local[:1] == local[-1:] == '"' and len(local) > 1:
        local = re.sub(r"\\(.)", r"\1", local[1:-1], flags=re.DOTALL)
    return local.lower(), address.host(domain)


def _of(box: envelope.Mailbox) -> tuple[str, str]:
    return box.local, box.domain


def _judged(milter: PathMilter) -> Iterator[tuple[envelope.Mailbox, list[envelope.Mailbox]]]:
    """Sender and recipients of all transactions that had a recipient, as we read them."""
    sender, recipients = envelope.NULL, list[envelope.Mailbox]()
    for seen in milter.paths():
        box = envelope.delivered(seen.raw, seen.said, seen.mailer, final=True)
        if seen.step == "rcpt":
            recipients.append(box)
        else:
            if recipients:
                yield sender, recipients
            sender, recipients = box, []
    if recipients:
        yield sender, recipients


def test_postfix_delivers_to_what_we_read(mta, milter):
    """Who gets a message, and from whom, is who we have read from what the client wrote."""
    sent, messages = _send(mta, Grammar(SEED))
    judged = list(_judged(milter))
    assert len(judged) == messages
    wait_until(lambda: not any(map(_files, ("incoming", "active", "deferred"), [mta] * 3)), "all mail", 300)
    senders = dict[int, str]()
    delivered: dict[int, set[tuple[str, str]]] = {}
    for mail in mta.sink.mails:
        number = int(mail.header("Subject")[0])
        senders[number] = mail.sender
        delivered.setdefault(number, set()).update(map(_identity, mail.recipients))
    compared = uncertain = 0
    wrong: list[object] = []
    for number, (by_us, ours) in enumerate(judged):
        compared += 1 + len(ours)
        uncertain += sum(not box.certain for box in (by_us, *ours))
        known, theirs = {_of(box) for box in ours if box.certain}, delivered[number]
        if not known <= theirs or len(theirs - known) > sum(not box.certain for box in ours):
            wrong.append((known - theirs, theirs - known))
        # A sender is not routed: Postfix hands a%b@us on as it is, and reads a@b in its own access maps.
        sender = _identity(senders[number])
        routed = not sender[0] or {"%", "!", "@"} & set(sender[0]) or " " in sender[1]
        if by_us.certain and _of(by_us) != sender and not routed:
            wrong.append((sender, by_us))
    print(f"{sent} paths sent, {compared} accepted and compared, {uncertain} uncertain, {len(wrong)} wrong")
    assert not wrong, wrong[:5]
    assert compared > PATHS / 4
    # In ASCII all that Postfix takes is certain.
    assert not [box.text for _, ours in judged for box in ours if not box.certain and box.text.isascii()]
    assert uncertain < compared / 4


def _files(name: str, mta: Postfix) -> list[object]:
    return [path for path in (mta.queue / name).glob("**/*") if path.is_file()]
