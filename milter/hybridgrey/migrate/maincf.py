"""Postfix's main.cf: parameters with the line of every word, ``$name`` expansion, lists of words.

The grammar is postconf(5)'s: ``name = value``, lines that begin with a blank go on, ``#`` lines and empty
ones in between do not count, the last setting of a name wins.  ``$name``, ``${name}``, ``$(name)``,
``${name?text}``, ``${name:text}``, ``${name?{text}:{text}}`` and ``${{a} == {b} ? {text} : {text}}`` are
expanded; ``{ }`` keeps words together.  Output of ``postconf -n`` is the same grammar with one line a name.

A `Text` carries the line number of each of its characters, so that a word of an expanded value can still be
traced to the line on which it was typed.

Pure.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

# As deep as any sane file nests its parameters; a loop is found by it too.
MAX_DEPTH: Final = 40
MAX_TEXT: Final = 1_000_000  # characters of an expanded value: `$a $a` nested 40 deep must not fill memory

_SETTING = re.compile(r"([A-Za-z0-9_.\-/]+)\s*=\s?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_]+", re.ASCII)
# What may stand between the brackets of return codes, and after them.
_CODES = re.compile(r"[0-9.;\[\]]+(?:\*[+-]?[0-9]+)?", re.ASCII)
_SEPARATORS = ", \t\r\n"
_COMPARE: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


class MainCfError(ValueError):
    """A value that cannot be expanded; the text says why."""


@dataclass(frozen=True, slots=True)
class Text:
    """Text and, for each of its characters, the line it was typed on (0: on none, a default)."""

    text: str = ""
    lines: tuple[int, ...] = ()
    mended: bool = False
    """Whether it stood in the file as several words (see `bracketed`)."""

    def __getitem__(self, part: slice) -> Text:
        return Text(self.text[part], self.lines[part])

    def __add__(self, other: Text) -> Text:
        return Text(self.text + other.text, self.lines + other.lines)

    @property
    def line(self) -> int:
        """The line of the first character."""
        return self.lines[0] if self.lines else 0

    def strip(self) -> Text:
        """Without the blanks at both ends."""
        start = len(self.text) - len(self.text.lstrip())
        return self[start : start + len(self.text.strip())]


def typed(text: str, line: int = 0) -> Text:
    """Text that stands on one line."""
    return Text(text, (line,) * len(text))


def parse(source: str) -> tuple[dict[str, Text], list[tuple[int, str]]]:
    """The parameters of a file by name, unexpanded; and the lines that are no setting, with their numbers."""
    parameters: dict[str, Text] = {}
    bad: list[tuple[int, str]] = []
    for logical in _logical_lines(source):
        match = _SETTING.match(logical.text)
        if match is None:
            bad.append((logical.line, logical.text.split("\n")[0].strip()))
        else:
            parameters[match[1]] = logical[match.end() :].strip()
    return parameters, bad


def _logical_lines(source: str) -> Iterator[Text]:
    current: Text | None = None
    for number, line in enumerate(source.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0].isspace():
            if current is not None:
                current += typed("\n" + line, number)
            continue
        if current is not None:
            yield current
        current = typed(line, number)
    if current is not None:
        yield current


class MainCf:
    """A file's parameters, expanded when asked for; `defaults` has those that the file need not set."""

    def __init__(self, source: str, defaults: Mapping[str, str]) -> None:
        self.parameters, self.bad_lines = parse(source)
        self._defaults = defaults

    def value(self, name: str) -> Text:
        """The expanded value, empty for a parameter that is neither set nor known; raises MainCfError."""
        return self._parameter(name, 0).strip()

    def words(self, name: str) -> list[Text]:
        """The words of the value, a list's return codes in one; raises MainCfError."""
        return list(bracketed(words(self.value(name))))

    def line(self, name: str) -> int:
        """The line that sets the parameter, 0 when none does."""
        return self.parameters[name].line if name in self.parameters else 0

    def _parameter(self, name: str, depth: int) -> Text:
        raw = self.parameters.get(name)
        return self._expand(typed(self._defaults.get(name, "")) if raw is None else raw, depth)

    def _expand(self, value: Text, depth: int) -> Text:
        if depth > MAX_DEPTH:
            raise MainCfError("parameters refer to each other in a loop")
        if "$" not in value.text:
            return value
        parts: list[str] = []
        lines: list[int] = []
        position = 0
        while position < len(value.text):
            dollar = value.text.find("$", position)
            end = len(value.text) if dollar < 0 else dollar
            piece, position = value[position:end], end
            parts.append(piece.text)
            lines += piece.lines
            if dollar >= 0:
                piece, position = self._reference(value, dollar + 1, depth)
                parts.append(piece.text)
                lines += piece.lines
            if len(lines) > MAX_TEXT:
                raise MainCfError("the value grows without bound")
        return Text("".join(parts), tuple(lines))

    def _reference(self, value: Text, at: int, depth: int) -> tuple[Text, int]:
        """What the reference after a ``$`` stands for, and where the text goes on."""
        text = value.text
        if text.startswith("$", at):
            return value[at : at + 1], at + 1
        if at < len(text) and text[at] in "{(":
            end = closing(text, at)
            return self._braced(value[at + 1 : end], depth + 1), end + 1
        match = _NAME.match(text, at)
        if match is None:
            return value[at - 1 : at], at  # Postfix warns; a lone dollar is a dollar
        return self._parameter(match[0], depth + 1), match.end()

    def _braced(self, inner: Text, depth: int) -> Text:
        """The inside of ``${…}``."""
        inner = inner.strip()
        if inner.text.startswith("{"):
            holds, rest = self._comparison(inner, depth)
        else:
            match = _NAME.match(inner.text)
            if match is None:
                raise MainCfError("a ${…} names no parameter")
            rest = inner[match.end() :].strip()
            if not rest.text:
                return self._parameter(match[0], depth)
            holds = bool(self._parameter(match[0], depth).text)
        return self._expand(_branch(rest, holds), depth)

    def _comparison(self, inner: Text, depth: int) -> tuple[bool, Text]:
        """Whether ``{a} == {b}`` holds, and what follows it."""
        end = closing(inner.text, 0)
        left = self._expand(inner[1:end].strip(), depth).text
        rest = inner[end + 1 :].strip()
        sign = next((s for s in _COMPARE if rest.text.startswith(s)), "")
        rest = rest[len(sign) :].strip()
        if not sign or not rest.text.startswith("{"):
            raise MainCfError("a comparison in ${{…}} is not complete")
        end = closing(rest.text, 0)
        right = self._expand(rest[1:end].strip(), depth).text
        if left.isdecimal() and right.isdecimal():
            return _COMPARE[sign](int(left), int(right)), rest[end + 1 :].strip()
        return _COMPARE[sign](left, right), rest[end + 1 :].strip()


def _branch(rest: Text, holds: bool) -> Text:
    """What ``?text:text`` gives: `rest` begins with ``?`` or ``:``; braces around a text are taken off."""
    if rest.text.startswith(":"):
        return Text() if holds else _unbraced(rest[1:])
    if not rest.text.startswith("?"):
        raise MainCfError("a ${…} has neither ? nor : after its name")
    rest = rest[1:].strip()
    if rest.text.startswith("{"):
        split = closing(rest.text, 0) + 1
    else:
        split = rest.text.find(":") if ":" in rest.text else len(rest.text)
    if holds:
        return _unbraced(rest[:split])
    after = rest[split:].strip()
    return _unbraced(after[1:]) if after.text.startswith(":") else Text()


def _unbraced(text: Text) -> Text:
    text = text.strip()
    inside = text.text.startswith("{") and closing(text.text, 0) == len(text.text) - 1
    return text[1:-1].strip() if inside else text


def closing(text: str, opening: int) -> int:
    """The place of the bracket that closes the one at `opening`; raises MainCfError when none does."""
    pair = {"{": "}", "(": ")"}
    close, depth = pair[text[opening]], 0
    for place in range(opening, len(text)):
        if text[place] == text[opening]:
            depth += 1
        elif text[place] == close:
            depth -= 1
            if not depth:
                return place
    raise MainCfError(f'a "{text[opening]}" is not closed')


def words(value: Text) -> list[Text]:
    """The words of a list, by commas and blanks outside of ``{ }``; an unclosed brace runs to the end."""
    found: list[Text] = []
    start: int | None = None
    depth = 0
    for place, character in enumerate(value.text):
        depth = max(0, depth + (character == "{") - (character == "}"))
        if character in _SEPARATORS and not depth:
            if start is not None:
                found.append(value[start:place])
            start = None
        elif start is None:
            start = place
    return found if start is None else [*found, value[start:]]


def bracketed(listed: Sequence[Text]) -> Iterator[Text]:
    """Words, but ``zone=127.0.[ 0..255 ]`` as one: web pages show it so, and Postfix takes it for three."""
    at = 0
    while at < len(listed):
        word = listed[at]
        end = at + 1
        if "[" in word.text.partition("=")[2]:
            text = word
            while _open(text) and end < len(listed) and _CODES.fullmatch(listed[end].text):
                text += listed[end]
                end += 1
            if end > at + 1 and not _open(text):
                word = Text(text.text, text.lines, mended=True)
            else:
                end = at + 1
        yield word
        at = end


def _open(text: Text) -> bool:
    return text.text.count("[") > text.text.count("]")
