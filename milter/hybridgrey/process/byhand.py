"""Entries by hand on this host: the keeper follows the store, the workers follow the keeper.

`Follower` is the keeper's: it asks the store which version of the entries there is, reads them when that has
changed, publishes them to the workers and keeps a copy on disk.  `Current` is a worker's: it takes what is
published into memory.  Both look often enough that a command holds everywhere within two seconds.

While the store is down nothing changes but that entries end: by this host's clock, and by what was last known
of the store's.  The copy is read by the master at the next start.  A store that has lost everything gets the
entries back from a host that has them, for they are the words of somebody who is asleep by then; a store that
was told to forget them all has a version, and is believed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hybridgrey import logs
from hybridgrey.clientaddress import Carried
from hybridgrey.config.load import Config
from hybridgrey.envelope import Mailbox
from hybridgrey.hand import keptcopy
from hybridgrey.hand.entries import Entry, parse
from hybridgrey.hand.register import Copy, FullError, Register
from hybridgrey.hand.table import EMPTY, Table
from hybridgrey.policy.conditions import ByHand, Unknown
from hybridgrey.process import statefiles
from hybridgrey.process.bulletin import Bulletin
from hybridgrey.store.connection import StoreError
from hybridgrey.trouble.reporter import Report

SECONDS: Final = 0.75
"""Between two looks at the store; a worker looks once a second."""
FILE: Final = "hybridgrey.hand"
_KIND: Final = "entries by hand"
_WHAT: Final = "the copy of the entries by hand"


def new_bulletin() -> Bulletin:
    """Memory in which entries are published."""
    return Bulletin(keptcopy.MAX_BYTES)


def place(config: Config) -> Path | None:
    """Where this host's copy is, None for nowhere."""
    folder = statefiles.folder(config)
    return folder / FILE if folder is not None else None


def kept(config: Config, url: str) -> Copy | None:
    """The copy that this host has for the store at `url`; None if there is none that can be read."""
    path = place(config)
    with contextlib.suppress(OSError, ValueError):
        copy, store = keptcopy.parse(statefiles.read(path, keptcopy.MAX_BYTES)) if path else (None, "")
        return copy if store == keptcopy.mark(url) else None
    return None


def start(bulletin: Bulletin, path: Path | None, store: str) -> None:
    """Publish what an earlier daemon has left on disk; in the master, once, before it forks.

    Only if it is of the store with this mark: another daemon of this machine may have another store.
    """

    def take(data: bytes) -> None:
        if keptcopy.parse(data)[1] == store:
            bulletin.publish(data)

    statefiles.recall(path, keptcopy.MAX_BYTES, take, what=_WHAT)


def published(bulletin: Bulletin) -> tuple[int, Copy, str] | None:
    """The generation, the entries and the mark of their store; None when there is nothing to be had now."""
    found = bulletin.read()
    if found is None:
        return None
    try:
        return found[0], *keptcopy.parse(found[1])
    except ValueError:
        return None


class Follower:
    """The keeper's part."""

    def __init__(
        self, register: Register, bulletin: Bulletin, report: Report, *, store: str, path: Path | None
    ) -> None:
        """`store`: the mark of the store; `path`: where the copy is kept, None for nowhere."""
        self._register = register
        self._bulletin = bulletin
        self._report = report
        self._store = store
        self._path = path
        self._known: Copy | None = None
        last = published(bulletin)
        # A reload may have changed the store: what another one has is not given to this.
        if last is not None and last[2] == store:
            self._known = last[1]

    def run(self, stop: threading.Event) -> None:
        """Follow the store until `stop` is set."""
        while not stop.wait(SECONDS):
            self.look()

    def entries(self) -> Sequence[Entry]:
        """The entries that hold now, as far as they are known."""
        known = self._known.entries() if self._known is not None else []
        now = time.time() + self._bulletin.offset
        return [entry for entry in known if not entry.over(now)]

    def look(self) -> None:
        """Look once, and take over what has changed.  Never raises for a bad world."""
        try:
            found = self._register.look()
            self._bulletin.set_offset(found.now - time.time())
            if self._known is None or found.version != self._known.version:
                self._take(found.version)
        except FullError as error:
            self._report.failing(_KIND, error=str(error))
        except StoreError as error:
            # That the store is down is told by those whose mail it is.
            logs.get().debug("entries by hand are as they were", reason=str(error))

    def _take(self, version: int) -> None:
        known = self._known
        if not version and known is not None and known.pairs and self._register.restore(known):
            logs.get().warning("the store had lost the entries by hand, this host has given it its own")
        copy = self._register.read()
        data = keptcopy.dump(copy, self._store)
        try:
            self._bulletin.publish(data)
        except ValueError as error:
            self._report.failing(_KIND, error=f"what the store has {error}")
            return
        self._known = copy
        statefiles.keep(self._path, data, self._report, what=_WHAT, kind=_KIND)


class Current:
    """A worker's part; `of` may be called from any thread."""

    def __init__(self, bulletin: Bulletin, register: Register | None) -> None:
        """`register` is read once if nothing was published yet: a host without a copy starts.

        None where no rule asks for entries; then nothing is ever read.
        """
        self._bulletin = bulletin
        self._wanted = register is not None
        self._generation = 0
        self._read: dict[tuple[bytes, bytes], Entry | None] = {}
        self.table: Table = EMPTY
        """The entries that hold."""
        self._all = EMPTY
        # When the last of those ended that are left out, Unix seconds; before that the clock was set back.
        self._ended = 0
        if register is not None and not bulletin.generation:
            with contextlib.suppress(StoreError):  # the keeper goes on trying
                self._take(register.read())
        self.tick()

    def tick(self) -> None:
        """Take over what is new, and let go of what is over; to be called once a second."""
        bulletin = self._bulletin
        if not self._wanted:
            return
        if bulletin.generation != self._generation and (found := published(bulletin)) is not None:
            self._generation = found[0]
            self._take(found[1])
        now = time.time() + bulletin.offset
        table = (self._all if now < self._ended else self.table).at(now)
        if table is not self.table:
            self.table = table
            self._ended = max((entry.until for entry in self._all.entries if entry.over(now)), default=0)

    def _take(self, copy: Copy) -> None:
        """Read what is new of a copy: no mail should wait because of a change among thousands."""
        before = self._read
        self._read = {pair: before[pair] if pair in before else parse(*pair) for pair in copy.pairs}
        self.table = self._all = Table(entry for entry in self._read.values() if entry is not None)
        self._ended = 0

    def of(
        self,
        packed: bytes | None,
        carried: Carried | None,
        host: str | None,
        sender: Mailbox,
        recipient: Mailbox,
    ) -> ByHand | Unknown:
        """What is said by hand (`Table.of`)."""
        return self.table.of(packed, carried, host, sender, recipient)
