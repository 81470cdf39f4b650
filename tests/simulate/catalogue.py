"""The origins of a world: providers, platforms, services, small servers.

Who is large is large everywhere: mail of a provider's pool comes from some dozens of networks. The width of
what one message is tried from follows from the measured numbers of addresses (DSN 2016): with 7 different
addresses in 9 attempts a message has some 16 to choose from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Final, NamedTuple, TypeVar

from simulate import envelopes, schedules
from simulate.assumptions import World
from simulate.envelopes import Form
from simulate.origins import NO_SPF, PROVED, UNPROVEN, Origin, Places, Spf, lists_of
from simulate.schedules import Schedule

T = TypeVar("T")


class Provider(NamedTuple):
    """A large provider: its share of webmail, and the domain of its SPF networks in etc/pools."""

    name: str
    domain: str
    share: float
    schedule: str
    width: int
    addresses: int
    spf_domain: str


PROVIDERS: Final = (
    Provider("gmail", "gmail.com", 0.52, "gmail", 16, 90, "_spf.google.com"),
    Provider("outlook", "outlook.com", 0.20, "hotmail", 1, 120, "spf.protection.outlook.com"),
    Provider("yahoo", "yahoo.com", 0.10, "yahoo", 1, 40, "_spf.mail.yahoo.com"),
    Provider("gmx", "gmx.net", 0.09, "gmx", 3, 12, "gmx.net"),
    Provider("aol", "aol.com", 0.04, "aol", 1, 20, "_spf.mail.yahoo.com"),
    Provider("mail.ru", "mail.ru", 0.02, "mail.ru", 9, 40, "_spf.mail.ru"),
    Provider("yandex", "yandex.com", 0.02, "yandex", 1, 20, "_spf.yandex.net"),
    Provider("qq", "qq.com", 0.01, "qq", 2, 20, "spf.mail.qq.com"),
)
"""Shares of webmail are an assumption; no measurement of them says how it was made."""

PLATFORMS: Final = (
    "amazonses.com",
    "sendgrid.net",
    "mailgun.org",
    "servers.mcsv.net",
    "cust-spf.exacttarget.com",
    "spf.mandrillapp.com",
    "spf.mtasv.net",
    "spf.brevo.com",
)
"""Platforms that send for others, by the domains of their SPF networks in etc/pools."""

POOLS: Final = tuple(dict.fromkeys((*(one.spf_domain for one in PROVIDERS), *PLATFORMS)))
"""All of these domains."""


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """Who sends by program: notifications, codes, newsletters."""

    domain: str
    origin: Origin
    form: Form


@dataclass(frozen=True, slots=True, eq=False)
class Organisation:
    """A domain of its own, and where its people's mail comes from."""

    domain: str
    origin: Origin
    kind: str


SMALL: Final = "small server"


class Catalogue:
    """All origins of a world."""

    def __init__(self, world: World, chance: Random) -> None:
        self.world = world
        self.chance = chance
        self.places = Places()
        self._made = 0
        self.providers = {one.name: self._provider(one) for one in PROVIDERS}
        self.platforms = {domain: self._platform(domain) for domain in PLATFORMS}
        self.services = [self.service() for _ in range(400)]
        self.newsletters = [self.service() for _ in range(300)]
        self.organisations = [self.organisation() for _ in range(300)]
        self._webmail = list(accumulate(one.share for one in PROVIDERS))

    def webmail(self) -> Provider:
        """A webmail provider, by share."""
        return self.chance.choices(PROVIDERS, cum_weights=self._webmail)[0]

    def popular(self, some: Sequence[T]) -> T:
        """One of them, the first more often than those after it (Zipf)."""
        return some[int(len(some) ** self.chance.random()) - 1]

    def service(self) -> Service:
        """A service that nobody has heard of yet."""
        domain, world = self._domain("service"), self.world
        unfoldable = self.chance.random() < world.unfoldable
        form = envelopes.words if unfoldable else self.chance.choice(list(envelopes.FORMS.values()))
        if self.chance.random() < world.bulk_pools:
            origin = self.platforms[self.popular(PLATFORMS)]
        else:
            origin = self._own_senders(domain)
        return Service(domain, origin, form)

    def organisation(self) -> Organisation:
        """A company or person with a domain of its own."""
        domain, world, drawn = self._domain("company"), self.world, self.chance.random()
        if drawn < world.hosted_google:
            return Organisation(domain, self.providers["gmail"], "domain at Google")
        if drawn < world.hosted_google + world.hosted_microsoft:
            return Organisation(domain, self.providers["outlook"], "domain at Microsoft")
        origin = self.small_server(domain)
        if origin.spf is NO_SPF:
            return Organisation(domain, origin, f"{SMALL}, no SPF")
        return Organisation(domain, origin, f"{SMALL}, dual-stack" if len(origin.addresses) > 1 else SMALL)

    def small_server(self, domain: str) -> Origin:
        """A server of its own."""
        world, chance = self.world, self.chance
        addresses = [f"{self.places.network()}.25"]
        if chance.random() < world.dual_stack:
            addresses.append(self.places.six())
        named = chance.random() >= world.nameless
        return Origin(
            addresses,
            self._queue(),
            f"mail.{domain}" if named else None,
            self._spf(world.without_spf),
            width=len(addresses),
            lists=lists_of(chance, addresses, world.allowed_small, world.wrongly_listed),
        )

    def _provider(self, one: Provider) -> Origin:
        world = self.world
        addresses = self.places.pool(one.addresses, world.apart)
        return Origin(
            addresses,
            schedules.measured(one.schedule),
            f"mail-out.{one.domain}",
            PROVED,
            (one.spf_domain,),
            one.width,
            lists_of(self.chance, addresses, world.allowed_providers, world.wrongly_listed),
        )

    def _platform(self, domain: str) -> Origin:
        return self._bulk(self.places.pool(60, self.world.apart), f"out.{domain}", PROVED, (domain,))

    def _own_senders(self, domain: str) -> Origin:
        """Some addresses, in few networks."""
        addresses = self.places.pool(self.chance.randint(1, 8), 0.3)
        return self._bulk(addresses, f"out.{domain}", self._spf(self.world.services_without_spf), ())

    def _bulk(self, addresses: list[str], host: str, spf: Spf, pools: tuple[str, ...]) -> Origin:
        world = self.world
        roams = self.chance.random() < world.bulk_roaming
        return Origin(
            addresses,
            schedules.bulk(world.bulk_first_retry),
            host,
            spf,
            pools,
            len(addresses) if roams else 1,
            lists_of(self.chance, addresses, world.allowed_bulk, world.wrongly_listed),
        )

    def _spf(self, without: float) -> Spf:
        if self.chance.random() < without:
            return NO_SPF
        return UNPROVEN if self.chance.random() < self.world.unproven else PROVED

    def _queue(self) -> Schedule:
        drawn, world = self.chance.random(), self.world
        if drawn < world.exim:
            return schedules.exim
        return schedules.each(30) if drawn < world.exim + world.half_hourly else schedules.postfix

    def _domain(self, kind: str) -> str:
        self._made += 1
        return f"{kind}-{self._made}.example"
