"""Why a client gets what it gets: the verdict, and the way to it through rules, lists and greylist.

The same parts judge as in a worker (`Screen`, `Policy`, `Resolver`, the lists' health); only the greylist is
looked at (`Greylist.peek`) instead of touched, so nothing changes.  All lists that the client's rules name
are waited for, also those whose answers no longer matter, so that they can be shown.

What is not given (sender, recipient) stands for somebody of whom no rule knows.  Called by `cli.explain`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rdatatype

from hybridgrey import address, question, zones
from hybridgrey.assembly import nameservers
from hybridgrey.config import Config
from hybridgrey.greylist import Greylist, Touch
from hybridgrey.health import Prober
from hybridgrey.lookup import SUSPENDED, Resolver
from hybridgrey.match import Entry, Index
from hybridgrey.policy import Action, Answer, Facts, Policy, Rule, Verdict, judge
from hybridgrey.screen import Client, Decision, Screen, plain

# RFC 2606: nobody's.
SOMEBODY = "somebody@sender.invalid"
ANYBODY = "somebody@recipient.invalid"
TEXT_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class Question:
    """Whom to judge; `host` counts as verified, None is what the client has not said."""

    client: str
    host: str | None = None
    helo: str | None = None
    sender: str | None = None
    recipient: str | None = None
    authenticated: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of a rule, whether it holds, and the entry or fact that decides."""

    name: str
    holds: bool
    because: str = ""


@dataclass(frozen=True, slots=True)
class Vote:
    """What an entry of a rule's ``dns`` counts: its weight, or 0."""

    entry: str
    label: str
    weight: int


@dataclass(frozen=True, slots=True)
class Step:
    """A rule on the way: "matches" (and decides), "noted" (action none), "no match" or "not reached"."""

    rule: str
    action: Action
    outcome: str
    conditions: tuple[Condition, ...] = ()
    votes: tuple[Vote, ...] = ()
    threshold: int = 1


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

    @property
    def passes(self) -> bool:
        """Whether the recipient is let through now."""
        return not self.reply


class Peek:
    """A greylist that is only looked at (`screen.Triplets`)."""

    def __init__(self, greylist: Greylist) -> None:
        self._greylist = greylist

    def touch(self, client: str, sender: str, recipient: str, delay: int) -> Touch:
        """What an attempt would meet now; raises StoreError."""
        return self._greylist.peek(client, sender, recipient, delay)


def explain(config: Config, greylist: Greylist, asked: Question) -> Explanation:
    """Judge a client as the daemon would, and say why. A bad world is in the answer, not raised."""
    built = zones.build(config.rules, config.zones)
    servers = nameservers(config)
    policy = Policy(config.rules)
    packed = address.packed(asked.client)
    suspended = bytearray(len(built))
    reasons = _probe(
        built, servers, policy, policy.connect(packed, asked.host), suspended, config.dns.timeout
    )
    resolver = Resolver(built, servers, timeout=config.dns.timeout, suspended=suspended)
    screen = Screen(config, policy, built, resolver, Peek(greylist))
    client = screen.connect(asked.client, asked.host)
    try:
        lists = _lists(client, screen, servers, reasons)
        decision = _decide(screen, client, asked)
    finally:
        client.close()
    answers = client.lookup.answers if client.lookup else {}
    rule = decision.verdict.rule
    return Explanation(
        action=decision.verdict.action,
        rule=rule.name if rule else None,
        reply=_reply_text(decision),
        steps=tuple(_steps(policy, decision.verdict, client, asked, answers, screen)),
        lists=tuple(lists),
        touch=decision.touch,
        delay=config.greylist.delay if rule is None or rule.delay is None else rule.delay,
        store_error=decision.store_error,
        nameserver_error=_nameserver_error(answers, servers),
    )


def _probe(
    built: Sequence[zones.Zone],
    servers: Sequence[tuple[str, int]],
    policy: Policy,
    facts: Facts,
    suspended: bytearray,
    timeout: float,
) -> dict[str, str]:
    """Find out which lists the daemon would have suspended; why, by label."""
    names = () if policy.trusted(facts) else policy.questions(facts)
    wanted = [zone for zone in built if zone.name in names]
    if not wanted:
        return {}
    health = Prober(built, servers, flags=suspended, timeout=timeout).probe_once(wanted)
    return {one.label: one.reason for one in health}


def _lists(
    client: Client, screen: Screen, servers: Sequence[tuple[str, int]], reasons: Mapping[str, str]
) -> list[ListAnswer]:
    """Wait for all lists; what each says, with its words for the client."""
    lookup = client.lookup
    if lookup is None or client.packed is None:
        return []
    names = screen.policy.questions(client.facts)
    while missing := frozenset(names) - lookup.answers.keys():
        lookup.collect(missing)
    answers = []
    for name in names:
        answer, label = lookup.answers[name], screen.zones[name].label
        if answer.codes and not answer.error and name not in lookup.texts:
            # As known to a daemon that has run for a while, which does not wait for it either.
            lookup.texts[name] = _text(client.packed, screen.zones[name], servers)
        error = answer.error
        if answer is SUSPENDED:
            error = f"suspended: {reasons.get(label, '')}"
        codes = tuple(map(zones.code_text, sorted(answer.codes)))
        answers.append(ListAnswer(label, codes, error, answer.seconds, plain(lookup.texts.get(name, ""))))
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


def _decide(screen: Screen, client: Client, asked: Question) -> Decision:
    sender = SOMEBODY if asked.sender is None else asked.sender
    recipient = ANYBODY if asked.recipient is None else asked.recipient
    transaction = screen.policy.transaction(
        client.facts.maybe, asked.helo, sender, authenticated=asked.authenticated
    )
    return screen.judge(client, transaction, sender, recipient)


def _reply_text(decision: Decision) -> str:
    reply = decision.reply
    return "" if reply is None else f"{reply.code} {reply.enhanced} {reply.text}"


def _steps(
    policy: Policy,
    verdict: Verdict,
    client: Client,
    asked: Question,
    answers: Mapping[str, Answer],
    screen: Screen,
) -> Iterator[Step]:
    reached = True
    for rule in policy.rules:
        if not reached:
            yield Step(rule.name, rule.action, "not reached")
            continue
        conditions = tuple(_conditions(rule, client, asked))
        votes = tuple(_votes(rule, answers, screen))
        outcome = "no match"
        if rule is verdict.rule:
            outcome = "matches"
            reached = False
        elif rule in verdict.noted:
            outcome = "noted"
        elif rule.lists and all(c.holds for c in conditions) and client.lookup is None:
            outcome = "not asked"
        yield Step(rule.name, rule.action, outcome, conditions, votes, rule.threshold)


def _conditions(rule: Rule, client: Client, asked: Question) -> Iterator[Condition]:
    """The conditions of a rule, its lists apart."""
    if rule.authenticated is not None:
        said = "logged in" if asked.authenticated else "not logged in"
        yield Condition("authenticated", rule.authenticated is asked.authenticated, said)
    mailboxes = (
        ("senders", rule.senders, SOMEBODY if asked.sender is None else asked.sender),
        ("recipients", rule.recipients, ANYBODY if asked.recipient is None else asked.recipient),
    )
    if rule.clients is not None:
        holds, because = _held(rule.clients, lambda index: index.client(client.packed, client.host))
        yield Condition("clients", holds, because)
    if rule.helo is not None:
        holds, because = _held(rule.helo, lambda index: index.name(asked.helo))
        yield Condition("helo", holds, because)
    for name, entries, mailbox in mailboxes:
        if entries is not None:
            holds, because = _held(entries, partial(_mailbox, mailbox))
            yield Condition(name, holds, because)


def _mailbox(text: str, index: Index) -> int:
    return index.mailbox(text)


def _held(entries: Sequence[Entry], ask: Callable[[Index], int]) -> tuple[bool, str]:
    """Whether a condition holds, and the entry that decides."""
    holds = bool(ask(Index([entries])))
    for entry in entries:
        if entry.excluded is not holds and ask(Index([(Entry(entry.key),)])):
            return holds, f"{'!' if entry.excluded else ''}{entry.key}"
    return holds, ""


def _votes(rule: Rule, answers: Mapping[str, Answer], screen: Screen) -> Iterator[Vote]:
    """What each entry of the rule's lists counts."""
    for entry in rule.lists:
        answer = answers.get(entry.zone, Answer())
        alone = Rule(rule.name, Action.REJECT, lists=(entry,), threshold=min(1, entry.weight))
        outcome = judge(Policy((alone,)), Facts(1, 1, {entry.zone: answer}))
        hit = isinstance(outcome, Verdict) and bool(outcome.hits)
        label = screen.zones[entry.zone].label
        shown = str(entry).replace(entry.zone, label, 1)
        yield Vote(shown, label, entry.weight if hit else 0)


def _nameserver_error(answers: Mapping[str, Answer], servers: Sequence[tuple[str, int]]) -> str:
    """What to say when no list at all has answered."""
    heard = [a for a in answers.values() if a is not SUSPENDED]
    if not heard or not all(a.silent for a in heard):
        return ""
    shown = ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in servers)
    return f"no list has answered through {shown}: check [dns] nameservers"
