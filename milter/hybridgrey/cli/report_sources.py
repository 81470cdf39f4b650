"""Where `hybridgrey report` has its numbers from: mail logs, and the history in the store."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hybridgrey.cli.access import UNAVAILABLE, store_trouble, url_of
from hybridgrey.cli.logfiles import is_regular, last_change, lines_of, progress
from hybridgrey.cli.output import fail, warn
from hybridgrey.config.load import Config
from hybridgrey.history import past
from hybridgrey.history.past import Counts, Past
from hybridgrey.history.reader import Reader
from hybridgrey.policy.judge import Action
from hybridgrey.report import maillog
from hybridgrey.report.logtime import Clock
from hybridgrey.store.connection import StoreError

_SECONDS: Final = re.escape("{seconds}")


@dataclass(frozen=True, slots=True)
class Span:
    """The time that is wanted, Unix seconds; None: as far as there is anything."""

    since: float | None
    until: float | None


@dataclass(frozen=True, slots=True)
class History:
    """What the store has: how far back, and the counts of a time that is to be drawn."""

    reader: Reader
    past: Past
    hosts: Sequence[str] | None
    now: float

    def counts(self, start: float, end: float, step: int) -> Counts:
        """The counts for bins of `step` seconds."""
        return past.read(self.reader, start, end, step, self.now, self.hosts)


def _own_texts(config: Config) -> list[re.Pattern[bytes]]:
    """What our greylisting says, without its enhanced status code and with any number of seconds."""
    texts = {config.greylist.text, *(r.text for r in config.rules if r.text and r.action is Action.GREYLIST)}
    bare = (re.sub(r"^4\.\d+\.\d+ ", "", text) for text in texts)
    return [re.compile(re.escape(text).replace(_SECONDS, r"\d+").encode()) for text in bare]


def read_logs(
    files: tuple[str, ...], config: Config, span: Span, greylist_texts: Sequence[re.Pattern[bytes]] = ()
) -> maillog.Tally:
    """What the mail logs say, read from the oldest to the newest."""
    since, until = span.since or 0.0, span.until or math.inf
    reader = maillog.Reader(_own_texts(config), since, until, greylist_texts)
    with progress(files) as told:
        for file in sorted(files, key=last_change):
            latest = last_change(file)
            years_back = 0
            with lines_of(file, told) as lines:
                excess = reader.read(lines, Clock(latest))
            while excess:
                if not is_regular(file):
                    fail(f"{file}: a log of more than a year without years in it must be given by its name")
                years_back += excess
                with lines_of(file) as lines:
                    excess = reader.read(lines, Clock(latest, years_back))
    return reader.tally


def why_nothing(log: maillog.Tally, span: Span) -> str:
    """Why mail logs that were given have nothing to draw; empty when they have."""
    if log.counted:
        return ""
    if not log.lines:
        return "the mail logs are empty"
    if log.undated and not log.known:
        return (
            f"the {log.undated} lines of the mail logs that tell of mail have no time that can be read, or"
            " one in the future (journalctl shows times with -o short-iso)"
        )
    if not log.known:
        return (
            f"none of the {log.lines} lines of the mail logs is one of Postfix, Sendmail, SpamAssassin or"
            " amavis that tells of mail that came; is it the mail log?"
        )
    if log.spans and (span.since or span.until):
        moments = min(s for s, _e in log.spans), max(e for _s, e in log.spans)
        when = " to ".join(time.strftime("%Y-%m-%dT%H:%M", time.gmtime(m)) for m in moments)
        return f"the mail logs are of {when} (UTC), and nothing of it lies in the time that is asked for"
    return f"the {log.known} lines of mail in the mail logs are all of this machine's own"


def opened(config: Config) -> Reader:
    """The history in the configured store, not connected yet."""
    try:
        return Reader.open(url_of(config), config.store.timeout)
    except StoreError as error:
        fail(store_trouble(config, error), UNAVAILABLE)


def read_history(
    config: Config, reader: Reader, hosts: tuple[str, ...], *, forgiving: bool
) -> History | None:
    """What the store has; with logs to draw from, a store that is down is only a warning."""
    now = time.time()
    try:
        known = reader.hosts()
        if unknown := sorted({*hosts} - {*known}):
            fail(f"no history of {unknown[0]}; there is that of: {', '.join(known) or 'no host'}")
        chosen = hosts or None
        known_past = past.survey(reader, now, chosen)
        return History(reader, known_past, chosen, now) if known_past else None
    except StoreError as error:
        text = store_trouble(config, error)
        if not forgiving:
            fail(text, UNAVAILABLE)
        warn(f"only the mail logs are drawn; {text}")
        return None
