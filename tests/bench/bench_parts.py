"""Micro-benchmarks of the parts of a decision, on real lists and a real store; run by bench.parts.

Not collected by a plain pytest: the name does not begin with `test_`.
"""

from __future__ import annotations

import ipaddress
import itertools
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import population, rig, scale
from hybridgrey import logs
from hybridgrey.config import load
from hybridgrey.config.load import Config
from hybridgrey.envelope import read
from hybridgrey.greylist import normalise
from hybridgrey.greylist.triplets import Greylist
from hybridgrey.lists import lookup, question, zones
from hybridgrey.lists.awaited import run
from hybridgrey.lists.cache import Cache
from hybridgrey.lists.resolver import Resolver
from hybridgrey.policy.judge import Answer, Facts, Policy, Verdict, judge
from hybridgrey.policy.pattern import Pattern
from hybridgrey.policy.rdns import Name, classify
from hybridgrey.protocol import events, replies, wire
from hybridgrey.protocol.connection import Connection
from hybridgrey.protocol.terms import Terms
from hybridgrey.spf import record
from hybridgrey.spf.cache import Cache as SpfCache
from hybridgrey.spf.carrier import Carrier
from hybridgrey.spf.evaluate import Identity, Outcome, evaluate
from hybridgrey.spf.poolindex import PoolIndex
from hybridgrey.spf.poolstate import State
from hybridgrey.spf.question import Answer as SpfAnswer
from hybridgrey.spf.question import Status
from hybridgrey.store.connection import Store
from parts.daemon import toml
from parts.greyterms import GreyTerms
from parts.milterpeer import NEGOTIATE, framed
from parts.rbldnsd import Rbldnsd
from parts.redisserver import Redis

CODE = bytes([127, 0, 5, 2])
CLIENT = ipaddress.ip_address("33.1.2.3").packed
VERDICT = {
    "queue_id": None,
    "client": "33.1.2.3",
    "host": None,
    "helo": "mail.example.org",
    "sender": "someone@example.org",
    "recipient": "u@example.test",
    "rule": "the rest",
    "action": "greylist",
    "lists": {"zen.test": ["127.0.0.4"]},
    "state": "new",
    "age": 0,
    "wait_ms": 0.6,
    "enforced": True,
    "reply": "450 4.2.0 Greylisted, please try again in 300 seconds",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Rbldnsd]:
    """The list server."""
    with rig.lists() as running:
        yield running


@pytest.fixture
def loaded(tmp_path: Path, server: Rbldnsd) -> Config:
    """The benchmark's rules."""
    path = tmp_path / "hybridgrey.toml"
    path.write_text(toml({"dns": {"nameservers": [server.address]}, "rule": population.RULES}))
    return load.load(path)


@pytest.fixture
def resolver(loaded: Config) -> Resolver:
    """A resolver of the rules' lists."""
    return Resolver(zones.build(loaded.rules, loaded.zones), loaded.dns.nameservers)


def test_pattern(benchmark: Any) -> None:
    """One return code against a pattern."""
    pattern = Pattern.parse("127.0.[0..255].[2..3]")
    assert benchmark(pattern.matches, CODE)


def test_judge_unknown(benchmark: Any, loaded: Config) -> None:
    """The last rule decides, all lists are in."""
    policy = Policy(loaded.rules)
    facts = policy.connect(CLIENT, None)
    mask = policy.transaction(facts, "mail.example.org", read("<a@example.org>"), authenticated=False)
    answers = dict.fromkeys(policy.zones, Answer())
    verdict = benchmark(lambda: judge(policy, Facts(mask, mask, answers)))
    assert verdict.rule.name == "the rest"


def test_judge_listed(benchmark: Any, loaded: Config) -> None:
    """A blocklist decides."""
    policy = Policy(loaded.rules)
    answers = dict.fromkeys(policy.zones, Answer()) | {"bl.test": Answer((bytes([127, 0, 0, 2]),))}
    mask = policy.recipient(policy.connect(CLIENT, None).maybe & ~1, read("<u@example.test>"))
    verdict = benchmark(lambda: judge(policy, Facts(mask, mask, answers)))
    assert isinstance(verdict, Verdict)
    assert verdict.rule is not None
    assert verdict.rule.name == "blocklists"


def test_match_many(benchmark: Any, tmp_path: Path) -> None:
    """CONNECT, MAIL and RCPT against 400 rules with 100,000 entries."""
    rules, files = scale.many_rules()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    path = tmp_path / "hybridgrey.toml"
    path.write_text(toml({"rule": rules}))
    policy = Policy(load.load(path).rules)

    def match() -> int:
        client = policy.connect(CLIENT, "mail.example.net")
        mail = policy.transaction(client, "mail.example.net", read("<a@example.net>"), authenticated=False)
        return policy.recipient(mail, read("<u@example.test>"))

    assert benchmark(match)


def test_query(benchmark: Any) -> None:
    """One query made from its template."""
    tail = question.tail("zen.test", question.A)
    assert benchmark(lambda: b"ab" + question.HEADER + question.reversed_name(CLIENT) + tail)


def test_read(benchmark: Any, server: Rbldnsd) -> None:
    """One reply with a return code read, a real one of rbldnsd's."""
    asked = question.reversed_name(bytes([11, 0, 0, 9])) + question.tail("bl.test", question.A)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect((server.host, server.port))
        sock.send(b"ab" + question.HEADER + asked)
        reply = sock.recv(4096)
    assert benchmark(question.read, reply, asked).codes == (bytes([127, 0, 0, 2]),)


def test_lookup_uncached(benchmark: Any, resolver: Resolver) -> None:
    """Four lists asked and all answers taken, over real sockets; the wait is in it."""
    numbers = itertools.count()

    def ask() -> int:
        client = (population.NETWORKS["unknown"] << 24 | next(numbers)).to_bytes(4, "big")
        found = lookup.ask(resolver, client, resolver.zones)
        while missing := frozenset(resolver.zones) - found.answers.keys():
            run(found.collect(missing))
        found.close()
        return len(found.answers)

    assert benchmark(ask) == 4


def test_lookup_cached(benchmark: Any, loaded: Config) -> None:
    """Four lists' answers from the cache."""
    resolver = Resolver(zones.build(loaded.rules, loaded.zones), loaded.dns.nameservers, cache=Cache())

    def ask() -> int:
        found = lookup.ask(resolver, CLIENT, resolver.zones)
        while missing := frozenset(resolver.zones) - found.answers.keys():
            run(found.collect(missing))
        found.close()
        return len(found.answers)

    ask()
    assert benchmark(ask) == 4


def test_normalise_sender(benchmark: Any) -> None:
    """A sender's variable parts folded."""
    assert benchmark(normalise.sender, "<bounces+12345-6789=u=example.test@mail7.example.org>")


SPF_TEXT = b"v=spf1 ip4:198.51.100.0/24 ip4:203.0.113.7 ip6:2001:db8::/32 ip4:33.1.0.0/16 -all"


def spf_checked(answer: SpfAnswer) -> Outcome:
    """A client checked against a domain of one record, from its identity to the outcome."""
    steps = evaluate(Identity.of(CLIENT, "example.org", "someone", "mail.example.org"))
    next(steps)
    try:
        steps.send((answer,))
    except StopIteration as stop:
        outcome = stop.value
    assert isinstance(outcome, Outcome)
    return outcome


def test_spf_anew(benchmark: Any) -> None:
    """SPF of a domain of one record, parsed anew; the look-up is not in it."""
    answer = SpfAnswer(Status.FOUND, 300, (SPF_TEXT,))

    def check() -> Outcome:
        record._kept.cache_clear()
        return spf_checked(answer)

    assert benchmark(check).proven


def test_spf_parsed(benchmark: Any) -> None:
    """The same with the record as it was parsed before."""
    answer = SpfAnswer(Status.FOUND, 300, (SPF_TEXT,))
    assert benchmark(spf_checked, answer).proven


@pytest.fixture(scope="module")
def records() -> Iterator[Resolver]:
    """Of a nameserver that has the domain's record."""
    with Rbldnsd({"example.org": ("generic", f"s TXT {SPF_TEXT.decode()}\n")}) as running:
        yield Resolver((), [(running.host, running.port)])


def spf_carried(carrier: Carrier) -> Outcome | None:
    """A client checked against a domain of one record, its question carried."""
    chain = carrier.begin(Identity.of(CLIENT, "s.example.org", "someone", "mail.example.org"))
    run(chain.collect())
    chain.close()
    return chain.outcome


def test_spf_asked_anew(benchmark: Any, records: Resolver) -> None:
    """The same over a real socket, asked and parsed anew; the wait is in it."""
    carrier = Carrier(records)

    def check() -> Outcome | None:
        record._kept.cache_clear()
        carrier.cache = SpfCache()
        return spf_carried(carrier)

    outcome = benchmark(check)
    assert outcome
    assert outcome.proven


def test_spf_from_the_cache(benchmark: Any, records: Resolver) -> None:
    """The same with the answer in the cache."""
    carrier = Carrier(records)
    spf_carried(carrier)
    outcome = benchmark(spf_carried, carrier)
    assert outcome
    assert outcome.proven


def test_pools(benchmark: Any) -> None:
    """The pools of a client, of 48 with 50 networks of a dozen lengths each."""
    names = [f"{n}.example" for n in range(48)]
    networks = [
        tuple((((n << 22) + (m << 14)).to_bytes(4, "big"), 16 + m % 12) for m in range(50)) for n in range(48)
    ]
    states = {name: State(some, 0.0) for name, some in zip(names, networks, strict=True)}
    index = PoolIndex(names, states)
    assert benchmark(index.of, bytes((0, 0, 0, 1))).within


def test_host_name(benchmark: Any) -> None:
    """The kind of a host name."""
    assert benchmark(classify, "c-33-1-2-3.hsd1.ma.example.net", CLIENT) is Name.GENERIC


def test_touch(benchmark: Any) -> None:
    """One new triplet in a store on a unix socket; the wait is in it."""
    with Redis() as server:
        store = Store.open(server.unix_url, 5.0)
        grey = Greylist(store, GreyTerms())
        numbers = itertools.count()
        touch = benchmark(
            lambda: grey.touch("33.1.2.3", f"<s@d{next(numbers)}.example>", "<u@example.test>", 300)
        )
        store.close()
    assert touch.seconds_left == 300


def test_log_line(benchmark: Any, tmp_path: Path) -> None:
    """One verdict written to a file as JSON."""
    with (tmp_path / "log").open("w") as stream:
        logs.configure("info", "json", stream)
        log = logs.get()
        benchmark(lambda: log.info("verdict", **VERDICT))
    assert (tmp_path / "log").read_text().startswith("{")


def test_unwritten_log_line(benchmark: Any, tmp_path: Path) -> None:
    """One verdict that nobody wants."""
    with (tmp_path / "log").open("w") as stream:
        logs.configure("warning", "json", stream)
        log = logs.get()
        benchmark(lambda: log.info("verdict", **VERDICT))
    assert (tmp_path / "log").read_text() == ""


# What Postfix sends of one client with one recipient, in its writes.
SESSION = (
    NEGOTIATE,
    framed(b"DCj\0mx.example.test\0v\0Postfix 3.7\0{client_addr}\x0033.1.2.3\0")
    + framed(b"Cunknown\x004\x9c\x4033.1.2.3\0"),
    framed(b"DH")
    + framed(b"Hmail.example.org\0")
    + framed(b"DM{auth_authen}\0\0")
    + framed(b"M<someone@example.org>\0SIZE=1000\0")
    + framed(b"DRi\x004cTest0000\0")
    + framed(b"R<u@example.test>\0"),
    framed(b"A") + framed(b"Q"),
)
TERMS = Terms(
    actions=wire.ADD_HEADERS,
    steps=wire.NO_DATA
    | wire.NO_HEADERS
    | wire.NO_END_OF_HEADERS
    | wire.NO_BODY
    | wire.NO_UNKNOWN
    | wire.SILENT_HELO
    | wire.SILENT_MAIL,
    macros={
        wire.Stage.CONNECT: "j v {client_addr} {client_resolve}",
        wire.Stage.MAIL: "{auth_authen}",
        wire.Stage.RCPT: "i",
    },
)
WANTED = {
    events.Connect: (b"{client_resolve}", b"v"),
    events.Mail: (b"{auth_authen}",),
    events.Rcpt: (b"i",),
}


def test_milter_session(benchmark: Any) -> None:
    """All of the milter protocol in a session, the macros that are looked at included."""

    def session() -> int:
        connection, count = Connection(TERMS), 0
        for data in SESSION:
            connection.receive(data)
            while (event := connection.next_event()) is not None:
                count += 1
                for name in WANTED.get(type(event), ()):
                    connection.macro(name)
                if connection.due:
                    connection.reply(replies.CONTINUE)
            connection.sent(len(connection.output))
        return count

    assert benchmark(session) == 7
