"""What is known of each DNS list: its label, its quirks, the codes that mean an error, its test points.

Lists say "I will not answer you" in the same records that say "listed": 127.255.255.254 from Spamhaus,
127.0.0.255 from dnswl.org.  Who reads these as listings rejects all mail, or accepts all spam.  A list whose
domain has died may be answered by a parking page for every name.  So each answer is checked here before it
may vote.  Quirks of well-known lists are built in (`config.known_lists`); ``[zones."NAME"]`` adds to them.
"""

from __future__ import annotations

import ipaddress
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hybridgrey import address
from hybridgrey.config.known_lists import TEST_UNLISTED, error_of, public_label, quirk
from hybridgrey.config.settings import Zone as Settings
from hybridgrey.lists import question
from hybridgrey.policy.judge import NOT_LISTED, Action, Answer, Rule
from hybridgrey.policy.pattern import Pattern

# The head of ::ffff:a.b.c.d.
MAPPED = bytes(10) + b"\xff\xff"


# Characters; keys are longer, and shorter names of zones are words that may be meant.
_KEY_LEAST = 12


@dataclass(frozen=True, slots=True)
class Zone:
    """One list, ready to be asked.

    `index` is its place among the configuration's zones; `wants_text` says that a rule may quote its TXT
    record in a refusal.  `listed` and `unlisted` are test addresses, None where there is none to ask.
    """

    index: int
    name: str
    label: str
    errors: tuple[Pattern, ...]
    wants_text: bool
    listed: str | None
    unlisted: str | None
    tail: bytes
    text_tail: bytes

    def answer(self, codes: tuple[bytes, ...], seconds: float = 0.0) -> Answer:
        """What the list's return codes say; with an error in it when they are no vote."""
        if not codes:
            return NOT_LISTED if seconds == 0.0 else Answer(seconds=seconds)
        return Answer(codes, next(filter(None, (error_of(c, self.errors) for c in codes)), ""), seconds)

    def without_key(self, text: str) -> str:
        """A text of the list's own, such as its TXT record, without what `label` is there to hide."""
        if self.label == self.name:
            return text
        first = self.name.partition(".")[0]  # where all who sell keys have them
        hidden = [self.name] if len(first) < _KEY_LEAST else [self.name, first]
        return re.sub("|".join(map(re.escape, hidden)), lambda _: self.label, text, flags=re.IGNORECASE)

    def nobody(self, *, ipv6: bool) -> bytes:
        """An address that the list cannot have: the operator's test point, or a new one out of 127.0.0.0/8.

        Not 127.0.0.1, which a resolver may remember from better days.
        """
        if self.unlisted is not None and self.unlisted != TEST_UNLISTED:
            point = test_point(self.unlisted)
        else:
            point = bytes((127, *(random.randint(1, 254) for _ in range(3))))  # noqa: S311 - no secret
        return MAPPED + point if ipv6 and len(point) == 4 else point


def build(rules: Iterable[Rule], settings: Mapping[str, Settings]) -> tuple[Zone, ...]:
    """The lists of all rules, each once, in their order, with what the configuration says of them."""
    quoted: dict[str, bool] = {}
    for rule in rules:
        for entry in rule.lists:
            quoted[entry.zone] = quoted.get(entry.zone, False) or rule.action is Action.REJECT
    return tuple(_zone(i, name, settings.get(name), text) for i, (name, text) in enumerate(quoted.items()))


def _zone(index: int, name: str, settings: Settings | None, wants_text: bool) -> Zone:
    known = quirk(name)
    listed, unlisted = known.listed, known.unlisted
    if settings is not None:
        listed = settings.listed or listed
        unlisted = settings.unlisted or unlisted
        if not settings.health:
            listed = unlisted = None
    return Zone(
        index=index,
        name=name,
        label=(settings.label if settings else "") or public_label(name),
        errors=tuple(map(Pattern.parse, known.errors)) + (settings.error_codes if settings else ()),
        wants_text=wants_text,
        listed=listed,
        unlisted=unlisted,
        tail=question.tail(name, question.A),
        text_tail=question.tail(name, question.TXT),
    )


def code_text(code: bytes) -> str:
    """A return code in dotted form."""
    return ".".join(map(str, code))


def test_point(text: str) -> bytes:
    """The bytes of a test address; `::ffff:…` stays IPv6 here, as RFC 5782 section 5 asks it."""
    return ipaddress.ip_address(text).packed if ":" in text else address.packed(text) or b""
