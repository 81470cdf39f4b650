"""What an admin writes: patterns, entries, files."""

from __future__ import annotations

import tempfile
import tomllib
from pathlib import Path

from fuzz.base import CLIENT, TESTS, one_line, typed_of
from hybridgrey.config import load
from hybridgrey.config.lines import Lines
from hybridgrey.config.load import ConfigError
from hybridgrey.config.store_url import check as check_store_url
from hybridgrey.envelope import read as read_address
from hybridgrey.migrate import configfile, postfix
from hybridgrey.migrate.found import Unreadable
from hybridgrey.migrate.maincf import MainCfError
from hybridgrey.policy.match import EntryError, Index, Kind, parse_entry, parse_file
from hybridgrey.policy.pattern import ListEntry, Pattern, PatternError
from hybridgrey.store.link import clean

FOLDER = tempfile.mkdtemp(prefix="hg-fuzz-")
SAMPLE = (TESTS.parent / "etc" / "hybridgrey.toml").read_bytes()


def pattern(data: bytes) -> None:
    """A pattern is taken or refused; what is taken prints back to the same pattern."""
    text = typed_of(data)
    for kind in (Pattern, ListEntry):
        try:
            parsed = kind.parse(text)
        except PatternError as error:
            one_line(str(error))
            continue
        assert kind.parse(str(parsed)) == parsed


def entries(data: bytes) -> None:
    """An entry is taken or refused, a file of them always read; its errors name lines."""
    text = typed_of(data)
    for kind in Kind:
        found, errors = parse_file(kind, text)
        for error in errors:
            one_line(error)
            assert error.startswith("line ")
        index = Index([found])
        index.client(CLIENT, "mail.example.org")
        index.mailbox(read_address("<a@example.org>"))
        try:
            parse_entry(kind, text)
        except EntryError as error:
            one_line(str(error))


def settings(data: bytes) -> None:
    """A config file loads or is refused with lines that are fit to be shown."""
    with tempfile.NamedTemporaryFile(dir=FOLDER) as file:
        file.write(data)
        file.flush()
        try:
            load.load(Path(file.name))
        except ConfigError as error:
            assert error.problems
            for problem in error.problems:
                one_line(problem)


def store_url(data: bytes) -> None:
    """A store's URL is taken or refused, its password not shown."""
    text = typed_of(data)
    try:
        check_store_url(text)
    except ValueError as error:
        one_line(str(error))
    one_line(clean(text, text))


def main_cf(data: bytes) -> None:
    """Any main.cf gives rules that load, or is refused."""
    text = typed_of(data)
    try:
        found = postfix.convert(text, lambda _path: Unreadable("does not exist here"))
    except MainCfError as error:
        one_line(str(error))
        return
    shown = configfile.render(found, "main.cf")
    tables = tomllib.loads(shown)
    try:
        load._build(tables, None, Lines(""), load._Sources())
    except ConfigError as error:
        raise AssertionError(f"{error.problems} in {shown!r}") from None


def access_map(data: bytes) -> None:
    """Any access map gives rules that load."""
    text = typed_of(data)
    source = "smtpd_client_restrictions = check_client_access hash:/m, check_sender_access cidr:/n\n"
    found = postfix.convert(source, lambda _path: text)
    tables = tomllib.loads(configfile.render(found, "main.cf"))
    for table in tables.get("rule", ()):
        for key in ("clients", "senders"):
            # The file itself is read when the configuration is: here it does not exist.
            table[key] = [e for e in table.get(key, ()) if not e.startswith("file:")] or ["192.0.2.1"]
            if key == "senders":
                del table[key]
    if tables.get("rule"):
        load._build(tables, None, Lines(""), load._Sources())
