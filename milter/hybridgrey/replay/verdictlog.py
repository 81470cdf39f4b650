"""Our own log as messages: verdicts on one triplet, put together until one let the mail in or rejected it.

A verdict does not say which mail it is about. So verdicts of the same client network, sender and recipient,
by the folds of the greylist, are attempts of one message until one is accepted or rejected, or until
`GIVE_UP` after the first. In observe mode all mail was let in: there each verdict is a message of its own.

What the log does not say: retries of mail that was let in or rejected, for there were none; whether a client
that was not let in for it had logged in; and which of the lists that were asked did not have the client. A
list that the log names anywhere was asked, so where it is absent it counts as "not listed"; one that the log
never names is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from hybridgrey import envelope, logline
from hybridgrey.clientaddress import ClientReader
from hybridgrey.greylist import normalise
from hybridgrey.outcome import Outcome, Reason, outcome_of_event
from hybridgrey.policy.conditions import UNKNOWN
from hybridgrey.replay import messages
from hybridgrey.replay.messages import Attempt, DamageError, Message

GIVE_UP: Final = 5 * 86_400
"""Seconds; for so long an MTA tries at most by default (Postfix and Sendmail: 5 days; RFC 5321 4.5.4.1)."""
PREFIXES: Final = (24, 64)
"""Bits of the network in which a retry may come from another address: the greylist's defaults."""


class Logged(NamedTuple):
    """A verdict: the attempt, and whether the message ended with it: let in, or rejected for good."""

    attempt: Attempt
    sender: str
    recipient: str
    ended: bool


def logged(event: Mapping[str, Any]) -> Logged:
    """An event ``verdict``; raises DamageError."""
    sender, recipient = event.get("sender"), event.get("recipient")
    if not isinstance(sender, str) or not isinstance(recipient, str):
        raise DamageError("a verdict without sender or recipient")
    carried_out = event.get("enforced") is not False
    outcome = outcome_of_event(event)
    attempt = Attempt(
        messages.moment(logline.moment(event.get("ts"))),
        messages.client(event.get("client")),
        messages.name(event, "host"),
        messages.name(event, "helo"),
        True if event.get("reason") == Reason.LOGGED_IN else UNKNOWN,
        messages.heard(event.get("lists") or {}),
        True,
        *messages.spf(event),
        pools=messages.pools(event),
        correspondent=messages.flag(event, "correspondent"),
        expected=True if event.get("reason") == Reason.EXPECTED else UNKNOWN,
        score=messages.score(event) if event.get("score") is not None else UNKNOWN,
    )
    ended = not carried_out or outcome in (Outcome.ACCEPTED, Outcome.REJECTED)
    return Logged(attempt, sender, recipient, ended)


def grouped(verdicts: Iterable[Logged]) -> Iterator[Message]:
    """The messages that verdicts, in whatever order, are about."""
    reader = ClientReader()
    open_: dict[tuple[str, str, str], list[Logged]] = {}
    for one in sorted(verdicts, key=_order):
        network = normalise.client_network(one.attempt.client, *PREFIXES, reader)
        key = network, _folded(one.sender), normalise.recipient(one.recipient)
        before = open_.get(key)
        if before and one.attempt.at - before[0].attempt.at > GIVE_UP:
            yield _message(open_.pop(key))
        open_.setdefault(key, []).append(one)
        if one.ended:
            yield _message(open_.pop(key))
    yield from map(_message, open_.values())


def _order(one: Logged) -> tuple[float, str]:
    return one.attempt.at, repr(one)


def _folded(sender: str) -> str:
    return normalise.sender(envelope.read(sender).key)


def _message(verdicts: list[Logged]) -> Message:
    first, last = verdicts[0], verdicts[-1]
    attempts = tuple(one.attempt for one in verdicts)
    return Message("", "", first.sender, first.recipient, attempts, last.ended)
