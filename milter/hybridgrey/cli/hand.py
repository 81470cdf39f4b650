"""``hybridgrey allow``, ``block`` and ``unlist``: entries by hand, made and taken back."""

from __future__ import annotations

import os
import pwd
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from hybridgrey.cleaning import clean
from hybridgrey.cli import config_option
from hybridgrey.cli.access import UNAVAILABLE, configured, open_store, store_trouble, url_of
from hybridgrey.cli.hand_rows import moment_text, summary
from hybridgrey.cli.moments import duration
from hybridgrey.cli.output import fail, json_line, warn
from hybridgrey.config.load import Config
from hybridgrey.hand.entries import MAX_COMMENT, About, Entry, Subject, SubjectError, read
from hybridgrey.hand.register import Register
from hybridgrey.hand.table import Table
from hybridgrey.policy.conditions import Hand
from hybridgrey.process import byhand
from hybridgrey.store.connection import Store, StoreError

_F = TypeVar("_F", bound=Callable[..., Any])

LONGEST: Final = 3650 * 86400
FOLLOW: Final = "all hosts follow within 2 seconds"


@contextmanager
def opened(path: Path) -> Iterator[tuple[Config, Register]]:
    """The entries in the configured store; a store that is down ends the command in one line."""
    config = configured(path)
    with closing(open_store(config)) as store:
        try:
            yield config, Register(store)
        except StoreError as error:
            fail(store_trouble(config, error), UNAVAILABLE)


def who() -> str:
    """The login name of whoever gives the command; with sudo, of whoever has given that."""
    given = os.environ.get("SUDO_USER", "")
    if given and os.getuid() == 0:
        return given
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def by_hand(config: Config, store: Store) -> tuple[Table | None, StoreError | None]:
    """The entries that hold: the store's, or with that down those of the host's copy, and the error.

    None where that cannot be read either.
    """
    try:
        copy = Register(store).read()
        return Table(copy.entries()).at(copy.now), None
    except StoreError as error:
        kept = byhand.kept(config, url_of(config))
        return None if kept is None else Table(kept.entries()).at(time.time()), error


def _subject_options(command: _F) -> _F:
    options = (
        click.argument("clients", metavar="[CLIENT|NETWORK|.DOMAIN]...", nargs=-1),
        click.option("--from", "sender", metavar="ADDRESS", help='This sender instead; "" for bounces.'),
        click.option("--to", "recipient", metavar="ADDRESS", help="Mail to this recipient instead."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _entry_options(command: _F) -> _F:
    """What `allow` and `block` take."""
    options = (
        click.option(
            "--for", "seconds", metavar="DURATION", callback=duration, help="For how long.  [default: no end]"
        ),
        click.option("--comment", default="", metavar="TEXT", help="Why, for whoever reads it later."),
        click.option("--yes", is_flag=True, help="Do not ask before an entry that holds for very many."),
        _json_option,
        config_option,
    )
    for option in reversed(options):
        command = option(command)
    return _subject_options(command)


_json_option = click.option("--json", "lines", is_flag=True, help="Print JSON, one object a line.")


def subjects(clients: Sequence[str], sender: str | None, recipient: str | None) -> list[Subject]:
    """What a command is about, each once; ends with status 2 where that cannot be read."""
    given = [(About.CLIENT, text, "CLIENT") for text in clients]
    given += [(About.SENDER, sender, "--from")] if sender is not None else []
    given += [(About.RECIPIENT, recipient, "--to")] if recipient is not None else []
    if len({about for about, _, _ in given}) != 1:
        raise click.UsageError("name clients, or one sender with --from, or one recipient with --to")
    found: dict[Subject, None] = {}
    for about, text, hint in given:
        try:
            found[read(about, text)] = None
        except SubjectError as error:
            raise click.BadParameter(clean(str(error)), param_hint=hint) from None
    return list(found)


@click.command()
@_entry_options
def allow(**options: Any) -> None:  # noqa: ANN401 (as `_entry_options` has them)
    """Let mail of a client, from a sender or to a recipient in, on all hosts.

    A client is an address, a network, a host name, or .domain for all names below it; names count only where
    they are verified.  Addresses are read as those of rules are: user@example.org, example.org, .example.org,
    user+*@example.org, or user@ for any domain.  A sender proves nothing, so one who is allowed is let in
    only where SPF passes.

    The later entry of a subject replaces the earlier.  Of several that name a client the most specific
    counts.  An entry acts by the rule with by_hand = "allow", in its place among the rules; `hybridgrey
    explain` tells what decides.

    \b
    Examples:
      hybridgrey allow 192.0.2.1 --comment 'our scanner'
      hybridgrey allow 192.0.2.0/24 198.51.100.7 --for 30d
      hybridgrey allow .partner.example
      hybridgrey allow --from news@example.org
      hybridgrey allow --to postmaster@
    """
    _make(Hand.ALLOW, **options)


@click.command()
@_entry_options
def block(**options: Any) -> None:  # noqa: ANN401 (as `_entry_options` has them)
    """Reject mail of a client, from a sender or to a recipient, on all hosts.

    What names a client, a sender or a recipient, and which of several entries counts, is as for `hybridgrey
    allow`.  An entry acts by the rule with by_hand = "block", in its place among the rules.

    \b
    Examples:
      hybridgrey block 192.0.2.66 --for 7d --comment 'dictionary attack'
      hybridgrey block .dyn.example.net
      hybridgrey block --from spammer@example.org
      hybridgrey block --to left-us@example.net
    """
    _make(Hand.BLOCK, **options)


def _make(
    kind: Hand,
    *,
    config_path: Path,
    clients: tuple[str, ...],
    sender: str | None,
    recipient: str | None,
    seconds: int | None,
    comment: str,
    yes: bool,
    lines: bool,
) -> None:
    meant = subjects(clients, sender, recipient)
    if seconds is not None and seconds > LONGEST:
        raise click.BadParameter("at most 3650d; leave it out for no end", param_hint="--for")
    if len(comment) > MAX_COMMENT:
        raise click.BadParameter(f"has more than {MAX_COMMENT} characters", param_hint="--comment")
    if not yes:
        _confirm_wide(kind, meant)
    with opened(config_path) as (config, register):
        host = config.hostname or socket.gethostname()
        before = register.put(kind, meant, seconds or 0, who=who(), host=host, comment=comment)
        now = {entry.subject: entry for entry in register.read().entries()}
    for subject, old in zip(meant, before, strict=True):
        entry = now.get(subject)
        if entry is None:
            fail(f"{subject.text}: taken back by somebody else just now")
        if lines:
            json_line(entry.fields() | {"replaced": old.fields() if old else None})
        else:
            _tell(entry, old)
    if not lines:
        click.echo(FOLLOW)
    _advise(kind, meant, config, quiet=lines)


def _tell(entry: Entry, old: Entry | None) -> None:
    click.echo(summary(entry))
    if old is not None and not old.over(entry.at):
        click.echo(f"  it replaces: {summary(old)}, by {_by(old)}")


def _by(entry: Entry) -> str:
    why = f": {clean(entry.comment)}" if entry.comment else ""
    return f"{clean(entry.who)} on {clean(entry.host)}, {moment_text(entry.at)}{why}"


def _confirm_wide(kind: Hand, meant: Sequence[Subject]) -> None:
    for subject in meant:
        if wide := subject.breadth():
            question = f"{kind} {subject.text}, which is {wide}"
            if not sys.stdin.isatty():
                fail(f"{question}: give --yes, for there is no terminal to ask on")
            if not click.confirm(f"{question}?", err=True):
                raise SystemExit(1)


def _advise(kind: Hand, meant: Sequence[Subject], config: Config, *, quiet: bool) -> None:
    """Say where an entry holds for less than one may think."""
    about = meant[0].about
    if not any(rule.by_hand is kind for rule in config.rules):
        warn(f'no rule has by_hand = "{kind}", so this does nothing: see hybridgrey.toml(5)')
    if quiet:
        return
    if about is About.SENDER and kind is Hand.ALLOW:
        click.echo("note: anybody can write a sender's address, so it is let in only where SPF passes")
    if about is About.CLIENT and any(isinstance(subject.key, str) for subject in meant):
        click.echo("note: a name counts only for a client whose name is verified, there and back")


@click.command()
@_subject_options
@_json_option
@config_option
def unlist(
    config_path: Path, clients: tuple[str, ...], sender: str | None, recipient: str | None, lines: bool
) -> None:
    """Take back what `allow` or `block` has said of a client, a sender or a recipient.

    It is written as `hybridgrey entries` shows it.  Exit status 1 when there is no such entry.

    \b
    Examples:
      hybridgrey unlist 192.0.2.66
      hybridgrey unlist --from spammer@example.org
    """
    meant = subjects(clients, sender, recipient)
    with opened(config_path) as (_config, register):
        taken = register.take(meant)
    missing = False
    for subject, old in zip(meant, taken, strict=True):
        if old is None:
            missing = True
            click.echo(
                f"no entry for {subject.about} {clean(subject.text)}; see hybridgrey entries", err=True
            )
        elif lines:
            json_line({"unlisted": old.fields()})
        else:
            click.echo(f"no longer: {summary(old)}, by {_by(old)}")
    if any(taken) and not lines:
        click.echo(FOLLOW)
    raise SystemExit(missing)
