"""All numbers about the world, each with its source or, where nobody has measured it, a range.

A share is between 0 and 1. What is *measured* has a source that anybody can read; it has a range too where
two measurements differ, or where it was measured somewhere else. An *assumption* has a guess and a range.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, NamedTuple

DSN: Final = "Pagani et al., Measuring the Role of Greylisting and Nolisting, DSN 2016, slide 22"
LEVINE: Final = "Levine, Greylisting Still Works II, CircleID: hosts greylisted in a week"
HOSTINGER: Final = "Hostinger, January 2026: kinds of the mail that passed its filters"
MX_INDEX: Final = "MailTester Ninja, July 2026: MX of 50,000 domains"
GOOGLE: Final = "Google Online Security Blog, December 2013: mail that Gmail got"
MTAS: Final = "SecuritySpace, December 2023: banners of 609,378 servers"
PHISHING: Final = "7,900 phishing mails of 2022-26 that passed a large provider's filter"
UCEPROTECT: Final = "UCEPROTECT on the NANOG list: CBL, the largest part of zen, had 73.3 %"


class Known(NamedTuple):
    """What is known of a number; `source` is empty for an assumption."""

    name: str
    what: str
    value: float
    low: float
    high: float
    source: str

    @property
    def measured(self) -> bool:
        """Whether somebody has measured it."""
        return bool(self.source)


def _number(what: str, value: float, low: float, high: float, source: str = "") -> Any:
    return field(default=value, metadata={"what": what, "low": low, "high": high, "source": source})


@dataclass(frozen=True, slots=True)
class World:
    """A world; the fields are its numbers."""

    # Legitimate mail: how much, of which kinds, from whom.
    legitimate_daily: float = _number("legitimate messages a day and mailbox", 25, 10, 60)
    personal: float = _number("of it personal, from webmail providers", 0.20, 0.1, 0.4, HOSTINGER)
    small: float = _number("… from domains of companies and people", 0.10, 0.05, 0.4, HOSTINGER)
    newsletters: float = _number("… newsletters and marketing", 0.16, 0.1, 0.3, HOSTINGER)
    codes: float = _number("… login codes and password resets", 0.05, 0.02, 0.10)
    forwarded: float = _number("… forwarded, with SRS", 0.03, 0.0, 0.10)
    new_senders: float = _number("mail of a sender that is new to the mailbox", 0.10, 0.05, 0.25)
    new_codes: float = _number("login codes of a service that is new to the mailbox", 0.30, 0.10, 0.60)
    relations: float = _number("known senders of each kind and mailbox", 20, 8, 50)
    # Where it comes from.
    hosted_google: float = _number("domains of their own at Google", 0.283, 0.15, 0.35, MX_INDEX)
    hosted_microsoft: float = _number("domains of their own at Microsoft", 0.226, 0.15, 0.35, MX_INDEX)
    without_spf: float = _number("small servers whose mail has no SPF pass", 0.109, 0.085, 0.25, GOOGLE)
    services_without_spf: float = _number(
        "services with servers of their own and no SPF pass", 0.03, 0.0, 0.11
    )
    unproven: float = _number("senders whose SPF pass proves nothing", 0.05, 0.0, 0.20)
    spf_failing: float = _number("SPF questions that fail or time out", 0.005, 0.0, 0.03)
    bulk_pools: float = _number("services that send by a platform in etc/pools", 0.60, 0.30, 0.85)
    bulk_roaming: float = _number("services whose retries come from elsewhere", 0.20, 0.0, 0.60)
    nameless: float = _number("small servers without a host name of their own", 0.05, 0.02, 0.15)
    dual_stack: float = _number("small servers that send over IPv6 and IPv4 as it happens", 0.20, 0.05, 0.50)
    unfoldable: float = _number("services whose bounce addresses no fold makes one", 0.05, 0.0, 0.20)
    apart: float = _number("addresses of a provider's pool in a /24 of their own", 0.70, 0.30, 1.0)
    forwarders_big: float = _number("forwarded mail that comes through a large provider", 0.40, 0.10, 0.70)
    # Retries of legitimate mail. The providers' are in `schedules`.
    exim: float = _number("small servers that retry each 15 minutes (Exim)", 0.557, 0.40, 0.65, MTAS)
    half_hourly: float = _number("… each 30 minutes (Sendmail and others)", 0.066, 0.03, 0.2, MTAS)
    bulk_first_retry: float = _number("services: minutes until the first retry", 10, 3, 30)
    # Lists, on legitimate mail.
    allowed_providers: float = _number("providers' networks on an allowlist, good enough", 0.30, 0.10, 0.60)
    allowed_bulk: float = _number("services' networks on an allowlist, good enough", 0.25, 0.10, 0.50)
    allowed_small: float = _number("small servers on an allowlist, good enough", 0.10, 0.03, 0.30)
    wrongly_listed: float = _number("legitimate networks on a blocklist", 0.002, 0.0, 0.01)
    # What users do.
    replies: float = _number("personal mail that is answered", 0.40, 0.20, 0.70)
    written_first: float = _number("people to whom we have written before they write", 0.30, 0.10, 0.60)
    expected: float = _number("login codes announced with `hybridgrey expect`", 0.0, 0.0, 0.5)
    # Spam. A server's listing is log-uniform from a minute to a day after its first attempt.
    listed: float = _number("spam of clients that a blocklist has at once", 0.73, 0.50, 0.90, UCEPROTECT)
    no_retry: float = _number("other spam: no retry", 0.358, 0.25, 0.60, LEVINE)
    too_early: float = _number("… retries within a minute, then never", 0.315, 0.10, 0.40, LEVINE)
    from_pools: float = _number("… of what retries: accounts in large pools", 0.40, 0.20, 0.60, PHISHING)
    snowshoe: float = _number("… of what retries: networks that SPF proves", 0.16, 0.05, 0.40, PHISHING)
    listed_in_a_day: float = _number("spam servers that are listed within a day", 0.50, 0.30, 0.80)
    suspended: float = _number("accounts in pools that are shut before the retry", 0.05, 0.0, 0.20)
    campaign: float = _number("messages of one snowshoe network to this host", 5, 2, 25)
    botnet: float = _number("… of other retrying spam: bots, once", 0.25, 0.10, 0.50)
    forged_pass: float = _number("bots with SPF pass by +all, exists or macros", 0.03, 0.0, 0.15)
    hasty_proved: float = _number("spam that does not retry, with a name and SPF", 0.10, 0.0, 0.30)
    allowed_spam: float = _number("spam servers on an allowlist, good enough", 0.01, 0.0, 0.05)

    def other(self, name: str, value: float) -> World:
        """The same world with one number changed."""
        return replace(self, **{name: value})


def known() -> Iterator[Known]:
    """All numbers, in order."""
    for one in fields(World):
        data = one.metadata
        assert isinstance(one.default, int | float)
        yield Known(one.name, data["what"], one.default, data["low"], data["high"], data["source"])
