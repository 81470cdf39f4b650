"""Which recorded verdicts are of which messages of a mail log.

Postfix has no queue id yet when the first recipient is judged, so that a record does not name the message.
It is found by client, sender, recipient and time: a verdict is given from when a message begins until it is
complete.  Where several would do, it is the one that began nearest, and each is of one verdict for each
recipient.  A sender that Postfix has rewritten by SRS may have been anybody.  Of the recipients of a message
that was refused at its end the log names one: of the others nothing is told.

Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Final, NamedTuple

from hybridgrey import envelope
from hybridgrey.address import packed
from hybridgrey.outcome import LET_IN_EARLY, Outcome, outcome_of
from hybridgrey.report.mailways import Mail

SLACK: Final = 3.0
"""Seconds by which the log's clock and the store's record may differ."""
LONGEST: Final = 3600.0
"""Seconds from a message's beginning to its last recipient."""
_APART: Final = 1800.0  # s; times between which the store is not read
_MOST_TRIED: Final = 64
_REWRITTEN: Final = ("srs0", "srs1")

Record = Mapping[str, object]
_Place = tuple[bytes, str]


class Found(NamedTuple):
    """What a mail log says of a recipient who was let in early."""

    t: float
    reason: str
    spam: bool


class _Row(NamedTuple):
    began: float
    sender: str
    mail: Mail


_BEGAN: Final = attrgetter("began")


class SpamJoin:
    """Some messages, to which records are added."""

    def __init__(self, mails: Iterable[Mail]) -> None:
        self._rows: dict[_Place, list[_Row]] = {}
        self._times: list[tuple[float, float]] = []
        self._claimed: set[tuple[Mail, str]] = set()
        for mail in mails:
            if mail.client is not None:
                self._times.append((mail.began - SLACK, _until(mail)))
                sender = "" if mail.sender is None else _key(mail.sender)
                row = _Row(mail.began, sender, mail)
                for recipient in {_key(address) for pair in mail.recipients for address in pair}:
                    self._rows.setdefault((mail.client, recipient), []).append(row)
        for rows in self._rows.values():
            rows.sort(key=_BEGAN)

    def times(self) -> Iterator[tuple[float, float]]:
        """The times of which records are wanted, in order, without what lies far between."""
        begin = end = None
        for start, stop in sorted(self._times):
            if begin is None or end is None:
                begin, end = start, stop
            elif start > end + _APART:
                yield begin, end
                begin, end = start, stop
            else:
                end = max(end, stop)
        if begin is not None and end is not None:
            yield begin, end

    def find(self, record: Record) -> Found | None:
        """What the log says of a record; None where it is of no message here, or was not let in early."""
        moment, client, reason = record.get("t"), record.get("client"), record.get("reason")
        sender, recipient = record.get("sender"), record.get("recipient")
        if not isinstance(reason, str) or reason not in LET_IN_EARLY:
            return None
        if outcome_of(record.get("outcome")) is not Outcome.ACCEPTED or not isinstance(moment, int | float):
            return None
        if not (isinstance(client, str) and isinstance(sender, str) and isinstance(recipient, str)):
            return None
        address = packed(client)
        if address is None:
            return None
        by, to = envelope.read(sender).key, envelope.read(recipient).key
        mail = self._nearest((address, to), by, moment)
        if mail is None:
            return None
        self._claimed.add((mail, to))
        return Found(moment, reason, _is_spam(mail, to))

    def _nearest(self, place: _Place, sender: str, moment: float) -> Mail | None:
        row = self._rows.get(place, [])
        at = bisect_right(row, moment + SLACK, key=_BEGAN)
        fit = (
            one
            for one in row[max(0, at - _MOST_TRIED) : at]
            if moment <= _until(one.mail)
            and (one.sender == sender or one.sender.startswith(_REWRITTEN))
            and (one.mail, place[1]) not in self._claimed
        )
        best = min(fit, key=lambda one: (one.sender != sender, abs(moment - one.began)), default=None)
        return None if best is None else best.mail


def _until(mail: Mail) -> float:
    """Up to when verdicts may be of a message."""
    return min(mail.ended or mail.began, mail.began + LONGEST) + SLACK


def _is_spam(mail: Mail, recipient: str) -> bool:
    """Whether a message is spam for a recipient."""
    if mail.spam or not mail.users:
        return mail.spam
    finals = {final for final, sent_to in mail.recipients if recipient in (_key(final), _key(sent_to))}
    if any(final in mail.users or final.rpartition(b"@")[0] in mail.users for final in finals):
        return True
    # Mailboxes may have other names than addresses.
    return not mail.shared and len(mail.recipients) <= 1


def _key(address: bytes) -> str:
    return envelope.read(address.decode("utf-8", "replace")).key
