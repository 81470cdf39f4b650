"""Legitimate mail: who writes to whom, when, and what is known of it.

Each mailbox has senders that it knows, some of each kind, the first of them more often than the last; some
mail comes from somebody new, who is known from then on. Mail comes between seven and eleven at night.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final, TypeVar

from hybridgrey.replay.messages import Message
from simulate import envelopes
from simulate.assumptions import World
from simulate.catalogue import Catalogue, Service
from simulate.origins import Origin, Told, attempts

T = TypeVar("T")

DAY: Final = 86_400
LABEL: Final = "legitimate"
CODE: Final = "login code"
EXPECTED_FOR: Final = 900  # seconds, as `hybridgrey expect` has it


@dataclass(slots=True, eq=False)
class Person:
    """Somebody who writes; `written`: whether the mailbox has written to them."""

    address: str
    origin: Origin
    kind: str
    written: bool = False


@dataclass(slots=True, eq=False)
class Mailbox:
    """A recipient and whom it knows."""

    address: str
    webmail: list[Person] = field(default_factory=list)
    small: list[Person] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    newsletters: list[Service] = field(default_factory=list)
    forwarders: list[tuple[str, Origin]] = field(default_factory=list)


class Ham:
    """The legitimate mail of one host."""

    def __init__(self, world: World, catalogue: Catalogue, chance: Random, mailboxes: int) -> None:
        self._world = world
        self._catalogue = catalogue
        self._chance = chance
        self._people = 0
        self.mailboxes = [self._mailbox(number) for number in range(mailboxes)]

    def messages(self, begin: int, days: int) -> Iterator[Message]:
        """All of it, in order of time."""
        chance, world = self._chance, self._world
        number = round(world.legitimate_daily * len(self.mailboxes) * days)
        times = (chance.randrange(days) * DAY + chance.uniform(7, 23) * 3600 for _ in range(number))
        for at in sorted(begin + time for time in times):
            yield self._message(chance.choice(self.mailboxes), at)

    def _message(self, box: Mailbox, at: float) -> Message:
        world, drawn = self._world, self._chance.random()
        kinds: list[tuple[float, Callable[[Mailbox, float], Message]]] = [
            (world.personal, self._personal),
            (world.small, self._small),
            (world.newsletters, self._newsletter),
            (world.codes, self._code),
            (world.forwarded, self._forwarded),
        ]
        for share, kind in kinds:
            if drawn < share:
                return kind(box, at)
            drawn -= share
        return self._notification(box, at)

    def _personal(self, box: Mailbox, at: float) -> Message:
        return self._from_person(box, at, self._known(box.webmail, self._webmail_user))

    def _small(self, box: Mailbox, at: float) -> Message:
        return self._from_person(box, at, self._known(box.small, self._colleague))

    def _from_person(self, box: Mailbox, at: float, person: Person) -> Message:
        """A message, which may be an answer to one of ours, and may be answered."""
        chance, world = self._chance, self._world
        person.written = person.written or chance.random() < world.written_first
        told = Told(correspondent=person.written)
        person.written = person.written or chance.random() < world.replies
        return self._made(person.kind, person.address, box, at, person.origin, told)

    def _newsletter(self, box: Mailbox, at: float) -> Message:
        service = self._known(box.newsletters, lambda: self._catalogue.popular(self._catalogue.newsletters))
        form = envelopes.words if service.form is envelopes.words else envelopes.verp
        sender = form(self._chance, box.address, service.domain)
        return self._made("newsletter", sender, box, at, service.origin)

    def _notification(self, box: Mailbox, at: float) -> Message:
        service = self._known(box.services, self._service)
        return self._made("notification", self._sender(service, box), box, at, service.origin)

    def _code(self, box: Mailbox, at: float) -> Message:
        service = self._known(box.services, self._service, self._world.new_codes)
        until = at + EXPECTED_FOR if self._chance.random() < self._world.expected else 0.0
        told = Told(expected_until=until)
        return self._made(CODE, self._sender(service, box), box, at, service.origin, told)

    def _forwarded(self, box: Mailbox, at: float) -> Message:
        domain, origin = self._chance.choice(box.forwarders)
        sender = self._known(box.webmail, self._webmail_user).address
        return self._made("forwarded", envelopes.srs(self._chance, sender, domain), box, at, origin)

    def _made(
        self, kind: str, sender: str, box: Mailbox, at: float, origin: Origin, told: Told | None = None
    ) -> Message:
        tries = attempts(self._chance, at, origin, self._world.spf_failing, told or Told())
        return Message(LABEL, kind, sender, box.address, tries)

    def _sender(self, service: Service, box: Mailbox) -> str:
        return service.form(self._chance, box.address, service.domain)

    def _known(self, some: list[T], new: Callable[[], T], share: float | None = None) -> T:
        """One of those whom the mailbox knows, or a new one."""
        if self._chance.random() < (self._world.new_senders if share is None else share):
            some.append(new())
            return some[-1]
        return self._catalogue.popular(some)

    def _mailbox(self, number: int) -> Mailbox:
        box, catalogue = Mailbox(f"user{number}@here.example"), self._catalogue
        for _ in range(round(self._world.relations)):
            box.webmail.append(self._webmail_user())
            box.small.append(self._colleague())
            box.services.append(self._service())
            box.newsletters.append(catalogue.popular(catalogue.newsletters))
        box.forwarders = [self._forwarder(number, n) for n in range(2)]
        return box

    def _service(self) -> Service:
        """A service of the many, now and then one that nobody has heard of."""
        catalogue = self._catalogue
        return catalogue.service() if self._chance.random() < 0.25 else catalogue.popular(catalogue.services)

    def _webmail_user(self) -> Person:
        provider = self._catalogue.webmail()
        self._people += 1
        address = envelopes.person(self._chance, provider.domain, self._people)
        return Person(address, self._catalogue.providers[provider.name], "personal")

    def _colleague(self) -> Person:
        catalogue = self._catalogue
        new = self._chance.random() < 0.5
        company = catalogue.organisation() if new else catalogue.popular(catalogue.organisations)
        self._people += 1
        address = envelopes.person(self._chance, company.domain, self._people)
        return Person(address, company.origin, company.kind)

    def _forwarder(self, mailbox: int, number: int) -> tuple[str, Origin]:
        catalogue = self._catalogue
        if self._chance.random() < self._world.forwarders_big:
            return "outlook.com", catalogue.providers["outlook"]
        domain = f"forwarder-{mailbox}-{number}.example"
        return domain, catalogue.small_server(domain)
