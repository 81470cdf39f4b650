"""Which macros are in force: the MTA sends some before a command, and they belong to its stage.

A command ends what was sent for later stages: MAIL the macros of an old RCPT, HELO those of an old MAIL
(libmilter's mi_clr_macros). Two things are stricter here than in libmilter, lest the {auth_authen} of one
message speaks for the next:

- the end of a transaction ends the macros of MAIL and later;
- a command that comes without macros has none, nor has one whose list of them is empty. (Postfix sends an
  empty list where no value is known, Sendmail sends none, and libmilter keeps the last in both cases.)
"""

from __future__ import annotations

from hybridgrey.protocol import wire

FOR_CONNECT, FOR_HELO, FOR_MAIL, FOR_RCPT, FOR_DATA, FOR_END_OF_HEADERS, FOR_END_OF_MESSAGE = range(7)
"""Stages in the order of a session, in which the latest is looked at first; lists have `wire.Stage`'s."""

_STAGES = {
    wire.CONNECT: FOR_CONNECT,
    wire.HELO: FOR_HELO,
    wire.MAIL: FOR_MAIL,
    wire.RCPT: FOR_RCPT,
    wire.DATA: FOR_DATA,
    wire.END_OF_HEADERS: FOR_END_OF_HEADERS,
    wire.END_OF_MESSAGE: FOR_END_OF_MESSAGE,
}
_NONE: list[bytes | dict[bytes, bytes] | None] = [None] * len(_STAGES)
# The stages from each one down to the first.
_FROM = tuple(tuple(range(stage, -1, -1)) for stage in range(len(_STAGES)))
# A command of these stages ends what was sent for later ones.
_ENDS_LATER = FOR_RCPT
_SHORT = len("{i}")


class Macros:
    """The macros of one connection, by stage; lists are taken apart when one of them is first looked at.

    Those of CONNECT each time: hardly any is asked for, and an idle connection is to hold little.
    """

    __slots__ = ("_fresh", "_latest", "_sent")

    def __init__(self) -> None:
        self._sent = _NONE.copy()
        # The latest stage that may have any.
        self._latest = 0
        # A bit for each stage whose macros have come and whose command has not.
        self._fresh = 0

    def take(self, payload: bytes) -> None:
        """Macros have come: a command's letter, then names and values. Others are ignored."""
        stage = _STAGES.get(payload[0]) if payload else None
        if stage is not None:
            self._sent[stage] = payload
            self._fresh |= 1 << stage
            if stage > self._latest:
                self._latest = stage

    def begin(self, stage: int) -> None:
        """The command of a stage has come."""
        fresh = self._fresh
        if not fresh >> stage & 1:
            self._sent[stage] = None
        if stage <= _ENDS_LATER:
            self._fresh = fresh & (1 << stage) - 1
            if self._latest > stage:
                self.forget(stage + 1)
        else:
            self._fresh = fresh & ~(1 << stage)

    def forget(self, stage: int) -> None:
        """End the macros of a stage and of later ones."""
        if self._latest >= stage:
            self._sent[stage:] = _NONE[stage:]
            self._latest = max(stage - 1, 0)

    def get(self, name: bytes) -> bytes | None:
        """A macro's value, of the latest stage that has it; None if the MTA has sent none.

        Names are as the MTA sends them, `{client_addr}`, `i`; those of one letter also with braces or
        without (smfi_getsymval).
        """
        sent = self._sent
        short = len(name) <= _SHORT
        for stage in _FROM[self._latest]:
            told = sent[stage]
            if told is None:
                continue
            if isinstance(told, bytes):
                told = _taken_apart(told)
                if stage != FOR_CONNECT:
                    sent[stage] = told
            value = told.get(name)
            if value is None and short:
                value = told.get(_other_form(name))
            if value is not None:
                return value
        return None


def _other_form(name: bytes) -> bytes:
    """`{i}` for `i`, `i` for `{i}`, nothing for other names."""
    if len(name) == 1:
        return b"{%b}" % name
    return name[1:2] if len(name) == 3 and name[:1] == b"{" and name[2:] == b"}" else b""


def _taken_apart(payload: bytes) -> dict[bytes, bytes]:
    """Names and values; what has no closing NUL, and a name without value, count for nothing.

    By their places, never by a search: a value may look like a name, and clients choose values.
    """
    parts = payload[1:].split(b"\0")
    del parts[-1]
    pairs = iter(parts)
    # A keyword would double what this costs.
    found = dict(zip(pairs, pairs))  # noqa: B905
    if len(found) < len(parts) // 2:
        # A name twice: the first counts, as in libmilter.
        found = {}
        pairs = iter(parts)
        for name, value in zip(pairs, pairs, strict=False):
            found.setdefault(name, value)
    return found
