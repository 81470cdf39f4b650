"""``hybridgrey expect``: mail for a recipient is on its way and must not be delayed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import click

from hybridgrey import envelope
from hybridgrey.cleaning import clean
from hybridgrey.cli import config_option
from hybridgrey.cli.access import UNAVAILABLE, configured, open_store, store_trouble
from hybridgrey.cli.hand import who
from hybridgrey.cli.moments import duration
from hybridgrey.cli.output import fail, json_line, span, table
from hybridgrey.config import durations
from hybridgrey.config.load import Config
from hybridgrey.envelope import Mailbox
from hybridgrey.hand.expected import LONGEST, Expected
from hybridgrey.store.connection import Store, StoreError


@click.command()
@click.argument("recipients", metavar="[ADDRESS]...", nargs=-1)
@click.option(
    "--for", "seconds", metavar="DURATION", default="15m", show_default=True, callback=duration,
    help="For how long, at most a day.",
)  # fmt: skip
@click.option("--end", is_flag=True, help="Expect it no longer.")
@click.option("--list", "list_", is_flag=True, help="Show what is expected now.")
@click.option("--json", "lines", is_flag=True, help="Print JSON, one object a line.")
@config_option
def expect(
    config_path: Path, recipients: tuple[str, ...], seconds: int, end: bool, list_: bool, lines: bool
) -> None:
    """Let mail to a recipient in without delay for a while: a login code is on its way.

    It holds on all hosts when the command returns.  What would be greylisted for this address passes, from
    whomever it comes, and earns nothing for later.  Lists and rules that reject a client still do.

    \b
    Examples:
      hybridgrey expect user@example.net
      hybridgrey expect user@example.net --for 2h
      hybridgrey expect --list
      hybridgrey expect --end user@example.net
    """
    if list_ == bool(recipients) or (list_ and end):
        raise click.UsageError("name recipients, or give --list alone")
    if seconds > LONGEST:
        raise click.BadParameter(f"at most {durations.show(LONGEST)}", param_hint="--for")
    boxes = [_recipient(text) for text in recipients]
    config = configured(config_path)
    expected = Expected(config.store.key_secret.get_secret_value())
    with closing(open_store(config)) as store:
        try:
            if list_:
                _list(store, lines=lines)
            elif end:
                _end(expected, store, boxes, lines=lines)
            else:
                _expect(expected, store, boxes, seconds, config, lines=lines)
        except StoreError as error:
            fail(store_trouble(config, error), UNAVAILABLE)


def _recipient(text: str) -> Mailbox:
    """A recipient as typed; ends with status 2 when it is no whole address."""
    box = envelope.read(text)
    if not box.certain or box.null or not box.domain:
        what = f"{clean(text)!r} is no address such as user@example.net"
        raise click.BadParameter(what, param_hint="ADDRESS")
    return box


def _expect(
    expected: Expected, store: Store, boxes: Sequence[Mailbox], seconds: int, config: Config, *, lines: bool
) -> None:
    for box in boxes:
        expected.put(store, box, seconds, who())
        if lines:
            json_line({"recipient": box.key, "seconds": seconds})
        else:
            click.echo(f"mail to {clean(box.key)} is not delayed for {durations.show(seconds)}, on all hosts")
    if config.observe and not lines:
        click.echo('note: mode is "observe", so no mail is delayed anyway')


def _end(expected: Expected, store: Store, boxes: Sequence[Mailbox], *, lines: bool) -> None:
    missing = False
    for box in boxes:
        left = expected.take(store, box)
        missing |= not left
        if lines:
            json_line({"recipient": box.key, "ended": bool(left)})
        else:
            click.echo(f"mail to {clean(box.key)} {'is no longer' if left else 'was not'} expected")
    raise SystemExit(missing)


def _list(store: Store, *, lines: bool) -> None:
    waiting = Expected.list(store)
    if lines:
        for one in waiting:
            json_line(one._asdict())
    elif waiting:
        table(("recipient", "left", "who"), ((one.recipient, span(one.seconds), one.who) for one in waiting))
    else:
        click.echo("no mail is expected", err=True)
