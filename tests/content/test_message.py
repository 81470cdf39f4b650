"""What a scanner is given: the message as it came, the lines that the MTA will add."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgrey.content.message import Envelope, Message, received, return_path

TABLE = [
    # header fields, pieces of the body, what comes of them
    ([(b"Subject", b"hi")], [b"text\r\n"], b"Subject: hi\r\n\r\ntext\r\n"),
    ([(b"Subject", b"a\n\tb")], [b"x"], b"Subject: a\r\n\tb\r\n\r\nx"),
    ([(b"Subject", b"a\r\n\tb")], [b"x"], b"Subject: a\r\n\tb\r\n\r\nx"),
    ([(b"Subject", b"h\xe9")], [b"bare\n", b"\xff\0"], b"Subject: h\xe9\r\n\r\nbare\n\xff\0"),
    ([(b"Subject", b"")], [], b"Subject: \r\n\r\n"),
    ([], [], b"\r\n"),
    ([], [b"text"], b"\r\ntext"),
]


@pytest.mark.parametrize(("fields", "body", "wanted"), TABLE)
def test_a_message_is_what_came(fields: list[tuple[bytes, bytes]], body: list[bytes], wanted: bytes) -> None:
    """Folds end in CRLF, the body is left as it is, and the empty line is always there."""
    message = Message(1000)
    for field in fields:
        message.header(*field)
    for piece in body:
        assert message.body(piece)
    assert message.whole() == wanted


@pytest.mark.parametrize(("size", "too_large"), [(86, False), (87, True)])
def test_one_that_is_too_large_is_not_kept(size: int, too_large: bool) -> None:
    """The size counts all of it; nothing more is wanted, and nothing is kept in memory."""
    message = Message(100)
    message.header(b"Subject", b"1")  # 12 bytes, and the empty line
    assert message.body(b"x" * size) is not too_large
    assert message.too_large is too_large
    if too_large:
        assert message.body(b"y") is False
        assert message.whole() == b""


def test_a_file() -> None:
    """A message from a file has the line ends of the wire."""
    message = Message(100)
    message.file(b"Subject: hi\n\ntext\n")
    assert message.whole() == b"Subject: hi\r\n\r\ntext\r\n"


AT = 1_767_225_600.0
PLAIN = Envelope(
    "192.0.2.1",
    "mail.example.org",
    "helo.example.org",
    "a@example.org",
    ("b@example.net",),
    name="mx.test",
    mta="Postfix",
    queue_id="4bX",
    at=AT,
)
LINES = [
    (
        PLAIN,
        "Received: from helo.example.org (mail.example.org [192.0.2.1])"
        " by mx.test (Postfix) with ESMTP id 4bX for <b@example.net>; ",
    ),
    (PLAIN._replace(host=None), "Received: from helo.example.org (unknown [192.0.2.1]) by "),
    (PLAIN._replace(helo=None, host=None), "Received: from unknown (unknown [192.0.2.1]) by "),
    (
        PLAIN._replace(address="2001:db8::1"),
        "Received: from helo.example.org (mail.example.org [IPv6:2001:db8::1]) by",
    ),
    (PLAIN._replace(mta="Postfix 3.7.11"), " (Postfix) with "),
    (PLAIN._replace(mta="8.17.1"), " (8.17.1/8.17.1) with "),
    (PLAIN._replace(tls=True), "with ESMTPS id 4bX"),
    (PLAIN._replace(login="me", tls=True), "with ESMTPSA id 4bX"),
    (PLAIN._replace(recipients=("b@x", "c@x")), "id 4bX "),
    (PLAIN._replace(helo="a b\r\nX: y(;"), "from a?b??X:?y?? (mail"),
    (PLAIN._replace(helo="h" * 9000), "from " + "h" * 256 + " ("),
]


@pytest.mark.parametrize(("envelope", "part"), LINES)
def test_the_received_line(envelope: Envelope, part: str) -> None:
    """As Postfix writes it; nobody's HELO can break out of it."""
    text = received(envelope).decode("ascii")
    assert text.endswith("\r\n")
    assert all(line[:1] == "\t" for line in text[:-2].split("\r\n")[1:])
    assert part in text.replace("\r\n\t", " ")


@given(st.text(), st.text(), st.text(), st.text())
def test_no_text_of_strangers_makes_another_line(host: str, helo: str, sender: str, recipient: str) -> None:
    """Whatever they say, there are so many lines, in ASCII."""
    envelope = Envelope("192.0.2.1", host, helo, sender, (recipient,))
    for made in (received(envelope), return_path(envelope)):
        made.decode("ascii")
        assert re.fullmatch(rb"[A-Z][A-Za-z-]+: [ -~]*(\r\n\t[ -~]*)*\r\n", made)


@pytest.mark.parametrize(
    ("sender", "wanted"), [("<>", b"<>"), ("", b"<>"), ("a@b", b"<a@b>"), ("<a>b>", b"<a?b>")]
)
def test_the_return_path(sender: str, wanted: bytes) -> None:
    """The envelope sender, the null one too."""
    assert return_path(Envelope("192.0.2.1", sender=sender)) == b"Return-Path: " + wanted + b"\r\n"
