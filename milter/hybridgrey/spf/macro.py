"""Macro strings of SPF records: parsed once, expanded for each client (RFC 7208 section 7).

``%{ir}.%{v}._spf.%{d2}`` is text and macros; a macro is a letter, how many of its right-hand parts are kept,
whether they are reversed first, and the characters that part it.  An upper-case letter asks for its value to
be URL-escaped.

Letters: ``s`` sender, ``l`` local part, ``o`` domain of the sender, ``d`` domain of the record, ``i``
address, ``p`` the address's verified name, ``v`` in-addr or ip6, ``h`` HELO.  ``c``, ``r`` and ``t`` are for
explanations, which are not shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias
from urllib.parse import quote

from hybridgrey.spf.question import MAX_NAME, plain_name

LETTERS = frozenset("slodipvh")
ALL_LETTERS = LETTERS | frozenset("crt")
OF_DOMAIN = frozenset("do")
"""Letters whose value follows from the domain alone."""
OF_SENDER = frozenset("slh")
"""Letters whose value a sender chooses anew for each message."""

# More right-hand parts than a name has labels are all of them.
MAX_KEPT = 999

_EXPAND = re.compile(r"%(?:([%_-])|\{([A-Za-z])([0-9]*)([rR]?)([-.+,/_=]*)\})")
_LITERAL = re.compile(r"[\x21-\x24\x26-\x7e]+")
_FIXED = {"%": "%", "_": " ", "-": "%20"}
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")


class MacroError(ValueError):
    """A macro string that breaks the grammar: what is wrong, and at which character of it."""

    def __init__(self, reason: str, at: int) -> None:
        self.reason = reason
        self.at = at
        super().__init__(reason, at)


class Macro(NamedTuple):
    """One ``%{...}``; `kept`: so many right-hand parts, 0 for all; `delimiters`: as a class of characters."""

    letter: str
    kept: int
    reverse: bool
    delimiters: str
    escape: bool


Part: TypeAlias = str | Macro


class Spec(NamedTuple):
    """A parsed macro string."""

    parts: tuple[Part, ...]
    letters: frozenset[str] = frozenset()

    @property
    def varies(self) -> bool:
        """Whether one domain's expansions differ by client, HELO or local part."""
        return not self.letters <= OF_DOMAIN

    @property
    def personal(self) -> bool:
        """Whether they differ by what the sender says, HELO or local part."""
        return not self.letters.isdisjoint(OF_SENDER)


def parse(text: str, letters: frozenset[str] = ALL_LETTERS) -> Spec:
    """Read a macro string; raises MacroError."""
    if "%" not in text and _LITERAL.fullmatch(text):
        return Spec((text,))
    parts: list[Part] = []
    at = 0
    while at < len(text):
        if literal := _LITERAL.match(text, at):
            parts.append(literal[0])
            at = literal.end()
        elif expand := _EXPAND.match(text, at):
            parts.append(_part(expand, letters))
            at = expand.end()
        else:
            raise MacroError("a lone %" if text[at] == "%" else "a character that is not allowed", at)
    used = frozenset(part.letter for part in parts if isinstance(part, Macro))
    return Spec(tuple(parts), used)


def _part(found: re.Match[str], letters: frozenset[str]) -> Part:
    fixed, letter, digits, reverse, delimiters = found.groups()
    if fixed:
        return _FIXED[fixed]
    if letter.lower() not in letters:
        raise MacroError(f"no macro {letter!r} here", found.start(2))
    kept = _kept(digits)
    if digits and not kept:
        raise MacroError("zero parts are kept", found.start(3))
    return Macro(letter.lower(), kept, bool(reverse), delimiters or ".", letter.isupper())


def _kept(digits: str) -> int:
    """A number of parts; Python refuses to read one of thousands of digits."""
    digits = digits.lstrip("0")
    return min(int(digits[:4] or 0), MAX_KEPT)


def parse_domain(text: str) -> Spec:
    """Read a domain-spec: a macro string with a macro or a top-level domain at its end; raises MacroError."""
    if not text:
        raise MacroError("a domain is missing", 0)
    spec = parse(text, LETTERS)
    last = list(_EXPAND.finditer(text, text.rfind("%"))) if "%" in text else []
    # "%%" at the end: the search above begins at its second half.
    if (last and last[-1].end() == len(text)) or text.endswith("%%"):
        return spec
    dotted = text.removesuffix(".")
    before, dot, label = dotted.rpartition(".")
    if not dot or not _LABEL.fullmatch(label) or label.isdigit():
        raise MacroError("no top-level domain", len(before) + len(dot))
    return spec


def target(spec: Spec, values: Mapping[str, str]) -> str:
    """The name that a domain-spec stands for, labels dropped on the left where it is over 253 characters.

    `values` has each letter of the spec.  The name may still be one that cannot be asked.
    """
    plain = not spec.letters and len(spec.parts) == 1
    name = plain_name(str(spec.parts[0]) if plain else _tail(spec, values))
    if len(name) > MAX_NAME:
        # Only what follows the first dot from there on is short enough; without one it is a label too long.
        dot = name.find(".", len(name) - MAX_NAME - 1)
        name = name[dot + 1 :] if dot >= 0 else name
    return name


def _tail(spec: Spec, values: Mapping[str, str]) -> str:
    """The end of the expansion, more of it than a name can hold: a record can ask for megabytes."""
    parts: list[str] = []
    size = 0
    for part in reversed(spec.parts):
        text = part if isinstance(part, str) else expanded(part, values[part.letter])
        parts.append(text)
        size += len(text)
        if size > MAX_NAME + 2:
            break
    return "".join(reversed(parts))


def expanded(macro: Macro, value: str) -> str:
    """A value, transformed (section 7.3)."""
    if macro.reverse or macro.kept or macro.delimiters != ".":
        parts = re.split(f"[{re.escape(macro.delimiters)}]", value)
        if macro.reverse:
            parts.reverse()
        value = ".".join(parts[-macro.kept :] if macro.kept else parts)
    return quote(value, safe="", errors="replace") if macro.escape else value
