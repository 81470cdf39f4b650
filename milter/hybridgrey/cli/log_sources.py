"""Where ``hybridgrey log`` has past verdicts from: the store, the running daemon, log files, the journal.

Each source gives records by time, the oldest first, one after another; none is ever in memory as a whole.
"""

from __future__ import annotations

import http.client
import json
import subprocess
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from heapq import heappop, heappush
from itertools import islice
from typing import Any, Final, Protocol

from hybridgrey import logline
from hybridgrey.cleaning import clean
from hybridgrey.cli import liveness
from hybridgrey.cli.access import UNAVAILABLE, store_trouble
from hybridgrey.cli.log_words import when
from hybridgrey.cli.logfiles import is_regular, last_change, lines_of
from hybridgrey.cli.output import fail, several
from hybridgrey.config.load import Config
from hybridgrey.history.chunks import Needles, time_of
from hybridgrey.history.reader import EVER, Reader
from hybridgrey.history.view import Terms
from hybridgrey.store.connection import StoreError

UNIT: Final = "hybridgrey"
OTHERS: Final = "name log files, or read this host's journal with --journal"
_SLACK: Final = 3600.0  # s; a log is in order but for seconds, and its file is written to until its last one
_UNTOLD: Final = (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, RecursionError)
_TEXT: Final = b" verdict "
_TEXT_LINES: Final = 'lines are of [log] format = "text", which is for people: only "json" can be read back'

Record = dict[str, Any]


class Source(Protocol):
    """Past verdicts."""

    def records(self, since: float, until: float) -> Iterator[Record]:
        """Those of a time, both ends included, the oldest first."""

    def newest(self, since: float, until: float) -> Iterator[Record] | None:
        """The same, the newest first; None where only the other way can be had."""

    def covers(self) -> str:
        """What time it has, in words; to be asked at the end."""


class FromStore:
    """What all hosts have written to the store."""

    def __init__(self, config: Config, reader: Reader, needles: Needles) -> None:
        """`needles`: what matches must have, as `history.chunks` has it."""
        self._config = config
        self._reader = reader
        self._needles = needles

    def records(self, since: float, until: float) -> Iterator[Record]:
        """See `Source`; ends with a line when the store does not serve."""
        with self._told():
            yield from self._reader.verdicts(since, until, needles=self._needles)

    def newest(self, since: float, until: float) -> Iterator[Record]:
        """See `Source`."""
        with self._told():
            yield from self._reader.verdicts(since, until, newest_first=True, needles=self._needles)

    def covers(self) -> str:
        """See `Source`."""
        with self._told():
            kept = self._reader.kept()
        known = {host: one for host, one in kept.items() if one.since is not None}
        if not known:
            return "the store has no verdict yet: a host writes them some 10 s after they are given"
        parts = [
            f"{clean(host)} {one.size.number:,} since {when(one.since or 0, precise=False)}"
            for host, one in known.items()
        ]
        return f"the store has: {', '.join(parts)}"

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            fail(f"{store_trouble(self._config, error)}; or {OTHERS}", UNAVAILABLE)


class FromDaemon:
    """What the daemon of this host has in memory: where the store has no verdicts."""

    def __init__(self, config: Config) -> None:
        """Ends with a line when the daemon cannot be asked."""
        self._config = config
        self._why = why_not_stored(config)
        self._url = liveness.url_of(config)

    def records(self, since: float, until: float) -> Iterator[Record]:
        """See `Source`; ends with a line when the daemon does not tell."""
        return (one for one in self._asked()[::-1] if since <= one["t"] <= until)

    def newest(self, since: float, until: float) -> Iterator[Record]:
        """See `Source`."""
        return (one for one in self._asked() if since <= one["t"] <= until)

    def covers(self) -> str:
        """See `Source`."""
        latest = self._asked()
        since = f" since {when(latest[-1]['t'])}" if latest else ""
        number = several(len(latest), "verdict")
        return f"{self._why}, and the daemon of this host has {number}{since}; {OTHERS}"

    def _asked(self) -> list[Record]:
        if self._url is None:
            listen = '[metrics] listen is "", so the daemon cannot be asked'
            fail(f"{self._why}, and {listen}; {OTHERS}", UNAVAILABLE)
        password = self._config.metrics.password.get_secret_value()
        try:
            answer = json.loads(liveness.get(f"{self._url}/api/latest?limit=1000", password))
            return list(map(_record, answer["verdicts"]))
        except (*_UNTOLD, liveness.RefusedError) as error:
            reason = getattr(getattr(error, "reason", None), "strerror", None) or str(error)
            fail(
                f"{self._why}, and the daemon at {self._url} does not tell: {clean(reason)}; {OTHERS}",
                UNAVAILABLE,
            )


def _record(verdict: object) -> Record:
    """A verdict of the daemon's, or of what else listens there.  Raises TypeError."""
    if not isinstance(verdict, dict) or not isinstance(verdict.get("t"), (int, float)):
        raise TypeError("no verdicts there")
    return verdict


def why_not_stored(config: Config) -> str:
    """Why the store has no verdicts; "" when it has."""
    return Terms.of(config, "").unkept


class FromLogs:
    """Our own log, from files or from the journal."""

    def __init__(self, files: Sequence[str], lines: Iterable[bytes] | None = None, mx: str = "") -> None:
        """`lines`: of the journal of the host `mx`, read beside the files."""
        self._files = files
        self._lines = lines
        self._mx = mx
        self._first = self._last = 0.0
        self._texts = 0
        self._verdicts = 0

    def newest(self, _since: float, _until: float) -> None:
        """See `Source`."""

    def records(self, since: float, until: float) -> Iterator[Record]:
        """See `Source`; ends with a line when a file cannot be read."""
        rows: list[tuple[float, Callable[[], Iterator[Record]]]] = []
        for file in self._files:
            if not is_regular(file):
                rows.append((0.0, partial(self._of_file, file)))
            elif last_change(file) >= since - _SLACK:
                first = next(self._of_file(file, counted=False), None)
                rows.append((time_of(first) if first else 0.0, partial(self._of_file, file)))
        if self._lines is not None:
            rows.append((0.0, partial(self._of, self._lines, self._mx)))
        for record in merged(rows):
            if record["t"] > until + _SLACK:
                return
            if since <= record["t"] <= until:
                yield record

    def covers(self) -> str:
        """See `Source`."""
        texts = f"; {self._texts:,} {_TEXT_LINES}" if self._texts else ""
        if not self._verdicts:
            return f"there is no verdict in JSON in what was read{texts}"
        span = f"from {when(self._first)} to {when(self._last)}"
        return f"what was read has {several(self._verdicts, 'verdict')} {span}{texts}"

    def _of_file(self, file: str, *, counted: bool = True) -> Iterator[Record]:
        with lines_of(file) as lines:
            yield from self._of(lines, "", counted=counted)

    def _of(self, lines: Iterable[bytes], mx: str, *, counted: bool = True) -> Iterator[Record]:
        for line in lines:
            record = logline.verdict(line)
            if record is None:
                self._texts += counted and _TEXT in line and b"client=" in line
                continue
            record.setdefault("mx", mx)
            if counted:
                self._verdicts += 1
                self._first = min(self._first or record["t"], record["t"])
                self._last = max(self._last, record["t"])
            yield record


def merged(rows: Sequence[tuple[float, Callable[[], Iterator[Record]]]]) -> Iterator[Record]:
    """Rows of records as one, by time; `rows`: when each begins, and how it is opened.

    A row is opened when its time has come: of a year of logs one is open at a time.
    """
    waiting = deque(sorted(rows, key=lambda row: row[0]))
    opened: list[tuple[float, int, Record, Iterator[Record]]] = []
    number = 0
    while waiting or opened:
        while waiting and (not opened or waiting[0][0] <= opened[0][0]):
            row = waiting.popleft()[1]()
            for record in islice(row, 1):
                heappush(opened, (record["t"], number, record, row))
                number += 1
        if opened:
            _, place, record, row = heappop(opened)
            yield record
            for following in islice(row, 1):
                heappush(opened, (following["t"], place, following, row))


@contextmanager
def journal(since: float, until: float, *, follow: bool) -> Iterator[Iterator[bytes]]:
    """The lines of our unit in systemd's journal of this host, for a ``with``."""
    words = ["journalctl", "--quiet", "--no-pager", "--output=cat", f"--unit={UNIT}"]
    # Whole seconds: journalctl reads no more of a time.
    words += [f"--since=@{int(since)}"] if since else []
    words += [f"--until=@{int(until) + 1}"] if until < EVER else []
    words += ["--follow", *(["--no-tail"] if since else [])] if follow else []
    try:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    except OSError as error:
        fail(f"journalctl: {error.strerror}; is there a systemd on this host? Name log files instead")
    assert process.stdout is not None  # noqa: S101 (it is piped)
    try:
        yield iter(process.stdout)
    finally:
        process.stdout.close()
        process.terminate()
        process.wait()
