"""From decisions to metrics and records: what happens in a session is counted (`followup.Counts`).

What the lists said of a client is counted when it leaves, for then the late answers are in too: the share of
the rejects that only one list caught, and the recipients whose client a blocklist and an allowlist have, are
those that the admin would see with all time in the world.  Put together by `assembly`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from hybridgrey.filter.screen import Client, Decision
from hybridgrey.lists.zones import Zone
from hybridgrey.metrics.meter import Meter
from hybridgrey.metrics.ring import RECORD_MAX, RingWriter, packed
from hybridgrey.metrics.series import flag
from hybridgrey.outcome import LET_IN_EARLY, Outcome, Reason
from hybridgrey.policy.judge import Action, Answer, Rule
from hybridgrey.policy.pattern import Pattern

Patterns = Mapping[str, Sequence[Pattern | None]]
"""The codes that count, by zone; None: any."""

# What a list's answer means for its client, as bits: rules reject by it, it speaks against, or in favour.  A
# list that is only tried, or that has mail put off, speaks against a client too.
_REJECTS, _AGAINST, _FOR = 1, 2, 4
_ACTIONS = {
    _REJECTS: frozenset({Action.REJECT}),
    _AGAINST: frozenset({Action.REJECT, Action.TEMPFAIL, Action.NONE}),
    _FOR: frozenset({Action.ACCEPT}),
}
# Lists give few different codes, and what they mean is found once; a hostile list gives ever new ones.
_MOST_MEANINGS = 4096
# Bytes that a record's time and its punctuation take at most.
MOST_OF_TIME: Final = 64


class _Tally:
    """How many recipients of a client were judged, and how many of these rejected for what lists said."""

    __slots__ = ("judged", "refused")

    def __init__(self) -> None:
        self.judged = self.refused = 0


class Counts:
    """One worker's; used by one thread at a time."""

    def __init__(
        self,
        meter: Meter,
        rules: Sequence[Rule],
        zones: Iterable[Zone],
        ring: RingWriter | None = None,
        mx: str = "",
    ) -> None:
        """`ring` is for the records of verdicts by the host `mx`; without one there are none."""
        self._meter = meter
        self._ring = ring
        self._mx = mx
        self._place = packed({"mx": mx})[1:-1]
        self.records = ring is not None
        self._labels = {zone.name: zone.label for zone in zones}
        self._patterns = {bit: _patterns(rules, actions) for bit, actions in _ACTIONS.items()}
        # Of clients that lists were asked about, until they leave.
        self._tallies: dict[Client, _Tally] = {}
        self._meanings: dict[tuple[str, tuple[bytes, ...]], int] = {}

    def decided(self, client: Client, decision: Decision, outcome: Outcome, reason: Reason) -> None:
        """Count a verdict and what the greylist said."""
        verdict, touch, error = decision.verdict, decision.touch, decision.store_error
        meter, rule, action = self._meter, verdict.rule, verdict.action
        # Not `value`, which is a function in Python; here and below.
        name = rule.name if rule else None
        meter.decided(name, action._value_, outcome, decision.waited, reason._value_)
        if decision.scanned is not None and decision.scanned.spam is not None:
            self._scanned(outcome, reason, spam=decision.scanned.spam)
        tally = None
        if client.lookup is not None:
            tally = self._tallies.get(client) or self._tallies.setdefault(client, _Tally())
            tally.judged += 1
        if touch is not None:
            meter.greylisted(touch.state._value_, touch.age, decision.stored)
        elif error:
            meter.store_failed()
        elif tally is not None and action is Action.REJECT and verdict.hits:
            tally.refused += 1
        for noted in verdict.noted:
            meter.noted(noted.name)

    def _scanned(self, outcome: Outcome, reason: Reason, *, spam: bool) -> None:
        """Count what the scanner says of mail that was let in early."""
        if outcome is Outcome.ACCEPTED and reason in LET_IN_EARLY:
            self._meter.counter("scanned_early", reason.value, flag(spam)).inc()

    def recorded(self, event: dict[str, object], written: bytes | None, at: float) -> None:
        """Leave a verdict to the keeper; `written`: the members of the event as JSON, if there is that."""
        if self._ring is not None:
            if written is not None and len(written) + len(self._place) < RECORD_MAX - MOST_OF_TIME:
                record = b'{"t":%b,%b,%b}' % (repr(at).encode(), self._place, written)
            else:
                event["t"] = at
                event["mx"] = self._mx
                record = packed(event)
            self._ring.write(record)

    def opened(self) -> None:
        """Count a connection."""
        self._meter.opened()

    def closed(self) -> None:
        """Count its end."""
        self._meter.closed()

    def left(self, client: Client) -> None:
        """Count what the lists answered about a client."""
        lookup = client.lookup
        if lookup is None:
            return
        tally = self._tallies.pop(client, None)
        if lookup.heard:
            self._meter.list_answers(lookup.heard)
        if tally is not None:
            self._claims(tally, lookup.answers)

    def _claims(self, tally: _Tally, answers: Mapping[str, Answer]) -> None:
        """Count a client that lists have."""
        said = 0
        rejecting: set[str] = set()  # two zones may share a label
        for zone, (codes, error, _, _) in answers.items():
            if codes and not error:
                meaning = self._meanings.get((zone, codes))
                if meaning is None:
                    meaning = self._meaning(zone, codes)
                said |= meaning
                if meaning & _REJECTS:
                    rejecting.add(self._labels[zone])
        if tally.refused and rejecting:
            self._meter.list_rejects(rejecting, tally.refused)
        if said & _FOR and said & _AGAINST:
            self._meter.claimed_by_both.inc(tally.judged)

    def _meaning(self, zone: str, codes: tuple[bytes, ...]) -> int:
        """What it means when a list has a client with these codes."""
        meaning = sum(
            bit
            for bit, patterns in self._patterns.items()
            if any(p is None or any(map(p.matches, codes)) for p in patterns.get(zone, ()))
        )
        if len(self._meanings) < _MOST_MEANINGS:
            self._meanings[zone, codes] = meaning
        return meaning


def _patterns(rules: Iterable[Rule], actions: Iterable[Action]) -> Patterns:
    """What counts in favour of rules with one of the actions."""
    found: dict[str, list[Pattern | None]] = {}
    for entry in (entry for rule in rules if rule.action in actions for entry in rule.lists):
        if entry.weight > 0:
            found.setdefault(entry.zone, []).append(entry.pattern)
    return found
