"""``hybridgrey correspondents``: whom your users have written to; shown, and forgotten."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import click

from hybridgrey import envelope
from hybridgrey.cleaning import clean
from hybridgrey.cli import config_option
from hybridgrey.cli.access import UNAVAILABLE, configured, open_store, store_trouble, url_of
from hybridgrey.cli.greylist import confirm
from hybridgrey.cli.hand_rows import moment_text
from hybridgrey.cli.output import fail, json_line, several, span, table, warn
from hybridgrey.config.load import Config
from hybridgrey.envelope import Mailbox
from hybridgrey.hand.correspondents import Correspondents
from hybridgrey.hand.remembered import All, Remembered
from hybridgrey.store.connection import StoreError

_EVERYBODY: Final = "*"
_WILD = re.compile(r"[*?\[]")
_HIDDEN: Final = "addresses are stored as HMACs ([store] key_secret)"


@click.command("correspondents")
@click.argument("who", metavar="[ADDRESS|DOMAIN|PATTERN]", required=False)
@click.option("--forget", is_flag=True, help="Forget those that are named: their mail waits as anybody's.")
@click.option("--yes", is_flag=True, help="Do not ask before several are forgotten.")
@click.option("--json", "lines", is_flag=True, help="Print JSON, one object a line.")
@config_option
def correspondents(config_path: Path, who: str | None, forget: bool, yes: bool, lines: bool) -> None:
    """Show whom your users have written to, and when last: mail from these need not wait.

    A DOMAIN stands for all its addresses. With [store] key_secret the store has no address in clear: the list
    shows HMACs, a whole ADDRESS is found, and a DOMAIN or PATTERN is not.  Who is forgotten is learnt anew by
    the next mail that your users write there.  Exit status 1 when there is none, or the answer was no.

    \b
    Examples:
      hybridgrey correspondents
      hybridgrey correspondents user@example.org
      hybridgrey correspondents example.org
      hybridgrey correspondents --forget user@example.org
      hybridgrey correspondents --forget '*@example.org' --yes
    """
    if forget and who is None:
        raise click.UsageError("say whom to forget; '*' is everybody")
    config = configured(config_path)
    box, pattern = _meant(config, who or _EVERYBODY)
    try:
        with closing(_opened(config)) as store:
            if forget:
                _forget(store, box, pattern, yes=yes, lines=lines)
            else:
                _show(store, box, pattern, lines=lines)
    except StoreError as error:
        fail(store_trouble(config, error), UNAVAILABLE)


def _opened(config: Config) -> All:
    """All of the configured store.  Raises StoreError."""
    by = Correspondents(config.correspondents, config.store.key_secret.get_secret_value())
    return All(url_of(config), config.store.timeout, open_store(config), by)


def _meant(config: Config, who: str) -> tuple[Mailbox | None, str]:
    """The address that is meant, or a pattern; ends with status 2 where it is neither, or cannot be found."""
    if who == _EVERYBODY:
        return None, who
    pattern = who if "@" in who or _WILD.search(who) else f"*@{who.removeprefix('.')}"
    if not _WILD.search(pattern):
        box = envelope.read(who)
        if not box.certain or box.null or not box.domain:
            text = f"{clean(who)!r} is no address such as user@example.org"
            raise click.BadParameter(text, param_hint="ADDRESS")
        return box, ""
    if config.store.key_secret.get_secret_value():
        raise click.BadParameter(f"{_HIDDEN}: name a whole one, or '*'", param_hint="DOMAIN|PATTERN")
    return None, pattern


def _show(store: All, box: Mailbox | None, pattern: str, *, lines: bool) -> None:
    found = list(_found(store, box, pattern))
    for one in found if lines else ():
        json_line({"address": one.address, "wrote": one.wrote, "expires": one.expires, "hidden": one.hidden})
    if not found:
        everybody = pattern == _EVERYBODY
        fail("there are no correspondents" if everybody else "no such correspondent")
    if not lines:
        table(("address", "written to", "forgotten in"), map(_row, found))
    if any(one.hidden for one in found):
        warn(f"{_HIDDEN} and cannot be shown; a whole address is found")


def _found(store: All, box: Mailbox | None, pattern: str) -> Iterator[Remembered]:
    if box is None:
        # SCAN may show one twice.
        yield from sorted(set(store.find(pattern)), key=lambda one: (one.wrote or 0, one.address))
    elif (one := store.one(box)) is not None:
        yield one


def _row(one: Remembered) -> tuple[str, ...]:
    wrote = "?" if one.wrote is None else moment_text(one.wrote)
    return clean(one.address), wrote, span(one.expires) if one.expires >= 0 else "never"


def _forget(store: All, box: Mailbox | None, pattern: str, *, yes: bool, lines: bool) -> None:
    if box is not None:
        forgotten = store.forget_one(box)
    else:
        if not yes and (count := len(set(store.find(pattern)))) > 1:
            confirm(f"Forget {count:,} correspondents?")
        forgotten = store.forget(pattern)
    if lines:
        json_line({"forgotten": forgotten})
    else:
        click.echo(f"forgot {several(forgotten, 'correspondent')}")
    raise SystemExit(0 if forgotten else 1)
