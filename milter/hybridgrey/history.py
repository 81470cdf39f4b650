"""The history in the store: what every host has counted by minute, hour and day, and its notable moments.

`Writer` adds what one host has counted since the last time, in one script call (history.lua) that has no
effect when it is repeated: a batch has a number, and the store remembers the last one of each writer.
`Reader` gives it back, of some hosts or the sum of all, bounded whatever is asked for: a span is cut to what
is kept, and the store is read a few keys a call, so that no mail waits for it.

Names and places are `timeline`'s.  Beside the counts there are *marks* (notable moments), *tops* (the
heaviest client networks and sender domains of each day) and the *latest* verdicts as the workers recorded
them (see `ring`).  The last two hold addresses and are not written when the configuration has a
``key_secret``.

What is read may have been written by anybody: it is checked, and what is none of ours is passed over.  All
methods raise StoreError, and only that.  Written by `chronicle`; read by it and by the command ``report``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Final, cast

import orjson

from hybridgrey import timeline
from hybridgrey.store import Script, Store, StoreError
from hybridgrey.timeline import LAYOUTS, OUTCOMES, Step

__all__ = ["Batch", "Mark", "Reader", "Step", "StoreError", "Writer"]

TOPS: Final = tuple(f"{what}/{outcome}" for what in ("network", "domain") for outcome in OUTCOMES)
"""What there are tops of: client networks and sender domains, by what their recipients got."""

HOSTS_MAX: Final = 64
MARKS_MAX: Final = 2000
LATEST_MAX: Final = 500
TODAY_MAX: Final = 2000
"""Members of each of a day's tops while it lasts: a newcomer must not be the first to go at every write."""
DAY_MAX: Final = 100
"""Members of each of a day's tops when it is over."""

_LATEST_KEPT: Final = 86400
_TOPS_KEPT: Final = 32 * 86400
_LONG: Final = LAYOUTS[Step.DAY].kept
_NUMBER_KEPT: Final = 30 * 86400
_KEYS: Final = 8  # a call: the server is busy for a few milliseconds at most
_LEAST_TIMEOUT: Final = 5.0  # s; a chapter is more work than a mail
_FIELDS_MAX: Final = 100_000  # of a hash; 60 minutes of 1,000 series are 60,000
_FIELDS: Final = 20_000  # a call, if it is of more than one hash: the server is busy for 20 ms
_ENTRY_MAX: Final = 8192  # bytes; a record has an eighth
_TEXT_MAX: Final = 400

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


@dataclass(frozen=True, slots=True)
class Mark:
    """A notable moment of a host, Unix seconds.

    `kind`: start, reload (of a changed policy), mode, suspended and restored (a list), store_down,
    store_back; `text`: the mode, the list's label, what has changed.
    """

    time: float
    host: str
    kind: str
    text: str = ""


@dataclass(slots=True)
class Batch:
    """What is added at once; the counts are increments.

    counts: by step and its first second, then by series.  tops: by day (``2026-01-31``) and one of TOPS.
    latest: records as JSON, the oldest first.  over: days that have ended, whose tops are cut to DAY_MAX.
    """

    counts: dict[tuple[Step, int], dict[str, int]] = field(default_factory=dict)
    tops: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)
    latest: list[bytes] = field(default_factory=list)
    over: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.counts or self.tops or self.marks or self.latest or self.over)


class Writer:
    """Adds to the history of one host; `name` tells this writer from all others there ever were."""

    def __init__(self, store: Store, host: str, name: str) -> None:
        self._store = store
        self._host = host
        self._number = timeline.key("writer", name)
        self._script = load_script()

    def write(self, number: int, batch: Batch, now: float) -> None:
        """Add a batch; without effect when one of this or a higher number has been added."""
        changes = list(self._changes(batch, now))
        keys = [self._number, *(key for key, _ in changes)]
        arguments = [word for _, words in changes for word in words]
        self._store.run(self._script, keys, (number, _NUMBER_KEPT, int(now), *arguments))

    def _changes(self, batch: Batch, now: float) -> Iterator[tuple[bytes, Sequence[bytes | int]]]:
        host = self._host
        # Of one chapter all steps at once: a key, once.
        hashes: dict[bytes, list[bytes | int]] = {}
        kept: dict[bytes, int] = {}
        for (step, moment), counts in batch.counts.items():
            key = timeline.chapter(step, moment).key(host)
            kept[key] = LAYOUTS[step].kept
            row = hashes.setdefault(key, [])
            for series, count in counts.items():
                row += timeline.field(step, moment, series), count
        for key, row in hashes.items():
            yield key, _change(b"hash", kept[key], 0, row)
        for (day, kind), heaviest in batch.tops.items():
            row = [word for name, count in heaviest.items() for word in (count, _bytes(name))]
            yield timeline.key("top", kind, host, day), _change(b"top", _TOPS_KEPT, TODAY_MAX, row)
        for day in batch.over:
            for kind in TOPS:
                yield timeline.key("top", kind, host, day), _change(b"top", _TOPS_KEPT, DAY_MAX, ())
        if batch.marks:
            row = [word for mark in batch.marks for word in (int(mark.time), _packed(mark))]
            yield timeline.key("marks"), _change(b"recent", _LONG, MARKS_MAX, row)
        if batch.latest:
            row = [word for record in batch.latest[-LATEST_MAX:] for word in (_moment(record), record)]
            yield timeline.key("latest", host), _change(b"recent", _LATEST_KEPT, LATEST_MAX, row)
        yield timeline.key("hosts"), _change(b"recent", _LONG, HOSTS_MAX, (int(now), _bytes(host)))


def _change(kind: bytes, kept: int, cap: int, row: Sequence[bytes | int]) -> Sequence[bytes | int]:
    return (kind, kept, cap, len(row) // 2, *row)


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
        (flat,) = self._read([timeline.key("hosts")], "ZREVRANGE", 0, HOSTS_MAX - 1)
        return sorted({name for name in map(_text, flat) if name})

    def counts(
        self, start: float, end: float, step: Step, hosts: Sequence[str] | None = None
    ) -> dict[str, dict[int, int]]:
        """Counts by series (see `timeline`) and first second of the step, for steps that touch the span.

        Steps without a count are left out, as is what lies before the time for which a step is kept.
        """
        step = Step(step)
        start = max(start, end - LAYOUTS[step].kept, 0)
        places = [
            (at, at.key(host)) for host in self._chosen(hosts) for at in timeline.chapters(step, start, end)
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
        (flat,) = self._read([timeline.key("marks")], "ZREVRANGEBYSCORE", *limits)
        return sorted(filter(None, map(_mark, flat)), key=lambda mark: mark.time)

    def tops(
        self, start: float, end: float, hosts: Sequence[str] | None = None, limit: int = 20
    ) -> dict[str, list[tuple[str, int]]]:
        """The heaviest of each of TOPS with their recipients, by whole days; 32 days are kept."""
        days = timeline.days(max(start, end - _TOPS_KEPT, 0), end)
        places = [
            (kind, timeline.key("top", kind, host, day))
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

    def latest(self, hosts: Sequence[str] | None = None, limit: int = LATEST_MAX) -> list[dict[str, object]]:
        """Recorded verdicts, the newest first; `mx` is the host that judged (see `ring` for the rest)."""
        keys = [timeline.key("latest", host) for host in self._chosen(hosts)]
        rows = self._read(keys, "ZREVRANGE", 0, min(limit, LATEST_MAX) - 1)
        return newest((record for flat in rows for one in flat if (record := _record(one))), limit)

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


@cache
def load_script() -> Script:
    """The script as installed beside this module; read once."""
    return Script((resources.files("hybridgrey") / "history.lua").read_text(encoding="utf-8"))


def heaviest(counts: Mapping[str, int], limit: int) -> list[tuple[str, int]]:
    """The names with the highest counts, then by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:limit]


def newest(records: Iterable[dict[str, object]], limit: int) -> list[dict[str, object]]:
    """Records by their time `t`, the newest first."""
    return sorted(records, key=lambda record: -cast(float, record["t"]))[:limit]


def _pairs(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=False)  # an odd one is damage


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")[:_TEXT_MAX]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _count(raw: bytes) -> int | None:
    """A count, which is positive and exact in a float; None for anything else."""
    try:
        number = float(raw)
    except ValueError:
        return None
    return int(number) if 0 <= number <= 2**53 else None


def _packed(mark: Mark) -> bytes:
    return orjson.dumps([mark.time, mark.host, mark.kind, mark.text])


def _mark(raw: bytes) -> Mark | None:
    match _json(raw):
        case [int() | float() as time, str() as host, str() as kind, str() as text] if math.isfinite(time):
            return Mark(float(time), host[:_TEXT_MAX], kind[:_TEXT_MAX], text[:_TEXT_MAX])
    return None


def _record(raw: bytes) -> dict[str, object] | None:
    record = _json(raw)
    if not isinstance(record, dict):
        return None
    moment = record.get("t")
    return record if isinstance(moment, (int, float)) and math.isfinite(moment) else None


def _moment(raw: bytes) -> bytes:
    """The time of a record, as a score."""
    record = _record(raw)
    return b"%f" % cast(float, record["t"]) if record else b"0"


def _json(raw: bytes) -> object:
    try:
        return cast(object, orjson.loads(raw))
    except orjson.JSONDecodeError:
        return None
