"""``hybridgrey greylist``: look at the shared entries and change them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Final

import click

from hybridgrey import address
from hybridgrey.cleaning import clean
from hybridgrey.cli import Group, config_option, greylist_rows
from hybridgrey.cli.access import UNAVAILABLE, configured, open_entries, store_trouble
from hybridgrey.cli.greylist_rows import ordered
from hybridgrey.cli.moments import duration
from hybridgrey.cli.output import fail, is_terminal, json_line, several
from hybridgrey.config import durations
from hybridgrey.config.load import Config
from hybridgrey.greylist import networks
from hybridgrey.greylist.entries import ConditionError, Entries, Query, Status, domain_key, network_key
from hybridgrey.greylist.networks import Network
from hybridgrey.greylist.triplets import DOMAIN, Greylist
from hybridgrey.store.connection import StoreError

_NAMES: Final = {"sender": "--from", "recipient": "--to", "anywhere": "PATTERN"}
"""What the conditions of a query are called on the command line."""
STILL_JUDGED: Final = "note: a rule or list that rejects it still does; hybridgrey explain tells"


@click.group(cls=Group)
@config_option
def greylist(config_path: Path) -> None:
    """Look at the greylist's entries and change them.

    They are shared by all hosts that use the same store; a change holds from the next mail on.

    \b
    Examples:
      hybridgrey greylist list --state waiting
      hybridgrey greylist show 192.0.2.1
      hybridgrey greylist pass 192.0.2.0/24
      hybridgrey greylist forget --from '*@spam.example' --yes
    """


def _conditions(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which entries are meant; the command takes them as `conditions` of a query."""

    @wraps(command)
    def collected(*, pattern: str, state: str | None, **options: Any) -> None:  # noqa: ANN401 (the others too)
        conditions = {name: options.pop(name) for name in ("client", "sender", "recipient")}
        status = Status(state) if state else None
        command(conditions={**conditions, "anywhere": pattern, "status": status}, **options)

    options = (
        click.argument("pattern", required=False, default=""),
        click.option("--client", default="", metavar="ADDRESS|NETWORK|PATTERN", help="Of these clients."),
        click.option("--from", "sender", metavar="ADDRESS|PATTERN", help='Of this sender; "" for bounces.'),
        click.option("--to", "recipient", metavar="ADDRESS|PATTERN", help="To this recipient."),
        click.option("--state", type=click.Choice([s.value for s in Status]), help="In this state only."),
        config_option,
    )
    made: Callable[..., None] = collected
    for option in reversed(options):
        made = option(made)
    return made


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

    def query(self, client_is: str = "--client", **conditions: Any) -> Query:  # noqa: ANN401 (the options)
        """The conditions of a command; ends with status 2 when they cannot be."""
        hidden = bool(self.config.store.key_secret.get_secret_value())
        try:
            return Query(self.greylist, hidden=hidden, **conditions)
        except ConditionError as error:
            names = {**_NAMES, "client": client_is}
            raise click.UsageError(f"{names[error.condition]}: {error}") from None


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


@greylist.command("list")
@_conditions
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many.")
@_json_option
def list_(config_path: Path, conditions: dict[str, Any], limit: int | None, lines: bool) -> None:
    """List entries, all of them or those that match.

    PATTERN is an address, a network or the head of one (192.0.2), spf=DOMAIN, or a word with *, ? and [...]
    that is searched in network, sender and recipient.  In the place of a network spf=DOMAIN means the clients
    that SPF proves to be of the sender's domain.  Entries come in the order of network, sender and recipient,
    so the first is shown when all are read.  With store.key_secret names are HMACs, and only exact values
    find them.

    \b
    States: waiting   a triplet whose retry is awaited
            passed    a triplet whose mail is accepted
            counting  a network, with the number of its triplets that passed
            allowed   a network that has enough of them, or was passed by hand

    \b
    Examples:
      hybridgrey greylist list 192.0.2.1
      hybridgrey greylist list '*@example.org'
      hybridgrey greylist list spf=example.org
      hybridgrey greylist list --client 192.0.2.0/24 --state passed
      hybridgrey greylist list --json | jq -r 'select(.age > 86400) | .sender'
    """
    with _opened(config_path) as store:
        query = store.query(**conditions)
        count = greylist_rows.show(ordered(store.entries.find(query), limit), lines=lines)
    if is_terminal(sys.stdout) and not lines:
        click.echo(several(count, "entry", "entries"), err=True)


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
        query = store.query("CLIENT", client=client, sender=sender, recipient=recipient)
        count = greylist_rows.show(ordered(store.entries.find(query)), lines=lines)
    if not count:
        fail(f"nothing is known of {clean(client)}")


@greylist.command("pass")
@click.argument("client", metavar="ADDRESS|NETWORK|spf=DOMAIN")
@click.option("--from", "sender", metavar="ADDRESS", help="This sender only (with --to).")
@click.option("--to", "recipient", metavar="ADDRESS", help="Mail to this recipient only (with --from).")
@click.option(
    "--for",
    "seconds",
    metavar="DURATION",
    callback=duration,
    help="For how long, if no mail renews it.  [default: the lifetime]",
)
@click.option("--yes", is_flag=True, help="Do not ask before many networks are spared.")
@_json_option
@config_option
def pass_(
    config_path: Path,
    client: str,
    sender: str | None,
    recipient: str | None,
    seconds: int | None,
    yes: bool,
    lines: bool,
) -> None:
    """Let a client network, or one triplet, pass without the delay.

    It does no more than that: lists and rules that reject the client still do, as `hybridgrey explain` tells.
    To accept a client in spite of lists, name it in the `clients` of a rule above them.

    The network is that of the greylist: a /24 or /64, unless configured otherwise.  As for all entries, each
    mail renews it to greylist.lifetime.  spf=DOMAIN means the clients that SPF proves to be of that domain.

    \b
    Examples:
      hybridgrey greylist pass 192.0.2.0/24
      hybridgrey greylist pass 192.0.2.1 --for 7d
      hybridgrey greylist pass spf=example.org
      hybridgrey greylist pass 192.0.2.1 --from a@example.org --to b@example.net
    """
    if (sender is None) != (recipient is None):
        raise click.UsageError("--from and --to belong together")
    with _opened(config_path) as store:
        period = store.config.greylist.lifetime if seconds is None else seconds
        triplet = (sender, recipient) if sender is not None and recipient is not None else None
        if client.startswith(DOMAIN):
            meant: list[Network] = []
            _pass_domain(store, client, triplet, period)
        else:
            meant = list(_meant(store, client))
            _pass_networks(store, meant, triplet, period, yes=yes)
    if lines:
        of = {"networks": [str(network) for network in meant]} if meant else {}
        mail = dict(zip(("sender", "recipient"), triplet, strict=True)) if triplet else of
        json_line({"client": client, **mail, "expires": period})
        return
    shown = f"{len(meant):,} networks of {clean(client)}" if len(meant) > 1 else clean(client)
    shown = str(meant[0]) if len(meant) == 1 else shown
    mail_text = "" if triplet is None else f" from {clean(triplet[0]) or '<>'} to {clean(triplet[1])}"
    click.echo(f"no delay for {shown}{mail_text}, for {durations.show(period)}")
    click.echo(STILL_JUDGED)


@greylist.command("allow", params=pass_.params, hidden=True, help="The old name of `pass`.")
def allow(**options: Any) -> None:  # noqa: ANN401 (those of `pass`)
    """The name of `pass` in version 0.1."""
    click.echo("note: `greylist allow` is called `greylist pass` now", err=True)
    assert pass_.callback is not None  # noqa: S101 (a command has one)
    pass_.callback(**options)


def _meant(store: _Open, client: str) -> Sequence[Network]:
    """The networks of the greylist that a client stands for."""
    try:
        return networks.split(client, store.prefixes, store.greylist.clients)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="ADDRESS|NETWORK|spf=DOMAIN") from None


def _pass_networks(
    store: _Open, meant: Sequence[Network], triplet: tuple[str, str] | None, seconds: int, *, yes: bool
) -> None:
    """Spare networks, several after a question; or a triplet of the first."""
    if triplet is not None:
        key = store.greylist.keys(str(meant[0].network_address), *triplet)[0]
        store.entries.let_pass(key, seconds)
        return
    _check_counts(store)
    if len(meant) > 1 and not yes:
        confirm(f"Spare {len(meant):,} networks?")
    for network in meant:
        store.entries.allow(network_key(store.greylist, network), seconds)


def _pass_domain(store: _Open, client: str, triplet: tuple[str, str] | None, seconds: int) -> None:
    """Spare the clients that SPF proves to be a domain's, or a triplet of theirs."""
    domain = client.removeprefix(DOMAIN)
    if not store.config.greylist.sender_pools:
        fail("greylist.sender_pools is off: nothing is looked up by domain")
    if triplet is not None:
        store.entries.let_pass(store.greylist.domain_keys(address.host(domain), *triplet)[0], seconds)
        return
    _check_counts(store)
    store.entries.allow(domain_key(store.greylist, domain), seconds)


def _check_counts(store: _Open) -> None:
    if not store.config.greylist.auto_allow_after:
        fail("greylist.auto_allow_after = 0: no network passes as a whole; name the client in a rule instead")


@greylist.command()
@_conditions
@click.option("--all", "everything", is_flag=True, help="Forget all entries.")
@click.option("--yes", is_flag=True, help="Do not ask before several entries are forgotten.")
@_json_option
def forget(config_path: Path, conditions: dict[str, Any], everything: bool, yes: bool, lines: bool) -> None:
    """Forget entries, as `list` with the same options shows them.

    It asks before it forgets more than one; without a terminal --yes is needed.  Exit status 1 when there is
    no such entry, or the answer was no.

    \b
    Examples:
      hybridgrey greylist forget 192.0.2.1
      hybridgrey greylist forget --from '*@spam.example' --yes
      hybridgrey greylist forget --all
    """
    with _opened(config_path) as store:
        query = store.query(**conditions)
        if query.is_everything != everything:
            raise click.UsageError(
                "say which entries, or --all for all of them"
                if not everything
                else "--all takes no other condition"
            )
        if not yes:
            count = sum(1 for _entry in store.entries.find(query))
            if count > 1:
                confirm(f"Forget {count:,} entries?")
        forgotten = sum(store.entries.forget(query))
    if lines:
        json_line({"forgotten": forgotten})
    else:
        click.echo(f"forgot {several(forgotten, 'entry', 'entries')}")
    raise SystemExit(0 if forgotten else 1)


def confirm(question: str) -> None:
    """Go on after a yes; end with status 1 after a no, or where nobody can be asked."""
    if not sys.stdin.isatty():
        fail(f"{question.removesuffix('?').lower()}: give --yes, for there is no terminal to ask on")
    if not click.confirm(question, err=True):
        raise SystemExit(1)
