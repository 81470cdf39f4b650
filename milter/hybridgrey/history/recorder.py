"""The host's chronicler: from the workers' counters and records to the history.

A task of the keeper.  Every ``TICK`` seconds it enters what the counters have gained into the ledger, under
the minute it belongs to, and marks what has changed since the last look: a new policy, a list that was
suspended, the store gone or back.  About every ``FLUSH`` seconds it writes what is new to the store, in one
call, and about every ``SHIP`` seconds the verdicts.  While the store is away nothing is lost that there is
room for (`ledger`).

All that it knows is in the journal before it writes, with the number of the batch: a keeper that is killed,
or gives way to that of a reload, leaves nothing out and nothing twice to its successor.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import threading
import time
from functools import lru_cache
from typing import Any, Final

import orjson

from hybridgrey import __version__
from hybridgrey.greylist import normalise
from hybridgrey.history import layout
from hybridgrey.history.chunkwriter import ChunkWriter, allowance
from hybridgrey.history.layout import Step
from hybridgrey.history.ledger import Ledger
from hybridgrey.history.records import Mark, sender_domain
from hybridgrey.history.view import Chronicle
from hybridgrey.history.writer import Writer
from hybridgrey.metrics.ring import Place
from hybridgrey.metrics.shared import Shared
from hybridgrey.outcome import LABELS, Outcome, outcome_of
from hybridgrey.store.connection import Store, StoreError
from hybridgrey.trouble.reporter import Report

TICK: Final = 5.0
FLUSH: Final = 15.0
SHIP: Final = 10.0
"""With the jitter and a look at the rings, a verdict is in the store after 13 s at most."""
_JITTER: Final = 0.2
_LOOK: Final = 1.0  # s; between looks at the rings
_BUSY_LOOK: Final = 0.1
_BUSY: Final = 200  # records a look: a quarter of a ring and more
_CLAIM_PAUSE: Final = 0.2
_HOSTS_LOOK: Final = 3600.0  # s; between two counts of the hosts that share a store
LEAST_TIMEOUT: Final = 1.0  # s; nobody waits for it, and the end of the daemon gives it two

_VERDICTS: Final = "verdicts for the store"
_KINDS: Final = {outcome: (f"network/{label}", f"domain/{label}") for outcome, label in LABELS.items()}


class Chronicler:
    """Keeps the chronicle of this host."""

    def __init__(self, chronicle: Chronicle, shared: Shared, store: Store, report: Report) -> None:
        self._chronicle = chronicle
        self._terms = chronicle.terms
        self._host = chronicle.host
        self._lock = chronicle.lock
        self._shared = shared
        self._store = store
        self._report = report
        self._sources = list(layout.sources(shared.schema))
        self._failures = shared.schema.at("store_failures")
        # Calls of the store that had failed at the last look; whether ours was one of them; whether the mode
        # before the start has not been looked up yet.
        self._failed = 0.0
        self._doubt = False
        self._mode_unknown = False
        # Whether what an earlier configuration has left in the store of our verdicts is to go.
        self._unwanted = not self._terms.verdicts
        self._told_dropped = 0
        self._hosts, self._hosts_due = 1, 0.0
        self._network = lru_cache(4096)(self._network_of)

    @property
    def _ledger(self) -> Ledger:
        return self._chronicle.ledger

    def run(self, stop: threading.Event) -> None:
        """Keep the chronicle until `stop` is set, and write what is left then."""
        while not self._shared.journal.claim():  # the keeper before us has it, as long as it lives
            if stop.wait(_CLAIM_PAUSE):
                return
        self._resume()
        flush = time.monotonic() + _jittered(FLUSH) / 2
        ship = time.monotonic() + _jittered(SHIP) / 2
        due = _next_tick()
        pause = 0.0
        ended = False
        while not ended:
            ended = stop.wait(pause)
            busy = self._read_rings() >= _BUSY
            if ended or time.time() >= due or due - time.time() > TICK:
                self._enter(time.time() if ended else due - TICK / 2)
                due = _next_tick()
                if ended or time.monotonic() >= flush or self._doubt:
                    self._flush()
                    flush = time.monotonic() + _jittered(FLUSH)
            if ended or time.monotonic() >= ship:
                self._ship()
                ship = time.monotonic() + _jittered(SHIP)
            pause = max(0.0, min(_BUSY_LOOK if busy else _LOOK, due - time.time()))

    def _resume(self) -> None:
        """Go on from the journal, or begin; say what is new since then."""
        note = self._shared.journal.load()
        ledger = Ledger.load(note) if note else Ledger(secrets.token_hex(8))
        terms, state, now = self._terms, ledger.state, time.time()
        if not note:
            ledger.mark(Mark(now, self._host, "start", f"{terms.mode}, hybridgrey {__version__}"))
            self._mode_unknown = True
        else:
            changed = [part for part, digest in terms.policy.items() if state.policy.get(part) != digest]
            if changed:
                ledger.mark(Mark(now, self._host, "reload", f"changed: {', '.join(changed)}"))
            if state.mode != terms.mode:
                ledger.mark(Mark(now, self._host, "mode", terms.mode))
        if terms.private != state.private:
            ledger.forget_addresses()
        if not terms.verdicts:
            ledger.fresh, ledger.chunks = 0, []
        state.policy, state.mode, state.private = dict(terms.policy), terms.mode, terms.private
        self._writer = Writer(self._store, self._host, ledger.writer)
        self._chunks = ChunkWriter(self._store, self._host, terms.verdicts)
        self._told_dropped = ledger.dropped
        with self._lock:
            self._chronicle.ledger = ledger
        self._failed = self._shared.counters.total(self._failures)
        self._save()

    def _read_rings(self) -> int:
        """Enter the new records; how many there were in the fullest ring."""
        ledger, rings, most = self._ledger, self._shared.rings, 0
        for slot in range(rings.slots):
            read = rings.read(slot, ledger.places.get(slot, Place()))
            if read.records:
                most = max(most, len(read.records))
                with self._lock:
                    ledger.places[slot] = read.place
                    for record in read.records:
                        self._verdict(record)
        return most

    def _verdict(self, record: bytes) -> None:
        event: dict[str, Any] = orjson.loads(record)
        day = _day(event["t"] // Step.DAY)
        of_network, of_domain = _KINDS[outcome_of(event["outcome"]) or Outcome.ACCEPTED]
        tops = [(of_domain, sender_domain(event["sender"]))]
        if network := self._network(event["client"]):
            tops.append((of_network, network))
        self._ledger.verdict(record, day, tops, kept=bool(self._terms.verdicts))

    def _network_of(self, client: str) -> str:
        """A client's network; "" for one that has no address."""
        network = normalise.client_network(client, *self._terms.prefixes, self._terms.clients)
        return network if "/" in network else ""

    def _enter(self, moment: float) -> None:
        """Enter what was counted and what has changed."""
        with self._lock:
            self._ledger.count(self._sources, self._shared.counters.total, moment)
        self._look_at_lists()
        failed = self._shared.counters.total(self._failures)
        if failed > self._failed or self._doubt or self._ledger.state.failing_since:
            self._look_at_store()
        self._failed = failed
        self._save()

    def _look_at_lists(self) -> None:
        """Mark lists that have lost their vote or got it back."""
        suspended = self._shared.flags.suspended()
        before, now = set(self._ledger.state.suspended), {label for label, bad in suspended.items() if bad}
        for label in sorted(now - before):
            self._mark("suspended", label)
        for label in sorted(label for label in before - now if label in suspended):
            self._mark("restored", label)
        self._ledger.state.suspended = sorted(now)

    def _look_at_store(self) -> None:
        """Mark that the store is gone, when it fails twice in a row, or is back."""
        state = self._ledger.state
        try:
            self._store.ping()
        except StoreError:
            if not state.failing_since:
                state.failing_since = time.time()
            elif not state.down:
                state.down = True
                self._mark("store_down", at=state.failing_since)
            return
        if state.down:
            self._mark("store_back")
        if state.failing_since:
            self._doubt = True  # write at once what has gathered
        state.failing_since, state.down = 0.0, False

    def _mark(self, kind: str, text: str = "", at: float | None = None) -> None:
        with self._lock:
            self._ledger.mark(Mark(time.time() if at is None else at, self._host, kind, text))

    def _flush(self) -> None:
        """Write what the store does not have, if it serves."""
        if not self._terms.kept:
            self._doubt = False
        if not self._terms.kept or self._ledger.state.failing_since:
            return
        try:
            self._remember_mode()
            while True:
                with self._lock:
                    batch = self._ledger.cut(private=self._terms.private)
                if batch is None:
                    break
                self._save()
                self._writer.write(self._ledger.number, batch, time.time())
                with self._lock:
                    self._ledger.written()
                self._save()
        except StoreError as error:
            self._failing("history", error)
        else:
            self._doubt = False
            self._report.recovered("history")

    def _failing(self, kind: str, error: StoreError) -> None:
        self._doubt = True
        self._look_at_store()
        if not self._ledger.state.failing_since:  # else it is told as the store's trouble
            self._report.failing(kind, error=str(error))

    def _ship(self) -> None:
        """Write the verdicts that the store does not have, if it serves."""
        ledger = self._ledger
        if not ledger.state.failing_since:
            try:
                self._write_chunks(ledger)
            except StoreError as error:
                self._failing(_VERDICTS, error)
            else:
                self._report.recovered(_VERDICTS)
        if ledger.dropped > self._told_dropped:
            self._told_dropped = ledger.dropped
            self._report.failing(_VERDICTS, error="the store was away too long", dropped=ledger.dropped)
        self._shared.board.set_dropped(ledger.dropped)

    def _write_chunks(self, ledger: Ledger) -> None:
        """Raises StoreError."""
        if self._unwanted:
            self._chunks.clear()
            self._unwanted = False
        with self._lock:
            ledger.pack()
        if ledger.chunks:
            self._save()  # so that a successor sends the very same
        while ledger.chunks:
            number, size = self._chunks.write(ledger.chunks, time.time(), self._allowance())
            with self._lock:
                ledger.stored(number)
            self._shared.board.set_verdicts(*size)
            if not ledger.chunks:
                self._save()

    def _allowance(self) -> int:
        """Bytes that our verdicts may take in the store."""
        if time.monotonic() >= self._hosts_due:
            self._hosts_due = time.monotonic() + _HOSTS_LOOK
            # Another connection, which may think the store away for longer; that is no reason to wait.
            with contextlib.suppress(StoreError):
                self._hosts = len(self._chronicle.hosts())
        return allowance(*self._shared.board.store_memory, self._hosts)

    def _remember_mode(self) -> None:
        """After a start: mark that the mode is another than before it.  Raises StoreError."""
        if not self._mode_unknown:
            return
        own = [mark for mark in self._chronicle.reader.marks(0, time.time()) if mark.host == self._host]
        known = [mark.text for mark in own if mark.kind in ("start", "mode")]
        self._mode_unknown = False
        if known and known[-1].partition(",")[0] != self._terms.mode:
            self._mark("mode", self._terms.mode)

    def _save(self) -> None:
        if not self._shared.journal.save(self._ledger.dump()):
            # Somebody has sent us names of the greatest length: rather those than the counts.
            with self._lock:
                self._ledger.forget_addresses()
                self._ledger.latest.clear()
            self._shared.journal.save(self._ledger.dump())


@lru_cache(8)
def _day(number: float) -> str:
    """The name of a day, by how many there were before it."""
    return layout.day(number * Step.DAY)


def _next_tick() -> float:
    """The end of the tick that is now, by the clock: one ends with each minute."""
    return (time.time() // TICK + 1) * TICK


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - a pace is no secret
