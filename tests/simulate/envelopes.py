"""Envelope senders as they are in life: people, and what programs make for each message."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Final

_FIRST: Final = (
    "anna",
    "ben",
    "clara",
    "david",
    "emma",
    "felix",
    "greta",
    "hans",
    "ida",
    "jonas",
    "leo",
    "mia",
)
_LAST: Final = (
    "adler",
    "berg",
    "cohen",
    "dupont",
    "evans",
    "garcia",
    "haas",
    "ito",
    "klein",
    "lopez",
    "novak",
)
_SYLLABLES: Final = [a + b for a in "bdfgklmnprstv" for b in "aeiou"]
_HEX: Final = "0123456789abcdef"
_BASE36: Final = "0123456789abcdefghijklmnopqrstuvwxyz"

Form = Callable[[Random, str, str], str]
"""The sender of a message, by chance, its recipient, and the sender's domain."""


def person(chance: Random, domain: str, number: int) -> str:
    """An address of somebody; `number` tells people of one name apart."""
    return f"{chance.choice(_FIRST)}.{chance.choice(_LAST)}{number % 100 or ''}@{domain}"


def verp(chance: Random, recipient: str, domain: str) -> str:
    """Variable envelope return path, as mailing lists have it."""
    return f"news-return-{chance.randrange(1, 9999)}-{recipient.replace('@', '=')}@{domain}"


def srs(chance: Random, sender: str, forwarder: str) -> str:
    """What a forwarder makes of a sender (SRS)."""
    local, _, domain = sender.rpartition("@")
    return f"SRS0={_run(chance, _BASE36, 4)}={_run(chance, _BASE36.upper(), 2)}={domain}={local}@{forwarder}"


def _uuids(chance: Random, _: str, domain: str) -> str:
    made = uuid.UUID(int=chance.getrandbits(128))
    return f"010001{_run(chance, _HEX, 10)}-{made}-000000@bounces.{domain}"


def _numbered(chance: Random, recipient: str, domain: str) -> str:
    tag = f"{chance.randrange(10**6, 10**7)}-{_run(chance, _HEX, 4)}"
    return f"bounces+{tag}-{recipient.replace('@', '=')}@em.{domain}"


def _tagged(chance: Random, recipient: str, domain: str) -> str:
    tag = f"{_run(chance, _HEX, 6)}.{_run(chance, _HEX, 6)}"
    return f"bounce+{tag}-{recipient.replace('@', '=')}@mg.{domain}"


def _token(chance: Random, _: str, domain: str) -> str:
    return f"{_run(chance, _BASE36, 28)}@bounce.{domain}"


def words(chance: Random, _: str, domain: str) -> str:
    """A word of no language, another for each message, which looks like a name: no fold makes one of them."""
    return f"{''.join(chance.choice(_SYLLABLES) for _ in range(5))}@mail.{domain}"


FORMS: Final[Mapping[str, Form]] = MappingProxyType(
    {"uuid": _uuids, "numbered": _numbered, "tagged": _tagged, "token": _token}
)
"""Addresses that differ for each message, of which the greylist makes one."""


def _run(chance: Random, of: str, length: int) -> str:
    return "".join(chance.choice(of) for _ in range(length))
