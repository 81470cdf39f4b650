"""What Postfix's replies say instead of a list's name: labels for lists whose names hold a customer's key.

``postscreen_dnsbl_reply_map`` gives a name for a zone; ``rbl_reply_maps`` gives the whole reply for a zone,
and ``default_rbl_reply`` that for all others.  Of a reply only the name in it counts here, ``blocked using
NAME``.  Where no label can be taken over the zone is named, without its first label, which may be the key.

Pure but for the `read` it is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from hybridgrey.migrate.cidrtable import lines
from hybridgrey.migrate.found import Found, Read
from hybridgrey.migrate.indexedtable import TYPES
from hybridgrey.migrate.maincf import MainCf, MainCfError
from hybridgrey.policy.pattern import ListEntry

SMTPD: Final = "rbl_reply_maps"
POSTSCREEN: Final = "postscreen_dnsbl_reply_map"
DEFAULT: Final = "default_rbl_reply"
ADVICE: Final = 'give it a label in a table [zones."NAME"], or replies show its name'

_USING: Final = re.compile(
    r"(?:blocked|listed|rejected)\s+(?:using|by|in|at|on)\s+([\w.-]*\w)", re.IGNORECASE
)
_NAMES_ZONE: Final = re.compile(r"\$[({]?rbl_domain")
_KEY: Final = re.compile(r"[a-z0-9]{16,}\.")
_LABELLED: Final = re.compile(r"\.dq\.spamhaus\.net$")  # these have their labels built in
_LONGEST: Final = 253


def labels(main: MainCf, found: Sequence[Found], read: Read) -> Iterator[Found]:
    """The labels for the lists of the rules, and the lists that should have one and have none."""
    done: set[str] = set()
    for name in (POSTSCREEN, SMTPD, DEFAULT):
        if name in main.parameters:
            asked = _asked(found, postscreen=name == POSTSCREEN)
            for label in _of(main, name, [zone for zone in asked if zone not in done], read):
                done.add(label.zone)
                yield label


def masked(zone: str) -> str:
    """A zone as it may be told: without its first label, if it may hold a key."""
    rest = zone.partition(".")[2]
    return f"….{rest}" if "." in rest else zone


def _asked(found: Sequence[Found], *, postscreen: bool) -> list[str]:
    """The zones that reject, of smtpd or of postscreen."""
    entries = [
        ListEntry.parse(entry).zone
        for f in found
        if f.is_rule and ("threshold" in f.table) is postscreen and f.table["action"] != "accept"
        for entry in f.table.get("dns", ())
    ]
    return list(dict.fromkeys(entries))


def _of(main: MainCf, name: str, asked: Sequence[str], read: Read) -> Iterator[Found]:
    """What one parameter says of the zones."""
    line = main.line(name)
    try:
        value = main.value(name).text
        words = [w.text for w in main.words(name)]
    except MainCfError as error:
        yield Found(line, name, notes=(f"cannot be read: {error}", *_unnamed(asked)))
        return
    if name == DEFAULT:
        yield from _default(line, value, asked)
        return
    for word in words:
        rows, why = _rows(word, read)
        if why:
            yield Found(line, name, notes=(f"not taken over: {why}", *_unnamed(asked)))
        for zone in asked:
            if zone in rows:
                yield _label(line, name, zone, rows[zone])


def _rows(table: str, read: Read) -> tuple[dict[str, str], str]:
    """The rows of a map, and why it has none that can be read."""
    kind, colon, path = table.partition(":")
    if kind == "proxy":
        return _rows(path, read)
    if not colon or kind not in TYPES:
        return {}, f"a map of type {kind[:20] if colon else 'none'} is no text"
    content = read(path)
    if not isinstance(content, str):
        return {}, f"{path}: {content.reason}"
    rows: dict[str, str] = {}
    for _number, row in lines(content):
        zone, *reply = row.split(None, 1)
        rows.setdefault(zone.lower().partition("=")[0].removesuffix("."), " ".join(" ".join(reply).split()))
    return rows, ""


def _label(line: int, name: str, zone: str, reply: str) -> Found:
    """The label for a zone from what the map has for it."""
    shown = f"{name}: {masked(zone)}"
    if name == POSTSCREEN:
        label = reply
    elif _NAMES_ZONE.search(reply):
        return Found(
            line, shown, notes=("its reply names the list; the text itself is not taken over",), aside=True
        )
    else:
        using = _USING.search(reply)
        label = using[1] if using else ""
    if not label or len(label) > _LONGEST or not label.isascii() or not label.isprintable():
        return Found(line, shown, notes=(f"no name can be taken from its reply; {ADVICE}",))
    if zone.partition(".")[0] in label.lower().split(".") and label.lower() != zone:
        return Found(line, shown, notes=(f"its reply shows what may be the key; {ADVICE}",))
    if label.lower() == zone:
        return Found(line, shown, notes=("its reply names the list",), aside=True)
    return Found(line, shown, {"label": label}, zone=zone)


def _default(line: int, reply: str, asked: Sequence[str]) -> Iterator[Found]:
    """The reply for all zones without one of their own."""
    notes = ["not taken over; a rule may have a text of its own"]
    if not _NAMES_ZONE.search(reply):
        notes += _unnamed(asked)
    yield Found(line, DEFAULT, notes=tuple(notes), aside=True)


def _unnamed(asked: Sequence[str]) -> list[str]:
    """A note on zones whose names will be shown, where they were not before."""
    hidden = [masked(z) if _KEY.match(z) or z.count(".") > 2 else z for z in asked if not _LABELLED.search(z)]
    if not hidden:
        return []
    return [f"replies will show the names of {', '.join(hidden[:20])}; {ADVICE.replace('its name', 'them')}"]
