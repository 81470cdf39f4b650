"""postgrey's whitelist_clients and whitelist_recipients as rules.

Their entries skip greylisting only, so the rules belong right before the greylisting one.  A name stands for
the names below it too; regular expressions have no counterpart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from hybridgrey.migrate.found import Found
from hybridgrey.policy.match import EntryError, Kind, parse_entry

PLACE = "it goes right before the greylisting rule: postgrey's whitelists skip greylisting only"


def convert(text: str, name: str) -> list[Found]:
    """The rule for a whitelist, told by its name, and the lines that are not taken over."""
    kind = Kind.RECIPIENT if "recipients" in name else Kind.CLIENT
    taken: dict[str, None] = {}
    lost: list[Found] = []
    for number, line in enumerate(text.splitlines(), 1):
        row = line.partition("#")[0].strip()
        if not row:
            continue
        try:
            taken.update(dict.fromkeys(_entries(kind, row)))
        except EntryError as error:
            lost.append(Found(number, row, notes=(f"not taken over: {error}",)))
    if not taken:
        return lost
    rule = {"name": f"postgrey {name}"[:100], kind.value: list(taken), "action": "accept"}
    return [Found(0, f"postgrey's {name}", rule, (PLACE,)), *lost]


def _entries(kind: Kind, row: str) -> Iterator[str]:
    """The entries that a line stands for; raises EntryError."""
    if row.startswith("/") or re.search(r"\s", row):
        raise EntryError("a regular expression" if row.startswith("/") else "no entry of postgrey's")
    entries = _client(row) if kind is Kind.CLIENT else _recipient(row)
    for entry in entries:
        parse_entry(kind, entry)
    yield from entries


def _client(row: str) -> list[str]:
    if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3}){1,2}", row):
        octets = row.split(".")
        # postgrey reads two octets as a /24 by mistake; what its manual says is meant.
        return [f"{'.'.join(octets + ['0'] * (4 - len(octets)))}/{8 * len(octets)}"]
    if ":" in row or "/" in row or re.fullmatch(r"[0-9.]+", row):
        return [row]
    return [row.lower(), f".{row.lower()}"] if not row.startswith(".") else [row.lower()]


def _recipient(row: str) -> list[str]:
    if "@" in row:
        return [row.lower()]
    return [f"@{row.lower()}", f".{row.lower()}"]
