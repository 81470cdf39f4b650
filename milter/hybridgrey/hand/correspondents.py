"""Correspondents: whom we have written to.  Their answers need not wait, if SPF proves where they come from.

`ask` looks for the envelope sender as it is, not folded: who answers, answers as the address that we wrote
to.  `learn` remembers the recipients of a message of ours; each mail lets them live on.  One sender gets
`max_daily` new ones in a day of the store's clock (UTC), and a message to more than `max_recipients` teaches
nothing: a stolen password must not open the greylist to the world.

Every key stands alone, so that a Cluster may keep it anywhere, and expires by itself:

    hg1:wrote:user@example.net          a correspondent; when we wrote last
    hg1:wrote+:ann@example.org          how many new ones a sender had on a day

With a ``key_secret`` the addresses are HMACs.
"""

from __future__ import annotations

import enum
from collections.abc import Generator, Sequence
from typing import Final, Protocol

from hybridgrey.envelope import Mailbox
from hybridgrey.hand.hidden import hidden
from hybridgrey.store.connection import Call, Script, StoreError

PREFIX: Final = b"hg1:wrote:"
COUNT: Final = b"hg1:wrote+:"
_SCRIPT: Final = Script.installed("hybridgrey.hand", "correspondents.lua")
_STRANGE: Final = "the store gave an answer that the script of correspondents does not give"
# Mailers of Postfix and Sendmail that deliver here or to who belongs here (Postfix: relay_domains).  Of mail
# that no client brought (non_smtpd_milters) Postfix does not tell the mailer; then our own are learnt, which
# costs nothing but their keys.
# Postfix resolves a virtual alias domain to error; nobody else gets mail by it, nor by discard.
_OUR_OWN: Final = frozenset({"local", "virtual", "lmtp", "relay", "error", "discard"})


class Terms(Protocol):
    """``[correspondents]``; `lifetime` in seconds."""

    @property
    def lifetime(self) -> int:
        """How long one is remembered after the last mail to it."""

    @property
    def max_recipients(self) -> int:
        """A message to more teaches nothing."""

    @property
    def max_daily(self) -> int:
        """New ones of one sender in a day."""


class Brought(enum.IntEnum):
    """What became of somebody brought along."""

    KEPT = 0
    LONGER = 1
    NEW = 2


class Correspondents:
    """Those of one store; thread safe."""

    def __init__(self, terms: Terms, key_secret: str = "") -> None:
        self.terms = terms
        self._secret = key_secret.encode("utf-8", "surrogatepass")

    def ask(self, sender: Mailbox) -> Call:
        """The call that says whether a sender is one; `read` takes the reply."""
        return Call(_SCRIPT, (self.key(sender),), (b"ask",))

    @staticmethod
    def read(reply: Sequence[int]) -> bool:
        """What the store has answered to `ask`.  Raises StoreError for what the script does not answer."""
        return _number(reply) > 0

    def learn(self, sender: Mailbox, recipients: Sequence[Mailbox]) -> Generator[Call, list[int], int]:
        """Remember whom a message goes to; how many are new.  Yields calls; is resumed with their replies.

        Calls are few: one for each recipient that is known, another for a new one, and one for the count.
        """
        fresh: list[Mailbox] = []
        # A client may name a recipient twice; he is new once.
        for recipient in {box.key: box for box in recipients}.values():
            if not _number((yield self._call(recipient, b"renew"))):
                fresh.append(recipient)
        if not fresh:
            return 0
        count = self._key(COUNT, sender)
        granted = _number((yield Call(_SCRIPT, (count,), (b"grant", len(fresh), self.terms.max_daily))))
        for recipient in fresh[:granted]:
            yield self._call(recipient, b"put")
        return min(granted, len(fresh))

    def bring(self, address: Mailbox, age: int) -> Call:
        """The call by which somebody whom we wrote to `age` seconds ago is one; `outcome` takes the reply.

        For who is one already it never gets worse.  `age` is less than `lifetime`.
        """
        return Call(_SCRIPT, (self.key(address),), (b"bring", self.terms.lifetime - age, age))

    def would_bring(self, address: Mailbox, age: int) -> Call:
        """The call that says what `bring` would come to, and changes nothing."""
        call = self.bring(address, age)
        return call._replace(args=(b"would", *call.args[1:]))

    @staticmethod
    def outcome(reply: Sequence[int]) -> Brought:
        """What `bring` came to.  Raises StoreError for what the script does not answer."""
        try:
            return Brought(_number(reply))
        except ValueError as error:
            raise StoreError(_STRANGE) from error

    def key(self, address: Mailbox) -> bytes:
        """Where the store has a correspondent."""
        return self._key(PREFIX, address)

    def _call(self, recipient: Mailbox, doing: bytes) -> Call:
        return Call(_SCRIPT, (self.key(recipient),), (doing, self.terms.lifetime))

    def _key(self, kind: bytes, box: Mailbox) -> bytes:
        address = box.key.encode("utf-8", "surrogatepass")
        return kind + (hidden(self._secret, kind, address) if self._secret else address)


def may_learn(sender: Mailbox) -> bool:
    """Whether a sender's mail teaches anything: a bounce does not, nor one whose sender is uncertain."""
    return sender.certain and not sender.null


def is_taught(recipient: Mailbox, mailer: str) -> bool:
    """Whether a recipient is somebody else's, to be remembered; `mailer` is ``{rcpt_mailer}``."""
    return recipient.certain and not recipient.null and mailer.lower() not in _OUR_OWN


def _number(reply: Sequence[int]) -> int:
    if len(reply) == 1 and isinstance(reply[0], int):
        return reply[0]
    raise StoreError(_STRANGE)
