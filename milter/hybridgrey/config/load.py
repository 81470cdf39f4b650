"""The config file: TOML to one frozen `Config`, or every error in it at once.

A file is read, parsed (tomllib) and validated (pydantic, models in `settings` and `rules`); what concerns
several rules is checked on the raw tables, so that a mistake elsewhere does not hide it.  Errors come in the
order of the file.  Secrets are in no error, no warning, nor in `Config.shown`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel, Field, ValidationError

from hybridgrey.config import advice, durations, mistakes, rules, scanner, sockets, store_url, textfile
from hybridgrey.config.lines import Lines
from hybridgrey.config.masking import MASK, Secrets
from hybridgrey.config.rules import DEFAULT_RULES, Problem, Raw, RuleTable
from hybridgrey.config.scanner import Scanner
from hybridgrey.config.settings import Settings, Zone
from hybridgrey.config.sockets import Address
from hybridgrey.policy.judge import Rule

__all__ = ["Address", "Config", "ConfigError", "default", "load"]

MAX_BYTES = 4 * 2**20


class ConfigError(Exception):
    """A configuration that cannot be used.

    `problems` has one line for each mistake: ``FILE: key: what is wrong``.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self.problems = tuple(lines)
        super().__init__("\n".join(self.problems))


class Config(Settings):
    """A valid configuration; it never changes.

    `files` are the file itself and those of entries that it names: what a reload reads.  `shown` is the
    effective configuration in the notation of the file, without secrets.  `sources` are the texts that it was
    read from, with them.
    """

    rules: tuple[Rule, ...] = ()
    warnings: tuple[str, ...] = ()
    path: Path | None = None
    files: tuple[Path, ...] = ()
    shown: Mapping[str, Any] = MappingProxyType({})
    sources: Mapping[Path, str] = Field(MappingProxyType({}), repr=False)

    @property
    def address(self) -> Address:
        """Where the MTA reaches the milter."""
        return sockets.parse_address(self.listen, self.path.parent if self.path else None)

    @property
    def scanner(self) -> Scanner | None:
        """Where the content scanner is, if there is one."""
        return scanner.parse(self.content.scanner, self.path.parent if self.path else None)

    @property
    def worker_count(self) -> int:
        """Worker processes; by default at least two, so that one that waits does not hold up all mail."""
        return self.workers or max(2, _cores())

    @property
    def observe(self) -> bool:
        """Whether all mail is let through, judged and logged only."""
        return self.mode == "observe"


class _File(Settings):
    """What the file may hold."""

    rule: list[RuleTable]


def _cores() -> int:
    """CPUs that this process may use; fewer than the machine has in a container or under taskset."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default() -> Config:
    """What an empty file means, with no file of allowed clients or pools beside it."""
    return _build({}, None, Lines(""), _Sources())


def load(path: Path, read: textfile.Read = textfile.read) -> Config:
    """Read a config file and the files of entries it names; raises ConfigError with all that is wrong.

    `read` may have the texts from elsewhere; the paths in them mean what they mean in the file.
    """
    path = path.absolute()
    sources = _Sources(read)
    try:
        text = sources(path, MAX_BYTES)
    except FileNotFoundError:
        raise ConfigError(_lines(path, ["does not exist"])) from None
    except ValueError as e:
        raise ConfigError(_lines(path, [str(e)])) from None
    return _build(_parse(text, path), path, Lines(text), sources)


class _Sources:
    """Reads files, each once, and keeps their texts."""

    def __init__(self, read: textfile.Read = textfile.read) -> None:
        self._read = read
        self.texts: dict[Path, str] = {}

    def __call__(self, path: Path, limit: int) -> str:
        if path not in self.texts:
            self.texts[path] = self._read(path, limit)
        return self.texts[path]


def _lines(path: Path | None, texts: Iterable[str]) -> list[str]:
    where = mistakes.one_line(os.fsencode(path).decode(errors="backslashreplace")) if path else "defaults"
    return [f"{where}: {text}" for text in texts]


def _parse(text: str, path: Path) -> Raw:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        reason = _syntax(str(e), text)
    except RecursionError:
        reason = "tables or lists are nested too deeply"
    except ValueError:  # int() refuses numbers of thousands of digits
        reason = "a number is too long"
    # Raised outside of the handlers: what led here may quote a secret, and a log of the error would show it.
    raise ConfigError(_lines(path, [reason]))


# For what beginners write: mode = observe, curly quotes, and [rule] for each rule.
_ADVICE: Final = {
    "invalid value": '; text wants straight quotes, as in mode = "observe"',
    "cannot declare twice": "; a table stands once, and each rule begins with [[rule]]",
}


def _syntax(reason: str, text: str) -> str:
    """Tomllib's reason with the place first, and without the names of keys, which may be secret."""
    what, _, place = reason.rpartition(" (at ")
    what = re.sub(r" \(.*\)", "", what)
    where = place.rstrip(")")
    if not where.startswith("line"):
        lines = text.split("\n")
        where = f"line {len(lines)}, column {len(lines[-1]) + 1} (end of file)"
    what = what[:1].lower() + what[1:]
    return mistakes.one_line(f"{where}: not valid TOML: {what}{_ADVICE.get(what, '')}")


def _build(raw: Raw, path: Path | None, places: Lines, sources: _Sources) -> Config:
    secrets = Secrets.of(raw)
    tables = raw if "rule" in raw else {**raw, "rule": [dict(r) for r in DEFAULT_RULES]}
    file, found = _validate(tables, path.parent if path else None, sources)
    found += _across(tables)
    if file is None or found:
        ordered = mistakes.in_order(found, tables)
        raise ConfigError(
            _lines(path, (secrets.hide(mistakes.line(p, tables, places)) for p in dict.fromkeys(ordered)))
        )
    policy = tuple(table.rule(n) for n, table in enumerate(file.rule, 1))
    values = {name: getattr(file, name) for name in Settings.model_fields}
    warnings = (secrets.hide(mistakes.line(p, tables, places)) for p in advice.warnings(file, policy))
    return Config.model_construct(
        **values,
        rules=policy,
        warnings=tuple(_lines(path, warnings)),
        path=path,
        files=(path, *rules.files(tables["rule"], path.parent)) if path else (),
        shown=_shown(tables, secrets),
        sources=MappingProxyType(sources.texts),
    )


def _validate(tables: Raw, folder: Path | None, read: textfile.Read) -> tuple[_File | None, list[Problem]]:
    try:
        file = _File.model_validate(tables, context={"folder": folder, "read": read})
    except ValidationError as e:
        return None, list(mistakes.of_validation(e))
    empty: list[Problem] = [] if file.rule else [(("rule",), "is empty: leave it out for the default rules")]
    return file, empty


def _across(tables: Raw) -> list[Problem]:
    """What concerns several tables of the file."""
    found: list[Problem] = []
    rule_tables, zones, greylist = tables["rule"], tables.get("zones"), tables.get("greylist", {})
    if isinstance(rule_tables, list):
        window = greylist.get("retry_window", "2d") if isinstance(greylist, Mapping) else None
        content = tables.get("content", {})
        scans = bool(content.get("scanner")) if isinstance(content, Mapping) else True
        found += rules.across(rule_tables, _seconds(window), scanner=scans)
    if isinstance(zones, Mapping):
        names = [name.strip().lower().removesuffix(".") for name in zones]
        found += [
            (("zones", name), "the same list stands here twice")
            for i, name in enumerate(zones)
            if names[i] in names[:i]
        ]
    return found


def _seconds(value: object) -> float | None:
    try:
        return durations.parse(value)
    except ValueError:  # said where the key is checked
        return None


def _shown(tables: Raw, secrets: Secrets) -> Mapping[str, Any]:
    """The file with all defaults filled in and no secrets."""
    shown = _filled(Settings, tables)
    shown["zones"] = {name: _filled(Zone, zone) for name, zone in shown["zones"].items()}
    store = shown["store"]
    shown["store"] = store | {"url": MASK, "key_secret": MASK if store["key_secret"] else ""}
    metrics = shown["metrics"]
    shown["metrics"] = metrics | {"password": MASK if metrics["password"] else ""}
    shown["rule"] = _named(tables["rule"])
    hidden = secrets.hide_in(shown)
    assert isinstance(hidden, dict)  # noqa: S101 (a table stays one)
    hidden["store"]["url"] = store_url.mask(store["url"], MASK)
    return MappingProxyType(hidden)


def _filled(model: type[BaseModel], raw: Raw) -> dict[str, Any]:
    """A table with the defaults of the keys that are not in it."""
    filled: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        section = mistakes.section_of(name) if model is Settings else None
        value = raw.get(name, field.default)
        if section:
            filled[name] = _filled(section, value)
        elif value is not None:
            filled[name] = value
    return filled


def _named(tables: Sequence[Raw]) -> list[dict[str, Any]]:
    return [{"name": rules.name_of(t, n), **t} for n, t in enumerate(tables, 1)]
