"""Postfix's restriction lists and postscreen, item by item: the rule for each, or why there is none.

Terms: an `Item` is a restriction with its argument, as ``reject_rbl_client zen.spamhaus.org``; a `Found` is a
rule or a note, with the place that it comes from.  Reads no file itself but through the `read` it is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from hybridgrey.migrate import accessmap, policyservices
from hybridgrey.migrate.found import Found, Read
from hybridgrey.migrate.maincf import MainCf, MainCfError, Text
from hybridgrey.migrate.policyservices import STAYS
from hybridgrey.policy.match import EntryError, Kind, parse_entry
from hybridgrey.policy.pattern import ListEntry, PatternError

TABLE: Final = "table"  # a map named without a restriction is check_client_access, and so on
LISTS: Final = ("client", "helo", "sender", "relay", "recipient")
MENDED: Final = (
    "blanks inside brackets taken out: Postfix reads them as separate words, and the list has no effect"
)
POSTSCREEN: Final = accessmap.Reading(postscreen=True)

_DEFAULTS: Final[Mapping[str, str]] = {
    "config_directory": "/etc/postfix",
    "mynetworks_style": "host",
    "postscreen_dnsbl_threshold": "1",
    "postscreen_dnsbl_action": "ignore",
    "postscreen_access_list": "permit_mynetworks",
    "maps_rbl_reject_code": "554",
}

# Restrictions that take an argument; an unknown word after one is otherwise taken for a restriction.
_ARGUMENT: Final = re.compile(
    r"check_.*_access|check_policy_service|reject_(rbl|rhsbl)_.*|permit_(dnswl|rhswl)_.*|sleep"
)


@dataclass(frozen=True, slots=True)
class Item:
    """A restriction: its name in lower case, its argument if it takes one, and whether it only warns."""

    name: str
    argument: Text
    line: int
    warns: bool = False

    @property
    def shown(self) -> str:
        """As it stands in the file, on one line: a word in braces may go over several."""
        name = " ".join(f"{'' if self.name == TABLE else self.name} {self.argument.text}".split())
        return f"warn_if_reject {name}" if self.warns else name


class Restrictions:
    """One file; the methods give what they find in its parameters."""

    def __init__(self, source: str, read: Read, config_directory: str = "") -> None:
        own = {"config_directory": config_directory} if config_directory else {}
        self.main = MainCf(source, {**_DEFAULTS, **own})
        self._read = read
        self._softens = False  # defer_if_reject has been seen: what rejects from there on defers

    def restrictions(self, which: str) -> list[Found]:
        """What one of the restriction lists has for us; consecutive lists of one kind are one rule."""
        name = f"smtpd_{which}_restrictions"
        try:
            items = list(self._items(self.main.words(name), set()))
        except MainCfError as e:
            return [Found(self.main.line(name), name, notes=(f"cannot be read: {e}",))]
        self._softens = False
        if which == "relay":
            return [Found(i.line, f"{name}: {i.shown}", notes=(STAYS,)) for i in items]
        found: list[Found] = []
        for i, item in enumerate(items):
            for new in self._item(which, item):
                _add(found, replace(new, origin=f"{name}: {new.origin}"))
            if item.name in ("permit", "reject", "defer") and not item.warns:
                found += [
                    Found(
                        rest.line,
                        f"{name}: {rest.shown}",
                        notes=(f"never reached, {item.name} ends the list",),
                        aside=True,
                    )
                    for rest in items[i + 1 :]
                ]
                break
        return found

    def _items(self, listed: Sequence[Text], classes: set[str]) -> Iterator[Item]:
        """The items of a list; restriction classes of the file's own are put in their places."""
        known = {w.text for w in self.main.words("smtpd_restriction_classes")}
        queue = list(listed)
        warns = False
        while queue:
            word = queue.pop(0)
            name = word.text.lower()
            if name == "warn_if_reject":
                warns = True
                continue
            if word.text in known and word.text not in classes:
                yield from self._items(self.main.words(word.text), classes | {word.text})
            elif _ARGUMENT.fullmatch(name):
                yield Item(name, queue.pop(0) if queue else Text(), word.line, warns)
            elif ":" in name or name.startswith("/"):
                yield Item(TABLE, word, word.line, warns)
            else:
                yield Item(name, Text(), word.line, warns)
            warns = False

    def _item(self, which: str, item: Item) -> Iterator[Found]:
        name, argument = item.name, item.argument.text
        if name == TABLE:
            name = f"check_{'client' if which == 'client' else which}_access"
        if _ARGUMENT.fullmatch(name) and not argument:
            yield Found(item.line, item.shown, notes=("has no argument; passed over",))
            return
        match name:
            case "permit_mynetworks":
                yield self._mynetworks(item.line)
            case "permit_sasl_authenticated":
                table = {"name": "authenticated", "authenticated": True, "action": "accept"}
                yield Found(item.line, item.shown, table)
            case "check_client_access":
                yield from accessmap.convert(item.line, item.shown, argument, self._read, self._reading())
            case "reject_rbl_client":
                yield self._blocklist(item)
            case "permit_dnswl_client":
                yield self._list(item, "allowlists", "accept")
            case "check_policy_service":
                yield policyservices.convert(item.line, item.shown, argument, warns=item.warns)
            case _:
                yield self._bare(item, name)

    def _bare(self, item: Item, name: str) -> Found:
        """A restriction that concerns everybody, or the items after it, or is none of ours."""
        match name:
            case "reject" | "defer":
                return self._everybody(item)
            case "permit":
                why = "ends the list; the rules that follow go on"
                return Found(item.line, item.shown, notes=(why,), aside=True)
            case "defer_if_reject":
                self._softens = True
                why = "taken over: what rejects after it defers"
                return Found(item.line, item.shown, notes=(why,), aside=True)
            case _ if not re.fullmatch(r"\w*[a-z]\w*", name):
                return Found(item.line, item.shown, notes=("no restriction of Postfix's",), aside=True)
            case _:
                return Found(item.line, item.shown, notes=(_why_not(name),))

    def _refusal(self, item: Item) -> tuple[str, tuple[str, ...]]:
        """The action of something that rejects, and what is to be said of it."""
        if item.warns:
            return "none", ("warn_if_reject: logged and counted only",)
        if self._softens:
            return "tempfail", ("defer_if_reject stands before it",)
        if self._setting("soft_bounce").lower() == "yes":
            return "tempfail", (f"soft_bounce = yes (line {self.main.line('soft_bounce')})",)
        return "reject", ()

    def _reading(self) -> accessmap.Reading:
        """How smtpd reads the maps: a name stands for those below it unless main.cf says otherwise."""
        name = "parent_domain_matches_subdomains"
        below = name not in self.main.parameters or "smtpd_access_maps" in self._setting(name)
        return accessmap.Reading(below=below)

    def _setting(self, name: str) -> str:
        """A value that only changes how something is taken over; one that cannot be expanded is none."""
        try:
            return self.main.value(name).text
        except MainCfError:
            return ""

    def _blocklist(self, item: Item) -> Found:
        action, notes = self._refusal(item)
        if action == "reject" and self._setting("maps_rbl_reject_code").startswith("4"):
            action, notes = (
                "tempfail",
                (f"maps_rbl_reject_code (line {self.main.line('maps_rbl_reject_code')})",),
            )
        names = {"reject": "blocklists", "none": "blocklists on trial", "tempfail": "blocklists, deferring"}
        return self._list(item, names[action], action, notes)

    def _list(self, item: Item, name: str, action: str, notes: tuple[str, ...] = ()) -> Found:
        try:
            entry = ListEntry.parse(item.argument.text)
        except PatternError as e:
            return Found(item.line, item.shown, notes=(f"not taken over: {e}",))
        table = {"name": name, "dns": [str(entry)], "action": action}
        notes = (*notes, MENDED) if item.argument.mended else notes
        return Found(item.line, item.shown, table, notes)

    def _everybody(self, item: Item) -> Found:
        action, notes = self._refusal(item)
        action = "tempfail" if item.name == "defer" and not item.warns else action
        return Found(item.line, item.shown, {"name": f"{item.name} the rest", "action": action}, notes)

    def _mynetworks(self, line: int) -> Found:
        """``permit_mynetworks``: the networks of ``mynetworks``, its files read."""
        table: dict[str, Any] = {"name": "mynetworks", "clients": [], "action": "accept"}
        notes: list[str] = []
        if "mynetworks" not in self.main.parameters:
            style = self._setting("mynetworks_style")
            table["clients"] = ["127.0.0.0/8", "::1/128"]
            notes.append(f"mynetworks is not set (mynetworks_style = {style}): only this host is here; add"
                         " what `postconf mynetworks` prints")  # fmt: skip
        else:
            notes.append(f"mynetworks (line {self.main.line('mynetworks')})")
            try:
                self._networks([w.text for w in self.main.words("mynetworks")], table["clients"], notes)
            except MainCfError as e:
                notes.append(f"cannot be read: {e}")
        off = not any(not c.startswith("!") for c in table["clients"])
        return Found(line, "permit_mynetworks", {} if off else table, tuple(notes))

    def _networks(self, listed: Sequence[str], clients: list[str], notes: list[str], depth: int = 0) -> None:
        for word in listed:
            text = word.replace("[", "").replace("]", "")
            if text.startswith("/") and depth < 3:
                content = self._read(text)
                if isinstance(content, str):
                    lines = [line for line in content.splitlines() if not line.lstrip().startswith("#")]
                    self._networks(" ".join(lines).replace(",", " ").split(), clients, notes, depth + 1)
                else:
                    notes.append(f"not taken over: {text}: {content.reason}")
                continue
            try:
                parse_entry(Kind.CLIENT, text)
            except EntryError as e:
                notes.append(f"not taken over: {word}: {e}")
            else:
                if text not in clients:
                    clients.append(text)

    def postscreen(self) -> list[Found]:
        """The lists of postscreen with their weights; they come first, as postscreen does."""
        try:
            sites = self.main.words("postscreen_dnsbl_sites")
            return self._postscreen(sites) if sites else []
        except MainCfError as e:
            line = self.main.line("postscreen_dnsbl_sites")
            return [Found(line, "postscreen_dnsbl_sites", notes=(f"cannot be read: {e}",))]

    def _postscreen(self, sites: Sequence[Text]) -> list[Found]:
        entries: list[str] = []
        found: list[Found] = []
        mended = any(site.mended for site in sites)
        for site in sites:
            try:
                entries.append(str(ListEntry.parse(site.text)))
            except PatternError as e:
                origin = f"postscreen_dnsbl_sites: {' '.join(site.text.split())}"
                found.append(Found(site.line, origin, notes=(f"not taken over: {e}",)))
        threshold = self.main.value("postscreen_dnsbl_threshold").text
        number = int(threshold) if re.fullmatch(r"[0-9]{1,9}", threshold) else 1
        action = self.main.value("postscreen_dnsbl_action").text.lower()
        notes = [f"postscreen_dnsbl_threshold = {threshold}, postscreen_dnsbl_action = {action}"]
        if action not in ("enforce", "drop"):
            notes.append("postscreen ignores the score and so does this rule: it logs and counts")
        notes += [MENDED] if mended else []
        table: dict[str, Any] = {"name": "postscreen", "dns": entries, "threshold": max(1, number)}
        table["action"] = "reject" if action in ("enforce", "drop") else "none"
        most = sum(max(0, ListEntry.parse(e).weight) for e in entries)
        off = most < table["threshold"]
        if off:
            notes.append(f"never reached: the weights sum up to {most} at most")
        explicit = "postscreen_access_list" in self.main.parameters
        access = [*(self._access_list() if explicit or not off else ()), *found]
        if not entries:
            return access
        line = sites[0].line
        return [*access, Found(line, "postscreen_dnsbl_sites", table, tuple(notes), off), *self._allowed()]

    def _access_list(self) -> Iterator[Found]:
        """``postscreen_access_list``: whom postscreen lets past its tests."""
        for word in self.main.words("postscreen_access_list"):
            origin = f"postscreen_access_list: {one_line(word.text)}"
            if word.text.lower() == "permit_mynetworks":
                yield self._mynetworks(word.line)
            elif "postscreen_access_list" in self.main.parameters:
                note = "in Postfix this only passes postscreen; here it accepts for good"
                for found in accessmap.convert(word.line, origin, word.text, self._read, POSTSCREEN):
                    notes = found.notes if found.lost else (*found.notes, note)
                    yield replace(found, notes=notes)

    def _allowed(self) -> Iterator[Found]:
        for name in ("postscreen_dnsbl_allowlist_threshold", "postscreen_dnsbl_whitelist_threshold"):
            if self._setting(name) not in ("", "0"):
                note = "not taken over: it skips postscreen's other tests, which are no business of ours"
                yield Found(
                    self.main.line(name),
                    f"{name} = {one_line(self._setting(name))}",
                    notes=(note,),
                )


def one_line(text: str) -> str:
    """Words that stood on several lines, on one: an origin has a line for each place."""
    return " ".join(text.split())


def _add(found: list[Found], new: Found) -> None:
    """Append `new`; a list after lists of the same kind goes into their rule."""
    rules = [i for i, f in enumerate(found) if not f.lost]
    last = found[rules[-1]] if rules else None
    same = ("name", "action")
    if (
        last is None
        or new.lost
        or "dns" not in new.table
        or any(last.table.get(k) != new.table[k] for k in same)
        or "threshold" in last.table
    ):
        found.append(new)
        return
    entries = list(last.table["dns"])
    if new.table["dns"][0] not in entries:
        entries += new.table["dns"]
    origin = last.origin if new.origin in last.origin else f"{last.origin}\n{new.line}\t{new.origin}"
    notes = tuple(dict.fromkeys((*last.notes, *new.notes)))
    found[rules[-1]] = Found(last.line, origin, {**last.table, "dns": entries}, notes)


def _why_not(name: str) -> str:
    if re.fullmatch(r"(reject_rhsbl|permit_rhswl)_.*", name):
        return f"not taken over: hybridgrey asks lists of addresses only; {STAYS}"
    if re.fullmatch(r"check_(helo|sender|recipient)_access", name):
        kind = name.split("_")[1]
        key = "helo" if kind == "helo" else f"{kind}s"
        return f'not taken over; {STAYS}, or make a rule with {key} = ["file:…"] for its OK rows'
    if name == "defer_if_permit":
        return "not taken over: greylisting defers whom no rule knows"
    return f"not taken over; {STAYS}"
