"""Header fields that claim to be ours although they came from outside (RFC 8601 section 5).

Whoever reads ``Authentication-Results`` trusts those with this site's authserv-id, and an ``X-Greylist`` by
our name says that the message has waited here.  A client can write both; such fields go before ours are
added, all others stay.  `claims` looks at one field, `Tally` counts the fields of a message, for a milter
names a field by its place among those of its name.

A field that follows the grammar is taken at its word, whatever stands in its comments.  One that does not may
still be read by somebody, by taking out what disturbs; so it is read in each of these ways, and counts as a
claim when any of them begins with our name.  What cannot be honest counts too: an encoded word for an id, or
an id behind more than `LEAD` characters, a field beyond the first `LOOKED_AT` bytes of such fields.  Work is
linear in the length of a field, and bounded for a message, for strangers choose both.

Pure: field names and values in, answers out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Final

from hybridgrey import address

LEAD: Final = 1024
"""Characters in which the id must end; a line has at most 998 (RFC 5322 section 2.1.1)."""
MOST: Final = 1000
"""Fields of one message that are taken out; an MTA's work for them grows with the square of their number."""
LOOKED_AT: Final = 1 << 17
"""Bytes of such fields that are read in one message; odd ones cost up to 1.2 µs each.  Honest mail has some
hundred of them; what comes beyond is taken out unread."""

_PIECE: Final = 256
_BLANKS = " \t\r\n"
# RFC 2045 section 5.1, and beyond ASCII as RFC 8616 allows; U+FFFD stands for bytes that are no UTF-8.
_TOKEN = re.compile(r'[^\x00-\x20\x7f()<>@,;:\\"/\[\]?=\ufffd]+')
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_VERSION = re.compile(r"[0-9]+")
_INNERMOST = re.compile(r"\([^()]*\)")
_NOISE = re.compile(r'[^\x20-\x7e]|["\\()]')
_SPACE = re.compile(r"\s+")
_FOREIGN = re.compile(r"[^\x00-\x7f\s]+")
_BEFORE_NAME = re.compile(r"^[^a-z0-9]+")
# What may not follow a name, lest it be a longer one.
_LONGER = r"(?![a-z0-9_-]|\.[a-z0-9_])"


def results(value: bytes, name: str) -> bool:
    """Whether the authserv-id of an ``Authentication-Results`` field is, or may be taken for, `name`."""
    text = value[:LEAD].decode("utf-8", "replace")
    cut = len(value) > LEAD
    start = _after_blanks(text, 0)
    if cut and start >= len(text):
        return True
    found = _id(text, start)
    if found is None:
        return _looks_like(text, name)
    return "=?" in found or _folded(found) == _folded(name)


def _id(text: str, at: int) -> str | None:
    """The authserv-id that begins at a place; None where the field is not as RFC 8601 section 2.2 has it.

    A result without an id (``spf=pass …``, as Microsoft writes) is read as the id of its method's name.
    """
    quoted = _QUOTED.match(text, at)
    match = quoted or _TOKEN.match(text, at)
    if match is None:
        return None
    end = _after_blanks(text, match.end())
    version = _VERSION.match(text, end) if end > match.end() else None
    end = _after_blanks(text, version.end()) if version else end
    if text[end : end + 1] not in ("", ";", "=") or text.startswith("=?", end):
        return None
    if quoted is None:
        return match[0]
    return re.sub(r"\\(.)", r"\1", re.sub(r"\r?\n", "", quoted[1]), flags=re.DOTALL)


def _after_blanks(text: str, at: int) -> int:
    """The place after blanks, folding and comments (RFC 5322 section 3.2.2); the end if one is not closed."""
    depth = 0
    while at < len(text):
        char = text[at]
        if char == "(":
            depth += 1
        elif depth and char == ")":
            depth -= 1
        elif depth and char == "\\":
            at += 1
        elif not depth and char not in _BLANKS:
            return at
        at += 1
    return len(text)


def _folded(name: str) -> str:
    return address.host(_plain(name))


def _plain(text: str) -> str:
    """A text with plain characters for those that look like them (NFKC).

    In pieces: marks on one letter are sorted, in a time that grows with the square of their number, and
    strangers may send a hundred thousand.
    """
    if text.isascii():
        return text
    pieces = (text[at : at + _PIECE] for at in range(0, len(text), _PIECE))
    return "".join([unicodedata.normalize("NFKC", piece) for piece in pieces])


def _readable(text: str) -> str:
    """A text of which all but ASCII and blanks is noise, with one character for each run of that.

    Plain characters may be many for one: 18 for U+FDFA, and each reading would go through them.
    """
    return _FOREIGN.sub("\ufffd", _plain(text))


def _looks_like(text: str, name: str) -> bool:
    """Whether a field that is not as it should be begins with a name, for a reader who is not strict."""
    if "=?" in text.partition(";")[0]:
        return True
    text = _readable(text)
    begins = _pattern("", name).match
    for said in (text, _INNERMOST.sub("", text), _without_comments(text)):
        bare = _NOISE.sub("", _SPACE.sub(" ", said)).lower()
        for one in (bare, bare.replace(" ", "")):
            if begins(_BEFORE_NAME.sub("", one)):
                return True
    return False


def _without_comments(text: str) -> str:
    pieces: list[str] = []
    at = 0
    while at < len(text):
        end = text.find("(", at)
        if end < 0:
            return "".join([*pieces, text[at:]])
        pieces.append(text[at:end])
        # Blanks before the next comment are skipped with this one, which does no harm here.
        at = _after_blanks(text, end)
    return "".join(pieces)


@lru_cache(maxsize=16)
def _pattern(before: str, name: str) -> re.Pattern[str]:
    return re.compile(before + re.escape(_folded(name)) + _LONGER)


def greylist(value: bytes, name: str) -> bool:
    """Whether an ``X-Greylist`` or ``X-Spam-Score`` field says that hybridgrey at `name` has written it.

    It is text without a grammar, in which any reader may take comments and encoded words for what they are.
    """
    text = _readable(value.decode("utf-8", "ignore"))
    if "=?" in text:
        return True
    says = _pattern("by ?hybridgrey ?at ?", name).search
    return any(
        says(_SPACE.sub(" ", _NOISE.sub("", _SPACE.sub(" ", one))).lower())
        for one in (text, _INNERMOST.sub(" ", text))
    )


FIELDS: Final[Mapping[str, Callable[[bytes, str], bool]]] = {
    "authentication-results": results,
    "x-greylist": greylist,
    "x-spam-score": greylist,
}
"""The fields that are ours to write, by their names in lower case."""


class Tally:
    """The fields of one message that may be ours: how many by each name, and which of them are forged."""

    __slots__ = ("_counts", "_found", "_left", "too_many")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._found: list[tuple[str, int]] = []
        self._left = LOOKED_AT
        self.too_many = False

    def note(self, field: str, value: bytes, name: str) -> None:
        """Count the next field of the message; `field` is its name in lower case, one of `FIELDS`."""
        self._counts[field] = index = self._counts.get(field, 0) + 1
        self._left -= len(value)
        if self._left < 0 or FIELDS[field](value, name):
            if len(self._found) < MOST:
                self._found.append((field, index))
            else:
                self.too_many = True

    @property
    def count(self) -> int:
        """How many are to go."""
        return len(self._found)

    def backwards(self) -> Iterator[tuple[str, int]]:
        """Name and index, from 1, of each field to take out: the last first, so that no index moves."""
        return reversed(self._found)
