"""``hybridgrey greylist``: look at the shared entries and change them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import click

from hybridgrey.cleaning import clean
from hybridgrey.cli import Group, config_option
from hybridgrey.cli.access import UNAVAILABLE, configured, open_entries, store_trouble
from hybridgrey.cli.output import coloured, fail, is_terminal, json_line, span
from hybridgrey.config import durations
from hybridgrey.config.load import Config
from hybridgrey.greylist.entries import Entries, Entry, Network, Query, Status, network_key, networks
from hybridgrey.greylist.triplets import Greylist
from hybridgrey.store.connection import StoreError

_F = TypeVar("_F", bound=Callable[..., Any])

FIRST = 200
"""So many entries make the widths of the columns; the rest, which may be millions, is printed as it comes."""
WIDEST = 50


@click.group(cls=Group)
@config_option
def greylist(config_path: Path) -> None:
    """Look at the greylist's entries and change them.

    They are shared by all hosts that use the same store; a change holds from the next mail on.

    \b
    Examples:
      hybridgrey greylist list --state waiting
      hybridgrey greylist show 192.0.2.1
      hybridgrey greylist allow 192.0.2.0/24
      hybridgrey greylist forget --from '*@spam.example' --yes
    """


def _conditions(command: _F) -> _F:
    """The options that say which entries are meant."""
    options = (
        click.argument("pattern", required=False, default=""),
        click.option("--client", default="", metavar="ADDRESS|NETWORK|PATTERN", help="Of these clients."),
        click.option("--from", "sender", metavar="ADDRESS|PATTERN", help='Of this sender; "" for bounces.'),
        click.option("--to", "recipient", metavar="ADDRESS|PATTERN", help="To this recipient."),
        click.option("--state", type=click.Choice([s.value for s in Status]), help="In this state only."),
        config_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


_json_option = click.option("--json", "lines", is_flag=True, help="Print JSON, one object a line.")


@dataclass(frozen=True, slots=True)
class _Open:
    """A store that is open."""

    config: Config
    entries: Entries
    greylist: Greylist

    @property
    def prefixes(self) -> tuple[int, int]:
        return self.config.greylist.ipv4_prefix, self.config.greylist.ipv6_prefix

    def query(self, **conditions: Any) -> Query:  # noqa: ANN401 (the options of a command)
        """The conditions of a command; ends with status 2 when they cannot be."""
        hidden = bool(self.config.store.key_secret.get_secret_value())
        try:
            return Query(self.greylist, prefixes=self.prefixes, hidden=hidden, **conditions)
        except ValueError as error:
            raise click.UsageError(str(error)) from None


@contextmanager
def _opened(path: Path) -> Iterator[_Open]:
    """The configured store; a store that is down ends the command in one line."""
    config = configured(path)
    entries, named = open_entries(config)
    with closing(entries):
        try:
            yield _Open(config, entries, named)
        except StoreError as error:
            fail(store_trouble(config, error), UNAVAILABLE)


def _fields(entry: Entry) -> dict[str, Any]:
    """An entry for JSON; times in seconds."""
    fields: dict[str, Any] = {"state": str(entry.status), "network": entry.network}
    if entry.sender is None:
        fields |= {"passed": entry.passes}
    else:
        fields |= {"sender": entry.sender, "recipient": entry.recipient, "age": entry.age}
    return fields | {"expires": entry.expires} | ({"hidden": True} if entry.hidden else {})


def _widths(first: Sequence[Entry]) -> tuple[int, int]:
    """The columns of networks and senders, at least as wide as their headings."""
    networks_, senders = (clean(e.network) for e in first), (clean(e.sender or "") for e in first)
    widths = (max((len(text) for text in column), default=0) for column in (networks_, senders))
    network, sender = (min(WIDEST, max(10, width)) for width in widths)
    return network, sender


def _head(widths: tuple[int, int]) -> str:
    network, sender = widths
    return (
        f"{'STATE':<8}  {'NETWORK':<{network}}  {'AGE':>7}  {'EXPIRES':>7}  {'SENDER':<{sender}}  RECIPIENT"
    )


def _row(entry: Entry, widths: tuple[int, int]) -> str:
    """An entry as a line of text."""
    network, sender = widths
    expires = "never" if entry.expires < 0 else span(entry.expires)
    head = f"{coloured(entry.status, 8)}  {clean(entry.network):<{network}}  {span(entry.age) or '-':>7}"
    if entry.sender is None:
        return f"{head}  {expires:>7}  {entry.passes} passed"
    return f"{head}  {expires:>7}  {clean(entry.sender):<{sender}}  {clean(entry.recipient or '')}"


def _print(found: Iterator[Entry], *, lines: bool, limit: int | None = None) -> int:
    """Print entries as they come; how many there were."""
    found = islice(found, limit)
    count = 0
    if lines:
        for entry in found:
            json_line(_fields(entry))
            count += 1
        return count
    first = list(islice(found, FIRST))
    widths = _widths(first)
    if first:
        click.secho(_head(widths), bold=True)
    for entry in chain(first, found):
        click.echo(_row(entry, widths))
        count += 1
    return count


@greylist.command("list")
@_conditions
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many.")
@_json_option
def list_(
    config_path: Path,
    pattern: str,
    client: str,
    sender: str | None,
    recipient: str | None,
    state: str | None,
    limit: int | None,
    lines: bool,
) -> None:
    """List entries, all of them or those that match.

    PATTERN (with *, ? and [...]) is searched in network, sender and recipient.  While the store grows, an
    entry may be shown twice.  With store.key_secret names are HMACs, and only exact values find them.

    \b
    States: waiting   a triplet whose retry is awaited
            passed    a triplet whose mail is accepted
            counting  a network, with the number of its triplets that passed
            allowed   a network that has enough of them, and is let in

    \b
    Examples:
      hybridgrey greylist list '*@example.org'
      hybridgrey greylist list --client 192.0.2.0/24 --state passed
      hybridgrey greylist list --json | jq -r 'select(.age > 86400) | .sender'
    """
    with _opened(config_path) as store:
        query = store.query(
            client=client,
            sender=sender,
            recipient=recipient,
            anywhere=pattern,
            status=Status(state) if state else None,
        )
        count = _print(store.entries.find(query), lines=lines, limit=limit)
    if is_terminal(sys.stdout) and not lines:
        click.echo(f"{count:,} {'entry' if count == 1 else 'entries'}", err=True)


@greylist.command()
@click.argument("client")
@click.option("--from", "sender", metavar="ADDRESS", help="The triplet with this sender.")
@click.option("--to", "recipient", metavar="ADDRESS", help="The triplet with this recipient.")
@_json_option
@config_option
def show(config_path: Path, client: str, sender: str | None, recipient: str | None, lines: bool) -> None:
    """Show what is known of CLIENT: its network, and its triplets.

    Exit status 1 when nothing is known.

    \b
    Examples:
      hybridgrey greylist show 192.0.2.1
      hybridgrey greylist show 192.0.2.1 --from a@example.org --to b@example.net
    """
    with _opened(config_path) as store:
        query = store.query(client=client, sender=sender, recipient=recipient)
        count = _print(store.entries.find(query), lines=lines)
    if not count:
        fail(f"nothing is known of {clean(client)}")


@greylist.command()
@click.argument("client", metavar="ADDRESS|NETWORK")
@click.option("--from", "sender", metavar="ADDRESS", help="Allow this sender only (with --to).")
@click.option("--to", "recipient", metavar="ADDRESS", help="Allow mail to this recipient only (with --from).")
@click.option(
    "--for", "period", metavar="DURATION", help="For how long, if no mail renews it.  [default: the lifetime]"
)
@click.option("--yes", is_flag=True, help="Do not ask before many networks are allowed.")
@_json_option
@config_option
def allow(
    config_path: Path,
    client: str,
    sender: str | None,
    recipient: str | None,
    period: str | None,
    yes: bool,
    lines: bool,
) -> None:
    """Let a client network, or one triplet, pass without the delay.

    The network is that of the greylist: a /24 or /64, unless configured otherwise.  As for all entries, each
    mail renews it to greylist.lifetime.  To allow a client for good, name it in a rule.

    \b
    Examples:
      hybridgrey greylist allow 192.0.2.0/24
      hybridgrey greylist allow 192.0.2.1 --for 7d
      hybridgrey greylist allow 192.0.2.1 --from a@example.org --to b@example.net
    """
    if (sender is None) != (recipient is None):
        raise click.UsageError("--from and --to belong together")
    with _opened(config_path) as store:
        try:
            seconds = int(durations.parse(period)) if period else store.config.greylist.lifetime
            meant = networks(client, store.prefixes, store.greylist.clients)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        if seconds < 1:
            raise click.UsageError("--for: must be a second at least")
        if sender is not None and recipient is not None:
            triplet = store.greylist.keys(str(meant[0].network_address), sender, recipient)[0]
            store.entries.let_pass(triplet, seconds)
            done: dict[str, Any] = {"client": client, "sender": sender, "recipient": recipient}
        else:
            _allow_networks(store, meant, seconds, yes=yes)
            done = {"client": client, "networks": [str(network) for network in meant]}
    if lines:
        json_line(done | {"expires": seconds})
        return
    shown = str(meant[0]) if len(meant) == 1 else f"{len(meant):,} networks of {clean(client)}"
    mail = "" if sender is None else f" from {clean(sender) or '<>'} to {clean(recipient or '')}"
    click.echo(f"allowed {shown}{mail} for {durations.show(seconds)}")


def _allow_networks(store: _Open, meant: Sequence[Network], seconds: int, *, yes: bool) -> None:
    """Let networks in; several after a question."""
    if not store.config.greylist.auto_allow_after:
        fail("greylist.auto_allow_after = 0 turns allowed networks off; name the client in a rule instead")
    if len(meant) > 1 and not yes:
        _confirm(f"Allow {len(meant):,} networks?")
    for network in meant:
        store.entries.allow(network_key(store.greylist, network), seconds)


@greylist.command()
@_conditions
@click.option("--all", "everything", is_flag=True, help="Forget all entries.")
@click.option("--yes", is_flag=True, help="Do not ask before several entries are forgotten.")
@_json_option
def forget(
    config_path: Path,
    pattern: str,
    client: str,
    sender: str | None,
    recipient: str | None,
    state: str | None,
    everything: bool,
    yes: bool,
    lines: bool,
) -> None:
    """Forget entries, as `list` with the same options shows them.

    It asks before it forgets more than one; without a terminal --yes is needed.  Exit status 1 when there is
    no such entry, or the answer was no.

    \b
    Examples:
      hybridgrey greylist forget --client 192.0.2.1
      hybridgrey greylist forget --from '*@spam.example' --yes
      hybridgrey greylist forget --all
    """
    with _opened(config_path) as store:
        query = store.query(
            client=client,
            sender=sender,
            recipient=recipient,
            anywhere=pattern,
            status=Status(state) if state else None,
        )
        if query.is_everything != everything:
            raise click.UsageError(
                "say which entries, or --all for all of them"
                if not everything
                else "--all takes no other condition"
            )
        if not yes:
            count = sum(1 for _entry in store.entries.find(query))
            if count > 1:
                _confirm(f"Forget {count:,} entries?")
        forgotten = sum(store.entries.forget(query))
    if lines:
        json_line({"forgotten": forgotten})
    else:
        click.echo(f"forgot {forgotten:,} {'entry' if forgotten == 1 else 'entries'}")
    raise SystemExit(0 if forgotten else 1)


def _confirm(question: str) -> None:
    """Go on after a yes; end with status 1 after a no, or where nobody can be asked."""
    if not sys.stdin.isatty():
        fail(f"{question.removesuffix('?').lower()}: give --yes, for there is no terminal to ask on")
    if not click.confirm(question, err=True):
        raise SystemExit(1)
