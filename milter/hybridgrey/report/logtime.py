"""When a line of a log was written: syslog's own form without a year, or ISO 8601 (RFC 5424, journalctl).

A container's log has more before the line: the name of the container (``mail-1  | ``), the runtime's time and
stream (``2026-… stdout F ``), or the whole line in JSON.  The first time counts, for it has a year.

``Nov 22 06:25:01`` has neither year nor zone.  The zone is this machine's.  The year follows from the order
of the lines and from a moment that none of them can be after, such as the file's last change: the first line
gets the latest year that fits, and the year changes where the months jump by half a year.  If the last line
is in the future then, the log is longer than a year; `Clock.excess` says by how many years it was begun too
late, and it has to be read once more.  Only the last line decides that, for a machine without a battery logs
``Jan  1`` until it has heard the time.
"""

from __future__ import annotations

import math
import re
import time
from calendar import timegm
from datetime import datetime
from typing import Final

import orjson

TOLERANCE: Final = 86_400.0  # s; clocks of the writer and of the file system may differ, and zones do
OLDEST: Final = 10 * 365 * 86_400.0  # s before the latest moment: what is older is a clock that was wrong
_HALF_YEAR: Final = 183 * 86_400
_LEAP_YEAR: Final = 366 * 86_400
_NAMES: Final = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec"
_MONTHS: Final = {name: number for number, name in enumerate(_NAMES.split(), 1)}
_STAMP: Final = re.compile(
    rb"(?:<\d{1,3}>(?:1 )?)?"  # what RFC 3164 and RFC 5424 put before it on the wire, and some into the file
    rb"(?:([A-Z][a-z]{2}) ([ \d]\d) (\d\d):(\d\d):\d\d(?:\.\d{1,9})?"
    rb"|(?:[A-Z][a-z]{2} )?(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d):\d\d(?:[.,]\d{1,9})?"
    rb" ?(Z|UTC|[+-]\d\d:?\d\d)?) +"
)
_SECOND: Final = re.compile(rb"\d\d:\d\d:(\d\d)")
_STREAM: Final = re.compile(rb"(?:stdout|stderr) [FP] ")
_COLOUR: Final = rb"(?:\x1b\[[0-9;]*m)*"
# docker compose, kubectl logs --prefix, stern.
_CONTAINER: Final = re.compile(
    _COLOUR + rb"(?:[\w.-]+ *\| ?|\[pod/[^\]\s]*\] |(?:[a-z0-9][\w.-]* ){1,2}"
    rb"(?=[A-Z][a-z]{2} [ \d]\d \d\d:|\d{4}-))" + _COLOUR + rb" ?"
)


class Clock:
    """Reads the moments of one log, in the order of its lines."""

    def __init__(self, latest: float, years_back: int = 0) -> None:
        """`latest`: no line is later (Unix seconds); `years_back`: `excess` of a reading before this one."""
        self._latest = latest + TOLERANCE
        self._earliest = latest - OLDEST
        self._years_back = years_back
        self._year = 0
        self._day = 0  # of the last line without a year, in seconds as if it were UTC
        self._end = 0.0
        self._known: tuple[tuple[bytes, ...], float | None] = ((), None)

    def read(self, line: bytes) -> tuple[float | None, int]:
        """The minute in which a line was written, in Unix seconds, and where the rest of the line begins.

        None: there is no time, or one that cannot be; 0: it does not begin with a time.
        """
        match = _STAMP.match(line)
        if match is None:
            container = _CONTAINER.match(line)
            match = _STAMP.match(line, container.end()) if container else None
        if match is None:
            return None, 0
        texts = tuple(match.groups(b""))
        if texts != self._known[0]:  # many lines have the same minute
            self._known = texts, self._moment(texts)
        return self._known[1], _after(line, match.end())

    @property
    def excess(self) -> int:
        """Years, at least, by which the first line was taken too late; to be asked after the last line."""
        return max(0, math.ceil((self._end - self._latest) / _LEAP_YEAR)) if self._year else 0

    def _moment(self, texts: tuple[bytes, ...]) -> float | None:
        try:
            moment = _iso(*texts[4:]) if texts[4] else self._yearless(*texts[:4])
        except (ValueError, OverflowError):
            return None
        return moment if self._earliest <= moment <= self._latest else None

    def _yearless(self, month: bytes, day: bytes, hour: bytes, minute: bytes) -> float:
        rest = (_MONTHS.get(month, 0), int(day), int(hour), int(minute))
        if not self._year:
            self._year = self._first_year(rest) - self._years_back
        else:
            jump = _plain(self._year, rest) - self._day
            self._year += (jump < -_HALF_YEAR) - (jump > _HALF_YEAR)
        self._day = _plain(self._year, rest)
        self._end = _local(self._year, rest)
        return self._end

    def _first_year(self, rest: tuple[int, int, int, int]) -> int:
        """The latest year in which this time is not in the future; of a 29th of February, a leap year."""
        year = time.localtime(self._latest).tm_year
        for candidate in range(year, year - 9, -1):
            try:
                if _local(candidate, rest) <= self._latest:
                    return candidate
            except ValueError:  # no leap year
                continue
        raise ValueError("no such day")


def _after(line: bytes, at: int) -> int:
    """Where the rest begins after a time: after what a container's runtime and syslog in it add."""
    if stream := _STREAM.match(line, at):
        at = stream.end()
    inner = _STAMP.match(line, at)
    return inner.end() if inner else at


def second(line: bytes, start: int) -> int:
    """The second of the minute in which a line was written; `start`: where the rest of it begins."""
    found = _SECOND.search(line, 0, start)
    return min(int(found[1]), 59) if found else 0


def unpacked(line: bytes) -> bytes:
    """A line of docker's own file, JSON with the line and its time in it, as text; any other as it is."""
    if not line.startswith(b'{"log":'):
        return line
    try:
        content = orjson.loads(line)
    except orjson.JSONDecodeError:
        return line
    text, moment = content.get("log"), content.get("time")
    if not isinstance(text, str) or not isinstance(moment, str):
        return line
    return f"{moment} {text}".encode("utf-8", "replace")


def _plain(year: int, rest: tuple[int, int, int, int]) -> int:
    """Seconds as if it were UTC; also of a 29th of February that the year has not."""
    month, day, hour, minute = rest
    if not 1 <= month <= 12:
        raise ValueError("no month")
    return timegm((year, month, day, hour, minute, 0))


def _local(year: int, rest: tuple[int, int, int, int]) -> float:
    return datetime(year, *rest).timestamp()  # naive: the log's zone, which is this machine's


def _iso(day: bytes, minute: bytes, zone: bytes) -> float:
    text = f"{day.decode()}T{minute.decode()}{zone.decode().replace('UTC', 'Z')}"
    return datetime.fromisoformat(text).timestamp()
