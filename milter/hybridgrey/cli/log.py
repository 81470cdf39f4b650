"""``hybridgrey log``: past verdicts of all hosts, in words, each with its reason."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Any, Final

import click

from hybridgrey.cli import config_option, log_filters, log_words
from hybridgrey.cli.access import UNAVAILABLE, configured, configured_if_any, store_trouble, url_of
from hybridgrey.cli.log_filters import Holds
from hybridgrey.cli.log_sources import FromDaemon, FromLogs, FromStore, Source, journal, why_not_stored
from hybridgrey.cli.logfiles import STDIN
from hybridgrey.cli.moments import local_moment
from hybridgrey.cli.output import fail, json_line, warn
from hybridgrey.clientaddress import ClientReader
from hybridgrey.config.load import Config
from hybridgrey.history.reader import EVER, Reader
from hybridgrey.outcome import Outcome
from hybridgrey.page import verdicts
from hybridgrey.page.verdicts import Verdict
from hybridgrey.store.connection import StoreError

AT_ONCE: Final = 200  # lines a write
FOLLOWED: Final = 10  # lines before what comes
LOOK: Final = 3.0  # s; between two looks at the store
LATE: Final = 60.0
"""Seconds: what a host writes to the store is never so late, unless the store was away."""


@click.command("log")
@click.argument("files", metavar="[FILE]...", nargs=-1)
@click.option("--client", multiple=True, metavar="ADDRESS|NETWORK|NAME", help="Of this client.")
@click.option("--from", multiple=True, metavar="ADDRESS|DOMAIN", help='From this sender; "" for bounces.')
@click.option("--to", multiple=True, metavar="ADDRESS|DOMAIN", help="To this recipient.")
@click.option("--host", multiple=True, metavar="NAME", help="Judged by this MX host.")
@click.option(
    "--outcome", multiple=True, type=click.Choice([str(one) for one in Outcome]), help="With this outcome."
)
@click.option("--rule", multiple=True, metavar="NAME", help="Decided by this rule.")
@click.option("--list", multiple=True, metavar="LABEL", help="Of clients on this list.")
@click.option(
    "--since", callback=local_moment, metavar="TIME", help='From then on: "2h" ago, yesterday, 9:30, …'
)
@click.option("--until", callback=local_moment, metavar="TIME", help="Until then.")
@click.option(
    "-n", "--lines", type=click.IntRange(min=1), metavar="NUMBER", help="Show only the last so many."
)
@click.option("-f", "--follow", is_flag=True, help="Go on as verdicts come, some seconds behind.")
@click.option("--journal", "of_journal", is_flag=True, help="Read systemd's journal of this host.")
@click.option("--utc", is_flag=True, help="Show times in UTC.")
@click.option(
    "--json", "json_", is_flag=True, help="Print JSON, one object a line, as the daemon's log has it."
)
@config_option
def log(
    files: tuple[str, ...],
    config_path: Path,
    since: float | None,
    until: float | None,
    lines: int | None,
    follow: bool,
    of_journal: bool,
    utc: bool,
    json_: bool,
    **given: tuple[str, ...],
) -> None:
    """Show past verdicts: what clients got, and why; the newest last.

    They are those of all MX hosts, as the store has them for [metrics] keep_verdicts (7 days), at most 15 s
    behind. Where it has none (keep_verdicts = "0", store.key_secret) the daemon of this host is asked for its
    last 1,000. With FILE they are read from our JSON log instead, also packed; "-" is standard input.

    All conditions must hold; of one that is given several times, one must. *, ? and [...] stand for any text;
    a domain means all of its addresses, and .example.org what is below it. Times are those of the local
    clock: 2026-01-31T10:00, 9:30, today, yesterday, or a duration before now. Exit status 1 when nothing
    matches, 69 when the store does not serve.

    \b
    Examples:
      hybridgrey log --to joe@example.org --since yesterday
      hybridgrey log --client 192.0.2.0/24 --outcome rejected
      hybridgrey log --from '*@*.example.com' --list zen.spamhaus.org --since 2d --until 1d
      hybridgrey log --json --since 7d | hybridgrey replay -
      hybridgrey log --outcome deferred /var/log/hybridgrey.log.*.gz /var/log/hybridgrey.log
      hybridgrey log --journal --rule blocklists --since 30d
    """
    _check_follow(files, lines, of_journal=of_journal, follow=follow)
    logs = bool(files or of_journal)
    config = configured_if_any(config_path) if logs else configured(config_path)
    tests = log_filters.made(given, config.dns.clients if config else ClientReader())
    printer = _Printer(tests, utc=utc, json_=json_)
    span = since or 0.0, EVER if until is None else until
    with ExitStack() as stack:
        source: Source
        if logs:
            source = _logs(stack, files, config, span, of_journal=of_journal, follow=follow)
            printer.at_once = STDIN in files or follow
        else:
            assert config is not None  # noqa: S101 (else it would have ended)
            source = _kept(stack, config, given)
        _show(source, printer, span, lines, follow=follow and not of_journal)
    if not printer.shown:
        fail(f"no verdict matches; {source.covers()}")


def _check_follow(files: Sequence[str], lines: int | None, *, of_journal: bool, follow: bool) -> None:
    """End with status 2 where --follow does not go with the rest."""
    if follow and files:
        raise click.UsageError("--follow takes no FILE; pipe it in: tail -F FILE | hybridgrey log -")
    if follow and of_journal and lines:
        raise click.UsageError("--journal --follow takes no --lines")


def _kept(stack: ExitStack, config: Config, given: Mapping[str, Sequence[str]]) -> Source:
    """The store, or the daemon where the store has none."""
    if why_not_stored(config):
        warn(f"{why_not_stored(config)}: these are the last verdicts of this host's daemon")
        return FromDaemon(config)
    try:
        reader = stack.enter_context(closing(Reader.open(url_of(config), config.store.timeout)))
    except StoreError as error:
        fail(store_trouble(config, error), UNAVAILABLE)
    return FromStore(config, reader, log_filters.needles(given))


def _logs(
    stack: ExitStack,
    files: Sequence[str],
    config: Config | None,
    span: tuple[float, float],
    *,
    of_journal: bool,
    follow: bool,
) -> FromLogs:
    if not of_journal:
        return FromLogs(files)
    name = (config.hostname if config else "") or socket.gethostname()
    return FromLogs(files, stack.enter_context(journal(*span, follow=follow)), name)


class _Printer:
    """Prints what matches, some lines at once."""

    def __init__(self, tests: Sequence[Holds], *, utc: bool, json_: bool) -> None:
        self._tests = tests
        self._utc = utc
        self._json = json_
        self.shown = 0
        self.at_once = False

    def matching(self, records: Iterable[dict[str, Any]]) -> Iterator[Verdict]:
        """Those that match, made safe."""
        for record in records:
            one = verdicts.safe(record)
            if one is not None and log_filters.holds(self._tests, one):
                yield one

    def print(self, found: Iterable[Verdict]) -> None:
        """Print them as they come."""
        pending: list[str] = []
        for one in found:
            self.shown += 1
            if self._json:
                json_line(log_words.document(one))
                continue
            pending.append(log_words.line(one, utc=self._utc))
            if self.at_once or len(pending) >= AT_ONCE:
                click.echo("\n".join(pending))
                pending.clear()
        if pending:
            click.echo("\n".join(pending))


def _show(
    source: Source, printer: _Printer, span: tuple[float, float], lines: int | None, *, follow: bool
) -> None:
    """Print what is there, and with `follow` what comes."""
    since, until = span
    if not follow:
        printer.print(_found(source, printer, since, until, lines))
        return
    # What is late comes in between: it is told from what was there at the begin.
    begin = time.time()
    known = {_name(one): one["t"] for one in printer.matching(source.records(begin - LATE, EVER))}
    first = list(_found(source, printer, since, until, lines or (None if since else FOLLOWED)))
    known |= {_name(one): one["t"] for one in first}
    printer.print(first)
    printer.at_once = True
    while time.time() <= until:
        time.sleep(LOOK)
        edge = time.time() - LATE
        known = {name: moment for name, moment in known.items() if moment >= edge}
        for one in printer.matching(source.records(edge, until)):
            name = _name(one)
            if name not in known:
                known[name] = one["t"]
                printer.print([one])


def _found(
    source: Source, printer: _Printer, since: float, until: float, lines: int | None
) -> Iterable[Verdict]:
    """What matches in a time, or the last `lines` of it; the newest last."""
    if lines is None:
        return printer.matching(source.records(since, until))
    backwards = source.newest(since, until)
    if backwards is None:
        return deque(printer.matching(source.records(since, until)), lines)
    return list(islice(printer.matching(backwards), lines))[::-1]


def _name(one: Verdict) -> str:
    return str(verdicts.named(dict(one))["id"])
