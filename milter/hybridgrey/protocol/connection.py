"""One connection of an MTA: bytes in, one event at a time, bytes out.

An event is taken out only when it is wanted, not when its bytes come: macros are then those in force at
that command, however much an MTA has sent in one write, and a verdict that takes time holds the rest back.
`next_event` gives none while a reply is due, while too much output waits for a peer that does not read, and
after the end. What has come and is not yet taken is bounded, so is what waits to be sent.

Order of commands: the offer first and once, then any. libmilter ignores a command out of order and leaves the
MTA waiting; here it is told as it comes, and the filter judges a RCPT without MAIL or CONNECT by what it has.
Steps that the terms do without are not told, and answered "continue" if the MTA sends them all the same.
"""

from __future__ import annotations

from hybridgrey.protocol import replies, wire
from hybridgrey.protocol.events import Event, Negotiate
from hybridgrey.protocol.macros import FOR_CONNECT, FOR_MAIL, Macros
from hybridgrey.protocol.steps import CONTINUE, DUE, END, END_OF_TRANSACTION, Plan, plan
from hybridgrey.protocol.terms import Agreement, Terms
from hybridgrey.protocol.wire import HEAD, NotAllowedError, ProtocolError

SLACK = 65_536
"""Bytes that may come beyond one frame: what one read of a socket gives."""
MOST_OUTPUT = 65_536
"""Bytes that may wait for the MTA before it gets no more events."""

_CONTINUED = replies.CONTINUE[4]
_LEAST = HEAD.size
_head = HEAD.unpack_from


class Connection:
    """The state of one connection.

    `output`: bytes to send. `due`: the letter of the command whose reply is awaited, or 0. `closed`: the MTA
    has quit, or broken the protocol. `agreement`: what was negotiated, None before. `macro`: gives a macro's
    value at the event that was taken last, None if the MTA has sent none (see `Macros.get`).
    """

    __slots__ = (
        "_at",
        "_data",
        "_largest",
        "_macros",
        "_more",
        "_need",
        "_over",
        "_plan",
        "_terms",
        "agreement",
        "closed",
        "due",
        "macro",
        "output",
    )

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        # Input: `_data` from `_at` on, then `_more`. `_need`: how many bytes the next step wants.
        self._data = b""
        self._at = 0
        self._more = bytearray()
        self._need = _LEAST
        self._largest = wire.LARGEST + 1
        self._plan: Plan = {}
        self._macros = Macros()
        self.macro = self._macros.get
        # The stage from which on macros are to be forgotten.
        self._over: int | None = None
        self.agreement: Agreement | None = None
        self.output = b""
        self.due = 0
        self.closed = False

    # -- input

    def receive(self, data: bytes) -> None:
        """Take bytes from the socket, at most SLACK at once.

        Raises ProtocolError when more comes than an MTA has to send before it reads.
        """
        if self._at == len(self._data) and not self._more:
            self._data = data
            self._at = 0
        elif not self.closed:
            # Joined once when a frame is complete: a peer that sends single bytes must not cost a copy of
            # all for each.
            self._more += data
            if self._held() > self._largest + 4 + SLACK:
                self.closed = True
                raise ProtocolError("more than one frame in advance")

    def _held(self) -> int:
        return len(self._data) - self._at + len(self._more)

    @property
    def full(self) -> bool:
        """Whether to read no more before an event was taken, which may want a reply or room for output."""
        return self._held() >= max(SLACK, self._need)

    def next_event(self) -> Event | None:
        """The next command, if there is one and its turn has come; ProtocolError ends the connection."""
        if self.due or self.closed or len(self.output) >= MOST_OUTPUT:
            return None
        if self._over is not None:
            self._macros.forget(self._over)
            self._over = None
        if self._at == len(self._data) and not self._more:
            # An idle connection is to hold no memory.
            self._data, self._at = b"", 0
            return None
        try:
            return self._next()
        except ProtocolError:
            self.closed = True
            raise

    def _next(self) -> Event | None:
        data, at = self._data, self._at
        size = len(data)
        while True:
            if size - at < self._need:
                if not self._join():
                    return None
                data, at = self._data, 0
                size = len(data)
                continue
            length, letter = _head(data, at)
            end = at + 4 + length
            if end > size or not 0 < length <= self._largest:
                self._await(length)
                continue
            payload = data[at + 5 : end]
            self._at = at = end
            self._need = _LEAST
            found = self._plan.get(letter)
            if found is None:
                return self._other(letter, payload)
            read, follows, stage = found
            if read is None:
                self._macros.take(payload)
                continue
            if stage >= 0:
                self._macros.begin(stage)
            event = read(payload)
            if follows:
                self._follow(follows, letter)
            if event is not None:
                return event

    def _follow(self, follows: int, letter: int) -> None:
        if follows == DUE:
            self.due = letter
        elif follows == CONTINUE:
            self.output += replies.CONTINUE
        else:
            # Its macros go when the next event is taken: this last one may want them.
            self._over = FOR_MAIL if follows == END_OF_TRANSACTION else FOR_CONNECT
            self.closed = follows == END

    def _join(self) -> bool:
        """Make one piece of the input; False if what is wanted next has not come."""
        if not self._more or self._held() < self._need:
            return False
        self._data = self._data[self._at :] + self._more
        self._at = 0
        self._more.clear()
        return True

    def _await(self, length: int) -> None:
        """The frame at hand is not all there."""
        if not 0 < length <= self._largest:
            raise ProtocolError(f"a frame of {length} bytes")
        self._need = length + 4

    def _other(self, letter: int, payload: bytes) -> Negotiate:
        """The offer; no other command comes before it, nor an unknown one ever."""
        if letter != wire.OPTNEG or self.agreement is not None:
            raise ProtocolError(f"command {letter:#x} is unknown, or not for now")
        self.agreement = made = self._terms.agree(payload)
        self._plan = plan(made.unused, made.silent, made.steps)
        self._largest = made.largest + 1
        self._macros.forget(FOR_CONNECT)
        self.output += made.answer
        return Negotiate(made.version, made.actions, made.steps)

    # -- output

    def sent(self, count: int) -> None:
        """The first `count` bytes of `output` have gone."""
        output = self.output
        self.output = b"" if count == len(output) else output[count:]

    def reply(self, frame: bytes) -> None:
        """Answer the command whose reply is due, with a frame of `replies`."""
        due = self.due
        letter = frame[4]
        if letter != _CONTINUED or not due:
            self._check_reply(due, letter)
        if due == wire.END_OF_MESSAGE:
            self._over = FOR_MAIL
        self.due = 0
        self.output += frame

    def _check_reply(self, due: int, letter: int) -> None:
        if not due:
            raise NotAllowedError("no reply is due")
        if letter not in replies.REPLIES:
            raise NotAllowedError(f"{chr(letter)!r} is no reply")
        if letter == replies.DISCARD[4] and due in (wire.CONNECT, wire.HELO):
            raise NotAllowedError("there is no message to discard")
        if letter == replies.SKIP[4] and (due != wire.BODY or not self._agreed_step(wire.CAN_SKIP)):
            raise NotAllowedError("the MTA cannot skip this")

    def edit(self, frame: bytes) -> None:
        """Change the message, before the reply to its end; a frame of `replies`."""
        action = replies.EDITS.get(frame[4])
        if action is None or self.due != wire.END_OF_MESSAGE:
            raise NotAllowedError("edits are for the end of a message")
        if self.agreement is None or not self.agreement.actions & action:
            raise NotAllowedError(f"action {action:#x} was not agreed")
        self.output += frame

    def add_header(self, name: bytes, value: bytes) -> None:
        """Add a header after all others; its value without the space after the colon."""
        self.edit(replies.header_added(name, self._spaced(value)))

    def insert_header(self, index: int, name: bytes, value: bytes) -> None:
        """Add a header before the one at `index`, 0 being the first of all."""
        self.edit(replies.header_inserted(index, name, self._spaced(value)))

    def change_header(self, index: int, name: bytes, value: bytes) -> None:
        """Give the `index`-th header of a name, counted from 1, another value; an empty one deletes it."""
        self.edit(replies.header_changed(index, name, self._spaced(value) if value else value))

    def _spaced(self, value: bytes) -> bytes:
        """With LEADING_SPACE the MTA puts none after the colon."""
        if self._agreed_step(wire.LEADING_SPACE) and not value.startswith((b" ", b"\t")):
            return b" " + value
        return value

    def _agreed_step(self, step: int) -> bool:
        return self.agreement is not None and bool(self.agreement.steps & step)

    def progress(self) -> None:
        """Tell the MTA that the reply will come."""
        if not self.due:
            raise NotAllowedError("no reply is due")
        self.output += replies.PROGRESS
