"""Known senders of another greylister, written into our store.

A *memory* is what the other one knew: a triplet that passed or waits, or a client allowed as a whole.
Memories come as a stream, in any number; those of one client network are written by one call of the script
restore.lua, so that a cluster of servers takes them too.  Nothing that is known here gets worse by it, and
doing it twice is doing it once.  Ages are kept: what the other one last saw 30 days ago has the rest of
``greylist.lifetime`` to live.

"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Final

from hybridgrey.greylist.triplets import Greylist, Note, note_key
from hybridgrey.store.connection import Script, Store, StoreError

# Memories held at a time, and triplets in one call: a call must end well within the store's time limit.
BATCH: Final = 20_000
AT_ONCE: Final = 500
_SCRIPT: Final = Script.installed("hybridgrey.migrate", "restore.lua")


@dataclass(frozen=True, slots=True)
class Memory:
    """What another greylister knew; times are Unix seconds.

    `sender` and `recipient` are None for a client that was allowed as a whole.  `passed` is False for a
    triplet whose first attempt is all that was seen.
    """

    client: str
    sender: str | None
    recipient: str | None
    first: int
    last: int
    passed: bool = True


@dataclass(slots=True)
class Restored:
    """What became of the memories: numbers of triplets, but `networks`, which are newly allowed."""

    passed: int = 0
    renewed: int = 0
    waiting: int = 0
    kept: int = 0
    expired: int = 0
    networks: int = 0

    def add(self, numbers: Iterable[int]) -> None:
        """Add what one call of the script gave."""
        for f, number in zip(fields(self), numbers, strict=True):
            setattr(self, f.name, getattr(self, f.name) + number)


@dataclass(slots=True)
class _Network:
    """What is to be written for one network: times by triplet key."""

    triplets: dict[bytes, tuple[bool, int, int]] = field(default_factory=dict)
    allowed_at: int = 0

    def add(self, key: bytes, memory: Memory) -> None:
        """Add a memory; of several for one key the best of each counts."""
        if memory.sender is None:
            self.allowed_at = max(self.allowed_at, memory.last)
            return
        new = (memory.passed, memory.first, memory.last)
        old = self.triplets.get(key)
        if old is not None and old[0] == new[0]:
            new = (new[0], min(old[1], new[1]), max(old[2], new[2]))
        elif old is not None and old[0]:
            new = old
        self.triplets[key] = new


class Restorer:
    """Writes memories into a store under the terms of a greylist."""

    def __init__(self, store: Store, greylist: Greylist, *, dry_run: bool = False) -> None:
        self._store = store
        self._greylist = greylist
        self._dry_run = dry_run

    def restore(self, memories: Iterable[Memory]) -> Restored:
        """Write memories; raises StoreError, after which it can be done again."""
        counts = Restored()
        networks: dict[bytes, _Network] = {}
        held = 0
        for memory in memories:
            triplet, network = self._greylist.keys(memory.client, memory.sender or "", memory.recipient or "")
            networks.setdefault(network, _Network()).add(triplet, memory)
            held += 1
            if held >= BATCH:
                self._write(networks, counts)
                networks.clear()
                held = 0
        self._write(networks, counts)
        return counts

    def _terms(self) -> tuple[int, ...]:
        """The first arguments of the script."""
        terms, dry_run = self._greylist.terms, int(self._dry_run)
        return terms.retry_window, terms.lifetime, terms.auto_allow_after, dry_run, terms.auto_allow_interval

    def _write(self, networks: dict[bytes, _Network], counts: Restored) -> None:
        for key, network in networks.items():
            # In order of time: what of them counts for the network is told by the pauses between them.
            triplets = sorted(network.triplets.items(), key=lambda item: item[1][1])
            allowed_at = network.allowed_at
            for start in range(0, max(1, len(triplets)), AT_ONCE):
                part = triplets[start : start + AT_ONCE]
                times = [int(number) for _, of_triplet in part for number in of_triplet]
                arguments = (*self._terms(), allowed_at, *times)
                reply = self._store.run(
                    _SCRIPT, (key, note_key(key, Note.CREDIT), *(k for k, _ in part)), arguments
                )
                if len(reply) != len(fields(counts)):
                    raise StoreError("the store gave an answer that the script does not give")
                counts.add(reply)
                allowed_at = 0
