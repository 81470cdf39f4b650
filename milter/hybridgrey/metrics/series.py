"""The metrics there are and where each number lives: names, labels, buckets, and the index of every series.

Pure layout, no memory: see `shared` for the cells. Labels are rule names, actions, list labels and
greylist states only, never what a client sent, so the number of series is bounded by the config.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hybridgrey.outcome import LABELS, LET_IN_EARLY, Reason

ACTIONS = ("accept", "reject", "tempfail", "greylist", "none")
RESULTS = ("listed", "unlisted", "error", "timeout")
STATES = ("new", "early", "passed", "known", "network", "full")
OUTCOMES = tuple(LABELS.values())
"""The labels of outcomes."""
EARLY = tuple(sorted(LET_IN_EARLY))
HEALTH = ("unchecked", "healthy", "warning", "silent", "suspended")
"""What the test points of a list say of it, the worse the later (`health.State`)."""
NO_LIST_WORKS = "no list works: nothing is rejected or allowed by lists"
"""What is said first, everywhere, when `none_works`."""
SCANNER_DOWN = "the content scanner does not work: no message has a score"
"""What is said, everywhere, while it does not (`shared.Scanning`)."""
NOTES = (NO_LIST_WORKS, SCANNER_DOWN)
"""What is no fault of the daemon's: mail goes on, and whoever looks is told."""
NO_RULE = "(none)"
"""The rule label of a recipient that no rule matched."""

LIST_BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
WAIT_BUCKETS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
STORE_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.02, 0.1, 0.5)
SCAN_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
DELAY_BUCKETS = (
    *(1.0, 5.0, 15.0, 60.0, 300.0),
    *(420.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 21600.0, 86400.0),
)

CAPACITY = 16_384
"""Cells of one slot: about 1,000 lists with their histograms. Untouched ones take no memory."""

PASSING = 2
"""Cells at the begin of each slot that say something of its process only as long as it lives."""
SCRAP = 16
"""Cells at the end of each slot that nobody reads, for what has no series; wider than any family."""
NOWHERE = CAPACITY - SCRAP
"""The first of them."""

Key = tuple[str, tuple[str, ...]]

_USUAL = {"greylist": ("accept", "delay")}
"""What comes of an action, where that is not its name."""


@dataclass(frozen=True, slots=True)
class Family:
    """A Prometheus metric; the name is without prefix and ``_total``, buckets are upper bounds."""

    name: str
    help: str
    kind: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """Cells of one series: a histogram has one a bucket, one above the last bound, and the sum."""
        return len(self.buckets) + 2 if self.kind == "histogram" else 1


def _families() -> tuple[Family, ...]:
    counter, gauge, histogram = "counter", "gauge", "histogram"
    return (
        # First, so that their cells are the first of each slot: see Counters.release.
        Family("sessions_open", "SMTP sessions open now", gauge),
        Family("scanner_left_alone", "Workers that leave a failing scanner alone between tries", gauge),
        Family("sessions", "SMTP sessions seen", counter),
        Family("verdicts", "Recipients judged", counter, ("rule", "action", "enforced")),
        Family(
            "outcomes", "Recipients by what clients got, or would", counter, ("rule", "outcome", "enforced")
        ),
        Family("reasons", "Recipients by why clients got what they got", counter, ("reason", "outcome")),
        Family("list_answers", "Answers of DNS lists", counter, ("list", "result")),
        Family("list_latency_seconds", "Time to a list's answer", histogram, ("list",), LIST_BUCKETS),
        Family("list_rejects", "Rejected recipients whose client a list had", counter, ("list", "sole")),
        Family("claimed_by_both", "Recipients whose client is on a blocklist and an allowlist", counter),
        Family("rcpt_wait_seconds", "Time RCPT waited for lists", histogram, (), WAIT_BUCKETS),
        Family("greylist", "Greylist look-ups by what was found", counter, ("state",)),
        Family("greylist_delay_seconds", "First attempt to acceptance", histogram, (), DELAY_BUCKETS),
        Family("store_seconds", "Time of one round trip to the store", histogram, (), STORE_BUCKETS),
        Family("store_failures", "Round trips to the store that failed", counter),
        Family("scan_seconds", "Time to the score of a message", histogram, (), SCAN_BUCKETS),
        Family("scan_failures", "Messages whose score was wanted and is not known", counter),
        Family(
            "scanned_early", "Recipients let in early whose message was scanned", counter, ("reason", "spam")
        ),
    )


FAMILIES: Mapping[str, Family] = MappingProxyType({family.name: family for family in _families()})


@dataclass(frozen=True)
class Schema:
    """Where each series lives. Frozen: a reload makes a longer one with the old indexes kept.

    ``index`` maps (family, label values) to the first cell; ``quiet`` has the series that are shown only once
    they are not zero; ``dropped`` counts those that found no room and are counted nowhere.
    """

    index: Mapping[Key, int]
    quiet: frozenset[Key]
    size: int
    dropped: int = 0

    @classmethod
    def build(
        cls,
        rules: Iterable[tuple[str, str]],
        lists: Iterable[str],
        *,
        enforced: bool = True,
        before: Schema | None = None,
    ) -> Schema:
        """Lay out a config's series: (rule name, action) pairs, list labels; `before`: the last schema."""
        index = dict(before.index) if before else {}
        quiet = set(before.quiet) if before else set()
        size, dropped = (before.size if before else 0), 0
        for key, shown in _series(rules, lists, enforced):
            if key in index:
                quiet -= {key} if shown else set()
                continue
            width = FAMILIES[key[0]].width
            if size + width > CAPACITY - SCRAP:
                dropped += 1
                continue
            index[key] = size
            size += width
            quiet |= set() if shown else {key}
        return cls(MappingProxyType(index), frozenset(quiet), size, dropped)

    def at(self, family: str, *labels: str) -> int:
        """Return the first cell of a series, or a cell that nobody reads for one that has none."""
        # Never KeyError: a label nobody foresaw must not cost a recipient.
        return self.index.get((family, labels), NOWHERE)


def _series(
    rules: Iterable[tuple[str, str]], lists: Iterable[str], enforced: bool
) -> Iterator[tuple[Key, bool]]:
    """Yield each series with whether it is shown at zero."""
    yield from (((name, ()), True) for name, family in FAMILIES.items() if not family.labels)
    yield from ((("greylist", (state,)), True) for state in STATES)
    yield from ((("reasons", (reason, one)), False) for reason in Reason for one in OUTCOMES)
    yield from ((("scanned_early", (one, flag(spam))), False) for one in EARLY for spam in (True, False))
    for rule, own in (*rules, (NO_RULE, "")):
        # Only what a rule is there to do is shown at zero: five rows a rule would bury the rest.
        yield from ((("verdicts", (rule, action, flag(enforced))), action == own) for action in ACTIONS)
        usual = _USUAL.get(own, (own,))
        yield from ((("outcomes", (rule, one, flag(enforced))), one in usual) for one in OUTCOMES)
    for label in lists:
        yield from ((("list_answers", (label, result)), True) for result in RESULTS)
        yield ("list_latency_seconds", (label,)), True
        yield from ((("list_rejects", (label, sole)), True) for sole in ("true", "false"))


def none_works(states: Iterable[str]) -> bool:
    """Whether no list can have a say, by the states of all of them (`HEALTH`).

    One whose test points are not asked may work, unless the others are silent: then the way to all is broken.
    """
    every = set(states)
    known = every - {"unchecked"}
    return bool(known) and "healthy" not in known and (known == every or known == {"silent"})


def flag(value: bool) -> str:
    """Return a truth value as a label."""
    return "true" if value else "false"
