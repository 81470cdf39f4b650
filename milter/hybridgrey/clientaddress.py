"""A client's address, read once: what it is, and which IPv4 address it carries.

Some IPv6 addresses have an IPv4 address in them.  Lists know nearly only IPv4, and all IPv4 clients behind
one translator share one IPv6 network: so the lists are asked about the address inside, and the greylist
remembers its network.  How far the address inside is to be believed differs:

=====================  =======================================  ===============
`::ffff:a.b.c.d`       IPv4-mapped, RFC 4291 section 2.5.5.2    is IPv4
`::ffff:0:a.b.c.d`     translated, RFC 2765 (SIIT)              proven
`64:ff9b::a.b.c.d`     NAT64, RFC 6052; prefixes of ``nat64``   proven
`2002:aabb:ccdd::`     6to4, RFC 3056: the site's router        not proven
`2001:0:...`           Teredo, RFC 4380: the NAT's address      not proven
=====================  =======================================  ===============

*Proven*: only a translator of our own network gives such an address, and what is sent to it reaches that
IPv4 client and nobody else.  So it is that client.  *Not proven*: whoever announces 2002::/16 or 2001::/32 to
our network receives the packets for all of it (RFC 3964, RFC 6169), and can pose as any IPv4 address.  Such
an address may speak against a client, never for it.

What cannot be the address of a client out there (loopback, multicast, and but for a prefix of the operator's
own private networks: RFC 6052 section 3.1, RFC 3056 section 2) is not taken out: `64:ff9b::127.0.0.1` is not
this host.

Pure.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import Final, NamedTuple

from hybridgrey.address import packed

WELL_KNOWN: Final = IPv6Network("64:ff9b::/96")
"""The NAT64 prefix that everybody may use (RFC 6052 section 2.1)."""
LENGTHS: Final = (32, 40, 48, 56, 64, 96)
"""Bits that a NAT64 prefix may have (RFC 6052 section 2.2)."""

_TRANSLATED: Final = IPv6Network("::ffff:0:0:0/96")
_6TO4: Final = b"\x20\x02"
_TEREDO: Final = b"\x20\x01\x00\x00"
# The byte that is zero in every address made with a NAT64 prefix, and may lie between those of IPv4.
_U: Final = 8


class Carried(NamedTuple):
    """The IPv4 address in an IPv6 one, 4 bytes, and whether it is that client's for certain."""

    address: bytes
    proven: bool


class ClientAddress(NamedTuple):
    """A client as the MTA names it.

    `text` is its address in the usual form, an IPv4-mapped one as IPv4, or what was there instead of one.
    `packed` has its 4 or 16 bytes, None when it is no IP address.
    """

    text: str
    packed: bytes | None
    carried: Carried | None = None

    @property
    def asked(self) -> bytes | None:
        """The 4 or 16 bytes that lists are asked about."""
        return self.packed if self.carried is None else self.carried.address

    @property
    def listed(self) -> str:
        """`asked` as text: what a list has, and of which the greylist takes the network."""
        return self.text if self.carried is None else socket.inet_ntop(socket.AF_INET, self.carried.address)


class ClientReader:
    """Reads client addresses, by the NAT64 prefixes in use."""

    def __init__(self, nat64: Iterable[IPv6Network] = (WELL_KNOWN,)) -> None:
        """`nat64`: networks that `check_nat64` has passed; of nested ones the narrower counts."""
        networks = sorted({*nat64, _TRANSLATED}, key=lambda n: -n.prefixlen)
        self._prefixes = tuple(
            (n.network_address.packed[: n.prefixlen // 8], n not in (WELL_KNOWN, _TRANSLATED))
            for n in networks
        )

    def read(self, text: str) -> ClientAddress:
        """A client by the text of the milter protocol, of an MTA's macro or of the log.  Never fails."""
        found = packed(text)
        if found is None:
            return ClientAddress(text, None)
        if len(found) == 4:
            return ClientAddress(socket.inet_ntop(socket.AF_INET, found), found)
        return ClientAddress(socket.inet_ntop(socket.AF_INET6, found), found, self.carried(found))

    def carried(self, address: bytes) -> Carried | None:
        """The IPv4 address in an IPv6 one of 16 bytes, None if there is none that a client can have."""
        for prefix, private in self._prefixes:
            if address.startswith(prefix):
                inside = _behind(address, len(prefix))
                return Carried(inside, proven=True) if inside and _is_client(inside, private) else None
        if address.startswith(_6TO4):
            inside = address[2:6]
        elif address.startswith(_TEREDO):
            inside = bytes(byte ^ 0xFF for byte in address[12:])
        else:
            return None
        return Carried(inside, proven=False) if _is_client(inside, private=False) else None

    def network(self, network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
        """The IPv4 network that an IPv6 one stands for, where it is one; any other as it is."""
        if isinstance(network, IPv4Network):
            return network
        first = network.network_address
        width = network.prefixlen
        if first.ipv4_mapped is not None and width >= 96:
            return IPv4Network((int(first.ipv4_mapped), width - 96))
        carried = self.carried(first.packed)
        if carried is None:
            return network
        if width == 128 or (first.sixtofour is not None and width >= 48):
            return IPv4Network((carried.address, 32))
        if width >= 96 and any(len(p) == 12 and first.packed.startswith(p) for p, _ in self._prefixes):
            return IPv4Network((carried.address, width - 96))
        return network


def check_nat64(network: IPv6Network) -> None:
    """Raise ValueError unless a network can be a NAT64 prefix (RFC 6052 section 2.2)."""
    if network.prefixlen not in LENGTHS:
        raise ValueError(f"{network} must have /32, /40, /48, /56, /64 or /96 (RFC 6052 section 2.2)")
    if network.network_address.packed[_U]:
        raise ValueError(f"{network}: bits 64 to 71 must be zero (RFC 6052 section 2.2)")
    if network.overlaps(_NO_PREFIX):
        raise ValueError(f"{network} holds ::1 or IPv4-mapped addresses, which are no translator's")


# ::/80 has ::1, and `::ffff:0:0/96`; the translated ones need no prefix.
_NO_PREFIX: Final = IPv6Network("::/80")


def _behind(address: bytes, size: int) -> bytes | None:
    """The IPv4 address behind a NAT64 prefix of `size` bytes; what follows it is to be ignored."""
    if size > _U:
        return address[size : size + 4]
    if address[_U]:
        return None
    return (address[size:_U] + address[_U + 1 :])[:4]


def _is_client(inside: bytes, private: bool) -> bool:
    """Whether a client out there can have this IPv4 address; `private`: one of a private network can, too."""
    first, second = inside[0], inside[1]
    if first in (0, 127) or first >= 224 or (first, second) == (169, 254):
        return False
    return private or not (
        first == 10
        or (first == 172 and second & 0xF0 == 16)
        or (first, second) == (192, 168)
        or (first == 100 and second & 0xC0 == 64)
    )
