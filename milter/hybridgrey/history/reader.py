"""The history in the store, read back: of some hosts, or the sum of all.

Bounded whatever is asked for: a span is cut to what is kept, and the store is read a few keys a call, so that
no mail waits for it.  What is read may have been written by anybody: it is checked, and what is none of ours
is passed over.  All methods raise StoreError, and only that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, cast
from urllib.parse import unquote

from hybridgrey.history import chunkreader, layout
from hybridgrey.history.chunkreader import Kept
from hybridgrey.history.chunks import Needles, Record
from hybridgrey.history.layout import LAYOUTS, Step
from hybridgrey.history.records import (
    DAY_MAX,
    HOSTS_MAX,
    LATEST_MAX,
    MARKS_MAX,
    TEXT_MAX,
    TOPS,
    TOPS_KEPT,
    Mark,
    heaviest,
    read_mark,
)
from hybridgrey.store.connection import Script, Store, StoreError

_KEYS: Final = 8  # a call: the server is busy for a few milliseconds at most
_LEAST_TIMEOUT: Final = 5.0  # s; a chapter is more work than a mail
_FIELDS_MAX: Final = 100_000  # of a hash; 60 minutes of 1,000 series are 60,000
_FIELDS: Final = 20_000  # a call, if it is of more than one hash: the server is busy for 20 ms
EVER: Final = 1e11  # s; beyond all clocks
_ENTRY_MAX: Final = 8192  # bytes; a mark has an eighth

# Gives as many replies as one call may cost, at least one; what is too large is none of ours.
_READ: Final = Script(f"""
local found, size = {{}}, 0
for i, key in ipairs(KEYS) do
  local fields, reply = 0, {{}}
  if ARGV[1] == 'HGETALL' then fields = redis.pcall('HLEN', key) end
  if type(fields) == 'number' and fields <= {_FIELDS_MAX} then
    size = size + fields
    if i > 1 and size > {_FIELDS} then break end
    reply = redis.pcall(ARGV[1], key, unpack(ARGV, 2))
    for j = 1, fields == 0 and #reply or 0 do
      if #reply[j] > {_ENTRY_MAX} then reply[j] = '' end
    end
  end
  found[i] = reply.err and {{}} or reply
end
return found
""")


class Reader:
    """What all hosts have written, of those that are asked for or added up; thread safe."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @classmethod
    def open(cls, url: str, timeout: float) -> Reader:
        """The history in the store at `url` (see `Store.open`); `timeout` in seconds, for each call."""
        return cls(Store.open(url, max(timeout, _LEAST_TIMEOUT)))

    def hosts(self) -> list[str]:
        """The hosts that have a history, by name."""
        (flat,) = self._read([layout.key("hosts")], "ZREVRANGE", 0, HOSTS_MAX - 1)
        return sorted({name for name in map(_text, flat) if name})

    def counts(
        self, start: float, end: float, step: Step, hosts: Sequence[str] | None = None
    ) -> dict[str, dict[int, int]]:
        """Counts by series (see `layout`) and first second of the step, for steps that touch the span.

        Steps without a count are left out, as is what lies before the time for which a step is kept.
        """
        step = Step(step)
        start = max(start, end - LAYOUTS[step].kept, 0)
        places = [
            (at, at.key(host)) for host in self._chosen(hosts) for at in layout.chapters(step, start, end)
        ]
        found: dict[str, dict[int, int]] = {}
        for (at, _), flat in zip(places, self._read([key for _, key in places], "HGETALL"), strict=True):
            for name, value in _pairs(flat):
                place, count = at.read(name), _count(value)
                if place is None or count is None or not start - step < place[0] <= end:
                    continue
                moments = found.setdefault(place[1], {})
                moments[place[0]] = moments.get(place[0], 0) + count
        return found

    def marks(self, start: float, end: float) -> list[Mark]:
        """Notable moments of all hosts, the oldest first; the newest MARKS_MAX of them."""
        limits = f"{end:f}", f"{start:f}", "LIMIT", 0, MARKS_MAX
        (flat,) = self._read([layout.key("marks")], "ZREVRANGEBYSCORE", *limits)
        return sorted(filter(None, map(read_mark, flat)), key=lambda mark: mark.time)

    def logs_read(self, hosts: Sequence[str] | None = None) -> dict[str, int]:
        """Up to when mail logs have been read for verdicts of a host (`later`), Unix seconds."""
        (flat,) = self._read([layout.key("logs")], "HGETALL")
        read = {unquote(_text(name)): _count(value) for name, value in _pairs(flat)}
        chosen = {host: until for host, until in read.items() if until and (hosts is None or host in hosts)}
        return dict(heaviest(chosen, HOSTS_MAX))

    def tops(
        self, start: float, end: float, hosts: Sequence[str] | None = None, limit: int = 20
    ) -> dict[str, list[tuple[str, int]]]:
        """The heaviest of each of TOPS with their recipients, by whole days; 32 days are kept."""
        days = layout.days(max(start, end - TOPS_KEPT, 0), end)
        places = [
            (kind, layout.key("top", kind, host, day))
            for host in self._chosen(hosts)
            for day in days
            for kind in TOPS
        ]
        found: dict[str, Counter[str]] = {kind: Counter() for kind in TOPS}
        rows = self._read([key for _, key in places], "ZREVRANGE", 0, DAY_MAX - 1, "WITHSCORES")
        for (kind, _), flat in zip(places, rows, strict=True):
            for name, score in _pairs(flat):
                if (count := _count(score)) is not None:
                    found[kind][_text(name)] += count
        return {kind: heaviest(counter, limit) for kind, counter in found.items()}

    def latest(self, hosts: Sequence[str] | None = None, limit: int = LATEST_MAX) -> list[Record]:
        """Recorded verdicts, the newest first; `mx` is the host that judged (see `ring` for the rest)."""
        return list(islice(self.verdicts(0, EVER, hosts, newest_first=True), limit))

    def verdicts(
        self,
        since: float,
        until: float,
        hosts: Sequence[str] | None = None,
        *,
        newest_first: bool = False,
        needles: Needles = (),
    ) -> Iterator[Record]:
        """Recorded verdicts of a time, both ends included, one after another in their order.

        Those that have no needle (see `chunks`) are passed over, others may be.
        """
        return chunkreader.records(
            self._store, self._chosen(hosts), since, until, newest_first=newest_first, needles=needles
        )

    def kept(self, hosts: Sequence[str] | None = None) -> dict[str, Kept]:
        """How many verdicts there are of each host, and since when."""
        return {host: chunkreader.kept(self._store, host) for host in self._chosen(hosts)}

    def close(self) -> None:
        """Close the connections."""
        self._store.close()

    def _chosen(self, hosts: Sequence[str] | None) -> Sequence[str]:
        return self.hosts() if hosts is None else list(dict.fromkeys(hosts))[:HOSTS_MAX]

    def _read(self, keys: Sequence[bytes], command: str, *args: str | int) -> Iterator[list[bytes]]:
        """What a command says of each key; nothing for one of another type."""
        words = [command.encode(), *(arg if isinstance(arg, int) else arg.encode() for arg in args)]
        done = 0
        while done < len(keys):
            some = keys[done : done + _KEYS]
            reply = cast(Sequence[object], self._store.run(_READ, some, words))
            if not 0 < len(reply) <= len(some):
                raise StoreError("the store gave an answer that the history's script does not give")
            done += len(reply)
            for one in reply:
                yield [item for item in one if isinstance(item, bytes)] if isinstance(one, list) else []


def _pairs(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=False)  # an odd one is damage


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")[:TEXT_MAX]


def _count(raw: bytes) -> int | None:
    """A count, which is positive and exact in a float; None for anything else."""
    try:
        number = float(raw)
    except ValueError:
        return None
    return int(number) if 0 <= number <= 2**53 else None
