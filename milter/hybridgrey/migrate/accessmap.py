"""``check_client_access`` maps of Postfix: which of their rows can be taken over, and in which form.

What is taken over is never more than what Postfix lets in (access(5), cidr_table(5)).  A map whose rows all
let in is named as ``file:``, so that it is read again on reload, if it means here what it means there.  Of
any other map the networks and names that it lets in are written out, with the rows around them that do not
let in as exclusions; what is lost is named.  Maps that are no text (SQL, LDAP, regular expressions) stay in
main.cf.

Pure but for the `read` it is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from hybridgrey.migrate import addressset, cidrtable, indexedtable
from hybridgrey.migrate.addressset import Network, Spans
from hybridgrey.migrate.cidrtable import Row
from hybridgrey.migrate.found import Found, Read, Unreadable
from hybridgrey.migrate.indexedtable import Names
from hybridgrey.policy.match import Kind, parse_file

DEFAULT_TYPE: Final = "hash"
MAX_NAMED: Final = 20  # lines of a map that are named; the rest is counted
MAX_WRITTEN: Final = 2000  # entries written out; a longer list is no text for a person
MAX_SHOWN: Final = 80


@dataclass(frozen=True, slots=True)
class Reading:
    """How Postfix reads the map: for postscreen only whole addresses and ``permit``; `below`: whether a name
    stands for the names below it (parent_domain_matches_subdomains)."""

    postscreen: bool = False
    below: bool = True

    def lets_in(self, result: str) -> bool:
        """Whether a result lets the client in."""
        verb = result.split(None, 1)[0].lower()
        if self.postscreen:
            return result.lower() == "permit"
        # A reply code alone is a number too, and so OK to Postfix; hardly to who wrote it.
        number = result.isascii() and result.isdigit() and not (len(result) == 3 and result[0] in "45")
        return verb in ("ok", "permit") or number


SMTPD: Final = Reading()


def convert(line: int, origin: str, table: str, read: Read, reading: Reading = SMTPD) -> Iterator[Found]:
    """The rule for a ``type:path`` map, and what of it is not taken over."""
    if not table.replace("\n", " ").isprintable() or not {":", "/"} & set(table):
        yield Found(line, origin, notes=("not taken over: no map in the form type:path",))
        return
    kind, path = _split(table)
    text = _content(kind, path, read)
    if text is None:
        why = f"not taken over: a map of type {kind} is no text; leave it in main.cf"
        yield Found(line, origin, notes=(why,))
        return
    named = path.startswith("/") or not path.startswith("{")
    name = (PurePosixPath(path).name if named else kind) or "clients"
    if isinstance(text, Unreadable):
        rule = {"name": name, "clients": [f"file:{path}"], "action": "accept"}
        note = f"not taken over: {path}: {text.reason}; with only OK rows in it the rule is this"
        yield Found(line, origin, rule, (note,), off=True)
        return
    map_ = _Map(kind, text, reading)
    if named and map_.is_same_as_file():
        yield Found(line, origin, {"name": name, "clients": [f"file:{path}"], "action": "accept"})
    else:
        yield map_.written_out(line, origin, name)


def _split(table: str) -> tuple[str, str]:
    kind, colon, path = table.partition(":")
    if kind == "proxy" and ":" in path:
        return _split(path)
    return (kind, path) if colon else (DEFAULT_TYPE, table)


def _content(kind: str, path: str, read: Read) -> str | Unreadable | None:
    """The rows of a map as text; None for a map that is none."""
    if kind == "inline":
        return indexedtable.inline(path)
    if kind == "cidr" and path.lstrip().startswith("{"):
        return cidrtable.inline(path)
    return read(path) if kind == "cidr" or kind in indexedtable.TYPES else None


class _Map:
    """A map's rows: what they let in, and what they do not."""

    def __init__(self, kind: str, content: str, reading: Reading) -> None:
        self._content = content
        self._names = Names()
        if kind == "cidr":
            self._rows: Sequence[Row] = cidrtable.rows(content)
        else:
            whole = reading.postscreen
            self._rows = indexedtable.rows(content, self._names, whole_only=whole, below=reading.below)
        self._good = [self._is_good(row, reading) for row in self._rows]
        self._names.judge(reading.lets_in)
        sets = [
            row.covers if not (row.problem and reading.lets_in(row.result or "dunno")) else []
            for row in self._rows
        ]
        self._shares = addressset.shares(sets)
        self._in: Spans = addressset.union(
            span for share, good in zip(self._shares, self._good, strict=True) if good for span in share
        )
        if self._names.nameless_kept_out:
            self._in = []

    @staticmethod
    def _is_good(row: Row, reading: Reading) -> bool:
        return not row.problem and bool(row.result) and reading.lets_in(row.result)

    def is_same_as_file(self) -> bool:
        """Whether a rule that names the file means what the map means."""
        if not all(self._good) or self._names.kept_out:
            return False
        entries, errors = parse_file(Kind.CLIENT, self._content)
        if errors or not entries or any(e.excluded for e in entries):
            return False
        networks = addressset.union(addressset.span(e.key) for e in entries if not isinstance(e.key, str))
        names = {e.key for e in entries if isinstance(e.key, str)}
        return networks == self._in and names == set(self._names.let_in)

    def written_out(self, line: int, origin: str, name: str) -> Found:
        """The rule with what is let in as entries, and notes on all other rows."""
        networks, excluded = self._networks()
        good = [*networks, *self._names.let_in]
        kept_out = self._names.kept_out_of(everywhere=bool(networks))
        clients = [*good, *(f"!{n}" for n in (*excluded, *kept_out))]
        notes = self._notes()
        if excluded or kept_out:
            notes.append("rows with another verb are excluded from the OK rows around them")
        if shadowed := self._names.shadowed(kept_out):
            names = ", ".join(shadowed[:MAX_NAMED]) + (" …" if len(shadowed) > MAX_NAMED else "")
            notes.append(f"excluded with the names around them, unlike in Postfix: {names}")
        if not good:
            return Found(line, origin, notes=(*notes, "no OK row in it; leave it in main.cf"))
        if len(clients) > MAX_WRITTEN:
            why = f"{len(clients)} entries are too many to write out: put the OK rows in a file of their own"
            rule: dict[str, Any] = {"name": name, "clients": ["file:FILE"], "action": "accept"}
            return Found(line, origin, rule, (*notes, why), off=True)
        return Found(line, origin, {"name": name, "clients": clients, "action": "accept"}, tuple(notes))

    def _networks(self) -> tuple[list[str], list[str]]:
        """The networks that are let in, as they are written where that can be, and the holes in them."""
        written: dict[Network, None] = {}
        for row, good, share in zip(self._rows, self._good, self._shares, strict=True):
            if good and share and row.network is not None and self._in:
                written[row.network] = None
        around = addressset.union(map(addressset.span, written))
        more = addressset.networks(addressset.minus(self._in, around))
        holes = addressset.networks(addressset.minus(around, self._in))
        return [str(n) for n in (*written, *more)], [str(n) for n in holes]

    def _notes(self) -> list[str]:
        """Which rows are not taken over, and why."""
        named = []
        for row, good, share in zip(self._rows, self._good, self._shares, strict=True):
            shown = row.text if len(row.text) <= MAX_SHOWN else f"{row.text[:MAX_SHOWN]}…"
            why = f": {row.problem}" if row.problem else ""
            if not good:
                named.append((row.number, f"not taken over: line {row.number}: {shown}{why}"))
            elif not share:
                named.append((row.number, f"never reached: line {row.number}: {shown}"))
            elif not self._in:
                why = "the row for clients without a name has no counterpart"
                named.append((row.number, f"not taken over: line {row.number}: {shown}: {why}"))
        named += [(n, f"not taken over: line {n}: {t[:MAX_SHOWN]}") for n, t in self._names.lost]
        notes = [text for _number, text in sorted(named)]
        if len(notes) > MAX_NAMED:
            return [*notes[:MAX_NAMED], f"not taken over: {len(notes) - MAX_NAMED} more lines"]
        return notes
