"""SPF for a mail: whom it is asked about, and what the result is for rules and greylist.

It is asked when it is first wanted, once a transaction.  A time-out or failure is RFC 7208's temperror, which
rules take for unknown unless they name it.
"""

from __future__ import annotations

from typing import Protocol

from hybridgrey.filter.awaited import Steps
from hybridgrey.filter.transaction import Transaction
from hybridgrey.policy.conditions import UNKNOWN, Spf, Unknown
from hybridgrey.spf.carrier import Chain
from hybridgrey.spf.evaluate import Identity, Outcome


class Carrier(Protocol):
    """What carries SPF's questions (`spf.carrier.Carrier`)."""

    def begin(self, identity: Identity) -> Chain[Outcome]:
        """Start to check a client."""


def learn(carrier: Carrier | None, mail: Transaction) -> Steps[Spf | Unknown]:
    """The result for a mail; kept with it."""
    if mail.spf is None:
        mail.spf = yield from _asked(carrier, mail)
    return mail.spf


def _asked(carrier: Carrier | None, mail: Transaction) -> Steps[Spf | Unknown]:
    who = None if carrier is None else identity(mail)
    if carrier is None or who is None:
        return UNKNOWN
    if mail.chain is None:
        mail.chain = carrier.begin(who)
    yield from mail.chain.collect()
    outcome = mail.chain.outcome
    if outcome is None:
        return UNKNOWN
    carried = mail.client.source.carried
    # Whoever announces 6to4 or Teredo to us can have all their addresses (see `clientaddress`).
    proves = outcome.proven and (carried is None or carried.proven)
    proved = mail.sender.domain if proves else ""
    return Spf(outcome.result.value, proved)


def identity(mail: Transaction) -> Identity | None:
    """Who sends for whom, None where that is not known.

    For ``<>`` it is the HELO name (RFC 7208 section 2.4); a mailbox without a domain has no record.  Of a
    client that comes through a translator the IPv4 address counts, if that is proven.
    """
    sender, source = mail.sender, mail.client.source
    address, carried = source.packed, source.carried
    if address is None or not sender.certain or (sender.null and not mail.helo):
        return None
    if carried is not None and carried.proven:
        address = carried.address
    helo = mail.helo or ""
    if sender.null:
        return Identity.of(address, "", "", helo)
    # Without a domain `of` would take HELO's.
    return Identity.of(address, sender.domain or "localhost", sender.local, helo)
