"""Who answers: the nameservers and the lists, as the look-ups of one worker have seen them.

A list that was *silent* several times in a row is still asked but no longer waited for, until it answers
again; so a dead list is paid for by a few clients only.  A nameserver that lets questions down several times
in a row, by silence or with errors where the next one has an answer, gives its place to the next; now and
then a client's questions go to it first all the same, and once it answers it has its place back.

All of it is counted without locks: threads may lose a count, and then a switch comes one client later.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Sequence
from typing import TypeAlias, cast

from hybridgrey.lists.zones import Zone
from hybridgrey.policy.judge import Answer
from hybridgrey.trouble.reporter import Report

# The family and the socket address of a nameserver.
Server: TypeAlias = tuple[socket.AddressFamily, tuple[str, int]]

# A list or nameserver is silent after so many in a row that it let down.
SILENT_AFTER = 3
# A list that has had so many clients in a row is checked before the last of them counts: more, the more often
# it turns out to be well.  A busy MX refuses four of five clients and must not ask this extra question all
# day; a quiet one, where lists have a client now and then, finds out soon that a list has died.
DOUBTED_AFTER = 2
DOUBTED_AFTER_MOST = 8
# Seconds until one client tries a nameserver that has lost its place; longer if it loses it again soon.
TRY_AGAIN = 30.0
TRY_AGAIN_MOST = 960.0
# By this each new run of clients brings the number down again.
_FORGETTING = 0.97


class NoReporter:
    """For who does not want to be told."""

    def failing(self, kind: str, **detail: object) -> None:
        """Nobody to tell."""

    def recovered(self, kind: str) -> None:
        """Nobody to tell."""


class Nameservers:
    """The nameservers in their order, and which of them is asked first."""

    def __init__(self, nameservers: Sequence[tuple[str, int]], reporter: Report) -> None:
        """`nameservers`: IP addresses, with an RFC 4007 zone perhaps, and ports; none is a ValueError."""
        if not nameservers:
            raise ValueError("no nameserver")
        self.addresses = [_address(host, port) for host, port in nameservers]
        self._kinds = [f"nameserver:{host}:{port}" for host, port in nameservers]
        self._reporter = reporter
        self._let_down = 0
        self._failing: set[int] = set()
        # How often one that has lost its place was tried.
        self._tried = 0
        self._try_at = self._back_since = float("-inf")
        self._try_after = TRY_AGAIN
        self._put_first(0)

    def __len__(self) -> int:
        return len(self.addresses)

    @property
    def troubled(self) -> bool:
        """Whether `turns` and `heard` have anything to mend."""
        return bool(self._let_down or self._failing or self._deposed)

    def turns(self, now: float) -> tuple[int, ...]:
        """Who is asked, in this order: the usual one, or first of all one that may be back."""
        deposed = self._deposed
        if not deposed or now < self._try_at:
            return self.usual
        self._try_at = now + self._try_after
        self._tried += 1
        tried = deposed[self._tried % len(deposed)]
        return tried, *(server for server in self.usual if server != tried)

    def heard(self, server: int, *, asked: int) -> None:
        """A nameserver has given an answer that is no error; `asked`: the one that was asked first."""
        if server in self._failing:
            self._failing.discard(server)
            self._reporter.recovered(self._kinds[server])
        if server in self._deposed:
            self._back_since = time.monotonic()
            self._put_first(server)
        elif server == self.current:
            self._let_down = 0
        elif asked == self.current:
            self._let_down += 1
            if self._let_down >= SILENT_AFTER:
                self.failed(self.current, "no answer, where the next nameserver has one")
                self._depose(server, time.monotonic())

    def failed(self, server: int, error: str) -> None:
        """A nameserver cannot be asked."""
        self._failing.add(server)
        self._reporter.failing(self._kinds[server], error=error)

    def _depose(self, successor: int, now: float) -> None:
        """The first one has lost its place; soon after it came back, it is left alone for longer."""
        soon = now - self._back_since < 2 * self._try_after
        self._try_after = min(2 * self._try_after, TRY_AGAIN_MOST) if soon else TRY_AGAIN
        self._try_at = now + self._try_after
        self._put_first(successor)

    def _put_first(self, server: int) -> None:
        count = len(self.addresses)
        self._let_down = 0
        self.current = server
        self.usual = tuple((server + n) % count for n in range(count))
        # Those that the configuration has before it.
        self._deposed = range(server)


class Lists:
    """Which lists answer, and which of them have had too many clients to be believed."""

    def __init__(self, zones: Iterable[Zone], reporter: Report) -> None:
        zones = tuple(zones)
        self._reporter = reporter
        self._silences = {z.name: 0 for z in zones}
        self.failing: set[str] = set()
        # How many clients in a row a list has had, since it had one not or was checked.
        self.run = {z.name: 0 for z in zones}
        # The length of a run that is suspicious, by list.
        self._odd = {z.name: float(DOUBTED_AFTER) for z in zones}
        # Whether `heard` has anything to mend: a look at one value spares a call for nearly every answer.
        self.troubled = False

    def waits_for(self, zone: str) -> bool:
        """Whether a list is worth waiting for: it answers, as a rule."""
        return self._silences[zone] < SILENT_AFTER

    def doubts(self, zone: Zone) -> bool:
        """Note that a list has a client; whether it is to be checked before that counts."""
        run = self.run[zone.name] = self.run[zone.name] + 1
        if run == 1:
            self._odd[zone.name] = max(DOUBTED_AFTER, self._odd[zone.name] * _FORGETTING)
        return run >= self._odd[zone.name] and zone.unlisted is not None

    def checked(self, zone: Zone) -> None:
        """A list that was doubted is well: such a run is nothing odd for it."""
        self.run[zone.name] = 0
        self._odd[zone.name] = min(DOUBTED_AFTER_MOST, self._odd[zone.name] * 2)

    def heard(self, zone: Zone, answer: Answer) -> None:
        """A list has answered; an answer that is an error is told, as is the first good one after it."""
        if self._silences[zone.name]:
            self._silences[zone.name] = 0
        if answer.error:
            self._fail(zone, answer.error)
        elif zone.name in self.failing:
            self.failing.discard(zone.name)
            self._reporter.recovered(f"list:{zone.label}")
        self.troubled = bool(self.failing) or any(self._silences.values())

    def silent(self, zone: Zone) -> None:
        """A list has let a client's whole wait pass."""
        self.troubled = True
        self._silences[zone.name] += 1
        if self._silences[zone.name] >= SILENT_AFTER:
            self._fail(zone, "no answer")

    def _fail(self, zone: Zone, error: str) -> None:
        self.troubled = True
        self.failing.add(zone.name)
        self._reporter.failing(f"list:{zone.label}", error=error)


def _address(host: str, port: int) -> Server:
    """Family and socket address of a nameserver."""
    info = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0]
    return info[0], cast(tuple[str, int], info[4])
