"""By score: what RCPT and the end of a message say, with each engine, and a scanner that scores as told."""

from __future__ import annotations

import itertools
import time

import pytest

from parts.base import wait_until
from parts.daemon import Daemon
from parts.milterpeer import MilterPeer
from parts.redisserver import Redis
from parts.spamd import ScriptedSpamd

RULES = [
    {"name": "ok", "recipients": ["ok@x.test"], "action": "accept"},
    {"name": "no", "recipients": ["no@x.test"], "action": "reject"},
    {
        "name": "strict",
        "recipients": ["strict@x.test", "stricter@x.test"],
        "score": ">=10",
        "action": "reject",
    },
    {"name": "spam", "score": ">=5", "action": "greylist"},
]
ENGINES = ["libmilter", "native"]
MACROS = {"j": "mx.test", "v": "Postfix 3"}
_clients = (f"198.51.{a}.{b}" for a in range(100, 200) for b in range(1, 250))


@pytest.fixture(scope="module")
def redis():
    with Redis() as running:
        yield running


@pytest.fixture(scope="module")
def scanner():
    with ScriptedSpamd() as running:
        yield running


def settings(redis, scanner, engine, **more):
    return {
        "engine": engine,
        "workers": 1,
        "store": {"url": redis.unix_url},
        "greylist": {"delay": "3s", "ipv4_prefix": 32},
        "content": {"scanner": scanner.spec, "timeout": "1s", "max_size": "100k"},
        "rule": RULES,
        **more,
    }


@pytest.fixture(scope="module", params=ENGINES)
def daemon(request, redis, scanner):
    with Daemon(settings(redis, scanner, request.param)) as made:
        yield made


@pytest.fixture
def client(scanner):
    scanner.answer = 0.0
    scanner.requests.clear()
    return next(_clients)


def begin(daemon, client):
    peer = MilterPeer(daemon.address)
    peer.connect("unknown", client, macros=MACROS)
    peer.helo("helo.test")
    peer.mail("<a@sender.test>", macros={"mail_addr": "a@sender.test"})
    return peer


def to(peer, name):
    return peer.rcpt(f"<{name}@x.test>", macros={"rcpt_addr": f"{name}@x.test", "i": "QUEUEID"})


def send(daemon, client, *names, **content):
    """The answers to recipients, and to the message if one of them passed."""
    with begin(daemon, client) as peer:
        answers = [to(peer, name) for name in names]
        end = peer.content(**content) if any(one.passes for one in answers) else None
    return [one.code or one.kind for one in answers], end


def triplets(redis, client):
    return [key for key in redis.client().keys(b"hg1:{%s*" % client.encode()) if b":a@" in key]


def last(daemon, name, client):
    """The last verdict on a recipient of a client's."""

    def found():
        return [
            one
            for one in daemon.events("verdict")
            if one["recipient"] == f"{name}@x.test" and one["client"] == client
        ]

    wait_until(found, "a verdict")
    return found()[-1]


def test_a_low_score_passes_at_once(daemon, redis, scanner, client):
    """Nothing is delayed, and no triplet is written; the scanner has seen the message as it will stand."""
    scanner.answer = 1.5
    answers, end = send(daemon, client, "a", headers=[("Subject", "x\n\ty")], body=b"bare\n\xff")
    assert answers == ["continue"]
    assert end.reply.kind == "continue"
    assert triplets(redis, client) == []
    verdict = last(daemon, "a", client)
    assert (verdict["outcome"], verdict["reason"], verdict["score"]) == ("accepted", "no rule", 1.5)
    assert verdict["queue_id"] == "QUEUEID"
    assert verdict["scan_ms"] > 0
    (request,) = scanner.requests
    assert (
        f"Received: from helo.test (unknown [{client}])\r\n\tby mx.test (Postfix) with ESMTP id".encode()
        in request
    )
    assert b"id QUEUEID\r\n\tfor <a@x.test>; " in request
    assert request.endswith(b"\r\nSubject: x\r\n\ty\r\n\r\nbare\n\xff")


def test_a_high_score_is_greylisted(daemon, redis, scanner, client):
    """At the end of the message; an early retry is refused at RCPT, a later one let in, without a scan."""
    scanner.answer = 9.0
    answers, end = send(daemon, client, "a")
    assert answers == ["continue"]
    assert end.reply.code == "450"
    assert len(triplets(redis, client)) == 1
    assert last(daemon, "a", client)["reason"] == "new"
    with begin(daemon, client) as peer:
        assert to(peer, "a").code == "450"
    assert last(daemon, "a", client)["reason"] == "early"
    time.sleep(3.1)
    answers, end = send(daemon, client, "a")
    assert answers == ["continue"]
    assert end.reply.kind == "continue"
    assert len(end.header("X-Greylist")) == 1
    assert last(daemon, "a", client)["reason"] == "passed"
    assert len(scanner.requests) == 1
    assert send(daemon, client, "a")[1].reply.kind == "continue"
    assert last(daemon, "a", client)["reason"] == "known"
    assert len(scanner.requests) == 1


C = "continue"
MIXES = [
    # recipients, score, answers at RCPT, the message's, scans, outcomes
    (("a", "b"), 1, (C, C), C, 1, ("accepted", "accepted")),
    (("a", "b"), 9, (C, C), "450", 1, ("greylisted", "greylisted")),
    (("a", "ok"), 1, (C, "452"), C, 1, ("accepted", "deferred")),
    (("a", "ok"), 9, (C, "452"), "450", 1, ("greylisted", "deferred")),
    (("ok", "a"), 1, (C, "450"), C, 0, ("accepted", "greylisted")),
    (("ok", "strict"), 1, (C, "452"), C, 0, ("accepted", "deferred")),
    (("a", "no"), 1, (C, "554"), C, 1, ("accepted", "rejected")),
    (("no", "a"), 9, ("554", C), "450", 1, ("rejected", "greylisted")),
    (("no", "ok"), 9, ("554", C), C, 0, ("rejected", "accepted")),
    (("ok", "no"), 9, (C, "554"), C, 0, ("accepted", "rejected")),
    (("ok", "ok"), 9, (C, C), C, 0, ("accepted", "accepted")),
    (("no", "no"), 9, ("554", "554"), None, 0, ("rejected", "rejected")),
    (
        ("ok", "a", "no", "b"),
        1,
        (C, "450", "554", "450"),
        C,
        0,
        ("accepted", "greylisted", "rejected", "greylisted"),
    ),
    (("no", "a", "ok", "b"), 1, ("554", C, "452", C), C, 1, ("rejected", "accepted", "deferred", "accepted")),
    (("strict",), 12, (C,), "554", 1, ("rejected",)),
    (("strict",), 7, (C,), "450", 1, ("greylisted",)),
    (("strict",), 1, (C,), C, 1, ("accepted",)),
    (("strict", "stricter"), 12, (C, C), "554", 1, ("rejected", "rejected")),
    (("a", "strict"), 12, (C, "452"), "450", 1, ("greylisted", "deferred")),
    (("strict", "a"), 12, (C, "452"), "554", 1, ("rejected", "deferred")),
    (("strict", "ok", "no"), 1, (C, "452", "554"), C, 1, ("accepted", "deferred", "rejected")),
]


@pytest.mark.parametrize(("names", "score", "answers", "end", "scans", "outcomes"), MIXES)
def test_recipients_in_one_transaction(daemon, scanner, client, names, score, answers, end, scans, outcomes):
    """No one is let in or refused by another's score, and there is one scan at most."""
    scanner.answer = score
    found, message = send(daemon, client, *names)
    assert tuple(found) == answers
    assert (message and (message.reply.code or message.reply.kind)) == end
    assert len(scanner.requests) == scans
    assert tuple(last(daemon, name, client)["outcome"] for name in names) == outcomes


def test_company_of_whom_the_greylist_knows(daemon, scanner, client):
    """Who comes too early or has passed is answered at RCPT, and saves no other from its wait."""
    scanner.answer = 9
    assert send(daemon, client, "a")[1].reply.code == "450"
    answers, end = send(daemon, client, "a", "b")
    assert (answers, end.reply.code) == (["450", C], "450")
    time.sleep(3.1)
    answers, end = send(daemon, client, "a", "c")
    assert (answers, end.reply.kind) == ([C, "450"], C)
    answers, end = send(daemon, client, "d", "a", "b")
    assert (answers, end.reply.code) == ([C, "452", "452"], "450")
    assert len(scanner.requests) == 3
    scanner.answer = 1
    answers, end = send(daemon, client, "e", "d")
    assert (answers, end.reply.kind) == ([C, "450"], C)
    assert last(daemon, "e", client)["outcome"] == "accepted"


def test_who_has_passed_is_scanned_where_a_score_may_refuse(daemon, scanner, client):
    """A wait does not buy a way around a rule that rejects."""
    scanner.answer = 7
    assert send(daemon, client, "strict")[1].reply.code == "450"
    assert send(daemon, client, "strict")[0] == ["450"]
    time.sleep(3.1)
    scanner.answer = 12
    assert send(daemon, client, "strict")[1].reply.code == "554"
    assert send(daemon, client, "ok", "strict")[0] == [C, "452"]
    scanner.answer = 7
    assert send(daemon, client, "strict")[1].reply.kind == C
    assert last(daemon, "strict", client)["reason"] == "passed"


@pytest.mark.parametrize("ending", ["abort", "mail", "quit", "gone", "next client"])
def test_a_message_that_never_ends(daemon, redis, scanner, client, ending):
    """Leaves a record, and no triplet."""
    scanner.answer = 9
    with begin(daemon, client) as peer:
        assert to(peer, "a").kind == C
        match ending:
            case "abort":
                peer.abort()
                peer.mail("<b@sender.test>")
            case "mail":
                peer.mail("<b@sender.test>")
            case "quit":
                peer.quit()
            case "next client":
                peer.abort()
                peer.quit_for_next()
                peer.connect("unknown", "192.0.2.1", macros=MACROS)
    verdict = last(daemon, "a", client)
    assert (verdict["outcome"], verdict["reason"]) == ("deferred", "unfinished")
    assert verdict["rule"] == "spam"
    assert triplets(redis, client) == []
    assert scanner.requests == []


def test_the_next_message_begins_anew(daemon, scanner, client):
    """A transaction knows nothing of the one before it on the same connection."""
    scanner.answer = 9
    with begin(daemon, client) as peer:
        assert to(peer, "a").kind == C
        assert peer.content().reply.code == "450"
        peer.mail("<c@sender.test>", macros={"mail_addr": "c@sender.test"})
        assert to(peer, "ok").kind == C
        assert peer.content().reply.kind == C
        scanner.answer = 1
        peer.mail("<d@sender.test>", macros={"mail_addr": "d@sender.test"})
        assert to(peer, "a").kind == C
        assert peer.content(headers={"Subject": "third"}).reply.kind == C
    assert len(scanner.requests) == 2
    assert b"third" in scanner.requests[1]
    assert b"Subject: test" not in scanner.requests[1]


def in_pieces(peer, *pieces):
    """The answers to each piece of the body, and to the message."""
    for step, data in (("data", b""), ("header", b"Subject\0x\0"), ("eoh", b"")):
        peer._command(step, data, {})
    answers = [peer._command("body", piece, {}).kind for piece in pieces]
    peer._send(b"E")
    reply = peer._end_of_message().reply
    return answers, reply.code or reply.kind


def test_skip(daemon, scanner, client):
    """The body is skipped where nobody is pending, and when it is too large: then it is greylisted."""
    with begin(daemon, client) as peer:
        assert to(peer, "ok").kind == C
        assert in_pieces(peer, b"x") == (["skip"], C)
    with begin(daemon, client) as peer:
        assert to(peer, "a").kind == C
        assert in_pieces(peer, b"x" * 60_000, b"x" * 60_000) == ([C, "skip"], "450")
    assert last(daemon, "a", client)["scan_error"] == "the message is too large"
    assert scanner.requests == []


def test_an_mta_that_cannot_skip(daemon, scanner, client):
    """It is answered "continue" to each piece of the body."""
    with MilterPeer(daemon.address, protocol=0x1FFFFF & ~0x400) as peer:
        peer.connect("unknown", client, macros=MACROS)
        peer.helo()
        peer.mail("<a@sender.test>")
        assert to(peer, "ok").kind == C
        assert in_pieces(peer, b"x", b"y") == ([C, C], C)


BAD = {
    "nonsense": b"nonsense",
    "hangs": None,
    "no number": b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; nan / 5.0\r\n\r\n",
    "half": b"SPAMD/1.1 0 EX_OK\r\nSpam: False ; 0",
    "error": b"SPAMD/1.1 74 EX_IOERR\r\n\r\n",
}


@pytest.mark.parametrize("answer", BAD.values(), ids=BAD)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_scanner_that_fails(redis, scanner, client, engine, answer):
    """As plain greylisting, at the end of the message; after three failures at RCPT; nothing is lost."""
    with Daemon(settings(redis, scanner, engine)) as daemon:
        scanner.answer = answer
        for turn, name in enumerate(("a", "b", "strict")):
            answers, end = send(daemon, client, name)
            assert answers == [C]
            assert end.reply.code == "450", turn
            verdict = last(daemon, name, client)
            assert (verdict["outcome"], verdict["score"]) == ("greylisted", None)
            assert verdict["scan_error"]
        assert send(daemon, client, "d")[0] == ["450"]
        assert send(daemon, client, "ok")[0] == [C]
        assert len(scanner.requests) == 3
        assert len(triplets(redis, client)) == 4
        time.sleep(3.1)
        for name in ("a", "strict", "d"):
            answers, end = send(daemon, client, name)
            assert answers == [C]
            assert end.reply.kind == C
        assert daemon.await_events("scanner failing")


@pytest.mark.parametrize("engine", ENGINES)
def test_no_answer_of_rspamds_lets_in(redis, client, engine):
    """HTTP of any kind: no score is as plain greylisting, and no bug of ours."""
    odd = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9%s\r\n\r\n{}" % (b"9" * 20),
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n",
    ]
    with ScriptedSpamd() as scanner:
        place = {"scanner": f"rspamd:http://127.0.0.1:{scanner.server_address[1]}", "timeout": "1s"}
        with Daemon(settings(redis, scanner, engine, content=place)) as daemon:
            for scanner.answer in odd:
                name = f"r{odd.index(scanner.answer)}"
                assert send(daemon, client, name)[1].reply.code == "450"
                assert "rspamd" in last(daemon, name, client)["scan_error"]
            assert daemon.events("callback failed") == []


@pytest.mark.parametrize("engine", ENGINES)
def test_observe(redis, scanner, client, engine):
    """Nothing is refused; each recipient is judged by itself, and the log says what it would have got."""
    with Daemon(settings(redis, scanner, engine, mode="observe")) as daemon:
        scanner.answer = 12
        names = ("ok", "a", "strict", "no")
        answers, end = send(daemon, client, *names)
        assert answers == [C] * 4
        assert end.reply.kind == C
        outcomes = [last(daemon, name, client)["outcome"] for name in names]
        assert outcomes == ["accepted", "greylisted", "rejected", "rejected"]


@pytest.mark.parametrize("engine", ENGINES)
def test_headers_reach_the_scanner_alone(redis, scanner, client, engine):
    """Where no forged header is to be removed they are collected all the same, and none is taken out."""
    with Daemon(settings(redis, scanner, engine, headers={"remove_forged": False})) as daemon:
        answers, end = send(daemon, client, "a", headers=[("Authentication-Results", "mx.test; dnswl=pass")])
        assert answers == [C]
        assert end.reply.kind == C
        assert end.deleted == []
        assert b"Authentication-Results: mx.test; dnswl=pass\r\n" in scanner.requests[-1]


@pytest.mark.parametrize("engine", ENGINES)
def test_many_scans_at_once(redis, scanner, engine):
    """Others go on while scans are under way, and each message has its own score."""
    with Daemon(settings(redis, scanner, engine)) as daemon:
        scanner.answer = None
        peers = [begin(daemon, client) for client in itertools.islice(_clients, 2)]
        for peer in peers:
            assert to(peer, "a").kind == C
            for step in ("header", "body"):
                peer._command(step, b"X\0y\0", {})
            peer._send(b"E")
        wait_until(lambda: len(scanner.requests) >= 2, "two scans under way")
        began = time.monotonic()
        assert send(daemon, next(_clients), "ok")[0] == [C]
        assert time.monotonic() - began < 0.9
        for peer in peers:
            assert peer._end_of_message().reply.code == "450"
            peer.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_score_in_the_header(redis, scanner, client, engine):
    """Added where it was asked for, by our name; what came under our name is taken out."""
    with Daemon(settings(redis, scanner, engine, headers={"score": True}, hostname="mx.test")) as daemon:
        scanner.answer = 1.5
        fields = [("X-Spam-Score", "9 by hybridgrey at mx.test"), ("X-Spam-Score", "3 by other")]
        for name, wanted in (("a", ["1.5 by hybridgrey at mx.test"]), ("ok", [])):
            _, end = send(daemon, client, name, headers=fields)
            assert end.header("X-Spam-Score") == wanted
            assert end.deleted == [("x-spam-score", 1)]
