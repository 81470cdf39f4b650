"""Whom Postfix's log says that we have written to: tables of its lines, and a real store."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgrey import envelope
from hybridgrey.hand.correspondents import PREFIX
from hybridgrey.migrate import sentmail
from hybridgrey.migrate.sentmail import Gathered, Gathering, SentMail, Written
from parts.commandline import run

LOGIN = "postfix/submission/smtpd[7]: 4A1: client=h.example[192.0.2.5], sasl_method=PLAIN, sasl_username=ann"
PICKUP = "postfix/pickup[7]: 4A1: uid=1000 from=<ann>"
LOCAL = "postfix/smtpd[7]: 4A1: client=localhost[127.0.0.1]"
FOREIGN = "postfix/smtpd[7]: 4A1: client=mail.example[192.0.2.9]"
QUEUED = "postfix/qmgr[8]: 4A1: from=<ann@example.org>, size=700, nrcpt=1 (queue active)"
TAIL = "delay=0.5, delays=0.1/0/0.2/0.2, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 77)"
RELAY = "relay=mx.example.net[198.51.100.1]:25"
SENT = f"postfix/smtp[9]: 4A1: to=<bob@example.net>, {RELAY}, {TAIL}"
REMOVED = "postfix/qmgr[8]: 4A1: removed"
BOB = ["bob@example.net"]


def learnt(lines, most=20, host="mx1 "):
    """The recipients, in order."""
    reader = SentMail(most)
    found = (reader.read((host + line).encode("utf-8", "surrogateescape")) for line in lines)
    return [one.recipient.key for one in found if one is not None]


def sent(address="bob@example.net", relay=RELAY, tail=TAIL, program="smtp", more=""):
    return f"postfix/{program}[9]: 4A1: to=<{address}>, {more}{relay}, {tail}"


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([LOGIN, QUEUED, SENT, REMOVED], BOB),
        ([PICKUP, QUEUED, SENT], BOB),
        ([LOCAL, QUEUED, SENT], BOB),
        ([LOCAL.replace("127.0.0.1", "::1"), QUEUED, SENT], BOB),
        ([FOREIGN, QUEUED, SENT], []),
        ([QUEUED, SENT], []),
        ([LOGIN, SENT], []),
        ([LOGIN, QUEUED, REMOVED, SENT], []),
        # An id that is used again.
        ([LOGIN, QUEUED, FOREIGN, QUEUED, SENT], []),
        ([LOGIN.replace("4A1", "NOQUEUE"), QUEUED.replace("4A1", "NOQUEUE"), SENT], []),
        # A bounce, and a sender or a recipient that is none.
        ([LOGIN, QUEUED.replace("ann@example.org", ""), SENT], []),
        ([LOGIN, QUEUED.replace("ann@example.org", "ann"), SENT], []),
        ([LOGIN, QUEUED, sent("bob")], []),
        ([LOGIN, QUEUED, sent("b<o>b@example.net")], []),
        ([LOGIN, QUEUED, sent("b\udcffb@example.net")], []),
        ([LOGIN, QUEUED, sent("Bob.B@Example.NET")], ["bob.b@example.net"]),
        ([LOGIN, QUEUED, sent('"b b"@example.net')], ["b b@example.net"]),
        ([LOGIN, QUEUED, sent(more="conn_use=3, "), sent("c@x.example")], ["c@x.example"]),
        ([LOGIN, QUEUED, sent(relay=f"{RELAY}, conn_use=3")], BOB),
        # Whom only an alias leads to.
        ([LOGIN, QUEUED, sent(more="orig_to=<list@example.org>, ")], []),
        # Who belongs here.
        *(
            ([LOGIN, QUEUED, sent(program=program)], [])
            for program in ("local", "virtual", "lmtp", "relay/smtp", "pipe", "error", "discard")
        ),
        # Not delivered.
        ([LOGIN, QUEUED, SENT.replace("status=sent", "status=deferred").replace("2.0.0,", "4.0.0,")], []),
        ([LOGIN, QUEUED, sent(tail="delay=1, delays=0/0/0/1, dsn=5.1.1, status=bounced (status=sent )")], []),
        # Many recipients; a later try has fewer.
        ([LOGIN, QUEUED.replace("nrcpt=1", "nrcpt=20"), SENT], BOB),
        ([LOGIN, QUEUED.replace("nrcpt=1", "nrcpt=21"), SENT], []),
        ([LOGIN, QUEUED.replace("nrcpt=1", "nrcpt=30"), QUEUED, SENT], []),
        # A content filter on this host, and what it gives back.
        ([LOGIN, QUEUED, sent(relay="relay=127.0.0.1[127.0.0.1]:10024")], []),
        (
            [
                LOGIN,
                QUEUED,
                f"{LOCAL.replace('4A1', '5B2')}, orig_queue_id=4A1, orig_client=h.example[192.0.2.5]",
                *(line.replace("4A1", "5B2") for line in (QUEUED, SENT)),
            ],
            BOB,
        ),
        ([f"{LOCAL}, orig_queue_id=9C9, orig_client=x.example[192.0.2.9]", QUEUED, SENT], []),
        ([f"{LOCAL}, orig_client=x.example[192.0.2.9]", QUEUED, SENT], []),
        # A client's words.
        ([f"{FOREIGN}, sasl_sender=x, sasl_username=ann", QUEUED, SENT], []),
        ([FOREIGN, QUEUED.replace("ann@", "x>, sasl_username=ann, <ann@"), SENT], []),
        ([FOREIGN, "postfix/cleanup[1]: 4A1: message-id=<4A1: uid=1 from=<x>@y>", QUEUED, SENT], []),
        # Other programs.
        ([LOGIN.replace("smtpd", "smtpd-x"), QUEUED, SENT], []),
    ],
)
def test_whom_we_have_written_to(lines, wanted):
    """Whoever got mail of our own users from our SMTP client, and nobody else."""
    assert learnt(lines) == wanted


def test_forms_of_a_line():
    """With and without a host, a name of its own for the log, as RFC 5424 has it."""
    lines = [LOGIN, QUEUED, SENT]
    assert learnt(lines, host="") == BOB
    assert learnt([line.replace("postfix/", "postfix-out/") for line in lines]) == BOB
    assert learnt([line.replace("[7]:", " 7 - -").replace("[9]:", " 9 - -") for line in lines]) == BOB


@given(st.sampled_from(["smtpd", "smtp", "qmgr", "pickup"]), st.binary(max_size=200))
def test_any_line_can_be_read(program, said):
    """Whatever stands in it, and it teaches nothing by itself."""
    reader = SentMail(20)
    assert reader.read(b"mx1 postfix/%s[1]: 4A1: %s" % (program.encode(), said)) is None
    assert reader.read(said) is None


def test_hosts_have_their_own_queues():
    """The same queue id on another host is another message."""
    reader = SentMail(20)
    assert [
        reader.read(f"{host} {line}".encode())
        for host, line in (("mx1", LOGIN), ("mx1", QUEUED), ("mx2", QUEUED), ("mx2", SENT))
    ] == [None] * 4


def test_what_is_held_is_bounded(monkeypatch):
    """The oldest message is let go, and the address that was seen longest ago is written."""
    monkeypatch.setattr(sentmail, "MOST_WAITING", 2)
    reader = SentMail(20)
    for number in range(3):
        assert reader.read(LOGIN.replace("4A1", f"A{number}").encode()) is None
        assert reader.read(QUEUED.replace("4A1", f"A{number}").encode()) is None
    found = [reader.read(SENT.replace("4A1", f"A{number}").encode()) for number in range(3)]
    assert [one is not None for one in found] == [False, True, True]
    monkeypatch.setattr(sentmail, "MOST_GATHERED", 2)
    gathering = Gathering(99)
    leaving = [gathering.add(_written(who), 86400.0 + at) for at, who in enumerate("abac")]
    assert leaving == [None, None, None, Gathered(envelope.read("b@x.example"), 86401.0)]
    assert [(one.address.key, one.moment) for one in gathering.rest()] == [
        ("a@x.example", 86402.0),
        ("c@x.example", 86403.0),
    ]


def _written(who, sender="ann@example.org"):
    return Written(envelope.read(sender), envelope.read(f"{who}@x.example"))


def test_a_sender_has_so_many_new_ones_in_a_day():
    """Who is known does not count; another sender and another day have their own."""
    gathering = Gathering(2)
    for who, sender, moment in (
        ("a", "ann@example.org", 0.0),
        ("b", "ann@example.org", 1.0),
        ("a", "ann@example.org", 2.0),
        ("c", "ann@example.org", 3.0),
        ("d", "eve@example.org", 4.0),
        ("e", "ann@example.org", 86401.0),
    ):
        gathering.add(_written(who, sender), moment)
    assert [one.address.key[0] for one in gathering.rest()] == ["b", "a", "d", "e"]
    assert gathering.beyond == 1


# The command.


@pytest.fixture
def world(redis, tmp_path):
    redis.client().flushall()
    config = tmp_path / "hybridgrey.toml"
    config.write_text(f'[store]\nurl = "{redis.unix_url}"\n[correspondents]\nlifetime = "100d"\n')
    return config


def log(day, *addresses, host="mx1"):
    """A message to each, at a time so many days ago, in syslog's own form without a year."""
    stamp = time.strftime("%b %e %H:%M:%S", time.localtime(time.time() - 86400 * day))
    lines = [line for address in addresses for line in (LOGIN, QUEUED, sent(address), REMOVED)]
    return "".join(f"{stamp} {host} {line}\n" for line in lines).encode()


def counts(config, *files, **options):
    done = run("import", "correspondents", "-c", config, "--json", *files, **options)
    assert (done.status, done.error) == (0, "")
    return {name: number for name, number in json.loads(done.output).items() if number}


def test_logs_of_all_kinds_in_order_of_time(world, redis, tmp_path):
    """Rotated and packed, given in any order; ages are kept, and what is too old is not taken."""
    packed = {
        "mail.log": log(1, "bob@example.net"),
        "mail.log.1": log(20, "bob@example.net", "carol@example.net"),
        "mail.log.2.gz": gzip.compress(log(50, "dan@example.net")),
        "mail.log.3.xz": lzma.compress(log(90, "eve@example.net")),
        "mail.log.4.bz2": bz2.compress(log(120, "old@example.net")),
    }
    for days, (name, content) in zip((1, 20, 50, 90, 120), packed.items(), strict=True):
        (tmp_path / name).write_bytes(content)
        moment = time.time() - 86400 * days + 60
        os.utime(tmp_path / name, (moment, moment))
    files = [tmp_path / name for name in packed]
    assert counts(world, "--dry-run", *files) == {"new": 4, "expired": 1, "dry_run": True}
    with redis.client() as client:
        assert client.dbsize() == 0
        assert counts(world, *files) == {"new": 4, "expired": 1}
        left = {key[len(PREFIX) :].decode(): client.ttl(key) / 86400 for key in client.scan_iter()}
        wanted = {"bob": 99, "carol": 80, "dan": 50, "eve": 10}
        assert left == {f"{name}@example.net": pytest.approx(days, abs=0.1) for name, days in wanted.items()}
        # Once more nothing changes; what lives longer already is left alone.
        assert counts(world, *reversed(files)) == {"kept": 4, "expired": 1}
        client.expire(PREFIX + b"eve@example.net", 60)
        assert counts(world, "--dry-run", *files) == {"kept": 3, "longer": 1, "expired": 1, "dry_run": True}
        assert counts(world, *files) == {"kept": 3, "longer": 1, "expired": 1}


def test_standard_input_and_words(world, redis):
    """A log through a pipe; what is printed; and nothing of it readable with a secret."""
    world.write_text(world.read_text().replace("[corr", 'key_secret = "0123456789abcdef"\n[corr'))
    text = log(1, "bob@example.net").decode()
    done = run("import", "correspondents", "-c", world, "-", text=text)
    assert done.status == 0
    assert done.lines[0].split() == ["1", "correspondents,", "new", "here"]
    with redis.client() as client:
        (key,) = client.scan_iter()
        assert key.startswith(PREFIX)
        assert b"bob" not in key
    done = run("import", "correspondents", "-c", world, "--dry-run", "-", text="nothing\n")
    assert "nobody was written to" in done.error
    assert done.lines[-1] == "Nothing was written (--dry-run)."


def test_a_log_of_more_than_a_year(world, tmp_path):
    """Its lines have no year: what is 500 days old is not taken for 135 days old."""
    file = tmp_path / "mail.log"
    world.write_text(world.read_text().replace("100d", "300d"))
    file.write_bytes(b"".join(log(day, f"d{day}@example.net") for day in (500, 400, 310, 200, 100, 1)))
    assert counts(world, file) == {"new": 3, "expired": 3}


def test_a_store_that_is_away(world, tmp_path):
    """Said in one line."""
    world.write_text('[store]\nurl = "redis://127.0.0.1:1"\n')
    file = tmp_path / "mail.log"
    file.write_bytes(log(1, "bob@example.net"))
    done = run("import", "correspondents", "-c", world, file)
    assert done.status == 69
    assert len(done.error.splitlines()) == 1
    assert run("import", "correspondents", "-c", world, tmp_path / "none").status == 1
