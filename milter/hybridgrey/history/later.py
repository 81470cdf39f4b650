"""Enters in the history what mail logs say of recorded verdicts: that mail let in early was spam later.

Each verdict is counted once, and once as spam, however often and on how many hosts the logs are read: the
store remembers the verdicts that were counted, as numbers of 63 bits made of what the record says.  It does
so as long as verdicts are kept, for no longer can one be found again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from hybridgrey.history import layout
from hybridgrey.history.layout import LAYOUTS, Step
from hybridgrey.store.connection import Script, Store, StoreError

MARGIN: Final = 86_400
"""Seconds beyond the keeping of verdicts: clocks differ, and chunks end when their last one does."""
_BUCKET: Final = 180  # s; with fewer than 512 numbers a set takes 8 bytes for each, else 70
_A_CALL: Final = 200
_SCRIPT: Final = Script.installed("hybridgrey.history", "later.lua")
_READ: Final = Script("""
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then redis.call('DEL', KEYS[1]) end
local value, now = redis.call('HGET', KEYS[1], ARGV[1]), tonumber(redis.call('TIME')[1])
-- What is no number of seconds, or is yet to come, is damage; "nan" would be larger than no number.
local known = value and #value <= 12 and string.find(value, '^%d+$') and tonumber(value) or 0
if known < tonumber(ARGV[2]) or known > now then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return {1}
""")


class Told(NamedTuple):
    """What a log says of a verdict: `t` and `reason` are its record's, `number` tells it from others."""

    t: float
    number: int
    reason: str
    spam: bool


class LaterWriter:
    """Writes for any host; `kept`: seconds for which verdicts are. Methods raise StoreError."""

    def __init__(self, store: Store, kept: int, *, dry_run: bool = False) -> None:
        """`dry_run`: say what would be written."""
        self._store = store
        self._kept = kept + MARGIN
        self._dry_run = dry_run

    def write(self, host: str, told: Iterable[Told], now: float) -> tuple[int, int]:
        """Count verdicts of a host: how many are told of, and how many called spam, for the first time."""
        first = spam = 0
        ordered = sorted(told, key=lambda one: one.t)
        for _, some in groupby(ordered, key=lambda one: int(one.t) // _BUCKET):
            row = list(some)
            for at in range(0, len(row), _A_CALL):
                reply = self._write(host, row[at : at + _A_CALL], now)
                first, spam = first + reply[0], spam + reply[1]
        return first, spam

    def read_until(self, host: str, moment: float) -> None:
        """Remember that logs which tell of a host have been read up to a moment."""
        if not self._dry_run:
            name = layout.escaped(host).encode("utf-8", "surrogatepass")
            words = (name, int(moment), LAYOUTS[Step.DAY].kept)
            self._store.run(_READ, [layout.key("logs")], words)

    def _write(self, host: str, row: Sequence[Told], now: float) -> tuple[int, int]:
        moment = row[0].t
        bucket = str(int(moment) // _BUCKET)
        keys = [layout.key("later", what, host, bucket) for what in ("told", "spam")]
        keys += [layout.chapter(step, moment).key(host) for step in Step]
        kept = [LAYOUTS[step].kept if now - moment < LAYOUTS[step].kept else 0 for step in Step]
        words = (self._kept, *kept, b"would" if self._dry_run else b"count", *_words(row))
        reply = self._store.run(_SCRIPT, keys, words)
        try:
            first, spam = reply
            return int(first), int(spam)
        except (TypeError, ValueError):
            raise StoreError("the store gave an answer that the script does not give") from None


def number(t: float, client: str, sender: str, recipient: str) -> int:
    """A number for a verdict of a host by what its record says."""
    text = "\0".join((f"{t:.6f}", client, sender, recipient)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1


def _words(row: Iterable[Told]) -> Iterator[bytes | int]:
    for one in row:
        yield one.number
        yield b"1" if one.spam else b"0"
        for what in ("told", "spam"):
            yield layout.series_name("later", one.reason, what, "log").encode()
        # The number of a step is the field's first word.
        yield b" ".join(layout.field(step, one.t, "").split(b" ")[0] for step in Step)
