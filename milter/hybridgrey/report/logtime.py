"""When a line of a log was written: syslog's own form without a year, or ISO 8601 (RFC 5424).

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

TOLERANCE: Final = 86_400.0  # s; clocks of the writer and of the file system may differ, and zones do
OLDEST: Final = 10 * 365 * 86_400.0  # s before the latest moment: what is older is a clock that was wrong
_HALF_YEAR: Final = 183 * 86_400
_LEAP_YEAR: Final = 366 * 86_400
_NAMES: Final = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec"
_MONTHS: Final = {name: number for number, name in enumerate(_NAMES.split(), 1)}
_STAMP: Final = re.compile(
    rb"(?:<\d{1,3}>(?:1 )?)?"  # what RFC 3164 and RFC 5424 put before it on the wire, and some into the file
    rb"(?:([A-Z][a-z]{2}) ([ \d]\d) (\d\d):(\d\d):\d\d(?:\.\d{1,9})?"
    rb"|(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d):\d\d(?:[.,]\d{1,9})?(Z|[+-]\d\d:?\d\d)?) "
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
            return None, 0
        texts = tuple(match.groups(b""))
        if texts != self._known[0]:  # many lines have the same minute
            self._known = texts, self._moment(texts)
        return self._known[1], match.end()

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


def _plain(year: int, rest: tuple[int, int, int, int]) -> int:
    """Seconds as if it were UTC; also of a 29th of February that the year has not."""
    month, day, hour, minute = rest
    if not 1 <= month <= 12:
        raise ValueError("no month")
    return timegm((year, month, day, hour, minute, 0))


def _local(year: int, rest: tuple[int, int, int, int]) -> float:
    return datetime(year, *rest).timestamp()  # naive: the log's zone, which is this machine's


def _iso(day: bytes, minute: bytes, zone: bytes) -> float:
    text = f"{day.decode()}T{minute.decode()}{zone.decode()}"
    return datetime.fromisoformat(text).timestamp()
