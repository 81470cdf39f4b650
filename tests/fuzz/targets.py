"""What is fuzzed: each target takes bytes and fails unless its promise holds.

A parser of foreign text promises to return, or to raise its own error and no other; what it shows to people
is printable and on one line. `TARGETS` has them by name, with inputs to begin from.
"""

from __future__ import annotations

import re
import socket
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import dns.message
import dns.rrset

from fuzz import stored
from hybridgrey import (
    cleaning,
    config,
    logs,
    lookup,
    maillog,
    normalise,
    postfix,
    question,
    rulesfile,
    screen,
    zones,
)
from hybridgrey.config import ConfigError
from hybridgrey.envelope import MAX_SHOWN, delivered, read
from hybridgrey.greylist import Greylist, parse_key
from hybridgrey.link import clean
from hybridgrey.logtime import OLDEST, TOLERANCE, Clock
from hybridgrey.lookup import Resolver
from hybridgrey.maincf import MainCfError
from hybridgrey.match import EntryError, Index, Kind, parse_entry, parse_file
from hybridgrey.pattern import ListEntry, Pattern, PatternError
from hybridgrey.policy import Action, Policy, Rule
from hybridgrey.store_url import check as check_store_url
from hybridgrey.takeover import Unreadable

TESTS = Path(__file__).parents[1]
CLIENT = bytes((192, 0, 2, 1))
ASKED = question.reversed_name(CLIENT) + question.tail("bl.test", question.A)
ASKED_TEXT = question.reversed_name(CLIENT) + question.tail("bl.test", question.TXT)
ZONE = zones.build([Rule("x", Action.REJECT, lists=(ListEntry.parse("bl.test"),))], {})[0]
GREYLIST = Greylist(
    None,  # type: ignore[arg-type]  # keys are made without a store
    retry_window=1,
    lifetime=1,
    ipv4_prefix=24,
    ipv6_prefix=64,
    auto_allow_after=0,
)


RULED = Policy(
    [
        Rule("x", Action.GREYLIST, senders=(parse_entry(Kind.SENDER, "example.org"),)),
        Rule(
            "y",
            Action.ACCEPT,
            senders=(parse_entry(Kind.SENDER, "a.test"),),
            recipients=(parse_entry(Kind.RECIPIENT, "!b.test"),),
        ),
        Rule("z", Action.GREYLIST),
    ]
)


@dataclass(frozen=True, slots=True)
class Target:
    """One promise, and inputs near which it may break; `share`: its part of all inputs, by its cost."""

    run: Callable[[bytes], None]
    seeds: Sequence[bytes]
    words: Sequence[bytes] = field(default=())
    share: int = 10


def text_of(data: bytes) -> str:
    """Text as it comes from files and the wire; bytes that are no UTF-8 become surrogates."""
    return data.decode("utf-8", "surrogateescape")


def typed_of(data: bytes) -> str:
    """Text as it comes from a file of ours, which is UTF-8."""
    return data.decode("utf-8", "replace")


def one_line(text: str) -> None:
    """Fail unless a text is fit for a terminal and a log."""
    assert text.isprintable(), text


# -- DNS


def replies() -> list[bytes]:
    """Replies of every shape, each to the question about the client."""
    made = []
    for kind, rows in {
        "A": ["127.0.0.2"],
        "TXT": ['"Listed, see http://bl.test/"'],
        "CNAME": ["other.test."],
        "SOA": ["ns.test. root.test. 1 2 3 4 5"],
    }.items():
        for rcode in (0, 2, 3, 5):
            query = dns.message.make_query("1.2.0.192.bl.test", "TXT" if kind == "TXT" else "A", id=0)
            reply = dns.message.make_response(query)
            reply.set_rcode(rcode)
            section = reply.authority if kind == "SOA" else reply.answer
            section.append(dns.rrset.from_text(query.question[0].name, 60, "IN", kind, *rows))
            made.append(reply.to_wire())
    return made


def dns_reply(data: bytes) -> None:
    """Any datagram is read, as codes of four bytes or an error, and never raises."""
    # The head is made right, so that what follows it is what is tried.
    data = data.ljust(12, b"\0")
    for asked in (ASKED, ASKED_TEXT):
        head = data[:2] + bytes(
            (0x80 | (data[2] & 7 if len(data) > 2 else 0), data[3] if len(data) > 3 else 0)
        )
        wire = head + b"\0\1" + data[6:12] + asked + data[12 + len(asked) :]
        assert question.answers(wire, asked)
        reply = question.read(wire, asked)
        assert all(len(code) == 4 for code in reply.codes)
        assert 0 <= reply.ttl <= question.MAX_TTL
        assert not (reply.error and reply.codes)
        answer = ZONE.answer(reply.codes)
        assert answer.error or all(code[0] == 127 for code in answer.codes)
        one_line(screen.plain(reply.text))


def dns_datagram(data: bytes) -> None:
    """A look-up takes a datagram only if it has the id and the question of an open question."""
    resolver = Resolver([ZONE], [("127.0.0.1", 9)])
    found = lookup.Lookup(resolver, CLIENT)
    ident = b"\x12\x34"
    found._pending[ident] = (ZONE, ASKED, 0)
    found._closed = True  # asks nothing more
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there:
        here.setblocking(False)
        found._sockets[0] = here
        there.send(data)
        found._receive()
    if not (data[:2] == ident and data[12:].startswith(ASKED)):
        assert ident in found._pending
        assert found.answers == {}


# -- what an admin writes


def pattern(data: bytes) -> None:
    """A pattern is taken or refused; what is taken prints back to the same pattern."""
    text = typed_of(data)
    for kind in (Pattern, ListEntry):
        try:
            parsed = kind.parse(text)
        except PatternError as error:
            one_line(str(error))
            continue
        assert kind.parse(str(parsed)) == parsed


def entries(data: bytes) -> None:
    """An entry is taken or refused, a file of them always read; its errors name lines."""
    text = typed_of(data)
    for kind in Kind:
        found, errors = parse_file(kind, text)
        for error in errors:
            one_line(error)
            assert error.startswith("line ")
        index = Index([found])
        index.client(CLIENT, "mail.example.org")
        index.mailbox(read("<a@example.org>"))
        try:
            parse_entry(kind, text)
        except EntryError as error:
            one_line(str(error))


def settings(data: bytes) -> None:
    """A config file loads or is refused with lines that are fit to be shown."""
    with tempfile.NamedTemporaryFile(dir=FOLDER) as file:
        file.write(data)
        file.flush()
        try:
            config.load(Path(file.name))
        except ConfigError as error:
            assert error.problems
            for problem in error.problems:
                one_line(problem)


def store_url(data: bytes) -> None:
    """A store's URL is taken or refused, its password not shown."""
    text = typed_of(data)
    try:
        check_store_url(text)
    except ValueError as error:
        one_line(str(error))
    one_line(clean(text, text))


def main_cf(data: bytes) -> None:
    """Any main.cf gives rules that load, or is refused."""
    text = typed_of(data)
    try:
        found = postfix.convert(text, lambda _path: Unreadable("does not exist here"))
    except MainCfError as error:
        one_line(str(error))
        return
    shown = rulesfile.render(found, "main.cf")
    tables = tomllib.loads(shown)
    try:
        config._build(tables, None)
    except ConfigError as error:
        raise AssertionError(f"{error.problems} in {shown!r}") from None


def access_map(data: bytes) -> None:
    """Any access map gives rules that load."""
    text = typed_of(data)
    source = "smtpd_client_restrictions = check_client_access hash:/m, check_sender_access cidr:/n\n"
    found = postfix.convert(source, lambda _path: text)
    tables = tomllib.loads(rulesfile.render(found, "main.cf"))
    for table in tables.get("rule", ()):
        for key in ("clients", "senders"):
            # The file itself is read when the configuration is: here it does not exist.
            table[key] = [e for e in table.get(key, ()) if not e.startswith("file:")] or ["192.0.2.1"]
            if key == "senders":
                del table[key]
    if tables.get("rule"):
        config._build(tables, None)


# -- what a client says


def envelope(data: bytes) -> None:
    """An envelope address makes a key of one ASCII word that reads back; folding twice changes nothing."""
    text = text_of(data)
    for fold in (normalise.sender, normalise.recipient):
        once = fold(text)
        assert fold(once) == once
    for key in GREYLIST.keys("192.0.2.1", text, text):
        assert key.isascii()
        one_line(key.decode())
        assert b" " not in key
        assert len(key) < 400
        assert parse_key(key) is not None
    Index([[parse_entry(Kind.SENDER, "example.org")]]).mailbox(read(text))


def path(data: bytes) -> None:
    """Any path and any macro, before and after a line end, are read; a key stands for one address or path."""
    raw, _, macro = data.partition(b"\n")
    try:
        said = macro.decode() if macro else None
    except UnicodeDecodeError:
        said = None
    for final in (True, False):
        box = delivered(raw, said, final=final)
        assert read(box.key).key == box.key
        assert GREYLIST.keys("192.0.2.1", box.key, "x")[0].isascii()
        assert len(box.text) <= MAX_SHOWN + 2
        if not box.certain:
            assert (box.local, box.domain) == ("", "")
            assert said is not None or not read(box.text).certain
        elif said is None:
            # Read without help: so would RFC 5321, with nothing that another MTA takes for a route.
            assert not set(box.local) & set('%!@:;,<>()[]\\" ')
            assert box.domain.isascii()
        for mask in (RULED.recipient(7, box), RULED.transaction(7, None, box, authenticated=False)):
            assert mask == (mask if box.certain else mask & 0b101)


def shown(data: bytes) -> None:
    """A client's text is printable, one line and bounded, in logs and in replies."""
    text = text_of(data)
    for what in (text, data):
        logged = cleaning.clean(what, 100)
        one_line(logged)
        assert len(logged) <= 100
    cleaning.plain({text: [text, data, {text: text}]}, 100)
    reply = screen._reply("554", f"5.7.1 {text}")
    one_line(reply.text)
    assert reply.text.isascii()
    assert len(reply.text) <= screen.MAX_TEXT
    one_line(logs.__name__)


def mail_log(data: bytes) -> None:
    """Each line counts once at most, at a time that can be, and what is kept of it is bounded."""
    reader = maillog.Reader([re.compile(rb"Greylisted, please try again in \d+ seconds")])
    lines = data.splitlines(keepends=True)
    clock = Clock(LOGGED)
    if excess := reader.read(lines, clock):
        assert reader.tally.lines == 0
        reader.read(lines, Clock(LOGGED, excess))
        return
    tally = reader.tally
    assert tally.lines == len(lines)
    found = [item for series in maillog.SERIES for item in tally.bins.counts(series).items()]
    assert sum(number for _, number in found) == tally.counted <= len(lines)
    assert all(LOGGED - OLDEST - 86400 <= moment <= LOGGED + TOLERANCE for moment, _ in found)


LOGGED = 1_795_000_020.0  # 2026-11-18
MAIL_LOG = (
    b"Nov 18 10:00:00 mx postfix/smtpd[1]: 3A: client=x[192.0.2.1]\n"
    b"Nov 18 10:00:01 mx postfix/qmgr[2]: 3A: from=<a@b>, size=4, nrcpt=1 (queue active)\n"
    b"Jan  1 00:00:00 mx postfix/smtpd[1]: NOQUEUE: reject: RCPT from x[::1]: 450 4.2.0 <b@x>: Greylisted\n",
    b"2026-11-18T10:00:00.5+01:00 mx postfix/smtpd[1]: NOQUEUE: milter-reject: RCPT from x[::1]: 450 4.2.0 "
    b"Greylisted, please try again in 300 seconds; from=<a> to=<b> proto=SMTP helo=<x>\n",
    b"<22>1 2026-11-18T10:00:00Z mx postfix/cleanup 3 - - 3A: reject: header Subject: x from y: 5.7.1 no\n",
    b"Nov 18 10:00:00 mx spamd[7]: spamd: identified spam (1/5) for u\n"
    b"Nov 18 10:00:00 mx spamd[7]: result: Y 1\n",
    b"Nov 18 10:00:00 mx amavis[7]: (7-1) Passed SPAM {x}\n",
)
FOLDER = tempfile.mkdtemp(prefix="hg-fuzz-")
SAMPLE = (TESTS.parent / "etc" / "hybridgrey.toml").read_bytes()
ADDRESSES = (
    b"<a@example.org>",
    b"<>",
    b"<SRS0=HHH=TT=example.org=user@forward.test>",
    b"<prvs=1234567890=user@example.org>",
    b"<list-bounces+user=example.net@lists.test>",
    b'<"a b"@[192.0.2.1]>',
    "<\u00fc@b\u00fccher.example>".encode(),
    b"<@a,@b:user@c>",
    b"<a%b!c@d.>",
)
TARGETS = {
    "dns_reply": Target(dns_reply, replies(), share=20),
    "dns_datagram": Target(dns_datagram, [b"\x12\x34" + r[2:] for r in replies()], share=10),
    "pattern": Target(
        pattern,
        [b"127.0.0.[2..11]", b"zen.spamhaus.org=127.0.[0..255].[2;4..8]*-2", b"b\xc3\xbc.test", b"a.b*3"],
        [b"[", b"]", b"..", b";", b"*", b"=", b"255", b"256", b" "],
        20,
    ),
    "entries": Target(
        entries,
        [
            b"192.0.2.0/24\n!192.0.2.1\n# x\n",
            b"192.0.2 OK\n2001:db8::/32 permit\n.example.org OK\n",
            b"postmaster@\nuser@example.org\n",
            b"mail.example.org REJECT no\n",
        ],
        [b"::", b"/", b"OK", b"!", b"#", b"\n", b"@", b"\xef\xbb\xbf"],
        12,
    ),
    "settings": Target(
        settings,
        [
            SAMPLE,
            b'[[rule]]\nname="x"\naction="accept"\n',
            b'[zones."a.b"]\nlabel="x"\nerror_codes=["127.0.0.1"]\n',
        ],
        [b"[[rule]]", b"=", b'"', b"[", b"]", b"1e9", b"true", b'"5m"', b"\n", b"dns", b"nan", b"inf"],
        1,
    ),
    "store_url": Target(
        store_url,
        [
            b"redis://u:p@host:6379/0?ssl=true",
            b"sentinel://a:1,[::1]:2/m/0",
            b"cluster://a,b:7",
            b"unix:///a?db=1",
            b"embedded:/var/lib/x",
        ],
        [b"@", b":", b"//", b"[", b"]", b"%", b"?", b"&"],
        8,
    ),
    "main_cf": Target(
        main_cf,
        [path.read_bytes() for path in sorted((TESTS / "maincf").glob("*.cf"))],
        [b"$", b"${", b"}", b",", b"\n ", b"=", b"reject_rbl_client ", b"permit", b"{", b"*-2", b"?", b":"],
        4,
    ),
    "access_map": Target(
        access_map,
        [b"192.0.2.1 OK\n192.0.2 REJECT\n", b"a.example permit\n", b"if /x/\n", b"2001:db8::/32 DUNNO\n"],
        [b"OK", b"REJECT", b"/", b".", b"\n", b"\t", b"!", b"#"],
        5,
    ),
    "mail_log": Target(
        mail_log,
        MAIL_LOG,
        [b"reject: ", b"; from=", b"<", b">", b"]: ", b"450 ", b"Feb 29 ", b"Dec 31 ", b"\n", b"+99:99"],
        10,
    ),
    "envelope": Target(
        envelope, ADDRESSES, [b"@", b"<", b">", b"=", b"+", b"SRS0=", b"prvs=", b"%", b"{", b"}"], 15
    ),
    "path": Target(
        path,
        [
            *(b"%s\n%s" % (one, one.strip(b"<>")) for one in ADDRESSES),
            *ADDRESSES,
            b"<postmaster@x:;user>\nuser@mx.test",
            b"<ceo(x)@optout.test>\nceo@optout.test",
            b"<@a,@b:c@d.test>",
            "<u@stra\u00dfe.test>\nu@strasse.test".encode(),
            b'<a\\@b@x.test>\n"a@b"@x.test',
        ],
        [
            b"@",
            b":",
            b";",
            b"(",
            b")",
            b'"',
            b"\\",
            b"%",
            b"!",
            b" ",
            b"\n",
            b"<",
            b">",
            b"\xc3\xbc",
            b"[",
            b"]",
        ],
        15,
    ),
    # A real server answers some thirty calls for each input.
    "stored": Target(stored.stored, stored.SEEDS, stored.WORDS, share=1),
    "shown": Target(
        shown, [*ADDRESSES, b"\x1b[31m", b"%s%n", b"a\r\n554 x"], [b"%", b"\n", b"\x00", b"\xff", b"\\"], 15
    ),
}
