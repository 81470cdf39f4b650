"""postgrey's whitelist_clients and whitelist_recipients as rules.

Their entries skip greylisting only, so the rules belong right before the greylisting one.  A name stands for
the names below it too, a recipient for its extensions too.  A regular expression that is a name with
something left open becomes names with ``*`` (see `namepattern`); ranges of addresses become networks.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Final

from hybridgrey.migrate import namepattern
from hybridgrey.migrate.found import Found
from hybridgrey.migrate.namepattern import NamePatternError
from hybridgrey.policy import dotted
from hybridgrey.policy.match import EntryError, Kind, parse_entry

PLACE: Final = "it goes right before the greylisting rule: postgrey's whitelists skip greylisting only"
OPEN: Final = "regular expressions became names with *, which is any text within one label"
RANGES: Final = "became the networks that are meant"

# Debian's names, and those of postgrey itself, with or without .local.
_NAME: Final = re.compile(r"(?:^|[_.-])whitelist[_-](clients|recipients)")
_PART: Final = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){1,2}")


def is_whitelist(name: str, *, in_use: bool = False) -> bool:
    """Whether a file of this name is one of postgrey's whitelists; `in_use`: no copy that an editor left."""
    found = _NAME.search(name)
    return found is not None and (not in_use or name[found.end() :] in ("", ".local"))


def convert(text: str, name: str) -> list[Found]:
    """The rule for a whitelist, told by its name, and the lines that are not taken over."""
    kind = Kind.RECIPIENT if "recipients" in name else Kind.CLIENT
    taken: dict[str, None] = {}
    lost: list[Found] = []
    opened, ranges = 0, []
    for number, line in enumerate(text.splitlines(), 1):
        row = line.partition("#")[0].strip()
        if not row:
            continue
        try:
            taken.update(dict.fromkeys(_entries(kind, row)))
        except (EntryError, NamePatternError) as error:
            lost.append(Found(number, row, notes=(f"not taken over: {error}",)))
            continue
        opened += row.startswith("/")
        if kind is Kind.CLIENT and dotted.meant(row) and not _PART.fullmatch(row):
            ranges.append(row)
    if not taken:
        return lost
    notes = [PLACE]
    if opened:
        notes.append(f"{opened} {OPEN}" if opened > 1 else f"a {OPEN}".replace("expressions", "expression"))
    if ranges:
        notes.append(f"{', '.join(ranges)}: {RANGES}")
    rule = {"name": f"postgrey {name.removeprefix('postgrey_')}"[:100], kind.value: list(taken)}
    return [Found(0, f"postgrey's {name}", {**rule, "action": "accept"}, tuple(notes)), *lost]


def _entries(kind: Kind, row: str) -> list[str]:
    """The entries that a line stands for; raises EntryError and NamePatternError."""
    expression = re.fullmatch(r"/(\S+)/", row)
    if expression and kind is Kind.CLIENT:
        entries = namepattern.entries(expression[1])
    elif row.startswith("/") or (re.search(r"\s", row) and not dotted.meant(row)):
        raise EntryError("a regular expression" if row.startswith("/") else "no entry of postgrey's")
    else:
        entries = _client(row) if kind is Kind.CLIENT else _recipient(row)
    for entry in entries:
        parse_entry(kind, entry)
    return entries


def _client(row: str) -> list[str]:
    # postgrey reads two octets as a /24 by mistake; what its manual says is meant.  One is a name to it.
    if networks := () if row.isdecimal() else dotted.meant(row):
        return [dotted.written(n) for n in networks]
    if "/" in row:
        try:
            return [str(ip_network(row, strict=False))]  # bits after the prefix do not matter to postgrey
        except ValueError:
            return [row]
    if ":" in row or re.fullmatch(r"[0-9.]+", row):
        return [row]
    return [row.lower(), f".{row.lower()}"] if not row.startswith(".") else [row.lower()]


def _recipient(row: str) -> list[str]:
    if "@" not in row:
        return [f"@{row.lower()}", f".{row.lower()}"]
    local, _, domain = row.lower().rpartition("@")
    extended = [f"{local}+*@{domain}"] if local and "+" not in local else []
    return [row.lower(), *extended]
