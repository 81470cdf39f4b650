"""Records of verdicts, packed for the store: some hundred of one host in one *chunk*.

A chunk is ``1 NUMBER FIRST LAST `` and then the records as JSON lines, deflated: its version, how many there
are, and the times (Unix seconds) of the first and the last. A dictionary that holds what most records say
makes even one record alone small: some 65 to 100 bytes of about 480.

What is read back may have been written by anybody: what is none of ours gives nothing, and never costs more
memory than a chunk of ours may.

Pure.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, cast

from hybridgrey.history.records import read_record

MOST_RECORDS: Final = 500
"""Records of one chunk."""
SPAN_MAX: Final = 3600.0
"""Seconds that a chunk may span: readers look so far beyond the time they are asked about."""
CHUNK_MAX: Final = 512 * 1024
"""Bytes of a chunk, of which ours have a tenth."""
_RAW_MAX: Final = 2 * 2**20  # bytes; 500 records have at most 500 KiB
_LINE_MAX: Final = 8192  # bytes; a record has an eighth
_LEVEL: Final = 3  # a tenth smaller than 1; 6 saves as much again for twice the time
_WINDOW: Final = -15  # a bare stream: a header of zlib's would say nothing that ours does not

# Of version 1: not a byte of it may change, or what was written with it is lost.
_LINE: Final = (
    '{"queue_id":null,"client":"192.0.2.1","host":null,"helo":"mail.example.com","sender":"a@example.com",'
    '"recipient":"b@example.net","rule":"%s","action":"%s","outcome":"%s","reason":"%s","lists":{%s},'
    '"state":%s,"age":%s,"wait_ms":0.1,"enforced":true,%s"t":1767225600.123,"mx":"mx1.example.org"}\n'
)
_DICTIONARY: Final = "".join(
    _LINE % words
    for words in (
        ("local", "accept", "accepted", "allowed by hand", "", "null", "null", ""),
        ("authenticated", "accept", "accepted", "authenticated", "", "null", "null", ""),
        ("the rest", "greylist", "accepted", "passed", "", '"passed"', "312", ""),
        ("the rest", "greylist", "accepted", "network", "", '"network"', "0", ""),
        ("the rest", "greylist", "accepted", "known", "", '"known"', "86400", ""),
        (
            *("allowlists", "accept", "accepted", "list"),
            *('"list.dnswl.org":["127.0.5.2"],"rep.mailspike.net":["127.0.0.18"]', "null", "null", ""),
        ),
        (
            *("the rest", "greylist", "greylisted", "early", "", '"early"', "12"),
            '"reply":"450 4.2.0 Greylisted, please try again in 288 seconds",',
        ),
        (
            *("the rest", "greylist", "greylisted", "new", "", '"new"', "0"),
            '"reply":"450 4.2.0 Greylisted, please try again in 300 seconds",',
        ),
        (
            *("blocklists", "reject", "rejected", "list"),
            '"bl.mailspike.net":["127.0.0.2"],"zen.spamhaus.org":["127.0.0.4","127.0.0.11"]',
            *("null", "null"),
            '"reply":"554 5.7.1 Service unavailable; client [192.0.2.1] blocked using zen.spamhaus.org; '
            'https://www.spamhaus.org/query/ip/192.0.2.1",',
        ),
    )
).encode()

_HEAD: Final = re.compile(rb"1 ([0-9]{1,6}) ([0-9]{1,12}(?:\.[0-9]{1,9})?) ([0-9]{1,12}(?:\.[0-9]{1,9})?) ")

Record = dict[str, object]
Needles = Sequence[Sequence[bytes]]
"""What a record must have in it, as JSON in lower case, of each group one: to pass over most others."""


class Chunk(NamedTuple):
    """A chunk as it is kept, and what stands at its head."""

    number: int
    first: float
    last: float
    data: bytes


def cut(records: Sequence[bytes]) -> list[Chunk]:
    """The chunks of some records, in the order of their times; what is no record is left out."""
    timed = [(moment, raw) for raw in records if (moment := _moment(raw)) is not None]
    timed.sort(key=lambda one: one[0])
    chunks, at = [], 0
    while at < len(timed):
        end = at + 1
        while end < min(len(timed), at + MOST_RECORDS) and timed[end][0] - timed[at][0] <= SPAN_MAX:
            end += 1
        chunks.append(_packed(timed[at:end]))
        at = end
    return chunks


def head(data: bytes) -> Chunk | None:
    """A chunk by its head; None for what is none."""
    match = _HEAD.match(data[:64])
    if match is None or len(data) > CHUNK_MAX:
        return None
    number, first, last = int(match[1]), float(match[2]), float(match[3])
    return Chunk(number, first, last, data) if 0 < number <= MOST_RECORDS and first <= last else None


def unpacked(chunk: Chunk, needles: Needles = ()) -> Iterator[Record]:
    """The records of a chunk, the oldest first; as many as are whole, and may have the needles."""
    match = _HEAD.match(chunk.data[:64])
    if match is None:
        return
    inflate = zlib.decompressobj(_WINDOW, _DICTIONARY)
    try:
        raw = inflate.decompress(chunk.data[match.end() :], _RAW_MAX)
    except zlib.error:
        return
    if needles and not _may_have(raw, needles):
        return
    for line in raw.split(b"\n", MOST_RECORDS)[:MOST_RECORDS]:
        if len(line) > _LINE_MAX or (needles and not _may_have(line, needles)):
            continue
        if (record := read_record(line)) is not None:
            yield record


def _may_have(raw: bytes, needles: Needles) -> bool:
    lower = raw.lower()
    return all(any(one in lower for one in some) for some in needles)


def time_of(record: Record) -> float:
    """When a verdict was given, Unix seconds."""
    return float(cast(float, record["t"]))


def _moment(raw: bytes) -> float | None:
    # The daemon's own have it near the end, and no text in them can pose as that: a quote in one has a "\\".
    _, found, rest = raw.rpartition(b',"t":')
    try:
        moment: float | None = float(rest.partition(b',"mx":"')[0]) if found else None
    except ValueError:
        moment = None
    if moment is None and (record := read_record(raw)) is not None:
        moment = time_of(record)
    # The head has no room for another, and no clock shows it.
    return moment if moment is not None and 0 <= moment < 1e12 and math.isfinite(moment) else None


def _packed(timed: Sequence[tuple[float, bytes]]) -> Chunk:
    first, last = timed[0][0], timed[-1][0]
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW, 9, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY)
    body = deflate.compress(b"\n".join(raw for _, raw in timed)) + deflate.flush()
    # Rounded outwards, so that no record lies beside the times at the head.
    low, high = math.floor(first * 1000) / 1000, math.ceil(last * 1000) / 1000
    return Chunk(len(timed), low, high, b"1 %d %.3f %.3f " % (len(timed), low, high) + body)
