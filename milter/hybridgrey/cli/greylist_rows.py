"""Entries of the greylist on the screen: as lines of text or of JSON, in order.

Entries come from the store in no order, and may be millions: they are sorted a part at a time, the parts kept
in a file without a name until they are merged.  So memory hardly grows with their number.
"""

from __future__ import annotations

import heapq
import ipaddress
import pickle
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import itemgetter
from typing import IO, Any, Final, NamedTuple

import click

from hybridgrey.cleaning import clean
from hybridgrey.cli.output import coloured, json_line, span
from hybridgrey.greylist.entries import Entry, Status

FIRST: Final = 200
"""So many entries make the widths of the columns; the rest is printed as it comes."""
WIDEST: Final = 50
PART: Final = 5000
"""Entries that are sorted in memory, some MiB."""
BATCH: Final = 100
"""Of each part so many are in memory while parts are merged."""

Keyed = tuple[tuple[Any, ...], Entry]


class _Part(NamedTuple):
    """Where the batches of a sorted part lie in the file."""

    offsets: tuple[int, ...]


def ordered(entries: Iterable[Entry], limit: int | None = None) -> Iterator[Entry]:
    """Entries by network, sender and recipient, each once; the first `limit` of them."""
    keyed: Iterator[Keyed] = ((_order(entry), entry) for entry in entries)
    if limit is not None and limit <= PART:
        # Some more, for SCAN may give an entry twice.
        keyed = iter(heapq.nsmallest(2 * limit, keyed, key=itemgetter(0)))
    return islice(_once(_sorted(keyed)), limit)


def _order(entry: Entry) -> tuple[Any, ...]:
    """What to sort by: addresses as numbers, IPv4 first; a network before its triplets."""
    try:
        network = ipaddress.ip_network(entry.network)
        place: tuple[Any, ...] = (network.version, network.network_address.packed, network.prefixlen, "")
    except ValueError:  # hidden, or no IP address
        place = (9, b"", 0, entry.network)
    return (*place, entry.sender is not None, entry.sender or "", entry.recipient or "", entry.key)


def _once(entries: Iterator[Keyed]) -> Iterator[Entry]:
    last = None
    for _key, entry in entries:
        if entry.key != last:
            yield entry
        last = entry.key


def _sorted(keyed: Iterator[Keyed]) -> Iterator[Keyed]:
    part = sorted(islice(keyed, PART), key=itemgetter(0))
    if len(part) < PART:
        yield from part
        return
    with tempfile.TemporaryFile() as file:
        parts = []
        while part:
            parts.append(_written(file, part))
            part = sorted(islice(keyed, PART), key=itemgetter(0))
        yield from heapq.merge(*(_read(file, one) for one in parts), key=itemgetter(0))


def _written(file: IO[bytes], part: Sequence[Keyed]) -> _Part:
    offsets = []
    for start in range(0, len(part), BATCH):
        offsets.append(file.tell())
        pickle.dump(part[start : start + BATCH], file, pickle.HIGHEST_PROTOCOL)
    return _Part(tuple(offsets))


def _read(file: IO[bytes], part: _Part) -> Iterator[Keyed]:
    for offset in part.offsets:
        file.seek(offset)
        yield from pickle.load(file)  # noqa: S301 (from a file that only we have)


def _fields(entry: Entry) -> dict[str, Any]:
    """An entry for JSON; times in seconds."""
    fields: dict[str, Any] = {"state": str(entry.status), "network": entry.network}
    if entry.domain:
        fields["domain"] = entry.domain
    if entry.sender is None:
        fields |= {"passed": entry.passes}
    else:
        fields |= {"sender": entry.sender, "recipient": entry.recipient, "age": entry.age}
    return fields | {"expires": entry.expires} | ({"hidden": True} if entry.hidden else {})


def _widths(first: Sequence[Entry]) -> tuple[int, int]:
    """The columns of networks and senders, at least as wide as their headings."""
    networks_, senders = (clean(e.network) for e in first), (clean(e.sender or "") for e in first)
    widths = (max((len(text) for text in column), default=0) for column in (networks_, senders))
    network, sender = (min(WIDEST, max(10, width)) for width in widths)
    return network, sender


def _head(widths: tuple[int, int]) -> str:
    network, sender = widths
    return (
        f"{'STATE':<8}  {'NETWORK':<{network}}  {'AGE':>7}  {'EXPIRES':>7}  {'SENDER':<{sender}}  RECIPIENT"
    )


def _row(entry: Entry, widths: tuple[int, int]) -> str:
    """An entry as a line of text."""
    network, sender = widths
    expires = "never" if entry.expires < 0 else span(entry.expires)
    head = f"{coloured(entry.status, 8)}  {clean(entry.network):<{network}}  {span(entry.age) or '-':>7}"
    if entry.sender is None:
        # `greylist pass` sets the same count, so which of the two it was is not known.
        by_hand = ", or by hand" if entry.status is Status.ALLOWED else ""
        return f"{head}  {expires:>7}  {entry.passes} passed{by_hand}"
    return f"{head}  {expires:>7}  {clean(entry.sender):<{sender}}  {clean(entry.recipient or '')}"


def show(entries: Iterable[Entry], *, lines: bool) -> int:
    """Print entries; how many there were."""
    entries = iter(entries)
    count = 0
    if lines:
        for entry in entries:
            json_line(_fields(entry))
            count += 1
        return count
    first = list(islice(entries, FIRST))
    widths = _widths(first)
    if first:
        click.secho(_head(widths), bold=True)
    for entry in chain(first, entries):
        click.echo(_row(entry, widths))
        count += 1
    return count
