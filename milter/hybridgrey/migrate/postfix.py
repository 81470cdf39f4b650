"""From a Postfix main.cf to rules: what is taken over, in which order, and what is not and why.

Postfix judges in the order postscreen, then smtpd_client_, helo_, sender_, relay_ and
recipient_restrictions; each list ends with the first item that permits or refuses.  hybridgrey has one list
of rules, so two things cannot be the same and are said where they matter: a permit of an earlier list accepts
for good, and greylisting, which decides for everybody who is left, comes last.

What has no counterpart stays in main.cf, where Postfix goes on doing it before the milter is asked.

Pure but for the `read` it is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from hybridgrey.migrate import replymaps
from hybridgrey.migrate.found import Found, Read
from hybridgrey.migrate.restrictions import LISTS, Restrictions


def convert(source: str, read: Read, config_directory: str = "") -> list[Found]:
    """What a main.cf or the output of ``postconf -n`` has for us, in the order of judging."""
    converter = Restrictions(source, read, config_directory)
    found = [
        Found(line, text, notes=("no setting of main.cf; passed over",))
        for line, text in converter.main.bad_lines
    ]
    found += converter.postscreen()
    lists = {f"smtpd_{which}_restrictions": converter.restrictions(which) for which in LISTS}
    rules = _in_order(found + _accepting_for_good(lists))
    return [*replymaps.labels(converter.main, rules, read), *rules]


def _accepting_for_good(lists: Mapping[str, Sequence[Found]]) -> list[Found]:
    """The findings of all lists; an accept that goes further here than there says so."""
    names = list(lists)
    out: list[Found] = []
    for i, name in enumerate(names):
        later = [
            n
            for n in names[i + 1 :]
            if any(f.table.get("action") != "accept" for f in lists[n] if not f.lost)
        ]
        note = f"in Postfix this ends this list only; here it accepts for good, past {' and '.join(later)}"
        for f in lists[name]:
            further = later and not f.lost and f.table["action"] == "accept"
            out.append(replace(f, notes=(*f.notes, note)) if further else f)
    return out


def _in_order(found: Sequence[Found]) -> list[Found]:
    """Greylisting last, equal rules once, nothing after a rule that decides everything."""
    greylisting = [f for f in found if f.table.get("action") == "greylist" and not f.off]
    others = [f for f in found if f not in greylisting]
    if greylisting:
        after = [f for f in found[found.index(greylisting[0]) :] if f not in greylisting and not f.lost]
        first = greylisting[0]
        if after:
            notes = (*first.notes, "moved to the end: here greylisting decides for all who are left")
            first = replace(first, notes=notes)
        already = "greylisting is taken over already"
        doubles = [Found(f.line, f.origin, notes=(already,), aside=True) for f in greylisting[1:]]
        others += [*doubles, first]
    return _reachable(_once(others))


def _once(found: Iterable[Found]) -> Iterator[Found]:
    seen: dict[str, Found] = {}
    names: dict[str, int] = {}
    said: set[tuple[int, str, tuple[str, ...]]] = set()
    for f in found:
        if f.lost:
            if (f.line, f.origin, f.notes) not in said:
                yield f
            said.add((f.line, f.origin, f.notes))
            continue
        content = repr(sorted((k, v) for k, v in f.table.items() if k != "name"))
        if content in seen:
            note = f'the rule "{seen[content].table["name"]}" does this already'
            yield Found(f.line, f.origin, notes=(note,), aside=True)
            continue
        name = str(f.table["name"])[:90]
        names[name] = names.get(name, 0) + 1
        unique = name if names[name] == 1 else f"{name} {names[name]}"
        seen[content] = replace(f, table={**f.table, "name": unique})
        yield seen[content]


def _reachable(found: Iterator[Found]) -> list[Found]:
    final: Found | None = None
    out: list[Found] = []
    for f in found:
        if final is not None and not f.lost:
            note = f'never reached: the rule "{final.table["name"]}" before it decides everything'
            out.append(replace(f, notes=(*f.notes, note), off=True, aside=True))
            continue
        out.append(f)
        if not f.lost and f.table.keys() <= {"name", "action", "text"} and f.table["action"] != "none":
            final = f
    return out
