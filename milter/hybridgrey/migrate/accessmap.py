"""``check_client_access`` maps of Postfix: which of their rows can be taken over, and in which form.

A map of ``OK`` and ``permit`` rows is named as ``file:``, so that it is read again on reload.  Of any other
map those rows are written out; a row with another verb inside one of them becomes an exclusion, and all
of them are named.  Maps that are no text (SQL, LDAP, regular expressions) stay in main.cf.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any, Final

from hybridgrey.migrate.found import Found, Read, Unreadable
from hybridgrey.policy.match import Entry, Kind, Network, parse_file

TEXT_MAPS: Final = ("hash", "btree", "lmdb", "cdb", "dbm", "sdbm", "texthash", "cidr")
DEFAULT_TYPE: Final = "hash"
MAX_NAMED: Final = 20  # lines of a map that are named; the rest is counted
MAX_WRITTEN: Final = 2000  # entries written out; a longer list is no text for a person
MAX_SHOWN: Final = 80

_GOOD = re.compile(r"(?:ok|permit)(?:\s|$)", re.IGNORECASE)


def convert(line: int, origin: str, table: str, read: Read) -> Iterator[Found]:
    """The rule for a ``type:path`` map, and what of it is not taken over."""
    if not table.isprintable() or not {":", "/"} & set(table):
        yield Found(line, origin, notes=("not taken over: no map in the form type:path",))
        return
    kind, colon, path = table.partition(":")
    if not colon:
        kind, path = DEFAULT_TYPE, table
    if kind == "inline":
        content: str | Unreadable = _inline(path)
        path = "inline"
    elif kind not in TEXT_MAPS:
        yield Found(
            line, origin, notes=(f"not taken over: a map of type {kind} is no text; leave it in main.cf",)
        )
        return
    else:
        content = read(path)
    name = PurePosixPath(path).name or "clients"
    if isinstance(content, Unreadable):
        rule = {"name": name, "clients": [f"file:{path}"], "action": "accept"}
        note = f"not taken over: {path}: {content.reason}; with only OK rows in it the rule is this"
        yield Found(line, origin, rule, (note,), off=True)
        return
    entries, errors = parse_file(Kind.CLIENT, content)
    if not errors and kind != "inline" and entries:
        yield Found(line, origin, {"name": name, "clients": [f"file:{path}"], "action": "accept"})
        return
    yield _mixed(line, origin, name, content)


def _inline(path: str) -> str:
    """The rows of ``inline:{key=value, {key = value}}``, one a line."""
    pairs = re.findall(
        r"\{\s*([^{}=\s]+)\s*=\s*([^{}]*)\}|([^\s,{}=]+)\s*=\s*([^\s,{}]+)", path.strip()[1:-1]
    )
    return "\n".join(f"{a or c} {(b or d).strip()}" for a, b, c, d in pairs)


def _mixed(line: int, origin: str, name: str, content: str) -> Found:
    """The OK rows of a map that has others too."""
    rows = list(_rows(content))
    good: dict[str, Entry] = {}
    other: list[Entry] = []
    named: list[str] = []
    for number, text in rows:
        pattern, _, verb = text.partition(" ")
        entries, errors = parse_file(Kind.CLIENT, f"{pattern} OK")
        if errors or not _GOOD.match(verb.strip()):
            shown = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
            named.append(f"not taken over: line {number}: {shown}")
            other += entries
        else:
            good |= {str(e.key): e for e in entries}
    excluded = [f"!{e.key}" for e in other if _inside(e, good.values())]
    notes = named[:MAX_NAMED]
    if len(named) > MAX_NAMED:
        notes.append(f"not taken over: {len(named) - MAX_NAMED} more lines")
    if excluded:
        notes.append("rows with another verb are excluded from the OK rows around them")
    clients = [*good, *dict.fromkeys(excluded)]
    if not good:
        return Found(line, origin, notes=(*notes, "no OK row in it; leave it in main.cf"))
    if len(clients) > MAX_WRITTEN:
        why = f"{len(clients)} entries are too many to write out: put the OK rows in a file of their own"
        rule: dict[str, Any] = {"name": name, "clients": ["file:FILE"], "action": "accept"}
        return Found(line, origin, rule, (*notes, why), off=True)
    return Found(line, origin, {"name": name, "clients": clients, "action": "accept"}, tuple(notes))


def _rows(content: str) -> Iterator[tuple[int, str]]:
    """Logical lines, as postmap reads them, with blanks made one."""
    number, row = 0, ""
    for n, line in enumerate(content.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0].isspace() and row:
            row = f"{row} {line}"
            continue
        if row:
            yield number, " ".join(row.split())
        number, row = n, line
    if row:
        yield number, " ".join(row.split())


def _inside(entry: Entry, around: Iterable[Entry]) -> bool:
    """Whether clients of `entry` belong to one of the entries around it."""
    return any(_within(entry.key, other.key) for other in around)


def _within(key: Network | str, other: Network | str) -> bool:
    if isinstance(key, str) or isinstance(other, str):
        both = isinstance(key, str) and isinstance(other, str) and other.startswith(".")
        return both and f".{key}".endswith(str(other))
    return key.version == other.version and key.subnet_of(other)  # type: ignore[arg-type]  # of one version
