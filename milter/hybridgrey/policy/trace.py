"""The way to a verdict: what each rule in turn makes of a client, and why.

`steps` puts into words what `judge.judge` has decided, from the same facts.  `retrace` does so afterwards,
for a verdict of which only the record is left, with the rules of now: those may have changed meanwhile, so it
says whether they still lead to the same rule.

What is not given (sender, recipient) stands for somebody of whom no rule knows.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from hybridgrey import envelope
from hybridgrey.clientaddress import ClientAddress
from hybridgrey.envelope import Mailbox
from hybridgrey.policy import conditions
from hybridgrey.policy.conditions import NO_ENTRY, PASS, UNKNOWN, ByHand, Hand, Spf, Unknown
from hybridgrey.policy.judge import Policy, Verdict, judge, kind_of
from hybridgrey.policy.match import Entry, Index
from hybridgrey.policy.rule import NO_POOL, NOT_LISTED, REFUSING, Action, Answer, Facts, Pools, Rule

# RFC 2606: nobody's.
SOMEBODY = "somebody@sender.invalid"
ANYBODY = "somebody@recipient.invalid"

UNASKED: Final = Facts(0, 0)


@dataclass(frozen=True, slots=True)
class Question:
    """Whom to judge; `host` counts as verified, None is what the client has not said."""

    client: str
    host: str | None = None
    helo: str | None = None
    sender: str | None = None
    recipient: str | None = None
    authenticated: bool = False

    @property
    def from_(self) -> Mailbox:
        """The sender, or somebody."""
        return envelope.read(SOMEBODY if self.sender is None else self.sender)

    @property
    def to(self) -> Mailbox:
        """The recipient, or somebody."""
        return envelope.read(ANYBODY if self.recipient is None else self.recipient)


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of a rule, whether it holds (None: unknown), and the entry or fact that decides."""

    name: str
    holds: bool | None
    because: str = ""


_SAID: Final[Mapping[bool | None, str]] = {True: "yes", False: "no", None: "unknown"}


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

    @property
    def why(self) -> str:
        """The conditions in words."""
        words = []
        for condition in self.conditions:
            detail = f" ({condition.because})" if condition.because else ""
            words.append(f"{condition.name}: {_SAID[condition.holds]}{detail}")
        if self.votes:
            hits = [f"{vote.entry}" for vote in self.votes if vote.weight]
            total = sum(vote.weight for vote in self.votes)
            of = f" = {total} of {self.threshold}" if self.threshold != 1 or len(hits) > 1 else ""
            words.append(f"dns: {' + '.join(hits) or 'none'}{of}")
        if not words and self.outcome != "not reached":
            words.append("no conditions")
        return "; ".join(words)


@dataclass(frozen=True, slots=True)
class Retraced:
    """The way of a recorded verdict; `rule` is the one that decides now, `agrees` whether it did then."""

    steps: tuple[Step, ...]
    rule: str | None
    agrees: bool


def steps(
    policy: Policy,
    verdict: Verdict,
    asked: Question,
    answers: Mapping[str, Answer],
    labels: Mapping[str, str],
    *,
    looked_up: bool,
    facts: Facts = UNASKED,
    pools: Pools = NO_POOL,
) -> Iterator[Step]:
    """Each rule in order; `labels` by zone, `looked_up`: whether the lists were asked at all.

    Of `facts` only what was asked for is looked at, SPF and all that comes after it.
    """
    client = policy.clients.read(asked.client)
    reached = True
    for rule in policy.rules:
        if not reached:
            yield Step(rule.name, rule.action, "not reached")
            continue
        held = (*_conditions(rule, asked, client), *_asked(rule, asked, client, facts, pools))
        votes = tuple(_votes(rule, answers, labels))
        outcome = "no match"
        if rule is verdict.rule:
            outcome = "matches"
            reached = False
        elif rule in verdict.noted:
            outcome = "noted"
        elif rule.lists and all(c.holds for c in held) and not looked_up:
            outcome = "not asked"
        yield Step(rule.name, rule.action, outcome, held, votes, rule.threshold)


def retrace(
    policy: Policy,
    asked: Question,
    answers: Mapping[str, Answer],
    labels: Mapping[str, str],
    rule: str | None,
    spf: Spf | None = None,
) -> Retraced:
    """The way of a verdict by the rule named `rule`; a list without an answer counts as "not listed".

    Records do not say whether the client had logged in, nor what was asked for, but for `spf`: what leads to
    the recorded rule is taken to be so.
    """
    client = policy.clients.read(asked.client)
    known = {zone: answers.get(zone, NOT_LISTED) for zone in policy.zones}
    recorded = next((one for one in policy.rules if one.name == rule), None)
    guess, pools = _leading_to(recorded, spf)
    facts = policy.connect(client.packed, asked.host, client.carried, pools)
    looked_up = policy.trusted(facts) is None and bool(policy.questions(facts))
    found: Retraced | None = None
    for authenticated in (False, True):
        said = replace(asked, authenticated=authenticated)
        mask = policy.transaction(facts, asked.helo, asked.from_, authenticated=authenticated)
        mask = policy.recipient(mask, asked.to)
        guess = guess._replace(sure=mask, maybe=mask, answers=known, unclear=facts.unclear)
        verdict = judge(policy, guess)
        assert isinstance(verdict, Verdict)  # noqa: S101 (every answer is in)
        name = verdict.rule.name if verdict.rule else None
        way = steps(policy, verdict, said, known, labels, looked_up=looked_up, facts=guess, pools=pools)
        retraced = Retraced(tuple(way), name, name == rule)
        if retraced.agrees:
            return retraced
        found = found or retraced
    assert found is not None  # noqa: S101 (the loop has run)
    return found


def _leading_to(rule: Rule | None, spf: Spf | None) -> tuple[Facts, Pools]:
    """Facts by which the conditions of a rule hold, and those of others on them do not, as far as may be."""
    if rule is None:
        return Facts(0, 0, spf=spf or UNKNOWN, by_hand=NO_ENTRY, correspondent=False, score=UNKNOWN), NO_POOL
    if spf is None and rule.correspondent:
        spf = Spf(PASS, rule.name)
    elif spf is None and rule.spf is not None and rule.spf.among:
        spf = Spf(min(rule.spf.among))
    facts = Facts(
        0,
        0,
        spf=spf or UNKNOWN,
        by_hand=ByHand(rule.by_hand is Hand.ALLOW, rule.by_hand is Hand.BLOCK),
        correspondent=bool(rule.correspondent),
        score=UNKNOWN if rule.score is None else rule.score.example,
    )
    return facts, Pools(frozenset(str(entry.key) for entry in rule.pools or () if not entry.excluded))


def _conditions(rule: Rule, asked: Question, client: ClientAddress) -> Iterator[Condition]:
    """The conditions of a rule, its lists apart."""
    carried = client.carried
    if carried is not None and not carried.proven and rule.lists and rule.action is Action.ACCEPT:
        yield Condition("proven address", False, f"{client.listed} is only carried by it")
    if rule.authenticated is not None:
        said = "logged in" if asked.authenticated else "not logged in"
        yield Condition("authenticated", rule.authenticated is asked.authenticated, said)
    mailboxes = (
        ("senders", rule.senders, asked.from_),
        ("recipients", rule.recipients, asked.to),
    )
    if rule.clients is not None:
        refusing = int(rule.action in REFUSING)
        holds, because = _held(
            rule.clients, lambda index: index.client(client.packed, asked.host, carried, refusing)
        )
        yield Condition("clients", holds, because)
    if rule.helo is not None:
        holds, because = _held(rule.helo, lambda index: index.name(asked.helo))
        yield Condition("helo", holds, because)
    for name, entries, box in mailboxes:
        if entries is not None:
            holds, because = rule.action is Action.GREYLIST, "the address cannot be read with certainty"
            if box.certain:
                holds, because = _held(entries, partial(_mailbox, box))
            yield Condition(name, holds, because)


def _asked(
    rule: Rule, asked: Question, client: ClientAddress, facts: Facts, pools: Pools
) -> Iterator[Condition]:
    """The conditions of a rule on what is looked up or asked for, its lists apart."""
    if rule.rdns is not None:
        kind = kind_of(asked.host, client.packed, client.carried)
        yield Condition("rdns", kind in rule.rdns, kind.value if kind else "no address")
    if rule.pools is not None:
        surely, possibly = Index([rule.pools]).names(pools.within, pools.unknown)
        named = sorted({str(entry.key) for entry in rule.pools} & pools.within)
        because = ", ".join(named) if surely == possibly else "not resolved yet"
        yield Condition("pools", bool(surely) if surely == possibly else None, because)
    spf = facts.spf
    if rule.spf is not None:
        yield Condition("spf", _truth(conditions.of_spf(rule.spf, spf)), _spf_text(spf))
    if rule.by_hand is not None:
        state = conditions.of_hand(rule.by_hand, facts.by_hand, spf)
        because = f"the sender, if SPF passes: {_spf_text(spf)}" if _by_spf(rule, facts) else ""
        yield Condition("by_hand", _truth(state), because)
    if rule.correspondent is not None:
        state = conditions.of_correspondent(rule.correspondent, facts.correspondent, spf)
        yield Condition("correspondent", _truth(state), _correspondent_text(facts))
    if rule.score is not None:
        state = conditions.of_score(rule.score, facts.score)
        because = f"{facts.score:g}" if isinstance(facts.score, float) else "not scanned"
        yield Condition("score", _truth(state), because)


def _truth(state: int) -> bool | None:
    """A state of `conditions` as one of three values."""
    if state & conditions.FALSE:
        return False
    return None if state else True


def _by_spf(rule: Rule, facts: Facts) -> bool:
    found = facts.by_hand
    return rule.by_hand is Hand.ALLOW and isinstance(found, ByHand) and found.allowed_by_spf


def _spf_text(spf: Spf | Unknown | None) -> str:
    if spf is None:
        return "not asked"
    if isinstance(spf, Unknown):
        return "not known"
    return f"{spf.result}, which proves {spf.proved}" if spf.proved else spf.result


def _correspondent_text(facts: Facts) -> str:
    known, spf = facts.correspondent, facts.spf
    if known is None:
        return "not asked"
    if isinstance(known, Unknown):
        return "not known"
    if not known:
        return "never written to"
    return (
        "written to" if isinstance(spf, Spf) and spf.proved else "written to; SPF does not prove the client"
    )


def _mailbox(box: Mailbox, index: Index) -> int:
    return index.mailbox(box)


def _held(entries: Sequence[Entry], ask: Callable[[Index], int]) -> tuple[bool, str]:
    """Whether a condition holds, and the entry that decides."""
    holds = bool(ask(Index([entries])))
    for entry in entries:
        if entry.excluded is not holds and ask(Index([(Entry(entry.key),)])):
            return holds, f"{'!' if entry.excluded else ''}{entry.key}"
    return holds, ""


def _votes(rule: Rule, answers: Mapping[str, Answer], labels: Mapping[str, str]) -> Iterator[Vote]:
    """What each entry of the rule's lists counts."""
    for entry in rule.lists:
        answer = answers.get(entry.zone, Answer())
        alone = Rule(rule.name, Action.REJECT, lists=(entry,), threshold=min(1, entry.weight))
        outcome = judge(Policy((alone,)), Facts(1, 1, {entry.zone: answer}))
        hit = isinstance(outcome, Verdict) and bool(outcome.hits)
        label = labels[entry.zone]
        shown = str(entry).replace(entry.zone, label, 1)
        yield Vote(shown, label, entry.weight if hit else 0)
