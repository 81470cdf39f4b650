"""Names and addresses of the SMTP dialogue, brought to one form so that they can be compared.

What a client sends in HELO is text of its choosing, in any case, in UTF-8 or in no encoding at all.  The
functions here never fail.  Envelope paths are read in `envelope`.
"""

from __future__ import annotations

import socket

import idna

# RFC 1035 section 2.3.4: 255 octets, which leaves 253 characters of text.
MAX_NAME = 253
# Not all that Unicode calls a blank: U+3000 is a character of a name like any other that IDNA refuses.
_BLANK = " \t\r\n\v\f"

# ::ffff:0:0/96 (RFC 4291 section 2.5.5.2)
_MAPPED = bytes(10) + b"\xff\xff"
# What may stand around an address.
_AROUND = "[] \t\r\n"


def host(name: str) -> str:
    """A host or domain name in lower case, without its last dot, in A-labels where it has U-labels.

    IDNA 2008, not transitional, with the mapping of UTS 46, as Postfix and browsers do it: ``straße.de`` is
    not ``strasse.de``.  What that refuses, and what is too long for a name, stays and equals nothing else.
    """
    name = name.strip(_BLANK).lower().removesuffix(".")
    if name.isascii() or len(name) > MAX_NAME:
        return name
    try:
        labels = idna.uts46_remap(name, std3_rules=False, transitional=False).removesuffix(".").split(".")
        return ".".join(label if label.isascii() else idna.alabel(label).decode("ascii") for label in labels)
    except UnicodeError:
        return name


def packed(address: str) -> bytes | None:
    """The 4 or 16 bytes of a client address, an IPv4-mapped one as IPv4; None when it is no IP address.

    Takes the forms of the milter protocol and of Sendmail's macros, ``IPv6:2001:db8::1`` among them, in
    brackets or not.  `inet_pton` rather than `ipaddress`: a tenth of the time.
    """
    if ":" not in address:
        try:
            return socket.inet_pton(socket.AF_INET, address.strip(_AROUND))
        except (OSError, ValueError):
            return None
    address = address.strip(_AROUND)
    if address[:5].lower() == "ipv6:":
        address = address[5:]
    try:
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except (OSError, ValueError):
        return None
    return packed[12:] if packed.startswith(_MAPPED) else packed


def endpoint_text(host: str, port: int) -> str:
    """An address and a port as an admin writes them: ``192.0.2.1:53``, ``[::1]:53``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
