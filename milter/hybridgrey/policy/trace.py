"""The way to a verdict: what each rule in turn makes of a client, and why.

`steps` puts into words what `judge.judge` has decided, from the same facts.  `retrace` does so afterwards,
for a verdict of which only the record is left, with the rules of now: those may have changed meanwhile, so it
says whether they still lead to the same rule.

What is not given (sender, recipient) stands for somebody of whom no rule knows.  Pure; called by
`explanation`, and by `pagedata` for the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from hybridgrey import envelope
from hybridgrey.clientaddress import ClientAddress
from hybridgrey.envelope import Mailbox
from hybridgrey.policy.judge import NOT_LISTED, REFUSING, Action, Answer, Facts, Policy, Rule, Verdict, judge
from hybridgrey.policy.match import Entry, Index

# RFC 2606: nobody's.
SOMEBODY = "somebody@sender.invalid"
ANYBODY = "somebody@recipient.invalid"


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

    @property
    def why(self) -> str:
        """The conditions in words."""
        words = []
        for condition in self.conditions:
            detail = f" ({condition.because})" if condition.because else ""
            words.append(f"{condition.name}: {'yes' if condition.holds else 'no'}{detail}")
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
) -> Iterator[Step]:
    """Each rule in order; `labels` by zone, `looked_up`: whether the lists were asked at all."""
    client = policy.clients.read(asked.client)
    reached = True
    for rule in policy.rules:
        if not reached:
            yield Step(rule.name, rule.action, "not reached")
            continue
        conditions = tuple(_conditions(rule, asked, client))
        votes = tuple(_votes(rule, answers, labels))
        outcome = "no match"
        if rule is verdict.rule:
            outcome = "matches"
            reached = False
        elif rule in verdict.noted:
            outcome = "noted"
        elif rule.lists and all(c.holds for c in conditions) and not looked_up:
            outcome = "not asked"
        yield Step(rule.name, rule.action, outcome, conditions, votes, rule.threshold)


def retrace(
    policy: Policy,
    asked: Question,
    answers: Mapping[str, Answer],
    labels: Mapping[str, str],
    rule: str | None,
) -> Retraced:
    """The way of a verdict by the rule named `rule`; a list without an answer counts as "not listed".

    Records do not say whether the client had logged in: what leads to the recorded rule is taken to be so.
    """
    client = policy.clients.read(asked.client)
    facts = policy.connect(client.packed, asked.host, client.carried)
    known = {zone: answers.get(zone, NOT_LISTED) for zone in policy.zones}
    looked_up = policy.trusted(facts) is None and bool(policy.questions(facts))
    found: Retraced | None = None
    for authenticated in (False, True):
        guess = replace(asked, authenticated=authenticated)
        mask = policy.transaction(facts.maybe, asked.helo, asked.from_, authenticated=authenticated)
        mask = policy.recipient(mask, asked.to)
        verdict = judge(policy, Facts(mask, mask, known))
        assert isinstance(verdict, Verdict)  # noqa: S101 (every answer is in)
        name = verdict.rule.name if verdict.rule else None
        way = Retraced(
            tuple(steps(policy, verdict, guess, known, labels, looked_up=looked_up)), name, name == rule
        )
        if way.agrees:
            return way
        found = found or way
    assert found is not None  # noqa: S101 (the loop has run)
    return found


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
