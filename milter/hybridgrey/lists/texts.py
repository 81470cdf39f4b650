"""The words that lists give for a listing, learnt, so that a refusal has them without another round trip.

The TXT record of a listing cannot change the verdict, so RCPT should not wait for it; yet the sender of a
refused letter needs it.  For nearly all lists it is one text for all listings with a return code, but for the
client's address in it: ``https://check.example/query/ip/192.0.2.1``.  Two clients whose texts agree but for
their own address show that a list is one of these, and from then on its text is filled in instead of asked
for.  A text without the address in it (a reference to one listing, say) is never taken for another client's,
nor is one with a longer number beside it: two neighbours may share a network, a provider's AS or a date.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Seconds for which a learnt text is used before the list is asked again: lists change their words rarely.
LIFETIME = 3600.0
# Texts kept: lists times return codes, which a list that answers at random must not make grow.
MOST = 512
# So many clients tell whether a list's text can be learnt; they are made to wait for it.
SAMPLES = 2
# A list whose text came within this time (seconds) is worth waiting for also when its text cannot be learnt.
QUICK = 0.01

Codes = tuple[bytes, ...]

_ADDRESS = "\0"
# Numbers of one listing (UCEPROTECT: "Net 192.0.2.0/24 is …, see …?ipr=192.0.2.1"), or a longer address in
# which the client's was found.
_PARTICULAR = re.compile(r"[0-9]{2}|\0\.?[0-9]|[0-9]\.?\0")


@dataclass(frozen=True, slots=True)
class _Text:
    """What was told last; `template` None: it cannot be filled in for others."""

    template: str | None
    client: str
    confirmed: bool
    samples: int
    expires: float


class Reasons:
    """What is known of the lists' words, by list, return codes and IP version; safe for threads.

    Each step is one dict operation; two threads that learn at once only learn the same twice.
    """

    def __init__(self) -> None:
        self._texts: dict[tuple[str, Codes, bool], _Text] = {}
        self._far: set[str] = set()

    def __len__(self) -> int:
        return len(self._texts)

    def guess(self, zone: str, codes: Codes, client: str, now: float) -> str | None:
        """The list's text for a client, by what others were told; None if that is not known."""
        known = self._texts.get(_key(zone, codes, client))
        if known is None or not known.confirmed or known.template is None or known.expires <= now:
            return None
        return known.template.replace(_ADDRESS, client)

    def learn(self, zone: str, codes: Codes, client: str, text: str, now: float) -> None:
        """A list has told its text for a client, "" if it has none or let us wait in vain."""
        known = self._texts.get(_key(zone, codes, client))
        if known is None and len(self._texts) >= MOST:
            return
        template = _template(text, client)
        agrees = known is not None and template is not None and known.template == template
        other = known is not None and known.client != client
        self._texts[_key(zone, codes, client)] = _Text(
            template=template,
            client=client,
            confirmed=agrees and (other or (known is not None and known.confirmed)),
            # A text that did not come counts each time, or one client alone would be made to wait for ever.
            samples=(known.samples if known else 0) + (other or known is None or not text),
            expires=now + LIFETIME,
        )

    def worth_waiting(self, zone: str, codes: Codes, client: str, now: float) -> bool:
        """Whether a client may be made to wait for the text: to learn it, or because the list is near."""
        known = self._texts.get(_key(zone, codes, client))
        if known is None:
            return len(self._texts) < MOST
        return known.samples < SAMPLES or known.expires <= now or zone not in self._far

    def waited(self, zone: str, seconds: float) -> None:
        """A client was made to wait for a list's text so long."""
        if seconds > QUICK:
            self._far.add(zone)
        else:
            self._far.discard(zone)


def _template(text: str, client: str) -> str | None:
    """A list's text with the client's address left open; None when it holds for nobody else."""
    if client not in text or _ADDRESS in text:
        return None
    template = text.replace(client, _ADDRESS)
    return None if _PARTICULAR.search(template) else template


def _key(zone: str, codes: Codes, client: str) -> tuple[str, Codes, bool]:
    """Lists keep IPv4 and IPv6 apart, in words too."""
    return zone, codes, ":" in client
