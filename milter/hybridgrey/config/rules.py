"""The ``[[rule]]`` tables of the config file: their keys, the files of entries they name, the default rules.

Checks of one rule stand in `RuleTable`; those that need all of them in `across`.  A key with several mistakes
(a list with two bad entries, a file with ten bad lines) raises one `MistakesError`, which `mistakes` takes
apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, ValidationInfo, field_validator

from hybridgrey.config import durations, textfile, words
from hybridgrey.config.settings import (
    Section,
    folder_of,
    reader_of,
    reply_text,
    typed,
    without_controls,
)
from hybridgrey.policy.conditions import RDNS_KINDS, SPF_RESULTS, Hand, Results, Score, kinds
from hybridgrey.policy.judge import Action, Rule
from hybridgrey.policy.match import Entry, Kind, parse_entry, parse_file
from hybridgrey.policy.pattern import ListEntry
from hybridgrey.policy.rdns import Name

# Lines named for one bad file: enough to see what is wrong with it.
MAX_LINES = 50

_T = TypeVar("_T")
Raw = Mapping[str, Any]
Problem = tuple[tuple[str | int, ...], str]

# The only files that may be missing, each with its kind of entries: a fresh installation allows no client by
# hand, and one that was upgraded has no pools.
ALLOW_CLIENTS = "file:allow_clients"
POOLS = "file:pools"
_OPTIONAL = {(Kind.CLIENT, ALLOW_CLIENTS), (Kind.POOL, POOLS)}

DEFAULT_RULES: tuple[Raw, ...] = (
    {"name": "authenticated", "authenticated": True, "action": "accept", "learn": True},
    {"name": "local", "clients": ["127.0.0.0/8", "::1"], "action": "accept", "learn": True},
    {"name": "manual", "clients": [ALLOW_CLIENTS], "action": "accept"},
    {"name": "allowed by hand", "by_hand": "allow", "action": "accept"},
    {"name": "blocked by hand", "by_hand": "block", "action": "reject"},
    {
        "name": "blocklists",
        "dns": ["bl.mailspike.net", "zen.spamhaus.org=127.0.0.[2..11]"],
        "action": "reject",
    },
    {
        "name": "allowlists",
        "dns": ["rep.mailspike.net=127.0.0.[18..20]", "list.dnswl.org=127.0.[0..255].[2..3]"],
        "action": "accept",
    },
    # Kindness comes after the blocklists: whoever is on one gets nothing by it.
    {"name": "correspondents", "correspondent": True, "action": "accept"},
    {"name": "pools", "pools": [POOLS], "action": "accept"},
    {"name": "the rest", "action": "greylist"},
)


class MistakesError(ValueError):
    """The mistakes in one key: each with the index of its item, None for the key as a whole."""

    def __init__(self, mistakes: Sequence[tuple[int | None, str]]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("; ".join(text for _, text in mistakes))


def _each(value: object, read: Callable[[str], Iterable[_T]]) -> tuple[_T, ...]:
    """What `read` makes of the strings of a list; raises MistakesError for all that are bad."""
    if not isinstance(value, list):
        raise ValueError('must be a list, as ["…"]')  # noqa: TRY004 (pydantic collects ValueError)
    if not value:
        raise ValueError("is an empty list: name an entry, or leave the key out")
    made: list[_T] = []
    mistakes: list[tuple[int | None, str]] = []
    for i, item in enumerate(value):
        try:
            if not isinstance(item, str):
                raise ValueError("must be a string, in quotes")  # noqa: TRY004, TRY301 (told with the others)
            made.extend(read(item))
        except MistakesError as e:
            mistakes.extend((i, text) for _, text in e.mistakes)
        except ValueError as e:
            mistakes.append((i, str(e)))
    if mistakes:
        raise MistakesError(mistakes)
    return tuple(made)


def _condition(kind: Kind) -> Any:  # noqa: ANN401 (a validator of pydantic's)
    """The reader of a condition on clients, HELO names, senders, recipients or pools."""

    def read(value: Any, info: ValidationInfo) -> tuple[Entry, ...] | None:  # noqa: ANN401 (as in the file)
        if value is None:
            return None
        folder, open_ = folder_of(info), reader_of(info)
        return _meaning(value, _each(value, lambda item: _item_entries(kind, item.strip(), folder, open_)))

    return PlainValidator(read)


def _meaning(items: Sequence[str], entries: tuple[Entry, ...]) -> tuple[Entry, ...] | None:
    """Keep an empty file from changing what a condition means.

    A condition of exclusions only holds for everybody else.  With ``["file:friends", "!192.0.2.1"]`` that
    must not come about because the file is empty: then the condition holds for nobody, which is an empty
    tuple.  Exclusions that turn out to be none leave no condition.
    """
    if all(item.lstrip().startswith("!") for item in items):
        return entries or None
    return entries if any(not e.excluded for e in entries) else ()


def _item_entries(kind: Kind, item: str, folder: Path | None, read: textfile.Read) -> list[Entry]:
    """The entries of one item of a condition: itself, or those of the file it names."""
    negated = item.startswith("!")
    body = item.removeprefix("!").lstrip()
    if not body.startswith("file:"):
        return [parse_entry(kind, item)]
    entries = _file_entries(kind, body, folder, read)
    if not negated:
        return entries
    if any(e.excluded for e in entries):
        raise ValueError(f"{_shown(body)} has entries with ! and is excluded itself")
    return [replace(e, excluded=True) for e in entries]


def _file_entries(kind: Kind, item: str, folder: Path | None, read: textfile.Read) -> list[Entry]:
    name = item.removeprefix("file:").strip()
    optional = (kind, item) in _OPTIONAL
    if not name or not name.isprintable():
        raise ValueError("file: needs the path of a file")
    if folder is None:
        if optional:
            return []
        raise ValueError(f"{_shown(item)} needs a config file whose folder it starts at")
    try:
        text = read(folder / name, textfile.MAX_BYTES)
    except FileNotFoundError:
        if optional:
            return []
        raise ValueError(f"{_shown(item)} does not exist") from None
    except ValueError as e:
        raise ValueError(f"{_shown(item)} {e}") from None
    entries, errors = parse_file(kind, text)
    if errors:
        more = [f"{len(errors) - MAX_LINES} more bad lines"] if len(errors) > MAX_LINES else []
        raise MistakesError([(None, f"{_shown(item)}: {e}") for e in errors[:MAX_LINES] + more])
    return entries


def files(rules: Iterable[Raw], folder: Path) -> tuple[Path, ...]:
    """The files of entries that valid rules name, each once."""
    items = (item for rule in rules for kind in Kind for item in _texts(rule.get(kind.value)))
    bodies = (item.strip().removeprefix("!").lstrip() for item in items)
    names = (body.removeprefix("file:").strip() for body in bodies if body.startswith("file:"))
    return tuple(dict.fromkeys(folder / name for name in names))


def _texts(value: object) -> list[str]:
    """The items of a condition, which may be written as a list or as one text."""
    found = value if isinstance(value, list) else [value]
    return [item for item in found if isinstance(item, str)]


def _shown(item: str) -> str:
    return item if len(item) <= 100 else f"{item[:100]}…"


def _lists(value: object) -> tuple[ListEntry, ...]:
    return () if value is None else _each(value, lambda item: (ListEntry.parse(item),))


def _rdns(value: object) -> frozenset[Name] | None:
    return None if value is None else kinds(_each(value, lambda item: (_KIND(item),)))


def _spf(value: object) -> Results | None:
    return None if value is None else Results.of(_each(value, lambda item: (_RESULT(item),)))


_KIND = words.word_of(RDNS_KINDS)
_RESULT = words.word_of(SPF_RESULTS)


def _action(value: object) -> Action:
    return Action(words.one_of(value, tuple(Action)))


def _name(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty: give a name, or leave the key out")
    return text


class RuleTable(Section):
    """One ``[[rule]]``; `action` comes first, because what else makes sense depends on it."""

    name: (
        Annotated[str, Field(max_length=100), AfterValidator(without_controls), AfterValidator(_name)] | None
    ) = None
    action: Annotated[Action, PlainValidator(_action)]
    clients: Annotated[tuple[Entry, ...] | None, _condition(Kind.CLIENT)] = None
    helo: Annotated[tuple[Entry, ...] | None, _condition(Kind.HELO)] = None
    senders: Annotated[tuple[Entry, ...] | None, _condition(Kind.SENDER)] = None
    recipients: Annotated[tuple[Entry, ...] | None, _condition(Kind.RECIPIENT)] = None
    authenticated: bool | None = None
    rdns: Annotated[frozenset[Name] | None, PlainValidator(_rdns)] = None
    pools: Annotated[tuple[Entry, ...] | None, _condition(Kind.POOL)] = None
    spf: Annotated[Results | None, PlainValidator(_spf)] = None
    correspondent: bool | None = None
    by_hand: Annotated[Hand | None, PlainValidator(words.hand)] = None
    score: Annotated[Score | None, PlainValidator(words.score)] = None
    dns: Annotated[tuple[ListEntry, ...], PlainValidator(_lists)] = typed(None)
    threshold: Annotated[int, Field(ge=1)] | None = None
    text: str | None = None
    delay: Annotated[int, BeforeValidator(durations.whole("1s", "1d"))] | None = None
    learn: bool | None = None

    @field_validator("threshold")
    @classmethod
    def _threshold(cls, threshold: int | None, info: ValidationInfo) -> int | None:
        lists = info.data.get("dns")
        if lists is None:  # what is wrong with dns is said there
            return threshold
        if not lists:
            if threshold is not None:
                raise ValueError("has no use without dns")
            return None
        most = sum(max(entry.weight, 0) for entry in lists)
        if most < (threshold or 1):
            raise ValueError(f"can never be reached: the weights of dns sum up to {most} at most")
        return threshold

    @field_validator("text")
    @classmethod
    def _text(cls, text: str | None, info: ValidationInfo) -> str | None:
        action = info.data.get("action")
        if text is None or action is None:
            return text
        if action is Action.ACCEPT:
            raise ValueError("has no use with action accept")
        if action is Action.NONE:  # a rule on trial keeps the text that it will have
            return without_controls(text)
        return reply_text(text, "5" if action is Action.REJECT else "4", seconds=action is Action.GREYLIST)

    @field_validator("delay")
    @classmethod
    def _delay(cls, delay: int | None, info: ValidationInfo) -> int | None:
        if delay is not None and info.data.get("action", Action.GREYLIST) is not Action.GREYLIST:
            raise ValueError("has a use with action greylist only")
        return delay

    @field_validator("learn")
    @classmethod
    def _learn(cls, learn: bool | None, info: ValidationInfo) -> bool | None:
        if learn is not None and info.data.get("action", Action.ACCEPT) is not Action.ACCEPT:
            raise ValueError("has a use with action accept only")
        return learn

    def rule(self, number: int) -> Rule:
        """The rule as `policy` judges it; `number` counts from 1."""
        return Rule(
            name=self.name or f"rule {number}",
            action=self.action,
            clients=self.clients,
            helo=self.helo,
            senders=self.senders,
            recipients=self.recipients,
            authenticated=self.authenticated,
            lists=self.dns,
            threshold=self.threshold or 1,
            text=self.text,
            delay=self.delay,
            rdns=self.rdns,
            pools=self.pools,
            spf=self.spf,
            by_hand=self.by_hand,
            correspondent=self.correspondent,
            score=self.score,
            learn=bool(self.learn),
        )


# A list: the raw value may not be hashable.
_FINAL_ACTIONS = [a.value for a in Action if a is not Action.NONE]
# All others are conditions; a threshold without dns is a mistake of its own, for dns was meant to be there.
_CONDITION_KEYS = RuleTable.model_fields.keys() - {"name", "action", "text", "delay", "learn"}


def name_of(table: object, number: int) -> str:
    """The name of a rule as it stands in the file, valid or not; `number` counts from 1."""
    name = table.get("name") if isinstance(table, Mapping) else None
    return name if isinstance(name, str) and name.strip() else f"rule {number}"


def across(tables: Sequence[object], retry_window: float | None, *, scanner: bool) -> Iterator[Problem]:
    """What is wrong between the rules, found in the raw tables so that it is told along with all else.

    `retry_window` in seconds; `scanner`: whether there is one to give a score.
    """
    yield from _same_names(tables)
    yield from _unreachable(tables)
    for i, table in enumerate(tables):
        if not scanner and isinstance(table, Mapping) and "score" in table:
            yield ("rule", i, "score"), "has no use without a scanner: name one in [content]"
        delay = _seconds(table.get("delay")) if isinstance(table, Mapping) else None
        if delay is not None and retry_window is not None and delay >= retry_window:
            shown = durations.show(retry_window)
            yield ("rule", i, "delay"), f"must be shorter than greylist.retry_window ({shown})"


def _same_names(tables: Sequence[object]) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for i, table in enumerate(tables):
        first = seen.setdefault(name_of(table, i + 1), i)
        if first != i:
            yield ("rule", i, "name"), f"the name stands at rule {first + 1} already"


def _unreachable(tables: Sequence[object]) -> Iterator[Problem]:
    """Rules after one that decides everything.

    A rule with a key that is unknown may have a misspelt condition, and is not held against those after it.
    """
    final: str | None = None
    for i, table in enumerate(tables):
        if final is not None:
            yield ("rule", i), f'can never be reached: rule "{final}" before it decides everything'
        elif isinstance(table, Mapping) and decides_all(table):
            final = name_of(table, i + 1)


def decides_all(table: Raw) -> bool:
    """Whether a raw rule has a final action and no condition."""
    known = table.keys() <= RuleTable.model_fields.keys()
    return known and not table.keys() & _CONDITION_KEYS and table.get("action") in _FINAL_ACTIONS


def _seconds(value: object) -> float | None:
    try:
        return None if value is None else durations.parse(value)
    except ValueError:  # said where the key is checked
        return None
