"""``hybridgrey import correspondents``: whom we have written to, from Postfix's logs."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Final

import click

from hybridgrey.cli import config_option
from hybridgrey.cli.access import UNAVAILABLE, as_written, open_store, store_trouble
from hybridgrey.cli.logfiles import last_change, progress
from hybridgrey.cli.maillogs import dated
from hybridgrey.cli.output import as_json, fail, warn
from hybridgrey.config.load import Config
from hybridgrey.hand.correspondents import Brought, Correspondents
from hybridgrey.migrate.sentmail import WANTED, Gathered, Gathering, SentMail
from hybridgrey.store.connection import Store, StoreError

_WORDS: Final = {
    "new": "correspondents, new here",
    "longer": "correspondents, kept longer now",
    "kept": "correspondents as good here already",
    "expired": "written to too long ago",
    "beyond": "left out: too many new ones of one sender in a day",
}


@click.command("correspondents")
@click.argument("files", metavar="MAIL_LOG...", nargs=-1, required=True)
@click.option("--json", "json_", is_flag=True, help="Print the counts as JSON.")
@click.option("--dry-run", is_flag=True, help="Change nothing, print what would be written.")
@config_option
def import_correspondents(files: tuple[str, ...], config_path: Path, dry_run: bool, json_: bool) -> None:
    """Learn from Postfix's logs to whom your users write, so that the answers are not delayed.

    MAIL_LOG is a log of Postfix's, plain or packed by gzip, bzip2 or xz, in any order; "-" is standard input.
    What counts is mail of users who logged in and of programs on the host, once Postfix has delivered it by
    SMTP to another host: not to your own domains, nor by an alias. The bounds of [correspondents] hold, and
    ages are kept. What is there already never gets worse.

    \b
    Examples:
      hybridgrey import correspondents --dry-run /var/log/mail.log*
      hybridgrey import correspondents /var/log/mail.log*
      journalctl -u 'postfix*' --since -180d -o short-iso | hybridgrey import correspondents -
    """
    config = as_written(config_path)
    with closing(open_store(config)) as store:
        bringing = _Bringing(config, store, dry_run=dry_run)
        try:
            _read(files, bringing)
        except StoreError as error:
            fail(store_trouble(config, error), UNAVAILABLE)
    counts = bringing.counts
    if json_:
        as_json({**{name: counts[name] for name in _WORDS}, "dry_run": dry_run})
        return
    for name, words in _WORDS.items():
        click.echo(f"{counts[name]:>9}  {words}")
    if not any(counts.values()):
        warn("nobody was written to by these logs: are they Postfix's, of the host that sends?")
    if dry_run:
        click.echo("Nothing was written (--dry-run).")


class _Bringing:
    """Puts what logs tell into the store, and counts."""

    def __init__(self, config: Config, store: Store, *, dry_run: bool) -> None:
        terms = config.correspondents
        self._correspondents = Correspondents(terms, config.store.key_secret.get_secret_value())
        self._lifetime = terms.lifetime
        self._store = store
        self._dry_run = dry_run
        self._now = time.time()
        self._sent = SentMail(terms.max_recipients)
        self._gathering = Gathering(terms.max_daily)
        self.counts: Counter[str] = Counter()

    def take(self, text: bytes, moment: float) -> None:
        """Take in a line of a log without its time, which is `moment`."""
        written = self._sent.read(text)
        if written is not None and (leaving := self._gathering.add(written, moment)) is not None:
            self._bring(leaving)

    def finish(self) -> None:
        """All logs have been read."""
        for one in self._gathering.rest():
            self._bring(one)
        self.counts["beyond"] = self._gathering.beyond

    def _bring(self, one: Gathered) -> None:
        age = max(0, int(self._now - one.moment))
        if age >= self._lifetime:
            self.counts["expired"] += 1
        else:
            self.counts[self._outcome(one, age).name.lower()] += 1

    def _outcome(self, one: Gathered, age: int) -> Brought:
        by = self._correspondents
        call = (by.would_bring if self._dry_run else by.bring)(one.address, age)
        return by.outcome(self._store.run(*call))


def _read(files: tuple[str, ...], bringing: _Bringing) -> None:
    """Read the logs, from the oldest to the newest.  Raises StoreError."""
    with progress(files) as told:
        for file in sorted(files, key=last_change):
            for text, moment in dated(file, WANTED, told):
                bringing.take(text, moment)
    bringing.finish()
