"""Which line of a TOML file a key stands on; tomllib does not say.

A header or an assignment is valid TOML by itself, so tomllib tells where each one ends and which key it
names: no grammar is written again here.
"""

from __future__ import annotations

import tomllib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Path = tuple[str | int, ...]

# What a value of several lines may end with.
_ENDS = ("]", "}", '"""', "'''")
# A value whose end is not found after so many looks is passed over.
_MOST_LOOKS = 500


class Lines:
    """The places of the keys of one file that is valid TOML."""

    def __init__(self, text: str) -> None:
        self._places: dict[Path, tuple[int, str]] = {}
        self._counts: dict[Path, int] = {}
        table: Path = ()
        for number, statement in _statements(text):
            parsed = tomllib.loads(statement)
            if statement.lstrip().startswith("["):
                table = self._table(parsed)
                for length in range(1, len(table) + 1):
                    self._places.setdefault(table[:length], (number, ""))
            else:
                for keys in _keys(parsed):
                    self._places.setdefault((*table, *keys), (number, statement))

    def of(self, path: Path) -> int:
        """The line of a key, or of the nearest table around it; from 1, 0 for a key in no table."""
        for length in range(len(path), 0, -1):
            place = self._places.get(path[:length])
            if place is not None:
                number, statement = place
                item = path[length] if length < len(path) else None
                return number + (_item_offset(statement, item) if isinstance(item, int) else 0)
        return 0

    def _table(self, parsed: Mapping[str, Any]) -> Path:
        """The path of a header, with the number of each of the tables that it names several of."""
        path: Path = ()
        value: object = parsed
        while isinstance(value, Mapping) and value:
            ((key, value),) = value.items()
            path = (*path, key)
            if isinstance(value, list):
                self._counts[path] = self._counts.get(path, -1) + 1
                value = value[0]
            if path in self._counts:
                path = (*path, self._counts[path])
        return path


def readable(text: str) -> dict[str, Any]:
    """Keys of a file that may be no valid TOML as a whole: those on lines that are valid by themselves.

    Of no table that stands several times.  The last of several lines for a key is taken.
    """
    found: dict[str, Any] = {}
    table: list[str] | None = []
    for line in text.split("\n"):
        is_header = line.lstrip().startswith("[")
        if not _is_toml(line):
            table = None if is_header else table
            continue
        parsed: Any = tomllib.loads(line)
        if is_header:
            table = []
            while isinstance(parsed, Mapping) and parsed:
                ((key, parsed),) = parsed.items()
                table.append(key)
            table = None if isinstance(parsed, list) else table
        elif table is not None:
            _merge(found, nested(table, parsed))
    return found


def nested(path: Iterable[str], value: dict[str, Any]) -> dict[str, Any]:
    """A table in the tables of a path."""
    for key in reversed(list(path)):
        value = {key: value}
    return value


def _merge(into: dict[str, Any], table: Mapping[str, Any]) -> None:
    for key, value in table.items():
        there = into.get(key)
        if isinstance(there, dict) and isinstance(value, Mapping):
            _merge(there, value)
        else:
            into[key] = value


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Headers and assignments, each with the number of its first line."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        first = lines[at].strip()
        if not first or first.startswith("#"):
            at += 1
            continue
        end = _end(lines, at)
        if end:
            yield at + 1, "\n".join(lines[at:end])
        at = end or at + 1


def _end(lines: list[str], start: int) -> int:
    """The end of the statement that begins at `start`, 0 when it is not found."""
    looks = 0
    for end in range(start + 1, len(lines) + 1):
        if end > start + 1 and not any(mark in lines[end - 1] for mark in _ENDS):
            continue
        looks += 1
        if looks > _MOST_LOOKS:
            break
        if _is_toml("\n".join(lines[start:end])):
            return end
    return 0


def _is_toml(text: str) -> bool:
    try:
        tomllib.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _keys(parsed: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The key of an assignment, each part of a dotted one as well; and the keys of an inline table."""
    for key, value in parsed.items():
        yield (key,)
        if isinstance(value, Mapping):
            yield from ((key, *rest) for rest in _keys(value))


def _item_offset(statement: str, item: int) -> int:
    """How many lines below the beginning of its list an item stands."""
    lines = statement.split("\n")

    def items_until(end: int) -> int:
        """Items that are whole in the first lines, which a bracket makes a list."""
        head = "\n".join(lines[:end]).rstrip().rstrip("]")
        for text in (f"{head}\n]", f"{head}]"):
            if _is_toml(text):
                value: object = tomllib.loads(text)
                while isinstance(value, Mapping):  # a dotted key
                    (value,) = value.values()
                return len(value) if isinstance(value, list) else item + 1
        return 0

    return bisect_left(range(1, len(lines) + 1), item + 1, key=items_until) if len(lines) > 1 else 0
