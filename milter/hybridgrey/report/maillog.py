"""What a mail log says of the mail that came: accepted, rejected, greylisted, later found to be spam.

Counted is, by the minute:

* ``accepted``: messages that a client handed over, when the queue manager takes them (``client=``, then
  ``queue active``; ``proxy-accept`` with a filter before the queue; for Sendmail see `sendmaillog`).  Not
  those that a content filter gives back, nor what came from the machine itself: these cannot be told apart.
* ``rejected``: recipients, or whole messages and connections, that got a 5xx reply from Postfix, from
  postscreen, from Sendmail or from a milter.
* ``greylisted``: temporary refusals that are greylisting by their text (see `greytexts`), and those of
  postscreen's tests after the greeting, which make every new client come back too.
* ``deferred``: all other temporary refusals.
* ``spam``: messages that SpamAssassin, by spamd or spampd, or amavis called spam.

What a client says (sender, recipient, HELO, headers, message id) never decides: it is cut off or passed over
before a text is looked at.  Log lines are read as a stream; queue ids between their two lines are held, at
most `MOST_WAITING`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from hybridgrey.report import logtime, sendmaillog
from hybridgrey.report.bins import Bins
from hybridgrey.report.greytexts import Texts
from hybridgrey.report.logtime import Clock
from hybridgrey.report.sendmaillog import Kind

ACCEPTED: Final = "accepted"
REJECTED: Final = "rejected"
GREYLISTED: Final = "greylisted"
DEFERRED: Final = "deferred"
SPAM: Final = "spam"
SERIES: Final = (ACCEPTED, REJECTED, GREYLISTED, DEFERRED, SPAM)

MOST_WAITING: Final = 50_000
_SILENCE: Final = 10

# Looked for first: nine of ten lines have none of it, and need not be taken apart.
_WANTED: Final = re.compile(
    rb": client=|reject: |proxy-accept: |\(queue active\)|hold: |spam \(|spam <|result: Y | SPAM"
    rb"|, reject=|, nrcpts=[1-9]|\bstat=|\.\.\. User unknown"
)
_PROGRAM: Final = re.compile(
    rb"(?:\S+ +)?(?:[\w.-]+/)*(smtpd|postscreen|cleanup|qmgr|nqmgr|oqmgr|spamd|spampd|amavis|%s)[\w.-]*"
    rb"(?:\[(\d{1,10})\]:|: | (\d{1,10}|-) \S+ (?:-|\[[^\]]*\]))? ?" % sendmaillog.PROGRAMS
)
_CLIENT: Final = re.compile(rb"(\w+): client=[^\[\s]*\[([^\]]*)\](?!.*, orig_(?:client|queue_id)=)")
_OWN: Final = re.compile(rb"127\.|::1$|unknown$|unix:")
_QUEUED: Final = re.compile(rb"(\w+): from=<.*>, size=\d+, nrcpt=\d+ \(queue active\)\s*$")
_HELD: Final = re.compile(rb"(\w+): (?:milter-)?hold: ")
_REJECT: Final = re.compile(
    rb"(?:\w+: )?(?:milter-|proxy-)?reject: [\w-]+(?: from \S+)?: "
    rb"(?:([45])\d\d )?(?:([45])\.\d{1,3}\.\d{1,3} )?(.*?)(?:; (?:from|proto)=|$)"
)
_CHECKED: Final = re.compile(rb"\w+: reject: (?:(?:mime |nested )?header|body) ")
_PROXY: Final = re.compile(rb"(?:\w+: )?proxy-accept: ")
_POSTSCREEN: Final = b"Service currently unavailable"
_QUOTED: Final = re.compile(rb"<[^>]*>")
_IDENTIFIED: Final = re.compile(rb"(?:spamd: )?identified spam [(<]")
_RESULT: Final = re.compile(rb"(?:spamd: )?result: Y ")
_AMAVIS: Final = re.compile(rb"\([\w.-]+\) (?:Passed|Blocked) SPAM(?:MY)?\b")


@dataclass(slots=True)
class Tally:
    """What logs said: counts, the time from `first` to `last` that each covers, what could not be read."""

    bins: Bins = field(default_factory=Bins)
    spans: list[tuple[float, float]] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    """The first and the last moment at which a reply of this filter's was seen, none if none was."""
    own_count: int = 0
    lines: int = 0
    known: int = 0
    """Lines with a time, of programs that are known here, that tell of mail."""
    counted: int = 0
    undated: int = 0
    """Lines of mail whose time is missing, cannot be, or lies in the future."""

    @property
    def began(self) -> float | None:
        """When this filter began to reply; None if it never did, or had begun when the logs begin.

        It has begun in their time if it was silent before for much longer than it is on average.
        """
        if not self.own or not self.spans:
            return None
        first, last = self.own
        silent = first - min(start for start, _end in self.spans)
        return first if silent > _SILENCE * (last - first) / self.own_count else None

    def seen(self, moment: float) -> None:
        """Note a reply of this filter's."""
        self.own = [min([moment, *self.own]), max([moment, *self.own])]
        self.own_count += 1

    def merge(self, other: Tally) -> None:
        """Add what another log said."""
        self.bins.merge(other.bins)
        self.spans += other.spans
        moments = self.own + other.own
        self.own = [min(moments), max(moments)] if moments else []
        self.own_count += other.own_count
        self.lines += other.lines
        self.known += other.known
        self.counted += other.counted
        self.undated += other.undated


class Reader:
    """Reads logs, from the oldest to the newest, into one `tally`."""

    def __init__(
        self,
        own_texts: Sequence[re.Pattern[bytes]] = (),
        since: float = 0.0,
        until: float = float("inf"),
        greylist_texts: Sequence[re.Pattern[bytes]] = (),
    ) -> None:
        """`own_texts`: what our greylisting says, whole; `greylist_texts`: to be found in that of others.

        Counted is from `since` to `until`.
        """
        self._texts = Texts(own_texts, greylist_texts)
        self._since = since
        self._until = until
        self._waiting: dict[bytes, None] = {}
        self._identified: dict[bytes, None] = {}
        self.tally = Tally()

    def read(self, lines: Iterable[bytes], clock: Clock) -> int:
        """Take in the lines of one log; returns `Clock.excess`: if that is not 0 nothing was taken in."""
        tally = Tally()
        first = last = 0.0
        for line in lines:
            tally.lines += 1
            if _WANTED.search(line) is None:
                continue
            line = logtime.unpacked(line)
            moment, start = clock.read(line)
            if moment is None:
                tally.undated += 1
                continue
            first, last = min(first or moment, moment), max(last, moment)
            series = self._series(line[start:], moment, tally)
            if series and self._since <= moment < self._until:
                tally.bins.add(series, moment)
                tally.counted += 1
        if excess := clock.excess:
            self._waiting.clear()
            return excess
        if last:
            tally.spans.append((first, last + 60))
        self.tally.merge(tally)
        return 0

    def _series(self, line: bytes, moment: float, tally: Tally) -> str:
        """What a line counts for; "" for nothing."""
        head = _PROGRAM.match(line)
        if head is None:
            return ""
        tally.known += 1
        text, program = line[head.end() :].rstrip(b"\r\n"), head[1]
        if program in (b"sm-mta", b"sendmail"):
            return self._sendmail(text, moment, tally)
        if program in (b"smtpd", b"cleanup", b"postscreen"):
            return self._reply(program, text, moment, tally)
        if program.endswith(b"qmgr"):
            queued = _QUEUED.match(text)
            return self._taken(queued[1]) if queued else ""
        if program == b"amavis":
            return SPAM if _AMAVIS.match(text) else ""
        return self._spamd(text, head[2] or head[3] or b"")

    def _reply(self, program: bytes, text: bytes, moment: float, tally: Tally) -> str:
        """What a line of a program counts for that speaks with clients."""
        if client := _CLIENT.match(text):
            if client[1] != b"NOQUEUE" and not _OWN.match(client[2]):
                self._wait(self._waiting, client[1])
            return ""
        if _PROXY.match(text):
            return ACCEPTED
        if program == b"cleanup":
            if held := _HELD.match(text):
                return self._taken(held[1])
            if _CHECKED.match(text):
                return REJECTED
        return self._refused(program, text, moment, tally)

    def _refused(self, program: bytes, text: bytes, moment: float, tally: Tally) -> str:
        """Which kind of refusal a line tells of; "" for none."""
        reject = _REJECT.match(text)
        kind = reject and (reject[1] or reject[2])
        if not reject or not kind:
            return ""
        if kind == b"5":
            return REJECTED
        said = _unquoted(reject[3]).strip()
        if program == b"postscreen" and said.startswith(_POSTSCREEN):
            return GREYLISTED
        return self._put_off(said, moment, tally)

    def _put_off(self, said: bytes, moment: float, tally: Tally) -> str:
        """Which kind of temporary refusal a text is."""
        if self._texts.are_own(said):
            tally.seen(moment)
            return GREYLISTED
        return GREYLISTED if self._texts.are_greylisting(said) else DEFERRED

    def _sendmail(self, text: bytes, moment: float, tally: Tally) -> str:
        """What a line of Sendmail's counts for."""
        event = sendmaillog.event(_unquoted(text))
        if event is None:
            return ""
        match event.kind:
            case Kind.BEGUN:
                self._wait(self._waiting, event.queue_id)
                return ""
            case Kind.GIVEN_ON:
                return self._taken(event.queue_id)
            case Kind.REJECTED | Kind.DEFERRED:
                # A refusal after the recipients is one of the message.
                self._waiting.pop(event.queue_id, None)
                rejected = event.kind is Kind.REJECTED
                return REJECTED if rejected else self._put_off(event.said, moment, tally)

    def _taken(self, queue_id: bytes) -> str:
        """A message is complete: its first time in the queue counts, not each time that it is tried again."""
        if queue_id not in self._waiting:
            return ""
        del self._waiting[queue_id]
        return ACCEPTED

    def _spamd(self, text: bytes, process: bytes) -> str:
        """spamd says it twice for each message, spampd once."""
        if _IDENTIFIED.match(text):
            self._wait(self._identified, process)
            return SPAM
        if _RESULT.match(text):
            known = process in self._identified
            self._identified.pop(process, None)
            return "" if known else SPAM
        return ""

    @staticmethod
    def _wait(waiting: dict[bytes, None], key: bytes) -> None:
        waiting.pop(key, None)  # a queue id is used again: it goes to the end
        waiting[key] = None
        if len(waiting) > MOST_WAITING:
            del waiting[next(iter(waiting))]


def _unquoted(text: bytes) -> bytes:
    """A text without what stands between angle brackets."""
    # Up to the last closing one, lest each opening one after it be followed to the end of the line.
    end = text.rfind(b">") + 1
    return _QUOTED.sub(b"", text[:end]) + text[end:]
