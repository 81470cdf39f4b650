"""What is fuzzed: each target takes bytes and fails unless its promise holds.

A parser of foreign text promises to return, or to raise its own error and no other; what it shows to people
is printable and on one line. `TARGETS` has them by name, with inputs to begin from.
"""

from __future__ import annotations

import re
import socket
import tempfile
import tomllib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dns.message
import dns.rrset

from fuzz import protocol, stored
from hybridgrey import cleaning, logs
from hybridgrey.config import load
from hybridgrey.config.lines import Lines
from hybridgrey.config.load import ConfigError
from hybridgrey.config.store_url import check as check_store_url
from hybridgrey.envelope import MAX_SHOWN, delivered
from hybridgrey.envelope import read as read_address
from hybridgrey.filter import forged
from hybridgrey.filter import reply as words
from hybridgrey.greylist import normalise
from hybridgrey.greylist.triplets import Greylist, parse_key
from hybridgrey.lists import question, zones
from hybridgrey.lists.exchange import Exchange
from hybridgrey.lists.upstream import Nameservers, NoReporter
from hybridgrey.migrate import configfile, postfix
from hybridgrey.migrate.found import Unreadable
from hybridgrey.migrate.maincf import MainCfError
from hybridgrey.policy.judge import Action, Facts, Policy, Rule
from hybridgrey.policy.match import EntryError, Index, Kind, parse_entry, parse_file
from hybridgrey.policy.pattern import ListEntry, Pattern, PatternError
from hybridgrey.policy.rdns import Name, classify
from hybridgrey.report import maillog
from hybridgrey.report.logtime import OLDEST, TOLERANCE, Clock
from hybridgrey.spf import wire
from hybridgrey.spf.evaluate import MAX_QUESTIONS, Identity, evaluate
from hybridgrey.spf.pools import collect
from hybridgrey.spf.question import Answer, Ask, Question, Status
from hybridgrey.spf.record import RecordError, Result, read
from hybridgrey.store.link import clean
from parts.greyterms import GreyTerms

TESTS = Path(__file__).parents[1]
CLIENT = bytes((192, 0, 2, 1))
ASKED = question.reversed_name(CLIENT) + question.tail("bl.test", question.A)
ASKED_TEXT = question.reversed_name(CLIENT) + question.tail("bl.test", question.TXT)
HERE = "mx.test"
ZONE = zones.build([Rule("x", Action.REJECT, lists=(ListEntry.parse("bl.test"),))], {})[0]
GREYLIST = Greylist(None, GreyTerms())  # type: ignore[arg-type]  # keys are made without a store


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
        message = head + b"\0\1" + data[6:12] + asked + data[12 + len(asked) :]
        assert question.answers(message, asked)
        reply = question.read(message, asked)
        assert all(len(code) == 4 for code in reply.codes)
        assert 0 <= reply.ttl <= question.MAX_TTL
        assert not (reply.error and reply.codes)
        answer = ZONE.answer(reply.codes)
        assert answer.error or all(code[0] == 127 for code in answer.codes)
        one_line(words.printable(reply.text))


def spf_reply(data: bytes) -> None:
    """Any message is read, to records within their bounds or an error, and never raises."""
    data = data.ljust(12, b"\0")
    for kind, tail in wire.TAILS.items():
        asked = wire.labels("example.org") + tail
        message = data[:2] + bytes((0x80 | data[2] & 7, data[3])) + b"\0\1" + data[6:12] + asked + data[12:]
        assert question.answers(message, asked)
        reply = wire.read(message, asked)
        assert len(reply.codes) <= wire.MAX_RECORDS
        assert 0 <= reply.ttl <= question.MAX_TTL
        assert not (reply.error and reply.codes)
        answer = wire.answer(Question("example.org", kind), reply)
        assert (answer.status is Status.FOUND) == bool(answer.data or answer.names)
        assert (answer.status is Status.FAILED) == bool(reply.error)


def spf_rows() -> list[bytes]:
    """Answers of every type: header and records, without the question."""
    made = []
    for kind, rows in {
        "A": ["192.0.2.1", "192.0.2.2"],
        "AAAA": ["2001:db8::1"],
        "MX": ["10 mx.example.org."],
        "PTR": ["host.example.org."],
        "TXT": ['"v=spf1 a" " -all"'],
        "CNAME": ["x.example.org."],
    }.items():
        query = dns.message.make_query("example.org", "A" if kind == "CNAME" else kind, id=0)
        reply = dns.message.make_response(query)
        reply.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", kind, *rows))
        soa = "ns.test. root.test. 1 2 3 4 5"
        reply.authority.append(dns.rrset.from_text("example.org.", 60, "IN", "SOA", soa))
        data = reply.to_wire()
        made.append(data[:12] + data[12 + 17 :])
    return made


def dns_datagram(data: bytes) -> None:
    """A look-up takes a datagram only if it has the id and the question of an open question."""
    exchange: Exchange[str] = Exchange(Nameservers([("127.0.0.1", 9)], NoReporter()), 0.0)
    ident = b"\x12\x34"
    exchange.open[ident] = ("a subject", ASKED, 0)
    exchange.ended = True  # asks nothing more
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there:
        here.setblocking(False)
        exchange._sockets[0] = here
        there.send(data)
        came = list(exchange.receive())
    if not (data[:2] == ident and data[12:].startswith(ASKED)):
        assert ident in exchange.open
        assert came == []


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
        index.mailbox(read_address("<a@example.org>"))
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
            load.load(Path(file.name))
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
    shown = configfile.render(found, "main.cf")
    tables = tomllib.loads(shown)
    try:
        load._build(tables, None, Lines(""), load._Sources())
    except ConfigError as error:
        raise AssertionError(f"{error.problems} in {shown!r}") from None


def access_map(data: bytes) -> None:
    """Any access map gives rules that load."""
    text = typed_of(data)
    source = "smtpd_client_restrictions = check_client_access hash:/m, check_sender_access cidr:/n\n"
    found = postfix.convert(source, lambda _path: text)
    tables = tomllib.loads(configfile.render(found, "main.cf"))
    for table in tables.get("rule", ()):
        for key in ("clients", "senders"):
            # The file itself is read when the configuration is: here it does not exist.
            table[key] = [e for e in table.get(key, ()) if not e.startswith("file:")] or ["192.0.2.1"]
            if key == "senders":
                del table[key]
    if tables.get("rule"):
        load._build(tables, None, Lines(""), load._Sources())


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
    Index([[parse_entry(Kind.SENDER, "example.org")]]).mailbox(read_address(text))


def path(data: bytes) -> None:
    """Any path and any macro, before and after a line end, are read; a key stands for one address or path."""
    raw, _, macro = data.partition(b"\n")
    try:
        said = macro.decode() if macro else None
    except UnicodeDecodeError:
        said = None
    for final in (True, False):
        box = delivered(raw, said, final=final)
        assert read_address(box.key).key == box.key
        assert GREYLIST.keys("192.0.2.1", box.key, "x")[0].isascii()
        assert len(box.text) <= MAX_SHOWN + 2
        if not box.certain:
            assert (box.local, box.domain) == ("", "")
            assert said is not None or not read_address(box.text).certain
        elif said is None:
            # Read without help: so would RFC 5321, with nothing that another MTA takes for a route.
            assert not set(box.local) & set('%!@:;,<>()[]\\" ')
            assert box.domain.isascii()
        for mask in (RULED.recipient(7, box), RULED.transaction(Facts(7, 7), None, box, authenticated=False)):
            assert mask == (mask if box.certain else mask & 0b101)


def host_name(data: bytes) -> None:
    """A host name is of some kind, whatever address it is verified for."""
    address = data[:16].ljust(16, b"\0") if data[:1] > b"\x7f" else data[:4].ljust(4, b"\0")
    assert classify(text_of(data[4:]), address) in Name


# -- SPF


def spf(data: bytes) -> None:
    """Records, a sender and HELO of any kind give a result, after no more questions than are allowed.

    The input: HELO, the local part, then what is answered, one line for each question; at its end it begins
    anew.  A line's first character says of what kind the answer is.
    """
    helo, local, *lines = [*data.split(b"\n"), b"", b""]
    for line in lines[:8]:
        found = read(line[1:])
        if isinstance(found, RecordError):
            one_line(str(found))
    for address in (CLIENT, bytes(15) + b"\1"):
        identity = Identity.of(address, "example.org", text_of(local), text_of(helo))
        outcome = carried(evaluate(identity), lines, MAX_QUESTIONS)
        assert outcome.proven <= (outcome.result is Result.PASS)
        assert bool(outcome.doubt) <= (outcome.result is Result.PASS)
        for text in (outcome.term, outcome.domain, outcome.error, outcome.doubt):
            one_line(text)
            assert len(text) < 400
    pool = carried(collect("example.org"), lines, 2 * MAX_QUESTIONS)
    one_line(pool.problem)
    assert all(network.prefixlen >= (14 if network.version == 4 else 32) for network in pool.networks)


def carried(steps: Generator[Ask, Sequence[Answer], Any], lines: Sequence[bytes], most: int) -> Any:
    """What comes of the questions when the lines answer them; fails if there are too many."""
    asked = 0
    try:
        ask = next(steps)
        while True:
            assert ask.now
            begin, asked = asked, asked + len(ask.now)
            assert asked <= most
            ask = steps.send([answered(lines[(begin + n) % len(lines)]) for n in range(len(ask.now))])
    except StopIteration as stop:
        return stop.value


def answered(line: bytes) -> Answer:
    """A line as the answer to any question."""
    status = {b"!": Status.FAILED, b"?": Status.EMPTY, b"-": Status.NXDOMAIN}.get(line[:1], Status.FOUND)
    if status is not Status.FOUND:
        return Answer(status, len(line))
    words = line[1:].split(b",")
    numbers = tuple(word.ljust(4, b"\0")[:4] for word in words) + tuple(
        word.ljust(16, b"\0")[:16] for word in words
    )
    return Answer(status, len(line), (line[1:], *numbers), tuple(text_of(word) for word in words))


SPF = (
    b"mail.example.org\nuser\n v=spf1 a mx/24 include:_a.example.org -all\n c000,mail.example.org\n-",
    b"mail\nuser\n v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 ?ptr:example.org exists:%{ir}.%{v}.x ~all\n!\n?",
    b"x\n\n v=spf1 redirect=%{d2}.%{l1r-}._spf.example.org exp=%{o}.x\n v=spf1 -ip4:192.0.2.1 +all\n!",
    b"%{h}\na.b-c\n V=SPF1 include:%{p}.x include:%{S}.y mx:%{h}/0//0\n v=spf1 a a a a a a a a a a a\n c000",
)


def header(data: bytes) -> None:
    """A header field is ours or not whatever follows the part that says so, and whatever a comment holds."""
    for reading in forged.FIELDS.values():
        reading(data, HERE)
    name = HERE.encode()
    assert forged.results(name + b";" + data, HERE)
    assert forged.results(b'"' + name + b'"\r\n\t1 ;' + data, HERE)
    assert not forged.results(b"other.test;" + data, HERE)
    assert forged.greylist(b"by hybridgrey at " + name + b" " + data, HERE)
    said = re.sub(rb"[()\\]", b"", data)[: forged.LEAD // 4]
    assert forged.results(b"(" + said + b"(" + said + b")) " + name + b"(" + said + b");", HERE)
    assert not forged.results(b"(" + said + b"(" + said + b")) other.test (" + said + b");", HERE)


def shown(data: bytes) -> None:
    """A client's text is printable, one line and bounded, in logs and in replies."""
    text = text_of(data)
    for what in (text, data):
        logged = cleaning.clean(what, 100)
        one_line(logged)
        assert len(logged) <= 100
    cleaning.plain({text: [text, data, {text: text}]}, 100)
    reply = words.worded("554", f"5.7.1 {text}")
    one_line(reply.text)
    assert reply.text.isascii()
    assert len(reply.text) <= words.MAX_TEXT
    one_line(logs.__name__)


def mail_log(data: bytes) -> None:
    """Each line counts once at most, at a time that can be, and what is kept of it is bounded."""
    reader = maillog.MailLogReader([re.compile(rb"Greylisted, please try again in \d+ seconds")])
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
    "header": Target(
        header,
        [
            b"mx.test; dkim=pass",
            b'(a (b)) "mx.test" 1; x=y',
            b"=?utf-8?q?x?=",
            b"delayed 1 seconds by x at y",
        ],
        [b"(", b")", b"\\", b'"', b";", b"\r\n ", b"mx.test", b"=?", b"\xff", b"by hybridgrey at "],
        10,
    ),
    "milter": Target(protocol.milter, protocol.SEEDS, protocol.WORDS, share=20),
    # A real server answers some thirty calls for each input.
    "stored": Target(stored.stored, stored.SEEDS, stored.WORDS, share=1),
    "host_name": Target(
        host_name,
        [b"\xc0\0\2\1192-0-2-1.dyn.example.org", b"\xc0\0\2\1c0000201.smtp-out.example.co.uk"],
        [b".", b"-", b"192", b"dsl", b"pool", b"mail"],
        10,
    ),
    "spf_reply": Target(
        spf_reply, spf_rows(), (b"\xc0\x0c", b"\0\1\0\1", b"\0\x05\0\1", b"\x06v=spf1"), share=20
    ),
    "spf": Target(
        spf,
        SPF,
        [
            b"v=spf1 ",
            b"%{",
            b"}",
            b"ip4:",
            b"a:",
            b"mx",
            b"include:",
            b"redirect=",
            b"/",
            b"//",
            b"\n",
            b" ",
            b"%",
        ],
        5,
    ),
    "shown": Target(
        shown, [*ADDRESSES, b"\x1b[31m", b"%s%n", b"a\r\n554 x"], [b"%", b"\n", b"\x00", b"\xff", b"\\"], 15
    ),
}
