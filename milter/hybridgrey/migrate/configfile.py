"""A config file for people: rules found elsewhere as commented TOML.

Each rule has above it where it comes from; what was not taken over stands in its place among the rules, as a
comment.  The text loads as a config file.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from hybridgrey.migrate.found import Found, Summary

WIDTH: Final = 110
KEYS: Final = ("name", "authenticated", "clients", "recipients", "dns", "threshold", "action", "text")


def render(found: Sequence[Found], source: str) -> str:
    """The config file for what was found in `source`, the name of a file."""
    summary = Summary.of(found)
    head = [f"# {one_line(source)}: {summary}; each says where it comes from."]
    if not summary.rules:
        head.append(
            "# No rule was found in it, so the rules of a file without rules apply: see hybridgrey.toml(5)."
        )
    elif not any(f.table.get("action") == "greylist" for f in found if f.is_rule):
        head.append("# No greylister was found in it. To greylist who is left, add at the end:")
        head += ["#", "#   [[rule]]", '#   name = "the rest"', '#   action = "greylist"']
    return "\n".join([*head, "", blocks(found, source)]).rstrip("\n") + "\n"


def blocks(found: Sequence[Found], source: str) -> str:
    """The same without the head, to be put into a file."""
    return "\n\n".join("\n".join(_block(f, source)) for f in found)


def _block(found: Found, source: str) -> Iterator[str]:
    yield from _comment(origins(found, source))
    for note in found.notes:
        yield from _comment([note], "  ")
    if found.table:
        mark = "# " if found.off else ""
        # A value may go over several lines, and each of them needs the mark.
        for line in "\n".join(zone(found) if found.zone else rule(found.table)).split("\n"):
            yield f"{mark}{line}"


def origins(found: Found, source: str) -> list[str]:
    """Where it comes from, as ``file:line: words``."""
    first, *more = found.origin.split("\n")
    places = [(str(found.line), first), *(tuple(m.split("\t", 1)) for m in more)]
    return [
        f"{source}:{line}: {one_line(text)}" if line != "0" else f"{one_line(text)}" for line, text in places
    ]


def rule(table: Mapping[str, Any]) -> Iterator[str]:
    """A rule in TOML."""
    yield "[[rule]]"
    for key in KEYS:
        if key in table:
            yield f"{key} = {value(table[key], len(key) + 3)}"


def zone(found: Found) -> Iterator[str]:
    """What is particular to a list, in TOML."""
    yield f"[zones.{value(found.zone)}]"
    for key, content in found.table.items():
        yield f"{key} = {value(content)}"


def value(content: object, indent: int = 0) -> str:
    """A value in TOML; a list that is too long for a line has an item a line."""
    if isinstance(content, list):
        items = [value(item) for item in content]
        line = f"[{', '.join(items)}]"
        if indent + len(line) <= WIDTH:
            return line
        return "[\n" + "".join(f"  {item},\n" for item in items) + "]"
    if isinstance(content, bool):
        return "true" if content else "false"
    # JSON's strings are TOML's, but for DEL, which TOML wants escaped.
    return json.dumps(content, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(texts: Sequence[str], indent: str = "") -> Iterator[str]:
    for text in texts:
        lines = textwrap.wrap(one_line(text), WIDTH - 4 - len(indent), break_on_hyphens=False) or [""]
        yield from (f"# {indent}{'' if not n else '  '}{line}" for n, line in enumerate(lines))


def one_line(text: str) -> str:
    """Text of another program's file, fit for a terminal and a comment: TOML allows no controls there."""
    return "".join(c if c.isprintable() else " " for c in text)
