"""The health of the lists: whether what a list answers is worth a vote.

RFC 5782 section 5: every list has 127.0.0.2, its *listed* test point, and never has 127.0.0.1, the *unlisted*
one; lists of IPv6 addresses have ::FFFF:7F00:2 and not ::FFFF:7F00:1, asked in their IPv6 form.  A list
that has died and lists the world, that is answered by a parking page, or that refuses us, is *suspended*: the
look-ups do not ask it, until it answers its test points as it should.  A list that is silent or whose servers
fail is not suspended, for the look-ups soon cease to wait for it by themselves; nor is one without its listed
test point, for it does no harm: that is a *warning*.

`assess` is pure.  The `Prober` runs in the keeper process, once for all workers, and tells them by one byte a
list.  It asks four questions a list and round, through the same nameservers as the mail does.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Protocol

from hybridgrey.address import endpoint_text
from hybridgrey.config.known_lists import TEST_LISTED, TEST_UNLISTED
from hybridgrey.lists import lookup
from hybridgrey.lists.awaited import run
from hybridgrey.lists.resolver import Resolver
from hybridgrey.lists.upstream import NoReporter
from hybridgrey.lists.zones import Zone, test_point
from hybridgrey.metrics.series import HEALTH
from hybridgrey.policy.judge import NOT_LISTED, Answer
from hybridgrey.trouble.reporter import Report

# Seconds between rounds, give or take a part of it, so that the mail hosts of the world do not ask at once.
INTERVAL = 300.0
SUSPENDED_INTERVAL = 60.0
JITTER = 0.2
# Longer than for mail: nobody waits for this, and a slow list is not a bad one.
TIMEOUT = 5.0
# But for the first round: the daemon's start waits for it, so that a list that lists the world has no vote.
FIRST_TIMEOUT = 0.7
ALL_UNWELL = "none answers its test addresses as it should: ask them through another nameserver"
LISTED_6 = "::ffff:127.0.0.2"
UNLISTED_6 = "::ffff:127.0.0.1"
# Test addresses asked at a time; there are four, and more only where the configuration has its own.
_THREADS = 4


class Condition(StrEnum):
    """What a list's test points say of it."""

    HEALTHY = "healthy"
    WARNING = "warning"
    SILENT = "silent"
    SUSPENDED = "suspended"
    UNCHECKED = "unchecked"


@dataclass(frozen=True, slots=True)
class Health:
    """A list's state, why it is not healthy, and the seconds that its slowest answer took."""

    label: str
    state: Condition
    reason: str = ""
    seconds: float = 0.0


class Flags(Protocol):
    """Shared memory, one byte for each zone, by `Zone.index`; 1 while the zone is suspended."""

    def __getitem__(self, index: int, /) -> int:
        """Return a zone's byte."""

    def __setitem__(self, index: int, value: int, /) -> None:
        """Set a zone's byte."""


def points(zone: Zone) -> Mapping[str, bytes]:
    """The test addresses of a list, 4 or 16 bytes, by their kind: listed, unlisted, listed6, unlisted6.

    IPv6 is asked of lists that keep to RFC 5782 only: who overrides or turns off a test point says that a
    list is unlike the others.
    """
    texts = {"listed": zone.listed, "unlisted": zone.unlisted}
    if zone.listed == TEST_LISTED:
        texts["listed6"] = LISTED_6
    if zone.unlisted == TEST_UNLISTED:
        texts["unlisted6"] = UNLISTED_6
    return {kind: test_point(text) for kind, text in texts.items() if text is not None}


def assess(zone: Zone, answers: Mapping[str, Answer]) -> Health:
    """Judge a list by its answers at `points`, by the same kinds."""
    seconds = max((a.seconds for a in answers.values()), default=0.0)
    state, reason = _judge(zone, answers) if answers else (Condition.UNCHECKED, "")
    return Health(zone.label, state, reason, seconds)


def _judge(zone: Zone, answers: Mapping[str, Answer]) -> tuple[Condition, str]:
    listed, unlisted = answers.get("listed"), answers.get("unlisted")
    given = [a for a in (unlisted, listed) if a is not None]
    bad = _damning(zone, given, unlisted, answers.get("unlisted6"))
    if bad:
        return Condition.SUSPENDED, bad
    if listed is not None and _refuses(listed):
        # Who refuses us does so for every name.  One that knows the unlisted test point well is a list whose
        # code for its listed one happens to be what we take for an error.
        clean = unlisted is not None and not unlisted.error
        return (Condition.WARNING if clean else Condition.SUSPENDED), listed.error
    silent = next((a.error for a in given if a.error), "")
    if silent:
        return Condition.SILENT, silent
    # A list of IPv6 addresses only has its listed test point there.
    listed6 = answers.get("listed6", NOT_LISTED)
    if listed is not None and not listed.codes and not listed6.codes:
        return Condition.WARNING, f"does not list its test address {zone.listed}"
    return Condition.HEALTHY, ""


def _damning(zone: Zone, given: Iterable[Answer], unlisted: Answer | None, unlisted6: Answer | None) -> str:
    """What takes a list its vote whatever else it answers; "" if there is no such thing."""
    if unlisted is not None:
        if _refuses(unlisted):
            return unlisted.error
        if unlisted.codes:
            return f"lists the test address {zone.unlisted}, and so perhaps the world"
    if unlisted6 is not None and unlisted6.codes and not unlisted6.error:
        return f"lists the test address {UNLISTED_6}, and so perhaps the world"
    return next((a.error for a in given if any(code[0] != 127 for code in a.codes)), "")


def _refuses(answer: Answer) -> bool:
    return bool(answer.error) and (bool(answer.codes) or answer.error == "REFUSED")


class Prober:
    """Asks all lists for their test points, again and again, and keeps the workers' flags."""

    def __init__(
        self,
        zones: Sequence[Zone],
        nameservers: Sequence[tuple[str, int]],
        *,
        flags: Flags | None = None,
        states: Flags | None = None,
        reporter: Report | None = None,
        timeout: float = TIMEOUT,
        interval: float = INTERVAL,
        suspended_interval: float = SUSPENDED_INTERVAL,
    ) -> None:
        """Times in seconds; without `flags` nobody is told, for the command line.

        `states` is for the metrics: the place of each zone's state in `series.HEALTH`.
        """
        self._zones = tuple(zones)
        self._nameservers = tuple(nameservers)
        self._flags: Flags = bytearray(len(self._zones)) if flags is None else flags
        self._states: Flags = bytearray(len(self._zones)) if states is None else states
        self._reporter = reporter or NoReporter()
        self._timeout = timeout
        self._interval = interval
        self._suspended_interval = suspended_interval
        self._next = time.monotonic()
        # Lists that the hurried first round has not heard of.
        self._unheard: list[Zone] = []

    def run(self, stop: threading.Event) -> None:
        """Probe until `stop` is set: all lists every `interval`, suspended ones more often.

        The first time is now, unless `probe_once` has been called before; after `probe_first` it is only for
        those that had no time to answer.
        """
        while not stop.wait(self._pause()):
            unheard, self._unheard = self._unheard, []
            self.probe_once((unheard or self._suspended()) if time.monotonic() < self._next else None)

    def _pause(self) -> float:
        if self._unheard:
            return 0.0
        pause = self._next - time.monotonic()
        if self._suspended():
            pause = min(pause, _jittered(self._suspended_interval))
        return max(pause, 0.0)

    def probe_once(self, zones: Sequence[Zone] | None = None) -> list[Health]:
        """Ask these lists, or all, and act on what they say; their health, in their order."""
        if zones is None:
            zones = self._zones
            self._next = time.monotonic() + _jittered(self._interval)
        return self._round(zones, self._timeout)

    def probe_first(self) -> list[Health]:
        """As `probe_once`, but in a hurry: who is slower than that is asked again by `run`."""
        self._next = time.monotonic() + _jittered(self._interval)
        found = self._round(self._zones, min(FIRST_TIMEOUT, self._timeout))
        self._unheard = [z for z, h in zip(self._zones, found, strict=True) if h.state is Condition.SILENT]
        return found

    def _round(self, zones: Sequence[Zone], timeout: float) -> list[Health]:
        answers = self._ask(zones, timeout)
        found = [self._settle(zone, assess(zone, answers[zone.name])) for zone in zones]
        self._tell(found)
        if zones is self._zones:
            self._tell_of_all(found)
        return found

    def _suspended(self) -> list[Zone]:
        return [z for z in self._zones if self._flags[z.index]]

    def _settle(self, zone: Zone, health: Health) -> Health:
        """Set a list's flag and state.

        One that was suspended and is silent now has not shown that it is well.
        """
        if health.state is Condition.SILENT and self._flags[zone.index]:
            health = replace(health, state=Condition.SUSPENDED)
        self._flags[zone.index] = int(health.state is Condition.SUSPENDED)
        self._states[zone.index] = HEALTH.index(health.state)
        return health

    def _tell(self, found: Iterable[Health]) -> None:
        """Report each label once, its worst list: with and without a customer's key they share one."""
        silent = {h.label for h in found if h.state is Condition.SILENT}
        for state, kind, well in (
            (Condition.SUSPENDED, "zone", {Condition.HEALTHY, Condition.WARNING}),
            (Condition.WARNING, "test point", {Condition.HEALTHY}),
        ):
            bad = {h.label: h.reason for h in found if h.state is state}
            # One that says nothing has not shown that it is well.
            good = {h.label for h in found if h.state in well} - bad.keys() - silent
            for label in dict.fromkeys(h.label for h in found):
                if label in bad:
                    self._reporter.failing(f"{kind}:{label}", state=str(state), reason=bad[label])
                elif label in good:
                    self._reporter.recovered(f"{kind}:{label}")

    def _tell_of_all(self, found: Sequence[Health]) -> None:
        """Report once if all lists answer and none is well: it is the way to them that is not."""
        known = [h for h in found if h.state is not Condition.UNCHECKED]
        states = {h.state for h in known}
        if len({h.label for h in known}) < 2:
            return
        if Condition.HEALTHY in states:
            self._reporter.recovered("lists")
        elif Condition.SILENT not in states:
            servers = " ".join(endpoint_text(*server) for server in self._nameservers)
            self._reporter.failing("lists", reason=ALL_UNWELL, nameservers=servers)

    def _ask(self, zones: Sequence[Zone], timeout: float) -> dict[str, dict[str, Answer]]:
        """Each list's answers at its test points, by its name; all asked at once."""
        # Made anew for each round: nothing is cached, no list suspended, and each is waited for.  Without an
        # unlisted address the look-ups do not doubt a list that has its test points: that is for us to judge.
        plain = [replace(zone, wants_text=False, unlisted=None) for zone in zones]
        resolver = Resolver(plain, self._nameservers, timeout=timeout)
        asked: dict[bytes, list[str]] = {}
        for zone in zones:
            for point in points(zone).values():
                asked.setdefault(point, []).append(zone.name)
        with ThreadPoolExecutor(_THREADS, "prober") as threads:
            said = dict(
                zip(asked, threads.map(partial(_answers, resolver), asked, asked.values()), strict=True)
            )
        return {z.name: {kind: said[point][z.name] for kind, point in points(z).items()} for z in zones}


def _answers(resolver: Resolver, point: bytes, names: Sequence[str]) -> Mapping[str, Answer]:
    """What lists answer for a test address, an error for those that do not; waits for all."""
    asked = lookup.ask(resolver, point, names)
    try:
        while missing := frozenset(names) - asked.answers.keys():
            run(asked.collect(missing))
        return asked.answers
    finally:
        asked.close()


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - a pace is no secret
