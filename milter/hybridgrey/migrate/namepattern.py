r"""Regular expressions of host names as entries: ``/^mail\d+\.example\.com$/`` is ``mail*.example.com``.

Read are those that are a name with something left open in it: digits, words, classes, alternatives, what may
be missing.  A ``.`` alone is taken for the dot that it was meant to be; ``.*`` is any text in one
label or over two; a class or ``\d+`` is any text, so an entry may cover other letters than its expression.
An expression without ``^`` or ``$`` covers names of anybody's and is not taken.

Pure.
"""

from __future__ import annotations

import re
from typing import Final

MOST: Final = 32  # entries of one expression
SPELT_OUT: Final = 4  # characters of a class that are written out, as in mta[12]

_DOMAIN: Final = re.compile(r"\((?:\?:)?(?:\^\|\\\.|\\\.\|\^)\)")
_REPEAT: Final = re.compile(r"[*+]\??|\{[0-9,]+\}\??")
_CLASS: Final = re.compile(r"\[(\^?)((?:\\.|[^\]\\])+)\]")
_KEPT: Final = re.compile(r"[A-Za-z0-9_-]")


class NamePatternError(ValueError):
    """An expression that is no name; the text says why."""


def entries(expression: str) -> list[str]:
    """The entries for an expression, without its slashes; raises NamePatternError."""
    whole_domain = _DOMAIN.match(expression)
    body = expression[whole_domain.end() :] if whole_domain else expression
    if not body.endswith("$") or body.endswith("\\$"):
        raise NamePatternError("it has no $ at its end, so anybody may have such a name")
    if not whole_domain and not body.startswith(("^", "\\.")):
        raise NamePatternError("it has no ^ at its beginning, so anybody may have such a name")
    names = _Reader(body.removeprefix("^")[:-1]).all()
    given = [name for text in names for name in _entry(re.sub(r"\*+", "*", text.lower()))]
    if whole_domain:
        given = [name for text in given for name in (text, f".{text}")]
    return list(dict.fromkeys(given))


def _entry(name: str) -> list[str]:
    """A name as an entry; ``*.example.com`` is every name below example.com."""
    return [re.sub(r"^(?:\*\.)+", ".", name)]


class _Reader:
    """Reads an expression from the left; a text in what it gives has ``*`` for what is left open."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def all(self) -> list[str]:
        """The texts of the whole expression."""
        texts = self._alternatives()
        if self._at < len(self._text):
            raise NamePatternError("a bracket is closed that was not opened")
        return texts

    def _alternatives(self) -> list[str]:
        texts = self._sequence()
        while self._takes("|"):
            texts = _bounded(texts + self._sequence())
        return texts

    def _sequence(self) -> list[str]:
        texts = [""]
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            choices = self._item()
            texts = _bounded([text + choice for text in texts for choice in choices])
        return texts

    def _item(self) -> list[str]:
        """The texts of one character, class or group with what says how often it comes."""
        dot = self._text[self._at] == "."
        choices, open_ = self._atom()
        if repeat := _REPEAT.match(self._text, self._at):
            if not open_:
                raise NamePatternError(f"{repeat[0]} after a letter or a group")
            self._at = repeat.end()
            return ["*", "*.*"] if dot else ["*"]
        if self._takes("?"):
            choices = [*choices, ""]
        return ["." if dot and choice == "*" else choice for choice in choices]

    def _atom(self) -> tuple[list[str], bool]:
        """The texts of one character, class or group, and whether it is a class of characters."""
        if found := _CLASS.match(self._text, self._at):
            self._at = found.end()
            return _class(found[1], found[2])
        character = self._text[self._at]
        self._at += 1
        if character == "(":
            return self._group(), False
        if character == "\\":
            return self._escaped()
        if character == ".":
            return ["*"], True
        if not _KEPT.fullmatch(character):
            raise NamePatternError(f"{character} has no counterpart")
        return [character], False

    def _group(self) -> list[str]:
        if self._takes("?") and not self._takes(":"):
            raise NamePatternError("a group with ? has no counterpart")
        choices = self._alternatives()
        if not self._takes(")"):
            raise NamePatternError("a bracket is not closed")
        return choices

    def _escaped(self) -> tuple[list[str], bool]:
        character = self._text[self._at : self._at + 1]
        self._at += 1
        if character in ("d", "w"):
            return ["*"], True
        if character in (".", "-", "_"):
            return [character], False
        raise NamePatternError(f"\\{character} has no counterpart")

    def _takes(self, character: str) -> bool:
        taken = self._text.startswith(character, self._at)
        self._at += taken
        return taken


def _class(negated: str, inside: str) -> tuple[list[str], bool]:
    if not negated and len(inside) <= SPELT_OUT and re.fullmatch(r"[A-Za-z0-9_]+", inside):
        return list(inside), True
    if "." in inside and not negated:
        raise NamePatternError("a class with a dot has no counterpart")
    return ["*"], True


def _bounded(texts: list[str]) -> list[str]:
    if len(texts) > MOST:
        raise NamePatternError(f"it has more than {MOST} alternatives")
    return texts
