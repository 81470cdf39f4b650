"""Client networks as an admin writes them: an address, a network, or the head of one.

Pure.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Sequence
from typing import Final

from hybridgrey.clientaddress import ClientReader

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MOST: Final = 65536
"""So many of the greylist's networks may a wide one stand for."""

# Not one number alone: that is no head of anything that somebody would look for.
_OCTETS = re.compile(r"([0-9]{1,3}(?=\.)(?:\.[0-9]{1,3}){0,2})\.?")
_HEXTETS = re.compile(r"([0-9a-f]{1,4}(?=:)(?::[0-9a-f]{1,4}){0,6}):?", re.IGNORECASE)


def read(text: str) -> Network | None:
    """An address, a network, or the head of one (``192.0.2``, ``2001:db8:``) as all that begins so."""
    text = text.strip()
    with contextlib.suppress(ValueError):
        return ipaddress.ip_network(text, strict=False)
    if head := _OCTETS.fullmatch(text):
        octets = head[1].split(".")
        text = ".".join([*octets, *["0"] * (4 - len(octets))]) + f"/{8 * len(octets)}"
    elif head := _HEXTETS.fullmatch(text):
        text = f"{head[1]}::/{16 * (head[1].count(':') + 1)}"
    with contextlib.suppress(ValueError):
        return ipaddress.ip_network(text)
    return None


def split(network: str, prefixes: tuple[int, int], clients: ClientReader) -> Sequence[Network]:
    """The greylist's networks that an address or network stands for; raises ValueError."""
    found = read(network)
    if found is None:
        raise ValueError(f"{network!r} is no address or network")
    given = clients.network(found)
    prefix = prefixes[given.version == 6]
    if given.prefixlen >= prefix:
        return [given.supernet(new_prefix=prefix)]
    if prefix - given.prefixlen > (MOST - 1).bit_length():
        raise ValueError(f"{network} is too wide for the greylist; put it into a rule's clients instead")
    return list(given.subnets(new_prefix=prefix))
