"""Correspondents are learnt behind: after the message has gone on, by a thread of its own.

No mail waits for it and none fails by it.  What finds the queue full or the store down is not learnt; that is
told once.  A message counts when it has come to its end here; whether a later milter or the MTA refuses it
then is not known.
"""

from __future__ import annotations

import queue
import threading
from typing import Final, NamedTuple

from hybridgrey import logs
from hybridgrey.envelope import Mailbox
from hybridgrey.filter.blocking import Blocking, Scripts
from hybridgrey.filter.transaction import Transaction
from hybridgrey.hand.correspondents import Correspondents, is_taught, may_learn
from hybridgrey.store.connection import StoreError
from hybridgrey.trouble.reporter import Report

MOST_WAITING: Final = 1000
"""Messages."""
KIND: Final = "correspondents"
_END_WAIT: Final = 1.0


class _Message(NamedTuple):
    sender: Mailbox
    recipients: list[Mailbox]


class Learner:
    """One for each worker; the thread begins with the first message that teaches."""

    def __init__(self, correspondents: Correspondents, store: Scripts, reports: Report) -> None:
        self._correspondents = correspondents
        self._blocking = Blocking(store)
        self._reports = reports
        self._queue: queue.Queue[_Message | None] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def note(self, mail: Transaction, recipient: Mailbox, mailer: str) -> None:
        """A recipient was let in by a rule that learns; `mailer` is its ``{rcpt_mailer}``."""
        # Of a message to too many nothing is kept, nor the first of them longer than need be.
        if self._too_many(mail):
            mail.written.clear()
        elif may_learn(mail.sender) and is_taught(recipient, mailer):
            mail.written.append(recipient)

    def learn(self, mail: Transaction) -> None:
        """The message has come to its end: remember whom it goes to."""
        if not mail.written or self._too_many(mail):
            return
        try:
            self._queue.put_nowait(_Message(mail.sender, mail.written))
        except queue.Full:
            self._reports.failing(KIND, error="more messages than the store takes")
            return
        self._start()

    def _too_many(self, mail: Transaction) -> bool:
        return mail.recipients > self._correspondents.terms.max_recipients

    def _start(self) -> None:
        """Begin the thread, once: callbacks come from several."""
        if self._thread is not None:
            return
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="correspondents", daemon=True)
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        while (message := self._queue.get()) is not None:
            try:
                self._blocking.run(self._correspondents.learn(*message))
            except StoreError as error:
                self._reports.failing(KIND, error=str(error))
            except Exception as error:
                # A bug; the next message is learnt all the same.
                self._reports.failing(KIND, error=repr(error))
                logs.get().error("correspondents are not learnt", exc_info=error)
            else:
                self._reports.recovered(KIND)

    def close(self) -> None:
        """Learn what waits, for a second at most."""
        if self._thread is None:
            return
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(_END_WAIT)
