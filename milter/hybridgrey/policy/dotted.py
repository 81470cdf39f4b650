"""Dotted numbers that are no address or network: ranges, wildcards, parts of addresses.

People write ``22.1.1.1-22.1.1.9``, ``22.1.1.x`` or ``22.1.1`` where other programs take them.  Here each of
them would be a host name that no client ever has, and an exclusion of that form would let in whom it should
keep out.  So `meant` gives the networks that such a text stands for, and `instead` says what to write.

Pure; no function raises.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, summarize_address_range
from typing import Final

Network = IPv4Network | IPv6Network

MAX_SHOWN: Final = 8  # networks that a message lists; the widest range of IPv4 has 62

# No top-level domain is a number (RFC 3696 section 2), so no host name ends like this.
_LAST: Final = re.compile(r"[0-9]+|0x[0-9a-f]*|[*?]|[0-9]+-[0-9x*]*|.*[\[\];{}].*", re.IGNORECASE)
# Short ones with one x only: .xxx is a domain.
_X: Final = re.compile(r"[0-9]+(?:\.[0-9]+|\.x)*\.x|[0-9]+(?:\.[0-9]+|\.x{1,3}){2}\.x{1,3}", re.IGNORECASE)
_BARE: Final = re.compile(r"[0-9-]*[0-9][0-9-]*")
_WILD: Final = re.compile(r"(?:x{1,3}|\*)", re.IGNORECASE)
_OCTET: Final = re.compile(r"0|[1-9][0-9]{0,2}")


def looks_numeric(name: str) -> bool:
    """Whether a text without colon or slash can be no host name, because it ends like an address."""
    if "." in name:
        return bool(_LAST.fullmatch(name.rpartition(".")[2]) or _X.fullmatch(name))
    return _BARE.fullmatch(name) is not None


def meant(text: str) -> Sequence[Network]:
    """The networks that a range, a wildcard among numbers or a part of an address stands for; or none."""
    if "-" in text:
        return _range(*(part.strip() for part in text.split("-", 1)))
    return _beginning(text)


def instead(text: str) -> str:
    """What is wrong with a dotted number, and what to write."""
    networks = meant(text)
    if not networks:
        parts = text.split(".")
        if all(re.fullmatch(r"[0-9]+", p) for p in parts) and len(parts) > 1:
            over = next((p for p in parts if len(p) > 3 or int(p) > 255), "")
            why = f"{over[:20]} is over 255" if over else f"it has {len(parts)} numbers, not four"
            return f"{text[:80]!r} is no address or network: {why}"
        return f"{text[:80]!r} is no address or network, and no host name ends so"
    kind = "a range" if "-" in text else "no whole address or network"
    return f"{text[:80]!r} is {kind}; write {listed(networks)}"


def listed(networks: Sequence[Network]) -> str:
    """Networks as they are written in a list of entries, the first of many only."""
    shown = ", ".join(f'"{written(n)}"' for n in networks[:MAX_SHOWN])
    return shown if len(networks) <= MAX_SHOWN else f"{shown} … ({len(networks)} networks)"


def written(network: Network) -> str:
    """A network as an entry; one of a single address as that address."""
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def _range(first: str, last: str) -> list[Network]:
    if "." in first and "." not in last and ":" not in last:
        last = f"{first.rpartition('.')[0]}.{last}"  # 22.1.1.1-9
    begin, end = _address(first), _address(last)
    try:
        if isinstance(begin, IPv4Address) and isinstance(end, IPv4Address):
            return list(summarize_address_range(begin, end))
        if isinstance(begin, IPv6Address) and isinstance(end, IPv6Address):
            return list(summarize_address_range(begin, end))
    except ValueError:  # it runs backwards
        pass
    return []


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _beginning(text: str) -> list[Network]:
    """``22.1.1``, ``22.1.1.``, ``22.1.1.x`` and ``22.1.x.x``."""
    octets = text.removesuffix(".").split(".")
    while octets and _WILD.fullmatch(octets[-1]):
        octets.pop()
    if not 1 <= len(octets) <= 3 or not all(_OCTET.fullmatch(o) and int(o) <= 255 for o in octets):
        return []
    return [IPv4Network(f"{'.'.join(octets + ['0'] * (4 - len(octets)))}/{8 * len(octets)}")]
