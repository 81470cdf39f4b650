"""The history of all hosts as this one knows it: what is in the store, with what is not there yet added.

`Chronicle` answers the questions of `reader.Reader` for the page.  Where the store has no history, or a
key_secret keeps addresses out of it, it knows this host's own since its start.  What this host adds comes
from `recorder`, by way of the ledger that both have.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from hybridgrey.clientaddress import ClientReader
from hybridgrey.config.load import Config
from hybridgrey.history import layout
from hybridgrey.history.chunks import Needles, Record
from hybridgrey.history.layout import LAYOUTS, Step
from hybridgrey.history.ledger import Ledger
from hybridgrey.history.reader import Reader
from hybridgrey.history.records import LATEST_MAX, TOPS, Mark, heaviest, newest
from hybridgrey.store.connection import StoreError

_POLICY: Final = ("rules", "greylist", "zones", "dns", "headers", "store")


@dataclass(frozen=True, slots=True)
class Terms:
    """What the configuration says of the history: `kept` at all, and if so whether without addresses."""

    host: str
    mode: str
    policy: Mapping[str, str]
    """A digest of each part, to know by that it has changed."""
    kept: bool = True
    private: bool = False
    verdicts: int = 0
    """Seconds for which verdicts are kept in the store; 0: none is."""
    prefixes: tuple[int, int] = (24, 64)
    clients: ClientReader = field(default_factory=ClientReader)

    @property
    def unkept(self) -> str:
        """Why the store has no verdicts; "" when it has."""
        if not self.kept:
            return "[metrics] history is off"
        if self.private:
            return "with [store] key_secret no verdict is in the store"
        return "" if self.verdicts else '[metrics] keep_verdicts is "0"'

    @classmethod
    def of(cls, config: Config, host: str) -> Terms:
        """Those of a configuration for the host called `host`."""
        private = bool(config.store.key_secret.get_secret_value())
        kept = config.metrics.history
        return cls(
            host=host,
            mode=config.mode,
            policy={part: _digest(getattr(config, part)) for part in _POLICY},
            kept=kept,
            private=private,
            verdicts=config.metrics.keep_verdicts if kept and not private else 0,
            prefixes=(config.greylist.ipv4_prefix, config.greylist.ipv6_prefix),
            clients=config.dns.clients,
        )


def _digest(part: object) -> str:
    # Secrets hide themselves in a repr, so that a change of them is not seen.
    return hashlib.sha256(repr(part).encode("utf-8", "surrogateescape")).hexdigest()[:16]


class Chronicle:
    """See the module; thread safe.  All questions raise StoreError."""

    def __init__(self, reader: Reader, terms: Terms) -> None:
        self.terms = terms
        self.host = terms.host
        self.lock = threading.Lock()
        """To be held while the ledger is used."""
        self.ledger = Ledger("")
        self.reader = reader

    def own(self) -> Chronicle:
        """What this host knows by itself: no question to it waits for the store."""
        alone = Chronicle(self.reader, replace(self.terms, kept=False, verdicts=0))
        alone.lock = self.lock
        with self.lock:
            alone.ledger = self.ledger
        return alone

    def hosts(self) -> list[str]:
        """The hosts that have a history, this one among them."""
        return sorted({self.host, *(self.reader.hosts() if self.terms.kept else ())})

    def counts(
        self, start: float, end: float, step: Step, hosts: Sequence[str] | None = None
    ) -> dict[str, dict[int, int]]:
        """As `Reader.counts`, with what this host has not written yet."""
        found = self.reader.counts(start, end, step, hosts) if self.terms.kept else {}
        start = max(start, end - LAYOUTS[Step(step)].kept)
        if self._is_asked(hosts):
            with self.lock:
                for batch in self.ledger.unwritten:
                    for (this, moment), row in batch.counts.items():
                        if this == step and start - step < moment <= end:
                            _add(found, moment, row)
        return found

    def marks(self, start: float, end: float) -> list[Mark]:
        """As `Reader.marks`, with what this host has not written yet."""
        found = set(self.reader.marks(start, end) if self.terms.kept else ())
        with self.lock:
            for batch in self.ledger.unwritten:
                found.update(mark for mark in batch.marks if start <= mark.time <= end)
        return sorted(found, key=lambda mark: mark.time)

    def tops(
        self, start: float, end: float, hosts: Sequence[str] | None = None, limit: int = 20
    ) -> dict[str, list[tuple[str, int]]]:
        """As `Reader.tops`; where the store has none, this host's own since it started."""
        found = {kind: Counter[str]() for kind in TOPS}
        if self._in_store:
            for kind, rows in self.reader.tops(start, end, hosts, LATEST_MAX).items():
                found[kind].update(dict(rows))
        if self._is_asked(hosts):
            days = set(layout.days(max(start, end - LAYOUTS[Step.HOUR].kept), end))
            with self.lock:
                for batch in self.ledger.unwritten:
                    for (day, kind), row in batch.tops.items():
                        if day in days:
                            found[kind].update(row)
        return {kind: heaviest(counter, limit) for kind, counter in found.items()}

    def latest(self, hosts: Sequence[str] | None = None, limit: int = LATEST_MAX) -> list[dict[str, object]]:
        """As `Reader.latest`, with this host's last 1,000; only those where the store has none or is away."""
        own: list[dict[str, Any]] = []
        if self._is_asked(hosts):
            with self.lock:
                records = list(self.ledger.latest)
            own = list(map(orjson.loads, records))
        stored: list[dict[str, Any]] = []
        if self.terms.verdicts:
            try:
                stored = self.reader.latest(hosts, limit)
            except StoreError:
                if not own:
                    raise
        # Of what both have, ours: the store may have it soon, or had it before we started.
        since = min((event["t"] for event in own), default=float("inf"))
        theirs = [event for event in stored if event.get("mx") != self.host or event["t"] < since]
        return newest([*own, *theirs], limit)

    def verdicts(
        self, since: float, until: float, hosts: Sequence[str] | None = None, needles: Needles = ()
    ) -> Iterator[Record]:
        """Those of a time that the store has, the newest first, one after another; none where it has none."""
        if not self.terms.verdicts:
            return iter(())
        return self.reader.verdicts(since, until, hosts, newest_first=True, needles=needles)

    def logs_read(self, hosts: Sequence[str] | None = None) -> dict[str, int]:
        """As `Reader.logs_read`."""
        return self.reader.logs_read(hosts) if self.terms.kept else {}

    @property
    def _in_store(self) -> bool:
        """Whether the store has tops."""
        return self.terms.kept and not self.terms.private

    def _is_asked(self, hosts: Sequence[str] | None) -> bool:
        return hosts is None or self.host in hosts


def _add(found: dict[str, dict[int, int]], moment: int, row: Mapping[str, int]) -> None:
    for series, count in row.items():
        moments = found.setdefault(series, {})
        moments[moment] = moments.get(moment, 0) + count
