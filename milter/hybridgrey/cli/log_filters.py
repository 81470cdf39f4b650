"""What ``hybridgrey log`` is asked for: conditions on verdicts, of which all must hold.

Of one condition several values may be given, of which one must hold. Case does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import translate
from typing import Final

from hybridgrey.clientaddress import ClientReader
from hybridgrey.page.verdicts import Search, Verdict, Word

Holds = Callable[[Verdict], bool]

_LITERAL: Final = frozenset(("from", "to", "rule", "list"))
_PLAIN: Final = re.compile(r"[a-z0-9@._ +-]+")
_GLOB: Final = frozenset("*?[")


def made(given: Mapping[str, Sequence[str]], clients: ClientReader) -> list[Holds]:
    """A test for each condition; `given`: its values by the name of the option."""
    return [_any(_one(name, value, clients) for value in values) for name, values in given.items() if values]


def needles(given: Mapping[str, Sequence[str]]) -> list[list[bytes]]:
    """What a record must have in it for these conditions, as far as plain words say it (`history.chunks`)."""
    groups = [
        [value.strip().lower().lstrip("@.") for value in values]
        for name, values in given.items()
        if name in _LITERAL and values
    ]
    return [[one.encode() for one in some] for some in groups if all(map(_PLAIN.fullmatch, some))]


def holds(tests: Sequence[Holds], one: Verdict) -> bool:
    """Whether all hold."""
    return all(test(one) for test in tests)


def _any(tests: Iterable[Holds]) -> Holds:
    several = list(tests)
    return several[0] if len(several) == 1 else lambda one: any(test(one) for test in several)


def _one(name: str, value: str, clients: ClientReader) -> Holds:
    text = value.strip().lower()
    if name in ("from", "to"):
        return _address({"from": "sender", "to": "recipient"}[name], text)
    if not _GLOB.isdisjoint(text) and name != "outcome":
        return _glob(name, text)
    return Search([Word(name, text.removeprefix(".") if name == "client" else text)], clients).finds


def _address(field: str, text: str) -> Holds:
    """An envelope address: itself, its domain, ``.domain`` for what is below one, or a pattern."""
    if text in ("", "<>"):
        return lambda one: (one[field] or "<>") == "<>"
    if not _GLOB.isdisjoint(text):
        matches = re.compile(translate(text)).match
        return lambda one: bool(matches((one[field] or "").lower()))
    if text.startswith("."):
        return lambda one: _domain(one[field]).endswith(text)
    if text.lstrip("@").find("@") < 0:
        return lambda one: _domain(one[field]) == text.removeprefix("@")
    return lambda one: (one[field] or "").lower() == text


def _domain(address: str | None) -> str:
    return (address or "").lower().rpartition("@")[2]


def _glob(name: str, text: str) -> Holds:
    """A pattern for what has a name: a client has two."""
    matches = re.compile(translate(text)).match
    match name:
        case "client":
            return lambda one: any(matches((one[key] or "").lower()) for key in ("client", "host"))
        case "list":
            return lambda one: any(matches(label.lower()) for label in one["lists"])
        case "rule":
            return lambda one: bool(matches((one["rule"] or "").lower()))
        case _:
            return lambda one: bool(matches((one["mx"] or "").lower()))
