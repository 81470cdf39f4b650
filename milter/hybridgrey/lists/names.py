"""A client's host name, forward-confirmed: the name in its PTR record, whose addresses are the client's too.

So Postfix finds ``{client_name}`` (smtpd_peer.c) and Sendmail what it calls resolved; a PTR record alone is
whatever the owner of the address writes there.  An MTA looks at one name, and asks the system, which may
know names from /etc/hosts too; here nameservers are asked, about all of the first few names.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

import dns.exception
import dns.nameserver
import dns.resolver

from hybridgrey.config.sockets import HOST_NAME

TIMEOUT: Final = 5.0  # s, for all questions together
MOST_NAMES: Final = 5
"""So many names of an address are looked at: whoever owns it may have given it thousands."""

_NUMERIC: Final = re.compile(r"[0-9.]+")


class HostName(NamedTuple):
    """What was found: the name, "" when there is none that counts, and how that came about, in words."""

    name: str
    finding: str


class _NoAnswerError(Exception):
    """The nameservers do not say."""


class _Questions:
    """Questions to nameservers, which have a common deadline."""

    def __init__(self, servers: Sequence[tuple[str, int]], timeout: float) -> None:
        self._resolver = dns.resolver.Resolver(configure=False)
        self._resolver.nameservers = [dns.nameserver.Do53Nameserver(host, port) for host, port in servers]
        self._deadline = time.monotonic() + timeout

    def ask(self, name: str, kind: str) -> list[str]:
        """The records of a name as text, none where there is no such name; raises _NoAnswerError."""
        left = self._deadline - time.monotonic()
        try:
            if left <= 0:
                raise _NoAnswerError
            answer = self._resolver.resolve(name, kind, lifetime=left, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        except (dns.exception.DNSException, OSError):
            raise _NoAnswerError from None
        return [record.to_text() for record in answer]


def confirmed(client: bytes, servers: Sequence[tuple[str, int]], timeout: float = TIMEOUT) -> HostName:
    """Look up the name of a client, 4 or 16 bytes; `timeout` in seconds for all of it."""
    address = ipaddress.ip_address(client)
    questions = _Questions(servers, timeout)
    try:
        pointers = questions.ask(address.reverse_pointer, "PTR")
        names = [name for name in map(_host_name, pointers) if name]
        if not names:
            return HostName("", "its name is no host name" if pointers else "it has none")
        kind = "A" if address.version == 4 else "AAAA"
        for name in names[:MOST_NAMES]:
            if any(_is_same(text, address) for text in questions.ask(name, kind)):
                several = f"; one of {len(pointers)}, an MTA looks at one only" if len(pointers) > 1 else ""
                return HostName(name, f"forward-confirmed{several}")
    except _NoAnswerError:
        return HostName("", "not known: the nameservers do not say")
    return HostName("", f"no name that leads back, for {names[0]} has not its address")


def _host_name(text: str) -> str:
    """The name in a PTR record as a host name, "" if it is none (Postfix's valid_hostname.c)."""
    name = text.lower().removesuffix(".")
    return name if HOST_NAME.fullmatch(name) and not _NUMERIC.fullmatch(name) else ""


def _is_same(text: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return ipaddress.ip_address(text) == address
    except ValueError:
        return False
