"""What a client's verified host name says of it: none, generic, or named.

A *generic* name is one that nobody has chosen: the network made it from the client's address, or numbers
its customers.  Hosts of that kind seldom are mail servers, and most bots are such hosts.  Evidence:

- the address in the name: its octets or groups, decimal or hex, padded or not, forwards or backwards;
- words of access networks (dsl, dyn, dhcp, dialup ...) and, less certain, of customers and their machines.

Mail servers have numbers in their names too, often the last octets of their address
(``a27-19.smtp-out.amazonses.com``).  So a word of mail (smtp, mta, mail, out ...) outweighs all evidence but
the surest words of access networks.  Words of the registered domain do not count: it is the network's name,
not the host's.

A wrong ``generic`` must cost no more than a delay: a rule that rejects on it alone would lose mail.
"""

from __future__ import annotations

import re
from enum import StrEnum

_LONGEST = 255


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Second-level domains of countries under which names are registered.
_REGISTRIES = _words("ac ad co com edu gen go gob gov gv id ne net or org sch")
# Beside these all words that end in "dsl".
_ACCESS = _words(
    """
    abts adslgp adslpool bbcust cablem cablemodem dclient dhcp dial dialin dialup dialups dip docsis dslam
    dslb dyn dynamic dynamicip dynip dynpool fttb ftth fttp fttx gpon gprs hsdpa ipngn isdn modemcable ool ppp
    pppoa pppoe pppox umts wimax
    """
)
_CUSTOMER = _words(
    """
    abo access bb bband broad broadband cable catv cgn chello client clienti clients cm cpc cpe cust
    customer customers dia fiber fibre fios fixed hfc home hsd hsi internet ip kabel lightspeed lte
    members mobile nat omed pool pools priv range red res resid residential retail rev reverse softbank
    static sub users user uvs wifi wireless wlan wline zaq
    """
)
# Names of machines that are let, and of no machine at all.
_LET = _words("vps vmi vds compute")
_UNNAMED = _words("nordns norevdns rdns unallocated unassigned unknown unused")
_MAIL = re.compile(
    r"smtp|mail|(?:^|[^a-z])(?:bounces?|delivery|esa|exchange|forward|lists?|mo(?=[0-9])|mout|mta|mx[a-z]?|mxout|"
    r"newsletters?|omp|omta|out|outbound|outgoing|relay|send|sender)(?:[^a-z]|$)"
)
_WORD = re.compile(r"[a-z]+")
_NUMBER = re.compile(r"[0-9]+")
_GROUP = re.compile(r"[0-9a-f]+")
# A number of a customer rather than of a service.
_SERIAL = re.compile(r"[0-9]{3}|[0-9][^0-9]+[0-9]")
_LONG_NUMBER = re.compile(r"[0-9]{4}|(?=[a-f]*[0-9])[0-9a-f]{8}")
_MAC = re.compile(r"(?:^|[^0-9a-f])(?:s01[0-9a-f]{2}|cpe|cm)?[0-9a-f]{12}(?:[^0-9a-f]|$)")


class Name(StrEnum):
    """The kinds of names, as the condition `rdns` has them."""

    NONE = "none"
    GENERIC = "generic"
    NAMED = "named"


def classify(host: str | None, address: bytes) -> Name:
    """The kind of a verified host name; `address`: 4 or 16 octets, of the client.  Never fails."""
    name = (host or "").strip().lower().removesuffix(".")[:_LONGEST]
    if not name or name == "unknown" or name.startswith("["):
        return Name.NONE
    own = _own_labels(name)
    words = frozenset(_WORD.findall(own))
    if words & _ACCESS or any(word.endswith("dsl") for word in words):
        return Name.GENERIC
    if _MAIL.search(own):
        return Name.NAMED
    return Name.GENERIC if _made(name, own, words, address) else Name.NAMED


def _own_labels(name: str) -> str:
    """The labels before the registered domain."""
    labels = name.split(".")
    registered = 3 if len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _REGISTRIES else 2
    return ".".join(labels[:-registered])


def _made(name: str, own: str, words: frozenset[str], address: bytes) -> bool:
    """Whether the name is made by rule."""
    # Some hosters register a domain for each network: ns12345.ip-192-0-2.eu.
    octets = _octets(name, address) if len(address) == 4 else _groups(name, address)
    if octets >= 3 or words & _UNNAMED:
        return True
    if words & _CUSTOMER and (octets or _SERIAL.search(own)):
        return True
    return bool(words & _LET and _LONG_NUMBER.search(own)) or _MAC.search(own) is not None


def _octets(own: str, address: bytes) -> int:
    """How many octets of an IPv4 address stand together in the name: 0 or 2 to 4."""
    if address.hex() in own or "".join([f"{octet:03}" for octet in address]) in own:
        return 4
    numbers = [int(digits) for digits in _NUMBER.findall(own) if len(digits) <= 3]
    wanted = list(address)
    for count in (4, 3, 2):
        for begin in range(5 - count):
            some = wanted[begin : begin + count]
            for order in (some, some[::-1]):
                if any(numbers[at : at + count] == order for at in range(len(numbers))):
                    return count
    return 0


def _groups(own: str, address: bytes) -> int:
    """How many groups of an IPv6 address stand together in the name, 4 at most."""
    digits = address.hex()
    squeezed = own.replace("-", "").replace(".", "").replace(":", "")
    if any(part in squeezed for part in (digits[:16], digits[16:]) if part.strip("0")):
        return 4
    groups = [int(digits[at : at + 4], 16) for at in range(0, 32, 4)]
    found = [int(group, 16) for group in _GROUP.findall(own) if len(group) <= 4]
    runs = (groups[at : at + 4] for at in range(5))
    return 4 if any(found[at : at + 4] == run for run in runs for at in range(len(found))) else 0
