"""From decisions to metrics and records: what a session tells is counted (`session.Counts`).

What the lists said of a client is counted when it leaves, for then the late answers are in too: the share of
the rejects that only one list caught, and the recipients whose client a blocklist and an allowlist have, are
those that the admin would see with all time in the world.  Put together by `assembly`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from hybridgrey.metrics import Meter
from hybridgrey.pattern import Pattern
from hybridgrey.policy import Action, Answer, Rule
from hybridgrey.ring import Writer, packed
from hybridgrey.screen import Client, Decision
from hybridgrey.zones import Zone

Patterns = Mapping[str, Sequence[Pattern | None]]
"""The codes that count, by zone; None: any."""

# A list that is only tried, or that has mail put off, is one of those that speak against a client.
_AGAINST = frozenset({Action.REJECT, Action.TEMPFAIL, Action.NONE})


class Counts:
    """One worker's; thread safe."""

    def __init__(
        self,
        meter: Meter,
        rules: Sequence[Rule],
        zones: Iterable[Zone],
        ring: Writer | None = None,
        mx: str = "",
    ) -> None:
        """`ring` is for the records of verdicts by the host `mx`; without one there are none."""
        self._meter = meter
        self._ring = ring
        self._mx = mx
        self.records = ring is not None
        self._labels = {zone.name: zone.label for zone in zones}
        self._rejecting = _patterns(rules, {Action.REJECT})
        self._against = _patterns(rules, _AGAINST)
        self._for = _patterns(rules, {Action.ACCEPT})

    def decided(self, client: Client, decision: Decision) -> None:
        """Count a verdict and what the greylist said."""
        verdict, _, touch, error, waited, stored = decision
        meter, rule, action = self._meter, verdict.rule, verdict.action
        meter.decided(rule.name if rule else None, action.value, decision.outcome, waited)
        client.judged += 1
        if touch is not None:
            meter.greylisted(touch.state.value, touch.age, stored)
        elif error:
            meter.store_failed()
        elif action is Action.REJECT and verdict.hits:
            client.refused += 1
        for noted in verdict.noted:
            meter.noted(noted.name)

    def recorded(self, event: dict[str, object], decision: Decision) -> None:
        """Leave a verdict to the keeper."""
        if self._ring is not None:
            event["t"] = time.time()
            event["mx"] = self._mx
            event["outcome"] = decision.outcome
            self._ring.write(packed(event))

    def opened(self) -> None:
        """Count a connection."""
        self._meter.sessions.inc()
        self._meter.sessions_open.inc()

    def closed(self) -> None:
        """Count its end."""
        self._meter.sessions_open.inc(-1)

    def left(self, client: Client) -> None:
        """Count what the lists answered about a client."""
        lookup = client.lookup
        if lookup is None:
            return
        if lookup.heard:
            self._meter.list_answers(_results(lookup.heard))
        if client.judged and any(answer.codes for answer in lookup.answers.values()):
            self._claims(client, lookup.answers)

    def _claims(self, client: Client, answers: Mapping[str, Answer]) -> None:
        """Count a client that lists have."""
        if client.refused:
            having = {self._labels[zone] for zone in _having(self._rejecting, answers)}
            self._meter.list_rejects(having, client.refused)
        if any(_having(self._for, answers)) and any(_having(self._against, answers)):
            self._meter.claimed_by_both.inc(client.judged)


def _results(heard: Iterable[tuple[Zone, Answer]]) -> Iterator[tuple[str, str, float | None]]:
    for zone, (codes, error, seconds, silent) in heard:
        if silent:
            yield zone.label, "timeout", None
        elif error:
            yield zone.label, "error", seconds
        else:
            yield zone.label, "listed" if codes else "unlisted", seconds


def _patterns(rules: Iterable[Rule], actions: Iterable[Action]) -> Patterns:
    """What counts in favour of rules with one of the actions."""
    found: dict[str, list[Pattern | None]] = {}
    for entry in (entry for rule in rules if rule.action in actions for entry in rule.lists):
        if entry.weight > 0:
            found.setdefault(entry.zone, []).append(entry.pattern)
    return found


def _having(patterns: Patterns, answers: Mapping[str, Answer]) -> Iterator[str]:
    """The lists that have the client with a code that counts."""
    for zone, (codes, error, _, _) in answers.items():
        if codes and not error and zone in patterns:
            for pattern in patterns[zone]:
                if pattern is None or any(map(pattern.matches, codes)):
                    yield zone
                    break
