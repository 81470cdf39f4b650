"""Spam: from where, how it retries, and what lists know of it by then.

A *source* sends one message or several to this host. Kinds say how it behaves under a greylist; shares are
of messages that no list stops at their first attempt, but for the kind "listed".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from random import Random
from typing import Final

from hybridgrey.replay.messages import Message
from simulate import envelopes, schedules
from simulate.assumptions import World
from simulate.catalogue import PLATFORMS, Catalogue
from simulate.origins import LISTED, NO_SPF, PROVED, UNPROVEN, Origin, Spf, Told, attempts, bot, said
from simulate.schedules import Schedule

DAY: Final = 86_400
LABEL: Final = "spam"
LISTED_KIND: Final = "listed at once"
RETRIES_MORE: Final = 0.58
"""Of spam hosts that passed, those that sent more than one message (Levine: 1,635 of 2,818)."""


class Spam:
    """The spam of one host."""

    def __init__(self, world: World, catalogue: Catalogue, chance: Random, recipients: list[str]) -> None:
        self._world = world
        self._catalogue = catalogue
        self._chance = chance
        self._recipients = recipients
        self._campaigns = 0

    def messages(self, begin: int, days: int, daily: int) -> Iterator[Message]:
        """All of it, in no order of time."""
        left = days * daily
        while left > 0:
            for one in self._source(begin, days):
                left -= 1
                yield one

    def _source(self, begin: int, days: int) -> Iterator[Message]:
        """The messages of one source; one with several messages is drawn less often than one with one."""
        world, end = self._world, begin + days * DAY
        others = 1 - world.listed
        retrying = others * (1 - world.no_retry - world.too_early)
        rest = retrying * (1 - world.from_pools - world.snowshoe)
        each: list[tuple[float, Callable[[float, float], Iterator[Message]]]] = [
            (world.listed, self._listed),
            (others * world.no_retry, self._hasty_bot),
            (others * world.too_early, self._early_bot),
            (retrying * world.from_pools, self._pool),
            (retrying * world.snowshoe / round(world.campaign), self._snowshoe),
            (rest * world.botnet, self._patient_bot),
            (rest * (1 - world.botnet) / (1 + RETRIES_MORE * 3), self._server),
        ]
        weights = [share for share, _ in each]
        make = self._chance.choices([make for _, make in each], weights)[0]
        return make(begin + self._chance.random() * days * DAY, end)

    def _listed(self, at: float, _: float) -> Iterator[Message]:
        """A host that lists know already; what it would do under a greylist is as with the others."""
        drawn, world = self._chance.random(), self._world
        schedule: Schedule = schedules.postfix
        if drawn < world.no_retry + world.too_early:
            schedule = schedules.never if drawn < world.no_retry else schedules.too_early
        address = bot(self._chance)
        host, spf = self._bot_host(address), self._bot_spf()
        yield self._message(LISTED_KIND, at, Origin([address], schedule, host, spf, lists={address: LISTED}))

    def _hasty_bot(self, at: float, _: float) -> Iterator[Message]:
        yield self._bot("no retry", at, schedules.never)

    def _early_bot(self, at: float, _: float) -> Iterator[Message]:
        yield self._bot("retries too early", at, schedules.too_early)

    def _bot(self, kind: str, at: float, schedule: Schedule) -> Message:
        address = bot(self._chance)
        if self._chance.random() >= self._world.hasty_proved:
            origin = Origin([address], schedule, self._bot_host(address), self._bot_spf())
            return self._message(kind, at, origin)
        domain = f"deal-{self._chance.randrange(10**6)}.example"
        origin = Origin([address], schedule, f"mail.{domain}", PROVED)
        return self._message(kind, at, origin, sender=f"info@{domain}")

    def _patient_bot(self, at: float, _: float) -> Iterator[Message]:
        """A family of bots that comes back once, after 300 to 600 s (DSN 2016)."""
        address = bot(self._chance)
        origin = Origin([address], schedules.once(300, 600), self._bot_host(address), self._bot_spf())
        yield self._message("bot that retries", at, origin, self._listed_at(at))

    def _server(self, at: float, end: float) -> Iterator[Message]:
        """A server that was broken into, or one that is let to spammers."""
        chance, world = self._chance, self._world
        address = bot(chance)
        allowed = chance.random() < world.allowed_spam
        lists = {address: said(listed=False, allowed=True)} if allowed else {}
        schedule = chance.choice([schedules.postfix, schedules.exim])
        origin = Origin([address], schedule, f"srv{chance.randrange(1000)}.host.example", NO_SPF, lists=lists)
        listed_at = self._listed_at(at)
        number = 1 if chance.random() >= RETRIES_MORE else chance.randint(2, 6)
        for when in self._spread(at, end, number, 2):
            yield self._message("server", when, origin, listed_at)

    def _snowshoe(self, at: float, end: float) -> Iterator[Message]:
        """A network of a spammer's own, with domains whose SPF proves it; addresses and domains in turn."""
        chance, places = self._chance, self._catalogue.places
        self._campaigns += 1
        network = places.network()
        listed_at = self._listed_at(at)
        for n, when in enumerate(self._spread(at, end, round(self._world.campaign), 3)):
            domain = f"offer-{self._campaigns}-{n % 4}.example"
            address = f"{network}.{chance.randint(1, 60)}"
            origin = Origin([address], schedules.postfix, f"mail{n}.{domain}", PROVED)
            sender = f"info{chance.randrange(100)}@{domain}"
            yield self._message("snowshoe", when, origin, listed_at, sender)

    def _pool(self, at: float, _: float) -> Iterator[Message]:
        """An account that was stolen or made at a large provider or platform."""
        chance, catalogue = self._chance, self._catalogue
        if chance.random() < 0.7:
            provider = catalogue.webmail()
            origin = catalogue.providers[provider.name]
            sender = envelopes.person(chance, provider.domain, chance.randrange(100))
        else:
            origin = catalogue.platforms[chance.choice(PLATFORMS)]
            sender = envelopes.FORMS["token"](chance, "", f"tenant-{chance.randrange(10**6)}.example")
        shut = chance.random() < self._world.suspended
        yield self._message("account in a large pool", at, origin, math.inf, sender, gives_up=shut)

    def _message(
        self,
        kind: str,
        at: float,
        origin: Origin,
        listed_at: float = math.inf,
        sender: str = "",
        *,
        gives_up: bool = False,
    ) -> Message:
        chance = self._chance
        victim = f"victim-{chance.randrange(10**5)}.example"
        sender = sender or envelopes.person(chance, victim, chance.randrange(100))
        told = Told(listed_at=listed_at, gives_up=gives_up)
        tries = attempts(chance, at, origin, self._world.spf_failing, told)
        return Message(LABEL, kind, sender, chance.choice(self._recipients), tries)

    def _listed_at(self, first: float) -> float:
        """When lists have a source that they do not know at its first attempt."""
        if self._chance.random() >= self._world.listed_in_a_day:
            return math.inf
        return first + math.exp(self._chance.uniform(math.log(60), math.log(DAY)))

    def _spread(self, at: float, end: float, number: int, days: float) -> list[float]:
        """The first, and the others within some days of it."""
        later = (at + self._chance.random() * days * DAY for _ in range(number - 1))
        return [at, *sorted(when for when in later if when < end)]

    def _bot_spf(self) -> Spf:
        return UNPROVEN if self._chance.random() < self._world.forged_pass else NO_SPF

    def _bot_host(self, address: str) -> str | None:
        """Most bots are customers of access networks."""
        drawn = self._chance.random()
        if drawn < 0.4:
            return None
        return f"dsl-{address.replace('.', '-')}.access.example" if drawn < 0.9 else "mail.victim.example"
