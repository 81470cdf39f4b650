"""Lore of well-known DNS lists: what they do differently, what their codes mean, who may not ask them.

A zone is known by the end of its name, so that one with a customer's key before it is known too.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from hybridgrey.policy.pattern import Pattern

# RFC 5782 section 5: every list has 127.0.0.2 and never has 127.0.0.1.
TEST_LISTED: Final = "127.0.0.2"
TEST_UNLISTED: Final = "127.0.0.1"

REFUSED: Final = Pattern.parse("127.255.255.[0..255]")
"""Spamhaus: query refused, by a public resolver or over the limit; others have taken the range over."""

PUBLIC_RESOLVERS: Final = frozenset(
    str(ipaddress.ip_address(a))
    for a in (
        *("8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"),
        *("1.1.1.1", "1.0.0.1", "2606:4700:4700::1111", "2606:4700:4700::1001"),
        *("9.9.9.9", "9.9.9.10", "149.112.112.112", "2620:fe::fe", "2620:fe::9"),
        *("208.67.222.222", "208.67.220.220", "2620:119:35::35", "2620:119:53::53"),
        *("4.2.2.1", "4.2.2.2", "94.140.14.14", "94.140.15.15"),
    )
)
"""Lists refuse queries that come through these, for some with an answer that looks like a listing."""

GRADED: Final[Mapping[str, str]] = {
    "dnswl.org": "it lists clients without a reputation too; name codes, as =127.0.[0..255].[2..3]",
    "rep.mailspike.net": "it lists clients of bad reputation too; name codes, as =127.0.0.[18..20]",
    "hostkarma.junkemailfilter.com": "it lists good and bad clients; name codes, as =127.0.0.2",
}
"""Lists whose codes say how good or how bad a client is: without codes both count."""


@dataclass(frozen=True, slots=True)
class Quirk:
    """What a well-known list does differently from RFC 5782; a test point None: not to be asked."""

    errors: tuple[str, ...] = ()
    listed: str | None = TEST_LISTED
    unlisted: str | None = TEST_UNLISTED


_QUIRKS: Final[Mapping[str, Quirk]] = {
    # Over the free quota every question, 127.0.0.1 too, is answered 127.0.0.255 or 127.0.10.x.
    "dnswl.org": Quirk(errors=("127.0.0.255", "127.0.10.[0..255]")),
    # 127.0.0.1 is its code for "good", and the address itself is listed on purpose.
    "hostkarma.junkemailfilter.com": Quirk(unlisted=None),
}
_NO_QUIRK: Final = Quirk()

# The Data Query Service: KEY.zen.dq.spamhaus.net is zen.spamhaus.org for the customer with that key.
_SPAMHAUS_KEYED: Final = re.compile(r"[a-z0-9]+\.([a-z0-9-]+)\.dq\.spamhaus\.net")


def quirk(zone: str) -> Quirk:
    """What is built in for a list."""
    return next((_QUIRKS[end] for end in _ends(zone) if end in _QUIRKS), _NO_QUIRK)


def error_of(code: bytes, errors: Iterable[Pattern]) -> str:
    """Why a return code is no vote, "" for one that is; `errors` are the list's own error codes."""
    shown = ".".join(map(str, code))
    if code[0] != 127:
        return f"answers {shown}, outside 127.0.0.0/8"
    if REFUSED.matches(code):
        return f"answers {shown}, query refused"
    if any(p.matches(code) for p in errors):
        return f"answers {shown}, an error code of this list"
    return ""


def graded(zone: str) -> str:
    """Why a list wants return codes, and which; "" for one that does not."""
    return next((GRADED[end] for end in _ends(zone) if end in GRADED), "")


def public_label(zone: str) -> str:
    """The name that may be shown: without the customer's key that Spamhaus puts before its zones."""
    keyed = _SPAMHAUS_KEYED.fullmatch(zone)
    return f"{keyed[1]}.spamhaus.org" if keyed else zone


def _ends(zone: str) -> list[str]:
    labels = zone.split(".")
    return [".".join(labels[i:]) for i in range(len(labels))]
