"""Lines of files to messages: JSON lines of messages and of our own log, in one file or in several.

What is damaged is counted and told, with the place of the first few; it ends nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final, NamedTuple

from hybridgrey import logline
from hybridgrey.cleaning import clean
from hybridgrey.replay import verdictlog
from hybridgrey.replay.messages import DamageError, Message, message
from hybridgrey.replay.verdictlog import Logged

MOST_TOLD: Final = 5  # damaged lines that are named
MOST_NAMES: Final = 100  # labels, kinds and unknown keys: such a list must end somewhere
OTHERS: Final = "(others)"


class Damage(NamedTuple):
    """A line that could not be used; `line` counts from 1."""

    file: str
    line: int
    why: str


class Reader:
    """Collects what lines have; `messages` gives it when all are read."""

    def __init__(self) -> None:
        self.damaged = 0
        self.damages: list[Damage] = []
        self.verdicts = 0
        self.other_events = 0
        self.unknown_keys: set[str] = set()
        self.named_lists: set[str] = set()
        """Lists that the log says anything of."""
        self._messages: list[Message] = []
        self._logged: list[Logged] = []
        self._names: Counter[str] = Counter()

    def read(self, file: str, lines: Iterable[bytes]) -> None:
        """Take in the lines of a file of this name."""
        for number, line in enumerate(lines, 1):
            if line.isspace():
                continue
            try:
                self._line(line)
            except DamageError as error:
                self.damaged += 1
                if len(self.damages) < MOST_TOLD:
                    self.damages.append(Damage(clean(file), number, str(error)))

    def messages(self) -> list[Message]:
        """All messages, those of the log too."""
        messages = self._messages
        messages.extend(verdictlog.grouped(self._logged))
        self._messages, self._logged = [], []
        return messages

    def _line(self, line: bytes) -> None:
        try:
            raw = logline.read(line)
        except ValueError as error:
            raise DamageError(str(error)) from None
        if "attempts" in raw:
            one = message(raw, self._seen)
            self._messages.append(one._replace(label=self._few(one.label), kind=self._few(one.kind)))
        elif raw.get("event") == "verdict":
            verdict = verdictlog.logged(raw)
            self.verdicts += 1
            self.named_lists.update(zone for zone, _ in verdict.attempt.heard)
            self._logged.append(verdict)
        elif isinstance(raw.get("event"), str):
            self.other_events += 1
        else:
            raise DamageError("neither a message with attempts nor an event of the log")

    def _seen(self, key: str) -> None:
        """A key was there that nothing here can use."""
        if len(self.unknown_keys) < MOST_NAMES:
            self.unknown_keys.add(clean(key[:MOST_NAMES]))

    def _few(self, name: str) -> str:
        """A label or kind, or what stands for it when there are too many."""
        if name in self._names or len(self._names) < MOST_NAMES:
            self._names[name] += 1
            return name
        return OTHERS
