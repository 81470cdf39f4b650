"""All entries by hand as a worker has them: one question for each recipient; no store, no clock.

Of the entries that name one client the most specific counts: a single address, then a host name, then
networks from narrow to wide, then ``.domain`` from long to short.  So it is for a sender and for a
recipient: a mailbox, one with any extension, a local part at any domain, a domain, ``.domain``.  A block of
one address holds inside an allowed network, and the other way round.  Between client, sender and recipient
nothing is weighed: all that is said holds, and the order of the rules decides.

A sender's address proves nothing: who is allowed by it is allowed only where SPF passes.  Where it does
not, the entry keeps a wider block off all the same: an SPF failure may be a time-out, of which no refusal
must follow.

`Index` finds them as it does for rules.  What is a rule there is a *rank* here, all entries of one kind
that are equally specific, so masks stay short however many entries there are.  An IPv4 address inside an
IPv6 one that is not proven only speaks against the client, as it does for rules.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from hybridgrey.clientaddress import Carried
from hybridgrey.envelope import Mailbox
from hybridgrey.hand.entries import About, Entry, Subject
from hybridgrey.policy import match
from hybridgrey.policy.conditions import NO_ENTRY, UNKNOWN, ByHand, Hand, Unknown
from hybridgrey.policy.match import Index

Rank: TypeAlias = tuple[int, int]


def _client_rank(subject: Subject) -> Rank:
    key = subject.key
    if not isinstance(key, str):
        left = key.max_prefixlen - key.prefixlen
        return (2, left) if left else (0, 0)
    if key.startswith("."):
        return 3, -len(key)
    return 1, -len(key) if "*" in key else -1000  # a name in full before one with a wildcard


def _mailbox_rank(subject: Subject) -> Rank:
    key = str(subject.key)
    local, at, domain = key.rpartition("@")
    if not at:
        return (5, -len(key)) if key.startswith(".") else (0 if key == match.NULL_SENDER else 4, 0)
    return (0 if domain else 2) + local.endswith("+*"), 0


class _Ranked:
    """The entries about one thing, the most specific first."""

    def __init__(self, entries: Iterable[Entry], rank: Callable[[Subject], Rank]) -> None:
        groups: dict[tuple[Rank, bool], list[match.Entry]] = {}
        for entry in entries:
            place = rank(entry.subject), entry.kind is Hand.ALLOW
            groups.setdefault(place, []).append(match.Entry(entry.subject.key))
        order = sorted(groups)
        self.index = Index([groups[place] for place in order])
        self.blocks = sum(1 << i for i, (_, allows) in enumerate(order) if not allows)
        self.any = bool(order)

    def blocked(self, mask: int) -> bool:
        """Whether the most specific of the ranks in a mask, which is not empty, blocks."""
        return bool(mask & -mask & self.blocks)


class Table:
    """The entries that hold; it never changes, and an empty one is false."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries = tuple(entries)
        self._ends = min((entry.until for entry in self.entries if entry.until), default=0)
        about = {kind: [e for e in self.entries if e.subject.about is kind] for kind in About}
        self._clients = _Ranked(about[About.CLIENT], _client_rank)
        self._senders = _Ranked(about[About.SENDER], _mailbox_rank)
        self._recipients = _Ranked(about[About.RECIPIENT], _mailbox_rank)

    def __bool__(self) -> bool:
        return bool(self.entries)

    def at(self, now: float) -> Table:
        """The table of those whose time is not over at `now`, Unix seconds; itself while that is all."""
        if not self._ends or now < self._ends:
            return self
        return Table(entry for entry in self.entries if not entry.over(now))

    def of(
        self,
        packed: bytes | None,
        carried: Carried | None,
        host: str | None,
        sender: Mailbox,
        recipient: Mailbox,
    ) -> ByHand | Unknown:
        """What is said of a client (see `Index.client`), a sender and a recipient.

        Unknown where nothing is said, but would perhaps be if an uncertain address could be read.
        """
        allowed = blocked = by_spf = False
        if self._clients.any and (mask := self._client(packed, carried, host)):
            blocked = self._clients.blocked(mask)
            allowed = not blocked
        if self._senders.any and (mask := self._senders.index.mailbox(sender)):
            by_spf = not self._senders.blocked(mask)
            blocked = blocked or not by_spf
        if self._recipients.any and (mask := self._recipients.index.mailbox(recipient)):
            refused = self._recipients.blocked(mask)
            blocked, allowed = blocked or refused, allowed or not refused
        if allowed or blocked or by_spf:
            return ByHand(allowed, blocked, by_spf)
        unread = (self._senders.any and not sender.certain) or (
            self._recipients.any and not recipient.certain
        )
        return UNKNOWN if unread else NO_ENTRY

    def _client(self, packed: bytes | None, carried: Carried | None, host: str | None) -> int:
        return self._clients.index.client(packed, host, carried, self._clients.blocks)

    def naming(
        self,
        packed: bytes | None,
        carried: Carried | None,
        host: str | None,
        sender: Mailbox | None,
        recipient: Mailbox | None,
    ) -> list[Entry]:
        """The entries that name them, the most specific first of each; slow, for people who look."""
        found: list[tuple[str, Rank, bool, Entry]] = []
        for entry in self.entries:
            about, alone = entry.subject.about, Table([entry])
            if about is About.CLIENT:
                named, rank = alone._client(packed, carried, host), _client_rank(entry.subject)
            else:
                box = sender if about is About.SENDER else recipient
                ranked = alone._senders if about is About.SENDER else alone._recipients
                named = ranked.index.mailbox(box) if box is not None else 0
                rank = _mailbox_rank(entry.subject)
            if named:
                found.append((about, rank, entry.kind is Hand.ALLOW, entry))
        return [entry for *_, entry in sorted(found, key=lambda one: one[:3])]


EMPTY: Final = Table()
