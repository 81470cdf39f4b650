"""Why a client gets what it gets: the verdict, and the way to it through rules, lists and greylist.

The same parts judge as in a worker (`Screen`, `Policy`, `Resolver`, the lists' health); only the greylist is
looked at (`Greylist.glance`) instead of touched, so nothing changes.  All lists that the client's rules name
are waited for, also those whose answers no longer matter, so that they can be shown.

What is not given (sender, recipient) stands for somebody of whom no rule knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rdatatype

from hybridgrey.address import endpoint_text
from hybridgrey.config.load import Config
from hybridgrey.content import scanner
from hybridgrey.content.scanner import Scanned
from hybridgrey.filter.awaited import Steps
from hybridgrey.filter.blocking import Blocking
from hybridgrey.filter.pending import described
from hybridgrey.filter.reply import printable
from hybridgrey.filter.screen import Client, Decision, InPools, Screen
from hybridgrey.greylist.peek import Peek
from hybridgrey.greylist.triplets import Greylist, Touch
from hybridgrey.hand.correspondents import Correspondents
from hybridgrey.hand.entries import Entry
from hybridgrey.hand.expected import Expected
from hybridgrey.hand.table import EMPTY, Table
from hybridgrey.lists import question, zones
from hybridgrey.lists.awaited import run
from hybridgrey.lists.health import Health, Prober
from hybridgrey.lists.lookup import SUSPENDED
from hybridgrey.lists.resolv import nameservers
from hybridgrey.lists.resolver import Resolver
from hybridgrey.lists.upstream import NoReporter
from hybridgrey.metrics.series import none_works
from hybridgrey.policy.conditions import ByHand, Spf, Unknown
from hybridgrey.policy.judge import REFUSING, Action, Answer, Facts, Policy, Rule, Verdict
from hybridgrey.policy.trace import Question, Step, steps
from hybridgrey.spf.carrier import Carrier
from hybridgrey.spf.proof import Widths
from hybridgrey.store.connection import Store

TEXT_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class ListAnswer:
    """What a list said of the client."""

    label: str
    codes: tuple[str, ...]
    error: str
    seconds: float
    text: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The verdict and the way to it.

    `reply` is what the client gets, "" when it passes; `delay` (seconds) is that of the rule that greylists.
    `too_late` are rules that would let the client in, but stand below the one that refuses it.  `expected`:
    it would be delayed, but mail for the recipient is expected.  `entries` are those by hand that name them.
    `spf` is its result, "" where nobody has asked, `proved` the domain that it proves; `domain` is that one
    if the greylist lets it in for that.  `pending`: the score of the message decides; without `scanned` it is
    taken for unknown here.
    """

    action: Action
    rule: str | None
    reply: str
    steps: tuple[Step, ...]
    lists: tuple[ListAnswer, ...]
    touch: Touch | None
    delay: int
    store_error: str
    nameserver_error: str
    no_list_works: bool = False
    too_late: tuple[str, ...] = ()
    expected: bool = False
    entries: tuple[Entry, ...] = ()
    spf: str = ""
    proved: str = ""
    domain: str = ""
    pending: bool = False
    scanned: Scanned | None = None

    @property
    def passes(self) -> bool:
        """Whether the recipient is let through now."""
        return not self.reply


class _NoMacros:
    """What an MTA would tell beside the commands (`macros.Symbols`): nothing is known of it."""

    def getsymval(self, _name: str, /) -> None:
        """None."""
        return


def explain(
    config: Config,
    greylist: Greylist,
    store: Store,
    asked: Question,
    by_hand: Table = EMPTY,
    *,
    pools: InPools | None = None,
    message: bytes | None = None,
) -> Explanation:
    """Judge a client as the daemon would, and say why. A bad world is in the answer, not raised.

    `by_hand` are the entries by hand; `pools`: as for `Screen`; `message` is scanned where a score is wanted.
    """
    built = zones.build(config.rules, config.zones)
    servers = nameservers(config.dns.nameservers)
    policy = Policy(config.rules, config.dns.clients)
    suspended = bytearray(len(built))
    resolver = Resolver(built, servers, timeout=config.dns.timeout, suspended=suspended)
    carrier = Carrier(resolver, Widths(config.spf.widest_ipv4, config.spf.widest_ipv6))
    # Of somebody who is not given there is no SPF record to be asked for.
    spf = None if asked.sender is None else carrier
    screen = _screen(config, policy, built, resolver, greylist, by_hand, spf, pools)
    source = policy.clients.read(asked.client)
    within = screen.within(source)
    facts = policy.connect(source.packed, asked.host, source.carried, within)
    # Before the lists are asked: what it marks has no vote.
    health = _probe(built, servers, policy, facts, suspended, config.dns.timeout)
    with closing(screen.connect(asked.client, asked.host)) as client:
        lists = _lists(client, screen, servers, {one.label: one.reason for one in health})
        decision, pending = Blocking(store).run(_decide(screen, client, asked, message, config.hostname))
    answers = client.lookup.answers if client.lookup else {}
    labels = {zone.name: zone.label for zone in built}
    about = (source.packed, source.carried, asked.host, asked.from_, asked.to)
    known, looked_up = _learnt(decision, by_hand.of(*about)), client.lookup is not None
    way = steps(
        policy, decision.verdict, asked, answers, labels, looked_up=looked_up, facts=known, pools=within
    )
    entries = by_hand.naming(*about)
    return replace(
        _outcome(config, decision),
        steps=tuple(_with_entry(*pair, entries) for pair in zip(way, policy.rules, strict=True)),
        lists=tuple(lists),
        nameserver_error=_nameserver_error(answers, servers),
        no_list_works=none_works(str(one.state) for one in health),
        too_late=tuple(_too_late(policy, decision.verdict, facts, asked)),
        entries=tuple(entries),
        pending=pending,
    )


def _screen(
    config: Config,
    policy: Policy,
    built: Sequence[zones.Zone],
    resolver: Resolver,
    greylist: Greylist,
    by_hand: Table,
    spf: Carrier | None,
    pools: InPools | None,
) -> Screen:
    """The filter of a configuration, by which nothing is changed."""
    secret = config.store.key_secret.get_secret_value()
    return Screen(
        config,
        policy,
        built,
        resolver,
        Peek(greylist),
        Expected(secret),
        by_hand.of,
        spf=spf,
        pools=pools,
        correspondents=Correspondents(config.correspondents, secret),
        scanner=scanner.of(config, NoReporter()),
    )


def _learnt(decision: Decision, by_hand: ByHand | Unknown) -> Facts:
    """What was asked for, as `steps` wants it."""
    score = None if decision.scanned is None else decision.scanned.score
    correspondent = decision.correspondent
    return Facts(0, 0, spf=decision.spf, by_hand=by_hand, correspondent=correspondent, score=score)


def _outcome(config: Config, decision: Decision) -> Explanation:
    """What a decision itself says; the way to it is still missing."""
    verdict = decision.verdict
    spf = decision.spf if isinstance(decision.spf, Spf) else Spf("")
    return Explanation(
        action=verdict.action,
        rule=verdict.rule.name if verdict.rule else None,
        reply=_reply_text(decision),
        steps=(),
        lists=(),
        touch=decision.touch,
        delay=config.greylist.delay if verdict.delay is None else verdict.delay,
        store_error=decision.store_error,
        nameserver_error="",
        expected=decision.expected,
        spf=spf.result,
        proved=spf.proved,
        domain=decision.domain,
        scanned=decision.scanned,
    )


def _with_entry(step: Step, rule: Rule, entries: Sequence[Entry]) -> Step:
    """A step with the entries by hand that its rule heeds."""
    first = {entry.subject.about: entry for entry in reversed(entries)}  # the most specific of each
    makers = [f"{e.subject.text}, by {e.who}" for e in first.values() if e.kind is rule.by_hand]
    if not makers:
        return step
    return replace(
        step,
        conditions=tuple(
            replace(one, because="; ".join([*sorted(makers), *filter(None, [one.because])]))
            if one.name == "by_hand"
            else one
            for one in step.conditions
        ),
    )


def _probe(
    built: Sequence[zones.Zone],
    servers: Sequence[tuple[str, int]],
    policy: Policy,
    facts: Facts,
    suspended: bytearray,
    timeout: float,
) -> Sequence[Health]:
    """How the lists are that have a say; those that the daemon would have suspended are marked."""
    names = () if policy.trusted(facts) else policy.questions(facts)
    wanted = [zone for zone in built if zone.name in names]
    return Prober(built, servers, flags=suspended, timeout=timeout).probe_once(wanted) if wanted else []


def _lists(
    client: Client, screen: Screen, servers: Sequence[tuple[str, int]], reasons: Mapping[str, str]
) -> list[ListAnswer]:
    """Wait for all lists; what each says, with its words for the client."""
    lookup = client.lookup
    if lookup is None or client.source.asked is None:
        return []
    names = screen.policy.questions(client.facts)
    while missing := frozenset(names) - lookup.answers.keys():
        run(lookup.collect(missing))
    answers = []
    for name in names:
        answer, zone = lookup.answers[name], screen.zones[name]
        if answer.codes and not answer.error and name not in lookup.texts:
            # As known to a daemon that has run for a while, which does not wait for it either.
            lookup.tell(name, _text(client.source.asked, zone, servers))
        error = answer.error
        if answer is SUSPENDED:
            error = f"suspended: {reasons.get(zone.label, '')}"
        codes = tuple(map(zones.code_text, sorted(answer.codes)))
        text = printable(zone.without_key(lookup.texts.get(name, "")))
        answers.append(ListAnswer(zone.label, codes, error, answer.seconds, text))
    return answers


def _text(client: bytes, zone: zones.Zone, servers: Sequence[tuple[str, int]]) -> str:
    """A list's TXT record for a client; "" when there is none to be had."""
    name, _ = dns.name.from_wire(question.reversed_name(client) + zone.text_tail[:-4], 0)
    query = dns.message.make_query(name, dns.rdatatype.TXT)
    for host, port in servers:
        try:
            reply, _ = dns.query.udp_with_fallback(query, host, TEXT_TIMEOUT, port)
        except (dns.exception.DNSException, OSError):  # the next nameserver may answer
            continue
        records = [record for rrset in reply.answer for record in rrset if record.rdtype == dns.rdatatype.TXT]
        return b"".join(records[0].strings).decode("utf-8", "replace") if records else ""
    return ""


def _decide(
    screen: Screen, client: Client, asked: Question, message: bytes | None, name: str
) -> Steps[tuple[Decision, bool]]:
    """The decision, and whether the recipient was pending."""
    transaction = screen.mail(client, asked.helo, asked.from_, authenticated=asked.authenticated)
    transaction.scans = screen.scanner is not None
    try:
        judged = yield from screen.judge(transaction, asked.to)
        if isinstance(judged, Decision):
            return judged, False
        if message is None or screen.scanner is None:
            return (yield from screen.delay(judged)), True
        collected = screen.scanner.message()
        collected.file(message)
        scan = screen.scanner.scan(described(_NoMacros(), transaction, (asked.to.text,), name), collected)
        return (yield from screen.decide(judged, (yield from scan))), True
    finally:
        transaction.close()


def _too_late(policy: Policy, verdict: Verdict, facts: Facts, asked: Question) -> Iterator[str]:
    """Rules that name the client and accept it, below the one that refuses."""
    if verdict.action not in REFUSING or verdict.rule is None:
        return
    mask = policy.transaction(facts, asked.helo, asked.from_, authenticated=asked.authenticated)
    mask = policy.recipient(mask, asked.to)
    for number in range(policy.rules.index(verdict.rule) + 1, len(policy.rules)):
        rule = policy.rules[number]
        if (
            rule.action is Action.ACCEPT
            and rule.clients is not None
            and not rule.lists
            and mask >> number & 1
        ):
            yield rule.name


def _reply_text(decision: Decision) -> str:
    reply = decision.reply
    return "" if reply is None else f"{reply.code} {reply.enhanced} {reply.text}"


def _nameserver_error(answers: Mapping[str, Answer], servers: Sequence[tuple[str, int]]) -> str:
    """What to say when no list at all has answered."""
    heard = [a for a in answers.values() if a is not SUSPENDED]
    if not heard or not all(a.silent for a in heard):
        return ""
    shown = ", ".join(endpoint_text(*server) for server in servers)
    return f"no list has answered through {shown}: check [dns] nameservers"
