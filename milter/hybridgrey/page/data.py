"""The data of the page: what its questions (``/api/…``) are answered with.

history, tops: a span of time of one host or all.  lists: how the lists and this host do now.  latest: the
last verdicts, searched.  past: those before them, as far back as they are kept.  hand: the entries by hand.
way: how one of them came about, by the rules of now.

The store is asked for one thing at a time, and what it said is kept some seconds: however many pages are
open, and whatever they ask, it is read a few times a minute.  While it is down, what was known before is
shown, and the page says so.  All text goes out cleaned: a store that others write to may hold anything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from hybridgrey import __version__
from hybridgrey.cleaning import clean
from hybridgrey.hand.entries import Entry
from hybridgrey.history.records import Mark
from hybridgrey.history.view import Chronicle
from hybridgrey.lists.zones import Zone
from hybridgrey.metrics import series
from hybridgrey.metrics.shared import Shared
from hybridgrey.page import flow, hand, past, spans, verdicts
from hybridgrey.page.site import BadQuestionError, GoneError
from hybridgrey.page.verdicts import Verdict
from hybridgrey.policy.judge import Policy
from hybridgrey.store.connection import StoreError

FRESH: Final[Mapping[str, float]] = {"hour": 5.0, "day": 10.0, "week": 30.0, "month": 60.0, "year": 60.0}
"""Seconds for which an answer about a span of time is given again."""
FRESH_VERDICTS: Final = 4.0
FRESH_PAST: Final = 60.0  # s; the past changes by what goes
PATIENCE: Final = 3.0  # s; that a reader waits for the store before the page shows what there is
SLOW: Final = 1.0  # s
AWAY: Final = 5.0
"""Seconds for which nobody waits for a store that was late or slow to fail."""
LATE: Final = "The store has not answered yet"
MOST_KEPT: Final = 64
MOST_HOSTS: Final = 256
MOST_MARKS: Final = 500
MOST_TOPS: Final = 10
MOST_OF_A_KIND: Final = 100  # heaviest by one outcome, to find the heaviest by all of them
MOST_VERDICTS: Final = 2000
MOST_SHOWN: Final = 1000
MOST_SEARCHED: Final = 450  # characters


class Kept(NamedTuple):
    """What was found, when (monotonic, and by the clock), and why it is not newer."""

    asked: float
    when: float
    found: Any
    trouble: str = ""


class Memory:
    """Answers of the store, each given again for some seconds; and for longer while there is no newer one.

    Nobody waits for a store for more than PATIENCE seconds, be it away or busy: there is then what was known.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[object, Kept] = {}
        self._asking: dict[object, Future[Kept]] = {}
        # One thread: one question at a time.
        self._asker = ThreadPoolExecutor(1)
        self._away = float("-inf")
        self._trouble = ""

    def get(self, key: object, fresh: float, ask: Callable[[], Any], otherwise: Callable[[], Any]) -> Kept:
        """What `ask` says, asked again after `fresh` seconds; with the store down what it said last.

        `otherwise` gives what there is without the store, where it has never said anything.
        """
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and self._clock() - kept.asked < fresh:
                return kept
            asked = self._asking.get(key)
            if asked is None and self._clock() >= self._away and len(self._asking) < MOST_KEPT:
                asked = self._asking[key] = self._asker.submit(self._ask, key, ask, otherwise)
        if asked is None or (not asked.done() and self._clock() < self._away):
            return self._without(key, otherwise, self._trouble or LATE)
        try:
            return asked.result(PATIENCE)
        except TimeoutError:
            self._leave_alone(LATE)
            return self._without(key, otherwise, LATE)

    def _ask(self, key: object, ask: Callable[[], Any], otherwise: Callable[[], Any]) -> Kept:
        began, kept = self._clock(), None
        try:
            found = ask()
            kept = Kept(self._clock(), time.time(), found)
            self._away = float("-inf")
        except StoreError as error:
            trouble = f"The store does not answer ({clean(str(error))})"
            # One that refuses at once costs nothing to be asked again.
            if self._clock() - began >= SLOW:
                self._leave_alone(trouble)
            kept = self._without(key, otherwise, trouble)
        finally:
            with self._lock:
                del self._asking[key]
                if kept is not None:
                    self._keep(key, kept)
        return kept

    def _keep(self, key: object, kept: Kept) -> None:
        self._kept.pop(key, None)
        self._kept[key] = kept
        while len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]

    def _leave_alone(self, trouble: str) -> None:
        """Let nobody wait for the store for a while: the next would wait as long as this one."""
        self._trouble = trouble
        self._away = self._clock() + AWAY

    def _without(self, key: object, otherwise: Callable[[], Any], trouble: str) -> Kept:
        kept = self._kept.get(key)
        known = kept if kept is not None and kept.when else Kept(0.0, 0.0, otherwise())
        return known._replace(asked=self._clock(), trouble=trouble)


@dataclass(frozen=True, slots=True)
class Host:
    """The daemon's host: its name, whether it only observes, and why it shows its own verdicts only."""

    name: str
    observes: bool = False
    alone: str = ""


class Data:
    """Answers the page's questions (`site.Data`)."""

    def __init__(
        self,
        host: Host,
        policy: Policy,
        zones: Sequence[Zone],
        *,
        shared: Shared,
        chronicle: Chronicle,
        health: Callable[[], Sequence[str]],
        entries: Callable[[], Sequence[Entry]] = tuple,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`entries`: those by hand that hold now."""
        self._host = host
        self._policy = policy
        self._zones = zones
        self._order = [(rule.name, rule.action.value) for rule in policy.rules]
        self._shared = shared
        self._chronicle = chronicle
        self._health = health
        self._entries = entries
        self._clock = clock
        self._memory = Memory()

    def answer(self, name: str, parameters: Mapping[str, str]) -> object:
        """Answer a question; raises BadQuestionError, GoneError."""
        match name:
            case "history":
                return self._history(*self._span(parameters))
            case "tops":
                return self._tops(*self._span(parameters))
            case "lists":
                return self._now()
            case "hand":
                return hand.shown(self._entries())
            case "latest":
                return self._latest(parameters)
            case "past":
                return self._past(parameters)
            case "way":
                return self._way(parameters.get("id", ""), past.moment(parameters, "t"))
        raise GoneError(f"there is no {clean(name, 40)!r} here")

    def _span(self, parameters: Mapping[str, str]) -> tuple[str, Sequence[str] | None]:
        span = parameters.get("span", "day")
        if span not in spans.SPANS:
            raise BadQuestionError(f"span is one of {', '.join(spans.SPANS)}")
        return span, self._chosen(parameters)

    def _chosen(self, parameters: Mapping[str, str]) -> Sequence[str] | None:
        """The host that is asked about, if it is known; None for all of them."""
        host = parameters.get("host", "")
        hosts, trouble = self._hosts()
        if host and host not in hosts:
            unknown = f"no history of a host {clean(host, 80)!r}"
            raise GoneError(f"{trouble}, and here is {unknown}" if trouble else unknown)
        return [host] if host else None

    def _hosts(self) -> tuple[Sequence[str], str]:
        """The hosts that are known, and why these may not be all."""
        kept = self._memory.get("hosts", 10.0, self._chronicle.hosts, list)
        return sorted({self._host.name, *kept.found})[:MOST_HOSTS], kept.trouble

    def _ask(self, key: object, fresh: float, of: Callable[[Chronicle], Any]) -> Kept:
        """What `of` finds in the history; while the store is away, in what this host knows by itself."""
        return self._memory.get(key, fresh, lambda: of(self._chronicle), lambda: of(self._chronicle.own()))

    def _history(self, name: str, hosts: Sequence[str] | None) -> object:
        span = spans.SPANS[name]
        now = self._clock()

        def of(chronicle: Chronicle) -> dict[str, object]:
            counts = chronicle.counts(span.start(now), now, span.unit, hosts)
            marks = [
                mark for mark in chronicle.marks(span.start(now), now) if hosts is None or mark.host in hosts
            ]
            return spans.shown(name, now, counts, self._order) | {
                "marks": list(map(_mark, marks[-MOST_MARKS:])),
                "logs": flow.logs(chronicle.logs_read(hosts)),
                "unkept": self._chronicle.terms.unkept,
            }

        key = ("history", name, tuple(hosts or ()))
        kept = self._ask(key, FRESH[name], of)
        trouble = kept.trouble and f"{kept.trouble}: {self._outdated(kept.when)}"
        return kept.found | {"hosts": [clean(one) for one in self._hosts()[0]], "trouble": trouble}

    def _outdated(self, when: float) -> str:
        if not when:
            mine = f"only what {clean(self._host.name)} has counted and not yet written there is shown"
            return f"{mine}; its history cannot be shown."
        shown = time.strftime("%H:%M:%S", time.gmtime(when))
        return (
            f"the numbers are those of {shown} UTC, and what is counted meanwhile is added when it is back."
        )

    def _tops(self, name: str, hosts: Sequence[str] | None) -> object:
        now = self._clock()
        start = spans.SPANS[name].start(now)
        key = ("tops", name, tuple(hosts or ()))
        kept = self._ask(key, FRESH[name], lambda one: one.tops(start, now, hosts, MOST_OF_A_KIND))
        names = {
            what: _tops(kept.found, kind) for what, kind in (("networks", "network"), ("domains", "domain"))
        }
        return {**names, "known": bool(kept.when)}

    def _now(self) -> object:
        shared = self._shared
        states = shared.flags.states()
        return {
            "host": self._host.name,
            "version": __version__,
            "now": self._clock(),
            "workers": shared.board.alive,
            "observe": self._host.observes,
            "notes": shared.notes,
            "problems": list(self._health()),
            "lists": [
                {
                    "list": label,
                    "suspended": suspended,
                    "health": states[label],
                    "seconds": self._seconds(label),
                }
                for label, suspended in shared.flags.suspended().items()
            ],
        }

    def _seconds(self, label: str) -> float | None:
        """The mean time to an answer of a list, since the daemon's start."""
        at = self._shared.schema.at("list_latency_seconds", label)
        width = len(series.LIST_BUCKETS) + 1
        number = sum(self._shared.counters.total(at + offset) for offset in range(width))
        return self._shared.counters.total(at + width) / number if number else None

    def _records(self, hosts: Sequence[str] | None) -> Kept:
        def of(chronicle: Chronicle) -> list[Verdict]:
            found = map(verdicts.shown, chronicle.latest(hosts, MOST_VERDICTS))
            return [one for one in found if one is not None]

        return self._ask(("latest", tuple(hosts or ())), FRESH_VERDICTS, of)

    def _latest(self, parameters: Mapping[str, str]) -> object:
        wanted, limit = parameters.get("q", "")[:MOST_SEARCHED], past.limit(parameters)
        kept = self._records(self._chosen(parameters))
        found = verdicts.search(kept.found, wanted, self._policy.clients) if wanted.strip() else kept.found
        return {
            "q": wanted,
            "found": len(found),
            "oldest": kept.found[-1]["t"] if kept.found else None,
            "days": self._chronicle.terms.verdicts / 86400,
            "verdicts": found[: min(limit, MOST_SHOWN)],
            "alone": self._host.alone,
        }

    def _past(self, parameters: Mapping[str, str]) -> object:
        """What was before a moment, as much as is found in about a second; `reached`: None at the end."""
        wanted, limit = parameters.get("q", "")[:MOST_SEARCHED], min(past.limit(parameters), MOST_SHOWN)
        hosts, before = self._chosen(parameters), past.moment(parameters, "before")

        def ask() -> dict[str, object]:
            return past.searched(
                self._chronicle, wanted, self._policy.clients, (before, self._clock()), hosts, limit
            )

        key = ("past", wanted, limit, before, tuple(hosts or ()))
        kept = self._memory.get(key, FRESH_PAST, ask, lambda: {"verdicts": [], "reached": before})
        return kept.found | {"trouble": kept.trouble}

    def _way(self, name: str, moment: float) -> object:
        """`moment`: of the verdict, where it is not one of the latest."""
        found: Iterable[Verdict] = self._records(None).found
        if moment and not any(one["id"] == name for one in found):
            kept = self._memory.get(
                ("at", moment), FRESH_PAST, lambda: past.at(self._chronicle, moment), list
            )
            found = kept.found
        for one in found:
            if one["id"] == name:
                return self._gone(one)
        raise GoneError("this verdict is no longer kept")

    def _gone(self, one: Verdict) -> object:
        way = verdicts.retrace(self._policy, self._zones, one)
        note = ""
        if not way.agrees:
            now = f"the rule {way.rule!r} would decide" if way.rule else "no rule would match"
            where = (
                "here" if one["mx"] == self._host.name else f"on {self._host.name}, which this page is of,"
            )
            note = f"With the rules that hold {where} now, {now}."
        return {
            "agrees": way.agrees,
            "note": note,
            "steps": [
                {"rule": step.rule, "action": step.action, "outcome": step.outcome, "why": step.why}
                for step in way.steps
            ],
        }


def _mark(mark: Mark) -> dict[str, object]:
    return {"t": mark.time, "host": clean(mark.host), "kind": clean(mark.kind, 40), "text": clean(mark.text)}


def _tops(found: Mapping[str, Sequence[tuple[str, int]]], kind: str) -> list[dict[str, object]]:
    return [{**one, "name": clean(str(one["name"]))} for one in spans.heaviest(found, kind, MOST_TOPS)]
