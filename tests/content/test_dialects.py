"""What scanners are sent, and what is read from what they answer."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgrey.content.message import Envelope
from hybridgrey.content.question import Dialect, ScanError
from hybridgrey.content.rspamd import Rspamd
from hybridgrey.content.spamd import Spamd

SPAMD = [
    (b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 1006.7 / 5.0\r\n\r\n", 1006.7),
    (b"SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\nSpam: False ; -1.2 / 5.0\r\n\r\n", -1.2),
    (b"SPAMD/1.5 0 EX_OK\r\nspam: no;3/5\r\n\r\n", 3.0),
    (b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; nan / 5.0\r\n\r\n", "spamd gives no score"),
    (b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 1e999 / 5.0\r\n\r\n", "spamd gives no score"),
    (b"SPAMD/1.1 0 EX_OK\r\n\r\n", "spamd gives no score"),
    (b"SPAMD/1.0 74 Bad header line: x\r\n", "spamd says 74 Bad"),
    (b"SPAMD/1.1 79 EX_TIMEOUT\r\n\r\nSpam: True ; 9 / 5\r\n", "spamd says 79 EX_TIMEOUT"),
    (b"HTTP/1.1 200 OK\r\n\r\n", "no answer of spamd's"),
    (b"", "no answer"),
]


@pytest.mark.parametrize(("answer", "wanted"), SPAMD)
def test_spamd(answer: bytes, wanted: float | str) -> None:
    """The score, or why there is none."""
    check(Spamd(), answer, wanted)


def http(body: object, status: str = "200 OK", *fields: str) -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(text)}", *fields]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + text


CHUNKED = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nc\r\n{"score": 7}\r\n0\r\n\r\n'
RSPAMD = [
    (http({"score": 1.25, "required_score": 15, "is_skipped": False}), 1.25),
    (http({"score": 15.0, "is_skipped": True}), 15.0),
    (http({"score": -3}), -3.0),
    (CHUNKED, 7.0),
    (http({"score": "7"}), "rspamd gives no score"),
    (http({"score": True}), "rspamd gives no score"),
    (http({}), "rspamd gives no score"),
    (http([1]), "rspamd gives no score"),
    (http(b'{"score": NaN}'), "rspamd gives no score"),
    (http(b'{"score": 1e999}'), "rspamd gives no score"),
    (http(b'{"score": 1' + b"0" * 400 + b"}"), "rspamd gives no score"),
    (http(b'{"score": 1' + b"0" * 5000 + b"}"), "no answer of rspamd's"),
    (http(b"[" * 100_000), "no answer of rspamd's"),
    (http(b"\xff"), "no answer of rspamd's"),
    (http({"score": 1})[:-3], "no answer of rspamd's"),
    (http({"error": "x"}, "500 Oops"), "rspamd says 500"),
    (b"HTTP/1.1 301 Moved\r\nLocation: http://x.test/\r\nContent-Length: 0\r\n\r\n", "rspamd says 301"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 9%s\r\n\r\n{}" % (b"9" * 20), "no answer of rspamd's"),
    (
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nf%s\r\n{"score": 7}' % (b"f" * 20),
        "no answer of rspamd's",
    ),
    (b"SPAMD/1.1 0 EX_OK\r\n\r\n", "no answer of rspamd's"),
    (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500 + b"\r\n{}", "no answer of rspamd's"),
    (b"HTTP/1.1 200 OK\r\n" + b"a" * 100_000, "no answer of rspamd's"),
    (b"", "no answer"),
]


@pytest.mark.parametrize(("answer", "wanted"), RSPAMD, ids=range(len(RSPAMD)))
def test_rspamd(answer: bytes, wanted: float | str) -> None:
    """The score, or why there is none."""
    check(Rspamd(), answer, wanted)


def check(dialect: Dialect, answer: bytes, wanted: float | str) -> None:
    if isinstance(wanted, str):
        with pytest.raises(ScanError) as caught:
            dialect.read(answer)
        assert str(caught.value) == wanted
    else:
        assert dialect.read(answer).score == wanted
        assert dialect.complete(answer) or b"chunked" in answer
        assert not any(dialect.complete(answer[:end]) for end in range(len(answer)))


@pytest.mark.parametrize("dialect", [Spamd(), Rspamd()])
@given(
    head=st.sampled_from([b"", b"SPAMD/1.1 0 EX_OK\r\n", b"HTTP/1.1 200 OK\r\n"]),
    rest=st.binary() | st.text(alphabet='Spam: 1;/.{}"score,\r\n').map(str.encode),
)
def test_no_answer_does_harm(dialect: Dialect, head: bytes, rest: bytes) -> None:
    """Whatever comes, there is a finite score or a ScanError."""
    dialect.complete(head + rest)
    try:
        assert math.isfinite(dialect.read(head + rest).score)
    except ScanError as error:
        assert str(error).isprintable()


OPINIONS = [
    # what it says; whether that is spam
    (Spamd(), b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 15.0 / 5.0\r\n\r\n", True),
    (Spamd(), b"SPAMD/1.1 0 EX_OK\r\nSpam: Yes ; 15.0 / 5.0\r\n\r\n", True),
    (Spamd(), b"SPAMD/1.1 0 EX_OK\r\nSpam: False ; 1.0 / 5.0\r\n\r\n", False),
    (Spamd(), b"SPAMD/1.5 0 EX_OK\r\nspam: no;3/5\r\n\r\n", False),
    (Spamd(), b"SPAMD/1.1 0 EX_OK\r\nSpam: Perhaps ; 5.0 / 5.0\r\n\r\n", None),
    (Rspamd(), http({"score": 20, "action": "reject"}), True),
    (Rspamd(), http({"score": 8, "action": "add header"}), True),
    (Rspamd(), http({"score": 8, "action": "rewrite subject"}), True),
    (Rspamd(), http({"score": 5, "action": "greylist"}), False),
    (Rspamd(), http({"score": 5, "action": "soft reject"}), False),
    (Rspamd(), http({"score": 1, "action": "no action"}), False),
    (Rspamd(), http({"score": 1}), None),
    (Rspamd(), http({"score": 1, "action": ["reject"]}), None),
]


@pytest.mark.parametrize(("dialect", "answer", "spam"), OPINIONS, ids=range(len(OPINIONS)))
def test_whether_it_is_spam(dialect: Dialect, answer: bytes, spam: bool | None) -> None:
    """By the scanner's own measure, where it has one."""
    assert dialect.read(answer).spam is spam


ENVELOPE = Envelope(
    "192.0.2.1",
    None,
    "h.example\r\nIP: 1.2.3.4",
    "a@x.example",
    ("b@y", "c@y"),
    "me",
    name="mx.test",
    queue_id="4bX",
)


def test_a_request_to_spamd() -> None:
    """CHECK, with the length of what follows, the MTA's fields first."""
    head, _, message = Spamd().request(ENVELOPE, b"Subject: x\r\n\r\ny\r\n").partition(b"\r\n\r\n")
    assert head == b"CHECK SPAMC/1.5\r\nContent-length: %d" % len(message)
    assert message.startswith(b"Return-Path: <a@x.example>\r\nReceived: from ")
    assert message.endswith(b"\r\nSubject: x\r\n\r\ny\r\n")


def test_a_request_to_rspamd() -> None:
    """The envelope is in the request's header, and nobody writes a field of his own into it."""
    head, _, message = Rspamd().request(ENVELOPE, b"Subject: x\r\n\r\ny\r\n").partition(b"\r\n\r\n")
    lines = head.decode("ascii").split("\r\n")
    assert lines[0] == "POST /checkv2 HTTP/1.1"
    assert {line.partition(":")[0] for line in lines[1:]} == {
        *(
            "Host",
            "Connection",
            "Content-Length",
            "IP",
            "Helo",
            "User",
            "Queue-Id",
            "MTA-Name",
            "From",
            "Rcpt",
        )
    }
    assert "IP: 192.0.2.1" in lines
    assert [line for line in lines if line.startswith("Rcpt")] == ["Rcpt: <b@y>", "Rcpt: <c@y>"]
    assert f"Content-Length: {len(message)}" in lines
    assert message.startswith(b"Received: from ")
