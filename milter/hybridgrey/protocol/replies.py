"""Frames for an MTA: replies to commands, and edits of a message. Made once, they may be sent many times.

What is malformed raises ValueError here, since an MTA would close the connection over it, or put a client's
line break into its answer.
"""

from __future__ import annotations

import re
from typing import Final

from hybridgrey.protocol import wire
from hybridgrey.protocol.wire import LARGEST, LONG, frame

# -- replies
CONTINUE: Final = frame(ord("c"))
ACCEPT: Final = frame(ord("a"))
"""No more is asked about this message; at CONNECT or HELO, about this client."""
REJECT: Final = frame(ord("r"))
TEMPFAIL: Final = frame(ord("t"))
DISCARD: Final = frame(ord("d"))
SKIP: Final = frame(ord("s"))
"""No more pieces of this body."""
PROGRESS: Final = frame(ord("p"))
"""The reply will come: the MTA's patience begins anew."""

REPLIES: Final = frozenset(b"cartdsy")
EDITS: Final = {
    ord("h"): wire.ADD_HEADERS,
    ord("i"): wire.ADD_HEADERS,
    ord("m"): wire.CHANGE_HEADERS,
    ord("+"): wire.ADD_RECIPIENTS,
    ord("2"): wire.ADD_RECIPIENTS_WITH_PARAMETERS,
    ord("-"): wire.DELETE_RECIPIENTS,
    ord("b"): wire.CHANGE_BODY,
    ord("e"): wire.CHANGE_SENDER,
    ord("q"): wire.QUARANTINE,
}
"""Letters of edits, each with the action that must have been agreed."""

MOST_LINES: Final = 32
LONGEST_LINE: Final = 980
"""libmilter's bounds of a reply's text."""

_CODE = re.compile(r"[45][0-9][0-9]")
_ENHANCED = re.compile(r"[45]\.[0-9]{1,3}\.[0-9]{1,3}")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NAME = re.compile(rb"[!-9;-~]+")
# A line break only where the next line continues the header.
_VALUE = re.compile(rb"(?:[^\0\r\n]|\r?\n(?=[ \t]))*")


def refusal(code: str, enhanced: str, *lines: str) -> bytes:
    """An SMTP reply of one or more lines: `450`, `4.2.0`, text.

    Both MTAs take the text for a format, in which "%" is written twice (Sendmail gives it to printf, Postfix
    undoes it), and want an enhanced code of the code's own class. A tab is the only control character that
    a text may have.
    """
    if not _CODE.fullmatch(code) or not _ENHANCED.fullmatch(enhanced) or code[0] != enhanced[0]:
        raise ValueError(f"no reply of SMTP: {code!r} {enhanced!r}")
    if not 1 <= len(lines) <= MOST_LINES:
        raise ValueError(f"{len(lines)} lines in a reply")
    texts = [line.replace("%", "%%").encode("utf-8", "surrogateescape") for line in lines]
    if any(map(_unfit, texts)):
        raise ValueError("a reply's text is too long or has control characters")
    last = len(texts) - 1
    said = [
        b"%b%c%b %b" % (code.encode(), b" -"[number < last], enhanced.encode(), text)
        for number, text in enumerate(texts)
    ]
    return frame(ord("y"), b"\r\n".join(said) + b"\0")


def _unfit(text: bytes) -> bool:
    return len(text) > LONGEST_LINE or _CONTROL.search(text) is not None


# -- edits


def header_added(name: bytes, value: bytes) -> bytes:
    """A header at the end of the headers."""
    return frame(ord("h"), _header(name, value))


def header_inserted(index: int, name: bytes, value: bytes) -> bytes:
    """A header before the one at `index`, 0 being the first of all."""
    return frame(ord("i"), LONG.pack(index) + _header(name, value))


def header_changed(index: int, name: bytes, value: bytes) -> bytes:
    """The `index`-th header of a name, 1 being the first, gets a value; an empty one deletes it."""
    return frame(ord("m"), LONG.pack(index) + _header(name, value))


def _header(name: bytes, value: bytes) -> bytes:
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise ValueError(f"no header: {name!r}: {value!r}")
    return _bounded(name + b"\0" + value + b"\0")


def recipient_added(path: bytes, parameters: bytes = b"") -> bytes:
    """A recipient, with ESMTP parameters if some are given; that needs an action of its own."""
    if parameters:
        return frame(ord("2"), _strings(path, parameters))
    return frame(ord("+"), _strings(path))


def recipient_deleted(path: bytes) -> bytes:
    """A recipient less; the path as the MTA gave it."""
    return frame(ord("-"), _strings(path))


def sender_changed(path: bytes, parameters: bytes = b"") -> bytes:
    """Another envelope sender."""
    return frame(ord("e"), _strings(path, parameters) if parameters else _strings(path))


def body_replaced(chunk: bytes) -> bytes:
    """A piece of the new body, LARGEST bytes at most."""
    return frame(ord("b"), _bounded(chunk))


def quarantined(reason: bytes) -> bytes:
    """The message is held."""
    return frame(ord("q"), _strings(reason))


def _strings(*texts: bytes) -> bytes:
    if not texts[0] or any(byte in text for text in texts for byte in b"\0\r\n"):
        raise ValueError(f"empty, or with a control character: {texts!r}")
    return _bounded(b"".join(text + b"\0" for text in texts))


def _bounded(payload: bytes) -> bytes:
    if len(payload) > LARGEST:
        raise ValueError(f"{len(payload)} bytes are too many for one frame")
    return payload
