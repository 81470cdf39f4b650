"""The scanner of a configuration: a message in, its score out, whatever happens to the scanner."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from hybridgrey.breaker import Breaker
from hybridgrey.config.load import Config
from hybridgrey.config.scanner import Scanner as Place
from hybridgrey.content.message import Envelope, Message
from hybridgrey.content.question import Dialect, Scan, ScanError
from hybridgrey.content.rspamd import Rspamd
from hybridgrey.content.spamd import Spamd
from hybridgrey.policy.conditions import UNKNOWN, Unknown
from hybridgrey.trouble.reporter import Report

T = TypeVar("T")
Steps: TypeAlias = Generator[Scan, Any, T]

KIND: Final = "scanner"
"""What its trouble is called."""
TOO_LARGE: Final = "the message is too large"
DOWN: Final = "the scanner is down"
LIMIT: Final = 3
"""Failures in a row, after which it is left alone."""
PAUSE: Final = 30.0
"""Seconds to the next try."""
_DIALECTS: Final[dict[str, Dialect]] = {"spamd": Spamd(), "rspamd": Rspamd()}


class Scanned(NamedTuple):
    """What came of a scan: the score, or why there is none; and the seconds that it took.

    `spam`: whether the scanner itself calls it spam; None: it does not say.
    """

    score: float | Unknown
    error: str = ""
    seconds: float = 0.0
    spam: bool | None = None


class Scanner:
    """One worker's; thread safe."""

    def __init__(
        self,
        place: Place,
        *,
        timeout: float,
        max_size: int,
        reporter: Report,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`timeout` in seconds for all of a scan, `max_size` in bytes."""
        self._place = place
        self._dialect = _DIALECTS[place.kind]
        self._timeout = timeout
        self._max_size = max_size
        self._reporter = reporter
        self._now = now
        self._breaker = Breaker(limit=LIMIT, pause=PAUSE, clock=now)
        self.count: Callable[[float | None], None] = _uncounted
        """Told of each message: the seconds to its score, None if there is none."""
        self.told: Callable[[bool, bool], None] = _untold
        """Told of each try: whether there is a score, and whether the scanner is left alone from now on."""

    @property
    def down(self) -> bool:
        """Whether it is known that there will be no score."""
        return self._breaker.down

    def message(self) -> Message:
        """A message to collect for it."""
        return Message(self._max_size)

    def scan(self, envelope: Envelope, message: Message) -> Steps[Scanned]:
        """Ask for the score of a message."""
        scanned = yield from self._scanned(envelope, message)
        self.count(None if isinstance(scanned.score, Unknown) else scanned.seconds)
        return scanned

    def _scanned(self, envelope: Envelope, message: Message) -> Steps[Scanned]:
        if message.too_large:
            return Scanned(UNKNOWN, TOO_LARGE)
        began = self._now()
        if not self._breaker.admits():
            return Scanned(UNKNOWN, DOWN)
        request = self._dialect.request(envelope, message.whole())
        message.drop()
        try:
            answer: bytes = yield Scan(self._place.address, request, self._dialect, began + self._timeout)
            score, spam = self._dialect.read(answer)
        except ScanError as error:
            return self._failed(str(error), began)
        self._breaker.succeeded()
        self._reporter.recovered(KIND)
        self.told(True, self._breaker.open)
        return Scanned(score, seconds=self._now() - began, spam=spam)

    def _failed(self, error: str, began: float) -> Scanned:
        self._breaker.failed(error)
        self._reporter.failing(KIND, error=error)
        self.told(False, self._breaker.open)
        return Scanned(UNKNOWN, error, self._now() - began)


def _uncounted(_seconds: float | None) -> None:
    """Nobody counts."""


def _untold(_worked: bool, _left_alone: bool) -> None:
    """Nobody is told."""


def of(config: Config, reporter: Report) -> Scanner | None:
    """The scanner of a configuration, None without one."""
    place, terms = config.scanner, config.content
    if place is None:
        return None
    return Scanner(place, timeout=terms.timeout, max_size=terms.max_size, reporter=reporter)
