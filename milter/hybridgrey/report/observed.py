"""What happened, or in observe mode would have: the ``verdict`` lines of the log, summed up.

The log is read as a stream, and memory is bounded whatever is in it: verdicts, rules and lists are few, and
of clients and senders only the heaviest are kept (`Heaviest`).  A line that is no JSON object is counted,
other events are passed over.

Terms: a recipient is *claimed* by the lists that have its client with a code that counts; lists are
blocklists or allowlists by the rules that ask them, so the report needs the configuration to tell them apart.
*Delayed* is a recipient that got a temporary refusal of greylisting, *passed* one that was let through,
whatever the rule.

The same report comes from the counts of the store's history (`summed`): with numbers only where the log has
names, and networks and domains for clients and senders.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Any, Final

from hybridgrey import logline
from hybridgrey.envelope import shortened
from hybridgrey.history.layout import NOTED, Rows, labels_of
from hybridgrey.outcome import Outcome, outcome_of, outcome_of_event
from hybridgrey.policy.pattern import Pattern

# Keys held for a top ten: enough for the counts of the ten to be right in any log but one made against it.
MOST_KEYS: Final = 20_000
MAX_KEY: Final = 320  # characters; an address has at most 254
MAX_NAMES: Final = 2000  # rules and lists: the names of a log that was tampered with must end somewhere
MAX_SAMPLES: Final = 50

Patterns = Mapping[str, Sequence[Pattern | None]]


class Heaviest:
    """Counts of many keys in bounded memory: when there are too many the lightest half is let go.

    A key that was let go starts again, so a count can be too low, never too high; `exact` says whether none
    was.
    """

    def __init__(self, limit: int = MOST_KEYS) -> None:
        self._limit = limit
        self._counts: Counter[str] = Counter()
        self.exact = True

    def add(self, key: str) -> None:
        """Count a key."""
        self._counts[shortened(key, MAX_KEY)] += 1
        if len(self._counts) > self._limit:
            self.exact = False
            self._counts = Counter(dict(self._counts.most_common(self._limit // 2)))

    @classmethod
    def of(cls, counts: Iterable[tuple[str, int]]) -> Heaviest:
        """Counts that are there already."""
        made = cls()
        made._counts.update(dict(counts))
        return made

    def top(self, number: int) -> list[tuple[str, int]]:
        """The heaviest keys, by count and then by name."""
        return heapq.nsmallest(number, self._counts.items(), key=lambda item: (-item[1], item[0]))


@dataclass(frozen=True, slots=True)
class Claim:
    """A recipient whose client both a blocklist and an allowlist have."""

    time: str
    client: str
    sender: str
    recipient: str
    outcome: str
    blocklists: tuple[str, ...]
    allowlists: tuple[str, ...]


@dataclass(slots=True)
class Summary:
    """The report; counts are recipients.

    `outcomes` are by their words; `rules` has them by rule.  `lists` counts recipients
    whose client a list has, `trouble` those for which it failed.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    rules: dict[str, Counter[str]] = field(default_factory=dict)
    noted: Counter[str] = field(default_factory=Counter)
    lists: Counter[str] = field(default_factory=Counter)
    trouble: Counter[str] = field(default_factory=Counter)
    clients: dict[str, Heaviest] = field(default_factory=dict)
    senders: dict[str, Heaviest] = field(default_factory=dict)
    claims: int = 0
    samples: list[Claim] = field(default_factory=list)
    verdicts: int = 0
    enforced: int = 0
    first: str = ""
    last: str = ""
    garbage: int = 0
    other: int = 0
    earlier: int = 0

    @property
    def lines(self) -> int:
        """Lines of the log that were read."""
        return self.verdicts + self.garbage + self.other + self.earlier


class VerdictReader:
    """Sums up lines; `since` is Unix seconds, lists come by their labels with the patterns that count."""

    def __init__(self, blocklists: Patterns, allowlists: Patterns, since: float = 0.0) -> None:
        self._blocklists = blocklists
        self._allowlists = allowlists
        # Texts of one form sort as their times do, and are compared a hundred times as fast.
        self._since = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%dT%H:%M:%S") if since else ""
        self.summary = Summary()

    def read(self, lines: Iterable[bytes]) -> None:
        """Take in the lines of a log."""
        for line in lines:
            if not line.strip():
                continue
            event = logline.event(line)
            if event is None:
                self.summary.garbage += 1
            elif event.get("event") != "verdict":
                self.summary.other += 1
            elif _text(event.get("ts")) < self._since:
                self.summary.earlier += 1
            else:
                self._verdict(event)

    def _verdict(self, event: Mapping[str, Any]) -> None:
        summary = self.summary
        summary.verdicts += 1
        summary.enforced += event.get("enforced") is not False
        ts = _text(event.get("ts"))
        summary.first = min(summary.first or ts, ts)
        summary.last = max(summary.last, ts)
        what = outcome_of_event(event)
        summary.outcomes[what] += 1
        rule = _text(event.get("rule")) or "(no rule)"
        if rule in summary.rules or len(summary.rules) < MAX_NAMES:
            summary.rules.setdefault(rule, Counter())[what] += 1
        noted = event.get("noted")
        for name in noted if isinstance(noted, list) else ():
            _count(summary.noted, _text(name))
        summary.clients.setdefault(what, Heaviest()).add(_text(event.get("client")))
        summary.senders.setdefault(what, Heaviest()).add(_text(event.get("sender")))
        self._listings(event)

    def _listings(self, event: Mapping[str, Any]) -> None:
        listed = event.get("lists")
        if not isinstance(listed, dict):
            return
        having: dict[str, list[object]] = {}
        for label, codes in listed.items():
            if isinstance(codes, list):
                having[label] = codes
                _count(self.summary.lists, label)
            else:
                _count(self.summary.trouble, label)
        blocking = tuple(label for label in having if _counts(self._blocklists.get(label), having[label]))
        allowing = tuple(label for label in having if _counts(self._allowlists.get(label), having[label]))
        if blocking and allowing:
            self._claimed(event, blocking, allowing)

    def _claimed(
        self, event: Mapping[str, Any], blocking: tuple[str, ...], allowing: tuple[str, ...]
    ) -> None:
        self.summary.claims += 1
        if len(self.summary.samples) < MAX_SAMPLES:
            ts, client, sender, recipient = (
                _text(event.get(key))[:MAX_KEY] for key in ("ts", "client", "sender", "recipient")
            )
            claim = Claim(ts, client, sender, recipient, outcome_of_event(event), blocking, allowing)
            self.summary.samples.append(claim)


def summed(
    history: Rows, tops: Mapping[str, Sequence[tuple[str, int]]], step: int = 0, now: float = math.inf
) -> Summary:
    """The report of counts by series and moment (`history.layout` names them), and of the heaviest of all.

    A moment is the beginning of `step` seconds, of which those after `now` have not been.
    """
    summary = Summary()
    moments: set[int] = set()
    for name, counts in history.items():
        if name.startswith("outcome:"):
            moments.update(counts)
        _add(summary, labels_of(name), sum(counts.values()))
    if moments:
        summary.first, summary.last = _iso(min(moments)), _iso(int(min(max(moments) + step, now)))
    for kind, heaviest in tops.items():
        what, _, label = kind.partition("/")
        got = outcome_of(label)
        if heaviest and got is not None:
            held = summary.clients if what == "network" else summary.senders
            held[got] = Heaviest.of(heaviest)
    return summary


def _add(summary: Summary, series: Sequence[str | Outcome], number: int) -> None:
    """Add the sum of one series of the history."""
    match series:
        case "outcome", Outcome() as got, mode:
            summary.verdicts += number
            summary.enforced += number if mode == "enforced" else 0
            summary.outcomes[got] += number
        case "rule", rule, Outcome() as got:
            summary.rules.setdefault(rule, Counter())[got] += number
        case "rule", rule, what if what == NOTED:
            summary.noted[rule] += number
        case "list", label, "listed":
            summary.lists[label] += number
        case "list", label, "error" | "timeout":
            summary.trouble[label] += number
        case ["claimed_by_both"]:
            summary.claims += number


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _counts(patterns: Sequence[Pattern | None] | None, codes: Iterable[object]) -> bool:
    """Whether one of the codes of a list, as ``127.0.0.2``, is one that a rule asks for."""
    for code in codes if patterns else ():
        try:
            packed = IPv4Address(code if isinstance(code, str) else "").packed
        except ValueError:
            continue
        if any(pattern is None or pattern.matches(packed) for pattern in patterns or ()):
            return True
    return False


def _count(counter: Counter[str], name: str) -> None:
    if name in counter or len(counter) < MAX_NAMES:
        counter[name] += 1
