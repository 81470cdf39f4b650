"""The words of replies: printable ASCII of bounded length, with an enhanced code in front.

Foreign text goes into them: a rule's, which the admin wrote, and what a list says of a client.
"""

from __future__ import annotations

import string
from typing import Final, NamedTuple

from hybridgrey.lists.zones import Zone

# RFC 5321 section 4.5.3.1.5: a reply line has at most 512 octets, its code and line end included.
MAX_TEXT: Final = 480
MAX_REASON: Final = 250

DENIED: Final = "5.7.1 Access denied"
LATER: Final = "4.7.1 Service unavailable, please try again later"
STORE_DOWN: Final = "4.3.0 Temporary failure, please try again later"

_PRINTABLE = frozenset(string.printable) - frozenset("\t\n\r\v\f")


class Reply(NamedTuple):
    """An SMTP reply: code, enhanced code (RFC 3463) and text, printable ASCII of bounded length."""

    code: str
    enhanced: str
    text: str


def worded(code: str, text: str) -> Reply:
    """A reply; an enhanced code at the head of the text is taken from there."""
    enhanced, _, rest = text.partition(" ")
    fields = enhanced.split(".")
    if len(fields) == 3 and fields[0] == code[0] and all(f.isdigit() for f in fields) and rest:
        return Reply(code, enhanced, printable(rest)[:MAX_TEXT])
    return Reply(code, f"{code[0]}.7.1", printable(text)[:MAX_TEXT])


def blocked(address: str, zone: Zone, reason: str) -> str:
    """The words for a client on a blocklist, and the list's own reason if there is one."""
    text = f"5.7.1 Service unavailable; client [{address}] blocked using {zone.label}"
    # Many a list's reason names the zone that was asked, with the customer's key in it.
    return f"{text}; {printable(zone.without_key(reason))[:MAX_REASON]}" if reason else text


def printable(text: str) -> str:
    """Text of somebody else's as printable ASCII, anything else as "?"."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in _PRINTABLE else "?" for c in text)
