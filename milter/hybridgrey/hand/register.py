"""Where the store keeps the entries by hand, for all hosts: register.lua is the one script that touches them.

`Register.look` is cheap and is asked all the time; `read` gives all there is when a look has shown another
version.  `put` and `take` are the commands'.  All methods raise StoreError; those that change something bear
being run twice, as the store's calls must.

The names are in clear text, also with a ``key_secret``: they are the admin's own words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

from hybridgrey.hand.entries import Entry, Subject, parse, said
from hybridgrey.policy.conditions import Hand
from hybridgrey.store.connection import Script, Store, StoreError

MOST: Final = 5000
"""Entries that there may be: by hand there are dozens.  More are a list, which belongs in a rule's file."""
KEY: Final = b"hg1:hand"  # no hash tag: never taken for a triplet
_SCRIPT: Final = Script.installed("hybridgrey.hand", "register.lua")
_AT_ONCE: Final = 500  # subjects of one call; Lua's unpack has a bound, too


class Look(NamedTuple):
    """Which entries the store has: their version, 0 if there never were any, and the store's clock."""

    version: int
    now: int


@dataclass(frozen=True, slots=True)
class Copy:
    """All entries that the store has, as they are stored: pairs of field and value."""

    version: int
    now: int
    pairs: tuple[tuple[bytes, bytes], ...]

    def entries(self) -> list[Entry]:
        """Those that are entries."""
        return [entry for field, value in self.pairs if (entry := parse(field, value)) is not None]


class FullError(StoreError):
    """There are more entries than there may be."""


class Register:
    """The entries of one store; thread safe."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def look(self) -> Look:
        """Which entries there are; one read of one field."""
        version, now = self._numbers(self._run("look"), 2)
        return Look(version, now)

    def read(self) -> Copy:
        """All entries.  Raises FullError when somebody has put in more than we read."""
        reply = self._run("read")
        version, now = self._numbers(reply[:2], 2)
        if version < 0:
            raise FullError(f"there are more than {MOST} entries by hand in the store")
        flat = [item for item in reply[2:] if isinstance(item, bytes)]
        return Copy(version, now, tuple(zip(flat[::2], flat[1::2], strict=False)))

    def put(
        self, kind: Hand, subjects: Sequence[Subject], seconds: int, *, who: str, host: str, comment: str
    ) -> list[Entry | None]:
        """Make an entry for each subject, for so many `seconds` (0: without an end); what it replaces.

        Raises FullError, and then none is made.
        """
        words = (seconds, said(kind, who, host, comment))
        return self._change("put", subjects, words)

    def take(self, subjects: Sequence[Subject]) -> list[Entry | None]:
        """Take the entries of these subjects back; what they were."""
        return self._change("take", subjects, ())

    def restore(self, copy: Copy) -> bool:
        """Give a store that has lost everything its entries back; False if it has some by now."""
        flat = [text for pair in copy.pairs for text in pair]
        (done,) = self._numbers(self._run("restore", flat), 1)
        return bool(done)

    def _change(
        self, what: str, subjects: Sequence[Subject], words: tuple[bytes | int, ...]
    ) -> list[Entry | None]:
        before: list[Entry | None] = []
        for start in range(0, len(subjects), _AT_ONCE):
            fields = [subject.field for subject in subjects[start : start + _AT_ONCE]]
            done, *values = self._run(what, [*words, *fields])
            if done == -1:
                raise FullError(
                    f"there are {MOST} entries by hand already; unlist some, or write a file for a rule"
                )
            if done != 1 or (values and len(values) != len(fields)):
                raise _unknown()
            before += map(parse, fields, values or [None] * len(fields))
        return before

    def _run(self, what: str, words: Sequence[bytes | int] = ()) -> list[object]:
        reply = self._store.run(_SCRIPT, (KEY,), (what.encode(), MOST, *words))
        return cast(list[object], reply)

    @staticmethod
    def _numbers(reply: Sequence[object], count: int) -> list[int]:
        numbers = [item for item in reply if isinstance(item, int)]
        if len(numbers) != count or len(reply) != count:
            raise _unknown()
        return numbers


def _unknown() -> StoreError:
    return StoreError("the store gave an answer that the script of the entries by hand does not give")
