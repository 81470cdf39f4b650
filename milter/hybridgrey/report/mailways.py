"""The ways of messages through Postfix, by its log: from whom, to whom, and what was said of them.

A message begins with smtpd's ``client=`` and ends when the queue lets go of it.  A content filter that takes
it and gives it back makes a second queue id of it, which belongs to the first: by ``orig_queue_id=`` where it
speaks XFORWARD, else by the ``queued as`` of its answer, for a message that came from this host.  What other
programs say of spam (`spamwords`) names a queue id, or only the message id: then it is of a message that is
under way with this id, one for each time it is said.

A line's own program, host and queue id stand before what a client says; a queue id in the midst of a line
counts only for a message of the client that the line names.  Lines of several hosts may be mixed, and be a
little out of order.  At most `MOST_WAITING` messages are held.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from hybridgrey.address import packed
from hybridgrey.report.spamwords import JUNK, Spam, compared, spam

MOST_WAITING: Final = 20_000
MOST_RECIPIENTS: Final = 1000
"""Of one message; Postfix takes no more (smtpd_recipient_limit)."""
GRACE: Final = 60.0
"""Seconds for which lines about a message may come after its end, or a verdict before its beginning."""
_MOST_UNCLAIMED: Final = 10_000
_MOST_ALIKE: Final = 100  # messages under way with one message id
_MOST_NAMES: Final = 16  # message ids of one message, which may have the field again and again

WANTED: Final = re.compile(
    rb": client=|message-id=|\(queue active\)|: to=<|: removed\s*$"
    rb"|: milter-(?:reject|discard): END-OF-MESSAGE"
    rb"|: (?:reject|discard|redirect|hold): (?:mime |nested )?header "
    rb"| SPAM|result: Y |task_write_log: |msgid=<"
)
"""What a line has that tells anything; others need not be taken apart."""
_PROGRAM: Final = re.compile(
    rb"(?:(\S+) +)?(?:[\w.-]+/)*"
    rb"(smtpd|cleanup|qmgr|nqmgr|oqmgr|lmtp|smtp|local|virtual|pipe|error|discard|amavis|spamd|rspamd|dovecot)"
    rb"(?:\[\d{1,10}\]: |: | (?:\d{1,10}|-) \S+ (?:-|\[[^\]]*\]) ?)"
)
# Logs of their own, without host and program.
_ALONE: Final = (
    (b"rspamd", re.compile(rb"#\d+\([\w. ]+\) <")),
    (b"dovecot", re.compile(rb"(?:lmtp|lda|deliver)\([^()]+\)")),
)
_CLIENT: Final = re.compile(rb"(\w+): client=[^\s\[]*\[([^\]]*)\](.*)")
_CLIENT_SAYS: Final = b", sasl_sender="  # Postfix smtpd.c: the last of the fields
_ORIGINAL: Final = re.compile(rb", orig_queue_id=(\w+)")
_NAMED: Final = re.compile(rb"(\w+): (?:resent-)?message-id=(.*)")
_QUEUED: Final = re.compile(rb"(\w+): from=<(.*)>, size=\d+, nrcpt=\d{1,9} \(queue active\)")
_REMOVED: Final = re.compile(rb"(\w+): removed")
# What has fitted once is not tried in another way, for addresses and HELO are the sender's: that would cost
# the square or cube of a line's length.
_TO: Final = re.compile(
    rb"(\w+): to=<(?>(.*?)>, (?=relay=|orig_to=<))(?:orig_to=<(?>(.*?)>, (?=relay=)))?"
    rb"relay=(?>.*?, status=)\w+ (.*)"
)
_HANDED_OVER: Final = re.compile(rb".*\bqueued as (\w+)")
_REFUSED: Final = re.compile(
    rb"(\w+): (?:milter-)?(?:reject|discard): (?:END-OF-MESSAGE|(?:mime |nested )?header|body) "
)
# The first, for behind it stands what the client says in HELO.
_REFUSED_FROM: Final = re.compile(rb"(?>.*?; from=<)(?>(.*?)> to=<)(.*?)> proto=")

_LOOPBACK: Final = bytes(15) + b"\x01"
_NOWHERE: Final = bytes(4)

Key = tuple[bytes, bytes]
"""A host's name and a queue id."""


class Mail:
    """One message; moments are Unix seconds, addresses as the log has them in lower case.

    `recipients`: pairs of whom it was delivered to and whom it was sent to.  `spam`: for all of them;
    `users`: for these mailboxes.
    """

    __slots__ = (
        *("began", "client", "done", "ended", "ids", "keys", "message_ids", "recipients", "sender"),
        *("shared", "spam", "times", "users"),
    )

    def __init__(self, began: float, client: bytes | None) -> None:
        self.began = began
        self.ended = 0.0
        self.client = client
        self.sender: bytes | None = None
        self.recipients: set[tuple[bytes, bytes]] = set()
        self.spam = False
        self.users: set[bytes] = set()
        self.ids: set[bytes] = set()
        """Its queue ids that the queue has not let go of."""
        self.times: dict[bytes, float] = {}
        """When each of its queue ids began."""
        self.keys: list[Key] = []
        self.message_ids: set[bytes] = set()
        self.shared = False
        """Whether another message had one of them at the same time."""
        self.done = False

    @property
    def suspect(self) -> bool:
        """Whether it is spam for anybody."""
        return self.spam or bool(self.users)

    def absorb(self, other: Mail) -> None:
        """Take in what is known of the same message after a content filter."""
        self.recipients |= other.recipients
        self.spam = self.spam or other.spam
        self.users |= other.users
        self.ids |= other.ids
        self.times |= other.times
        self.keys += other.keys
        self.message_ids |= other.message_ids


class _Unclaimed:
    """What was said of messages that have not begun: programs do not write in the order of what happens."""

    def __init__(self) -> None:
        self._words: dict[bytes, list[tuple[float, bytes]]] = {}

    def add(self, name: bytes, moment: float, said: bytes) -> None:
        words = self._words.pop(name, [])
        self._words[name] = [*words[-_MOST_ALIKE:], (moment, said)]
        if len(self._words) > _MOST_UNCLAIMED:
            del self._words[next(iter(self._words))]

    def take(self, name: bytes, moment: float) -> list[bytes]:
        """What is not too old."""
        words = self._words.pop(name, ()) if self._words else ()
        return [said for when, said in words if moment - when < GRACE]


class MailWays:
    """Reads lines of logs in the order of their times."""

    def __init__(self, junk: re.Pattern[bytes] = JUNK) -> None:
        """`junk`: names of the folders for spam."""
        self._junk = junk
        self._mails: dict[Mail, None] = {}
        self._by_id: dict[Key, Mail] = {}
        self._by_message: dict[bytes, list[Mail]] = {}
        self._ended: deque[tuple[float, Mail]] = deque()
        self._unclaimed, self._unnamed = _Unclaimed(), _Unclaimed()
        self.hosts: dict[bytes, float] = {}
        """The hosts whose smtpd has spoken, and when for the last time."""
        self.words = 0
        """Lines that call a message spam."""

    def read(self, text: bytes, moment: float) -> Iterator[Mail]:
        """Take in a line without its time; the messages of which nothing more is awaited."""
        host, program, said = _taken_apart(text)
        if program:
            self._read(host, program, said, moment)
        while self._ended and self._ended[0][0] + GRACE < moment:
            mail = self._ended.popleft()[1]
            if mail.done:  # else a content filter has given it back meanwhile
                yield from self._let_go(mail)
        while len(self._mails) > MOST_WAITING:
            yield from self._let_go(next(iter(self._mails)))

    def rest(self) -> Iterator[Mail]:
        """The messages that have ended, or are spam already, when the logs end."""
        for mail in list(self._mails):
            yield from self._let_go(mail)
        self._ended.clear()

    def _read(self, host: bytes, program: bytes, said: bytes, moment: float) -> None:
        found = spam(program, said, self._junk)
        if found is not None:
            self.words += 1
            self._mark(host, found, moment)
        if program == b"smtpd":
            self._came(host, said, moment)
        elif program == b"cleanup":
            self._cleaned(host, said, moment)
        elif program.endswith(b"qmgr"):
            self._queued(host, said, moment)
        elif program not in (b"amavis", b"spamd", b"rspamd", b"dovecot"):
            self._delivered(host, said)

    def _came(self, host: bytes, said: bytes, moment: float) -> None:
        """A message begins, or a content filter gives one back."""
        client = _CLIENT.match(said)
        if client is None or client[1] == b"NOQUEUE":
            return
        known = self._by_id.get((host, client[1]))
        if known is not None and moment == known.times.get(client[1]):
            return  # the same line in another file
        fields = client[3].partition(_CLIENT_SAYS)[0]
        original = _ORIGINAL.match(fields)
        mail = self._known(host, original[1]) if original else None
        if mail is None:
            mail = Mail(moment, packed(client[2].decode("ascii", "replace")))
            self._mails[mail] = None
            self.hosts[host] = moment
        self._name(mail, (host, client[1]), moment)
        if any(_agree(mail, one) for one in self._unclaimed.take(client[1], moment)):
            mail.spam = True

    def _name(self, mail: Mail, key: Key, moment: float) -> None:
        """A queue id is this message's from now on: they are used again."""
        mail.ids.add(key[1])
        mail.times[key[1]] = moment
        mail.done = False
        for one in dict.fromkeys((key, (b"", key[1]))):
            mail.keys.append(one)
            self._by_id[one] = mail

    def _known(self, host: bytes, queue_id: bytes) -> Mail | None:
        """The message of a queue id: on this host, or where the line has another name, on any.

        Containers have names of their own, and so has a service of Postfix's with a ``myhostname``.
        """
        return self._by_id.get((host, queue_id)) or self._by_id.get((b"", queue_id))

    def _cleaned(self, host: bytes, said: bytes, moment: float) -> None:
        if named := _NAMED.match(said):
            mail, message_id = self._known(host, named[1]), compared(named[2])
            if mail is None or not message_id or len(mail.message_ids) >= _MOST_NAMES:
                return
            if message_id not in mail.message_ids:
                mail.message_ids.add(message_id)
                alike = self._by_message.setdefault(message_id, [])
                alike.append(mail)
                del alike[:-_MOST_ALIKE]
                for one in alike:
                    one.shared = len(alike) > 1
                for user in self._unnamed.take(message_id, moment):
                    self._mark_one(alike, user)
        elif (refused := _REFUSED.match(said)) and (mail := self._known(host, refused[1])) is not None:
            mail.ended = mail.ended or moment
            if whom := _REFUSED_FROM.match(said, refused.end()):
                mail.sender = whom[1].lower() if mail.sender is None else mail.sender
                mail.recipients.add((whom[2].lower(), whom[2].lower()))
            self._end(mail, moment)

    def _queued(self, host: bytes, said: bytes, moment: float) -> None:
        if removed := _REMOVED.match(said):
            mail = self._known(host, removed[1])
            if mail is not None:
                mail.ids.discard(removed[1])
                if not mail.ids:
                    self._end(mail, moment)
        elif (queued := _QUEUED.match(said)) and (mail := self._known(host, queued[1])) is not None:
            mail.ended = mail.ended or moment
            mail.sender = queued[2].lower() if mail.sender is None else mail.sender

    def _delivered(self, host: bytes, said: bytes) -> None:
        to = _TO.match(said)
        mail = self._known(host, to[1]) if to else None
        if to is None or mail is None:
            return
        if len(mail.recipients) < MOST_RECIPIENTS:
            mail.recipients.add((to[2].lower(), (to[3] or to[2]).lower()))
        if (over := _HANDED_OVER.match(to[4])) and (other := self._known(host, over[1])) not in (None, mail):
            self._join(mail, other)

    def _join(self, mail: Mail, other: Mail | None) -> None:
        """A content filter of this host has given a message back, without a word of where it is from."""
        if other is None or other.client is None or not _is_here(other.client):
            return
        mail.absorb(other)
        mail.done = mail.done and not mail.ids
        for key in other.keys:
            if self._by_id.get(key) is other:
                self._by_id[key] = mail
        for message_id in other.message_ids:
            alike = self._by_message.setdefault(message_id, [])
            alike[:] = [mail, *(one for one in alike if one not in (mail, other))]
            mail.shared = len(alike) > 1
        self._mails.pop(other, None)

    def _end(self, mail: Mail, moment: float) -> None:
        if not mail.done:
            mail.done = True
            self._ended.append((moment, mail))

    def _let_go(self, mail: Mail) -> Iterator[Mail]:
        """Forget a message; it is told of if its end is known, or that it is spam."""
        if mail not in self._mails:
            return
        del self._mails[mail]
        for key in mail.keys:
            if self._by_id.get(key) is mail:
                del self._by_id[key]
        for message_id in mail.message_ids:
            alike = [one for one in self._by_message.pop(message_id, ()) if one is not mail]
            if alike:
                self._by_message[message_id] = alike
        if mail.done or mail.suspect:
            yield mail

    def _mark(self, host: bytes, said: Spam, moment: float) -> None:
        """A message is called spam."""
        if said.message_id:
            alike = self._by_message.get(said.message_id, ())
            self._mark_one(alike, said.user)
            if not alike:
                self._unnamed.add(said.message_id, moment, said.user)
            return
        meant = set(self._meant(host, said.names))
        if len(meant) == 1:
            meant.pop().spam = True
        elif not meant and len(said.names) == 1:
            self._unclaimed.add(said.names[0][0], moment, said.names[0][1])

    def _meant(self, host: bytes, names: Iterable[tuple[bytes, bytes]]) -> Iterator[Mail]:
        for name, client in names:
            mail = self._known(host, name)
            if mail is not None and _agree(mail, client):
                yield mail

    @staticmethod
    def _mark_one(alike: Iterable[Mail], user: bytes) -> None:
        """Of messages with the same id all are meant that are for a user; else the first that is not yet."""
        for mail in alike:
            if user:
                mail.users.add(user)
            elif not mail.spam:
                mail.spam = True
                return


def _agree(mail: Mail, client: bytes) -> bool:
    """Whether a line is about a message's client; a filter that is not told of him knows this host only."""
    address = packed(client.decode("ascii", "replace"))
    return address is None or _is_here(address) or address == mail.client


def _is_here(address: bytes) -> bool:
    return address in (_LOOPBACK, _NOWHERE) or (len(address) == 4 and address[0] == 127)


def _taken_apart(text: bytes) -> tuple[bytes, bytes, bytes]:
    """The host, the program and what it says; all empty for programs that are not known here."""
    head = _PROGRAM.match(text)
    if head is not None:
        return head[1] or b"", head[2], text[head.end() :].strip()
    for program, form in _ALONE:
        if form.match(text):
            return b"", program, text.strip()
    return b"", b"", b""
