"""``hybridgrey entries``: what was allowed and blocked by hand, by whom, until when and why."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from hybridgrey import envelope
from hybridgrey.cleaning import clean
from hybridgrey.cli import config_option
from hybridgrey.cli.access import UNAVAILABLE, configured, open_store, store_trouble
from hybridgrey.cli.hand import by_hand
from hybridgrey.cli.hand_rows import HEAD, row
from hybridgrey.cli.output import fail, json_line, table, warn
from hybridgrey.clientaddress import ClientReader
from hybridgrey.config.load import Config
from hybridgrey.hand.entries import About, Entry
from hybridgrey.hand.table import EMPTY, Table
from hybridgrey.policy.conditions import Hand


@click.command("entries")
@click.argument("text", required=False, default="")
@click.option("--kind", type=click.Choice([k.value for k in Hand]), help="Of this kind only.")
@click.option("--of", "about", type=click.Choice([a.value for a in About]), help="About these only.")
@click.option("--json", "lines", is_flag=True, help="Print JSON, one object a line.")
@config_option
def entries_(config_path: Path, text: str, kind: str | None, about: str | None, lines: bool) -> None:
    """List the entries by hand: what `allow` and `block` have said.

    With the store down it shows what this host goes by meanwhile, and ends with status 69.

    TEXT selects those that name it (an address that a network holds, a mailbox of a domain), and those that
    have it in their subject, their comment or the name of who made them.  Exit status 1 when there is none.

    \b
    Examples:
      hybridgrey entries
      hybridgrey entries 192.0.2.7
      hybridgrey entries user@example.org
      hybridgrey entries --kind block --json | jq -r .subject
    """
    config = configured(config_path)
    found, trouble = _found(config)
    chosen = [e for e in found if kind in (None, e.kind.value) and about in (None, e.subject.about.value)]
    if text:
        chosen = list(_selected(chosen, text, config.dns.clients))
    chosen.sort(key=_order)
    if lines:
        for entry in chosen:
            json_line(entry.fields())
    elif chosen:
        table(HEAD, map(row, chosen))
    if trouble:
        raise SystemExit(UNAVAILABLE)
    if not chosen:
        fail("there are no entries by hand" if not found else "no such entry")


def _found(config: Config) -> tuple[Sequence[Entry], bool]:
    """The entries that hold, and whether they are those of this host's copy, for want of the store."""
    with closing(open_store(config)) as store:
        table_, error = by_hand(config, store)
    if error is not None:
        trouble = store_trouble(config, error)
        if table_ is None:
            fail(trouble, UNAVAILABLE)
        warn(f"{trouble}; this host goes by its copy meanwhile:")
    return (table_ or EMPTY).entries, error is not None


def _selected(entries: Iterable[Entry], text: str, clients: ClientReader) -> Iterator[Entry]:
    """The entries that name `text`, or have it in their words."""
    entries = list(entries)
    source, wanted, box = clients.read(text), text.casefold(), envelope.read(text)
    naming = Table(entries).naming(source.packed, source.carried, text, box, box)
    inside = _network(text)
    for entry in entries:
        words = (entry.subject.text, entry.comment, entry.who, entry.host)
        if entry in naming or any(wanted in word.casefold() for word in words) or _within(entry, inside):
            yield entry


def _network(text: str) -> Any:  # noqa: ANN401 (either family)
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _within(entry: Entry, network: Any) -> bool:  # noqa: ANN401 (either family)
    """Whether an entry's network lies in a network, or holds it."""
    key: Any = entry.subject.key
    return (
        network is not None
        and not isinstance(key, str)
        and key.version == network.version
        and (key.overlaps(network))
    )


def _order(entry: Entry) -> tuple[Any, ...]:
    key: Any = entry.subject.key
    place = (
        (0, "", 0) if isinstance(key, str) else (key.version, key.network_address.packed.hex(), key.prefixlen)
    )
    return list(About).index(entry.subject.about), place, clean(entry.subject.text)
