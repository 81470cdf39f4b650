"""Whom this host has written to, by Postfix's log: mail of its own users that another host has taken.

A message is our own if its client logged in (``sasl_username=``), if a program handed it in (pickup), or if
its client is the host itself.  What a content filter gives back with XFORWARD (``orig_queue_id=``) is ours if
what it was given is.  A recipient counts once Postfix's SMTP client has delivered to him (``status=sent``):
not by local, virtual, lmtp or relay, which are of this house; not to a content filter on this host; and not
somebody to whom only an alias leads (``orig_to=``), for we have not written to him.

A client's words never decide: the login stands before what the client says, and an address that holds a
bracket is passed over.  At most `MOST_WAITING` messages and `MOST_GATHERED` addresses are held.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from hybridgrey import envelope
from hybridgrey.envelope import Mailbox

MOST_WAITING: Final = 50_000
"""Messages between their first and their last line."""
MOST_GATHERED: Final = 200_000
"""Addresses; some 25 MiB."""
_DAY: Final = 86_400

WANTED: Final = re.compile(rb": client=|: uid=\d+ from=|\(queue active\)|status=sent|: removed\s*$")
"""What a line has that tells anything; others need not be taken apart."""
_PROGRAM: Final = re.compile(
    rb"(?:(\S+) +)?((?:[\w.-]+/)*)(smtpd|pickup|qmgr|nqmgr|oqmgr|smtp)"
    rb"(?:\[\d{1,10}\]: | (?:\d{1,10}|-) \S+ (?:-|\[[^\]]*\]) ?)"
)
_CLIENT: Final = re.compile(rb"(\w+): client=[^\s\[]*\[([^\]]*)\](.*)")
_CLIENT_SAYS: Final = b", sasl_sender="  # Postfix smtpd.c: the last of the fields
_LOGIN: Final = b", sasl_username="
_ORIGINAL: Final = re.compile(rb", orig_queue_id=(\w+)")
_HANDED_ON: Final = b", orig_"
_HERE: Final = re.compile(rb"127\.|::1$")
_HANDED_IN: Final = re.compile(rb"(\w+): uid=\d+ from=<")
_QUEUED: Final = re.compile(rb"(\w+): from=<(.*)>, size=\d+, nrcpt=(\d{1,9}) \(queue active\)")
_REMOVED: Final = re.compile(rb"(\w+): removed")
_SENT: Final = re.compile(
    rb"(\w+): to=<([^<>]+)>, relay=[^\s\[]+\[([^\]]*)\](?::\w+)?, (?:conn_use=\d+, )?"
    rb"delay=[\d.]+, delays=[\d./]+, dsn=2[\d.]*, status=sent "
)


class Written(NamedTuple):
    """A sender of ours has written to somebody."""

    sender: Mailbox
    recipient: Mailbox


class _Message:
    __slots__ = ("recipients", "sender")

    def __init__(self) -> None:
        self.sender: Mailbox | None = None
        self.recipients = 0


class SentMail:
    """Reads lines of logs, from the oldest to the newest; several hosts' may be mixed."""

    def __init__(self, max_recipients: int) -> None:
        """`max_recipients`: a message to more teaches nothing."""
        self._most = max_recipients
        self._own: dict[tuple[bytes, bytes], _Message] = {}

    def read(self, text: bytes) -> Written | None:
        """What a line, without its time, tells of who has been written to."""
        head = _PROGRAM.match(text)
        if head is None:
            return None
        host, path, program, said = head[1] or b"", head[2], head[3], text[head.end() :].strip()
        if program == b"smtp":
            # With Postfix's own master.cf what is for relay_domains has the service's name in the path.
            return None if path.endswith(b"/relay/") else self._sent(host, said)
        if program == b"smtpd":
            self._came(host, said)
        elif program == b"pickup":
            if handed_in := _HANDED_IN.match(said):
                self._begin(host, handed_in[1])
        else:
            self._queued(host, said)
        return None

    def _came(self, host: bytes, said: bytes) -> None:
        """A message begins; queue ids are used again, so one that is not ours ends what had this id."""
        client = _CLIENT.match(said)
        if client is None:
            return
        if self._is_own(host, client[2], client[3].partition(_CLIENT_SAYS)[0]):
            self._begin(host, client[1])
        else:
            self._own.pop((host, client[1]), None)

    def _is_own(self, host: bytes, address: bytes, fields: bytes) -> bool:
        if _LOGIN in fields:
            return True
        if original := _ORIGINAL.match(fields):
            return (host, original[1]) in self._own
        return _HERE.match(address) is not None and _HANDED_ON not in fields

    def _begin(self, host: bytes, queue_id: bytes) -> None:
        if queue_id == b"NOQUEUE":
            return
        self._own.pop((host, queue_id), None)
        self._own[host, queue_id] = _Message()
        if len(self._own) > MOST_WAITING:
            del self._own[next(iter(self._own))]

    def _queued(self, host: bytes, said: bytes) -> None:
        """The queue manager takes a message, perhaps not for the first time, or lets go of it."""
        if removed := _REMOVED.match(said):
            self._own.pop((host, removed[1]), None)
        elif (queued := _QUEUED.match(said)) and (message := self._own.get((host, queued[1]))) is not None:
            message.sender = _address(queued[2])
            # A later try is for those only who are left.
            message.recipients = max(message.recipients, int(queued[3]))

    def _sent(self, host: bytes, said: bytes) -> Written | None:
        sent = _SENT.match(said)
        if sent is None or _HERE.match(sent[3]):
            return None
        message = self._own.get((host, sent[1]))
        if message is None or message.sender is None or message.recipients > self._most:
            return None
        recipient = _address(sent[2])
        return None if recipient is None else Written(message.sender, recipient)


class Gathered(NamedTuple):
    """Somebody who was written to, and when for the last time, Unix seconds."""

    address: Mailbox
    moment: float


class Gathering:
    """Everybody once; the bounds that the filter has for one sender and day hold here, too."""

    def __init__(self, max_daily: int) -> None:
        self._most = max_daily
        # By key, which a mailbox can be read from again (`envelope`): a third of the memory.
        self._known: dict[str, float] = {}
        self._day = 0
        self._new: dict[str, int] = {}
        self.beyond = 0
        """How often somebody was left out because his sender had too many new ones that day."""

    def add(self, written: Written, moment: float) -> Gathered | None:
        """Take in who was written to; who has to make room for him, and so is to be remembered now."""
        key = written.recipient.key
        before = self._known.pop(key, None)
        if before is None and not self._granted(written.sender.key, moment):
            self.beyond += 1
            return None
        self._known[key] = moment if before is None else max(moment, before)
        if len(self._known) <= MOST_GATHERED:
            return None
        oldest = next(iter(self._known))
        return _gathered(oldest, self._known.pop(oldest))

    def rest(self) -> Iterator[Gathered]:
        """All who are left."""
        return (_gathered(key, moment) for key, moment in self._known.items())

    def _granted(self, sender: str, moment: float) -> bool:
        day = int(moment // _DAY)
        # Senders of one day only; more of them than this are no people.
        if day != self._day or len(self._new) > MOST_GATHERED:
            self._day, self._new = day, {}
        self._new[sender] = self._new.get(sender, 0) + 1
        return self._new[sender] <= self._most


def _gathered(key: str, moment: float) -> Gathered:
    return Gathered(envelope.read(key), moment)


def _address(raw: bytes) -> Mailbox | None:
    """An address of the log; None for ``<>`` and for one that is not certain."""
    try:
        box = envelope.read(raw.decode())
    except UnicodeDecodeError:
        return None
    return box if box.certain and not box.null and box.domain else None
