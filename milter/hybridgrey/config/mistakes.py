"""What is wrong with a configuration: from pydantic's errors to lines for an admin, in the order of the file.

A problem is the path of a key (``("rule", 3, "dns", 0)``) and a text.  It is printed as
``rule "blocklists": dns[1]: …``; items are counted from 1, as lines and rules are.

No text holds a value of a key that may be secret; `masking` is a second guard.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hybridgrey.config.lines import Lines
from hybridgrey.config.rules import MistakesError, Problem, Raw, RuleTable, name_of
from hybridgrey.config.settings import Settings, Zone

MAX_LENGTH = 600

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_TEXTS = {
    "bool_type": "must be true or false, without quotes",
    "dict_type": "must be a table",
    "mapping_type": "must be a table",
    "int_type": "must be a whole number, without quotes",
    "missing": "is missing",
    "model_type": "must be a table",
    "string_type": "must be a string, in quotes",
    "tuple_type": "must be a list",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_long": "must have at most {max_length} characters",
    "literal_error": "must be {expected}",
}


def of_validation(error: ValidationError) -> Iterator[Problem]:
    """The problems in what pydantic found."""
    for detail in error.errors(include_url=False):
        path = tuple(p for p in detail["loc"] if p != "[key]")
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, MistakesError):
            for index, text in cause.mistakes:
                yield path if index is None else (*path, index), text
        elif isinstance(cause, Exception):
            yield path, str(cause)
        elif detail["type"] == "extra_forbidden":
            yield path, _unknown_key(path)
        else:
            yield path, _text(path, detail)


def _text(path: tuple[str | int, ...], detail: ErrorDetails) -> str:
    if path == ("rule",) and isinstance(detail["input"], Mapping):
        return "must be written [[rule]], with two brackets"
    text = _TEXTS.get(detail["type"])
    if text is None:
        return detail["msg"]
    if detail["type"] == "literal_error":
        return text.format(expected=detail["ctx"]["expected"].replace("'", '"'))
    return text.format(**detail.get("ctx", {}))


def _unknown_key(path: tuple[str | int, ...]) -> str:
    """Name the key that was meant, here or in another section."""
    key = str(path[-1])
    places = [place for place in _all_keys() if re.split("[. ]", place)[-1] == key]
    if places:
        return f"unknown key here; did you mean {' or '.join(places)}?"
    near = get_close_matches(key, _keys(path[:-1]), 1)
    return f"unknown key; did you mean {near[0]}?" if near else "unknown key"


def _keys(path: tuple[str | int, ...]) -> list[str]:
    """The keys that a table may have."""
    if not path:
        return [*Settings.model_fields, "rule"]
    special: dict[str, type[BaseModel]] = {"zones": Zone, "rule": RuleTable}
    section = special.get(str(path[0])) or section_of(str(path[0]))
    return list(section.model_fields) if section else []


def section_of(name: str) -> type[BaseModel] | None:
    """The model of a section of the file, None for a key of another kind."""
    field = Settings.model_fields.get(name)
    kind: Any = field.annotation if field else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _all_keys() -> Iterator[str]:
    for name in Settings.model_fields:
        section = section_of(name)
        yield from (f"{name}.{key}" for key in section.model_fields) if section else (f"top-level {name}",)


def in_order(problems: Iterable[Problem], raw: Raw) -> list[Problem]:
    """Sort problems as their keys stand in the file."""
    places = {path: n for n, path in enumerate(_walk(raw, ()))}

    def place(problem: Problem) -> int:
        path = problem[0]
        while path not in places:
            path = path[:-1]
        return places[path]

    return sorted(problems, key=place)


def _walk(value: object, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    yield path
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(item, (*path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _walk(item, (*path, i))


def line(problem: Problem, raw: Raw, places: Lines) -> str:
    """One problem as one line of text, with the line of the file that it is about."""
    path, text = problem
    number = places.of(path)
    prefix = f"line {number}: " if number else ""
    if len(path) > 1 and path[0] == "rule" and isinstance(path[1], int):
        tables = raw.get("rule")
        name = name_of(tables[path[1]], path[1] + 1) if isinstance(tables, list) else ""
        prefix += f"{name}: " if name == f"rule {path[1] + 1}" else f'rule "{name}": '
        path = path[2:]
    key = ""
    for part in path:
        if isinstance(part, int):
            key += f"[{part + 1}]"
        else:
            key += ("." if key else "") + (part if _BARE_KEY.fullmatch(part) else f'"{part}"')
    return one_line(f"{prefix}{key}: {text}" if key else f"{prefix}{text}")


def one_line(text: str) -> str:
    """The text with what is not printable escaped, and bounded."""
    safe = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return safe if len(safe) <= MAX_LENGTH else f"{safe[:MAX_LENGTH]}…"
