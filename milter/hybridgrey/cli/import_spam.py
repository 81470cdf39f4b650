"""``hybridgrey import spam``: of mail let in early, what a mail log says was spam."""

from __future__ import annotations

import heapq
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from operator import itemgetter
from pathlib import Path
from typing import Final

import click

from hybridgrey.cleaning import clean
from hybridgrey.cli import config_option
from hybridgrey.cli.access import UNAVAILABLE, as_written, store_trouble, url_of
from hybridgrey.cli.log_sources import why_not_stored
from hybridgrey.cli.log_words import when
from hybridgrey.cli.logfiles import is_regular, last_change, progress
from hybridgrey.cli.maillogs import dated
from hybridgrey.cli.output import as_json, fail, warn
from hybridgrey.config.load import Config
from hybridgrey.history import later
from hybridgrey.history.later import LaterWriter, Told
from hybridgrey.history.reader import Reader
from hybridgrey.outcome import LET_IN_EARLY
from hybridgrey.report.mailways import WANTED, Mail, MailWays
from hybridgrey.report.spamjoin import SpamJoin
from hybridgrey.report.spamwords import folders
from hybridgrey.store.connection import Store, StoreError

AT_ONCE: Final = 20_000
"""Recipients that are looked for in the store together."""
_LEAST_TIMEOUT: Final = 5.0  # s; nobody waits for it
_NEEDLES: Final = [[f'"reason":"{reason}"'.encode() for reason in sorted(LET_IN_EARLY)]]
_WORDS: Final = {
    "told": "recipients let in early, of whom these logs tell",
    "spam": "of these: spam later",
    "told_first": "told of for the first time",
    "spam_first": "spam for the first time",
}


def _names(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> re.Pattern[bytes]:
    return folders(*(name.encode("utf-8", "surrogateescape") for name in given))


@click.command("spam")
@click.argument("files", metavar="MAIL_LOG...", nargs=-1, required=True)
@click.option(
    "--junk", multiple=True, callback=_names, metavar="FOLDER", help="One more folder of Dovecot's for spam."
)
@click.option("--json", "json_", is_flag=True, help="Print the counts as JSON.")
@click.option("--dry-run", is_flag=True, help="Change nothing, print what would be written.")
@config_option
def import_spam(
    files: tuple[str, ...], config_path: Path, junk: re.Pattern[bytes], dry_run: bool, json_: bool
) -> None:
    """Learn from Postfix's logs what was spam of the mail that was let in early, for the page.

    MAIL_LOG is a log of Postfix's, plain or packed by gzip, bzip2 or xz, in any order; "-" is standard input.
    It is spam if amavisd-new, rspamd or spamd says so in these logs, if a milter or a header check refuses it
    as spam, or if Dovecot puts it into a folder called Junk or Spam. Logs of these programs may be files of
    their own. Let in early is mail from pools, of correspondents, of domains with credit, and expected mail.
    The verdicts are those that the store keeps ([metrics] keep_verdicts), of all hosts.

    Nothing is counted twice, so a timer may read the same logs again and again, on each host its own.

    \b
    Examples:
      hybridgrey import spam --dry-run /var/log/mail.log
      hybridgrey import spam /var/log/mail.log.1 /var/log/mail.log
      journalctl --since -2d -o short-iso | hybridgrey import spam -
    """
    config = as_written(config_path)
    if why := why_not_stored(config):
        fail(f"{why}: there is nothing to compare a mail log with; a scanner ([content]) tells without one")
    try:
        with closing(_store(config)) as store:
            bringing = _Bringing(config, store, junk, dry_run=dry_run)
            _read(files, bringing)
    except StoreError as error:
        fail(store_trouble(config, error), UNAVAILABLE)
    _print(bringing, dry_run=dry_run, json_=json_)


class _Bringing:
    """Puts what logs tell into the store, and counts.  Methods raise StoreError."""

    def __init__(self, config: Config, store: Store, junk: re.Pattern[bytes], *, dry_run: bool) -> None:
        kept = config.metrics.keep_verdicts
        self.now = time.time()
        self.oldest = self.now - kept - later.MARGIN
        self.counts: Counter[str] = Counter()
        self.until: dict[str, float] = {}
        self.ways = MailWays(junk)
        self.last = 0.0
        self._reader = Reader(store)
        self._writer = LaterWriter(store, kept, dry_run=dry_run)
        self._hosts = self._reader.hosts()
        self._mails: list[Mail] = []
        self._recipients = 0

    def take(self, text: bytes, moment: float) -> None:
        """Take in a line of a log without its time, which is `moment`."""
        self.last = max(self.last, moment)
        self._add(self.ways.read(text, moment))

    def finish(self) -> None:
        """All logs have been read."""
        self._add(self.ways.rest())
        self._bring()
        self._note()

    def _add(self, mails: Iterator[Mail]) -> None:
        for mail in mails:
            if mail.began >= self.oldest:
                self._mails.append(mail)
                self._recipients += max(1, len(mail.recipients))
            if self._recipients >= AT_ONCE:
                self._bring()

    def _bring(self) -> None:
        """Look for the messages among the verdicts, host by host, and count what is found."""
        join, self._mails, self._recipients = SpamJoin(self._mails), [], 0
        for start, end in join.times():
            for host in self._hosts:
                self._of_host(host, join, start, end)

    def _of_host(self, host: str, join: SpamJoin, start: float, end: float) -> None:
        row: list[Told] = []
        for record in self._reader.verdicts(start, end, [host], needles=_NEEDLES):
            found = join.find(record)
            if found is None:
                continue
            texts = (str(record.get(name, "")) for name in ("client", "sender", "recipient"))
            row.append(Told(found.t, later.number(found.t, *texts), found.reason, found.spam))
            if len(row) >= AT_ONCE:
                self._write(host, row)
                row = []
        self._write(host, row)

    def _write(self, host: str, row: list[Told]) -> None:
        if not row:
            return
        told, spam = self._writer.write(host, row, self.now)
        self.counts["told"] += len(row)
        self.counts["spam"] += sum(one.spam for one in row)
        self.counts["told_first"] += told
        self.counts["spam_first"] += spam
        self.until[host] = self.last

    def _note(self) -> None:
        """Remember up to when there are logs: of hosts that they tell of, and of those whom they name."""
        short = Counter(host.partition(".")[0] for host in self._hosts)
        for host in self._hosts:
            names = {host, *([host.partition(".")[0]] if short[host.partition(".")[0]] == 1 else [])}
            if any(name.encode("utf-8", "surrogateescape") in self.ways.hosts for name in names):
                self.until[host] = self.last
        for host, moment in self.until.items():
            self._writer.read_until(host, min(moment, self.now))


def _store(config: Config) -> Store:
    return Store.open(url_of(config), max(_LEAST_TIMEOUT, config.store.timeout))


def _read(files: tuple[str, ...], bringing: _Bringing) -> None:
    """Read the logs as one, by time: programs may have logs of their own.  Raises StoreError."""
    wanted = [file for file in files if not is_regular(file) or last_change(file) >= bringing.oldest]
    with progress(tuple(wanted)) as told:
        rows = [dated(file, WANTED, told) for file in sorted(wanted, key=last_change)]
        for text, moment in heapq.merge(*rows, key=itemgetter(1)):
            bringing.take(text, moment)
    bringing.finish()


def _print(bringing: _Bringing, *, dry_run: bool, json_: bool) -> None:
    counts = {name: bringing.counts[name] for name in _WORDS}
    if json_:
        as_json({**counts, "read_until": bringing.until, "dry_run": dry_run})
        return
    for name, words in _WORDS.items():
        click.echo(f"{counts[name]:>9}  {words}")
    for host, moment in sorted(bringing.until.items()):
        click.echo(f"read until {when(moment, precise=False)} for {clean(host)}")
    _hint(bringing, counts["told"])
    if dry_run:
        click.echo("Nothing was written (--dry-run).")


def _hint(bringing: _Bringing, told: int) -> None:
    """What may be the reason where nothing was found."""
    if not bringing.ways.hosts:
        warn("no message came in by these logs: are they Postfix's, and not older than the verdicts?")
    elif not told:
        warn("these logs tell of no recipient that was let in early and whose verdict is kept")
    elif not bringing.ways.words:
        warn("nothing in these logs calls a message spam: does a filter behind this one log there?")
