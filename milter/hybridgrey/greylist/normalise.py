"""Addresses as the greylist remembers them (RFC 6647 section 2.3 and 4.2).

A triplet is of use only when the second attempt of a message, and the next message of the same
sender, give the same triplet again. Three things stand in the way, and each has a function here:

* big senders retry from a neighbouring address: `client_network` keeps the network only;
* case, brackets, quotes and source routes differ although the address is the same: `envelope`;
* bounce addresses change with each message or each attempt: `sender` folds what changes to `#`.

Folded in the local part of a sender:

=========  ==========================================  ==============================
BATV       `prvs=4711abcdef=user`, `btv1==TAG==user`   `user`
SRS        `SRS0=hash=tt=domain=user`                  `srs0=#=#=domain=user`
Microsoft  `user+SRS=hash=tt=domain=user`              `user+srs=#=#=domain=user`
SRS twice  `SRS1=hash=fwd==hash=tt=domain=user`        `srs=#=fwd==#=#=domain=user`
VERP       `list-return-4711-user=example.com`         `list-return-#-#`
UUID       `4f5b…-…-…-…-…`                             `#`
bulk       the forms of a dozen bulk senders           see `bounceforms`
tokens     hexadecimal, base64-like, very long         `#`
digits     runs of four and more; in an address that   `#`
           looks like a bounce address, all runs
=========  ==========================================  ==============================

How much to fold? Folding too little delays each message of a sender anew; folding too much lets a second
sender of the *same client network to the same recipient* pass on the first one's credit, which a spammer
cannot steer. So the rule leans to folding, with one limit: people must stay apart. `john.smith2` and
`john.smith3` do: short runs of digits are names in an ordinary address, and so are letters of any kind. In
an address that a program made (`=` or `bounce` in it, or a domain for bounces) runs that mix letters and
digits, and letters that make no word, are tokens. Four digits are a year, a number of a provider that
numbers its customers, or a message number; only the last makes trouble, but nothing tells them apart, so all
of them fold. The domain is never folded: it is the identity that is left.

The addresses are texts as `envelope.read` takes them; an uncertain or over-long one is the digest of the
whole and not folded. All functions are pure, never raise, and are idempotent:
`sender(sender(x)) == sender(x)`.
The greylist calls them once for each recipient.
"""

from __future__ import annotations

import re
import socket
from itertools import pairwise
from typing import Final

from hybridgrey import envelope
from hybridgrey.clientaddress import ClientReader
from hybridgrey.envelope import Mailbox
from hybridgrey.greylist import bounceforms

MAX_UNPARSED: Final = 64  # what is kept of a client that is no address at all

_READER: Final = ClientReader()

_QUOTING = {ord('"'): None, ord("\\"): None}

# Most senders are people: no digit, `=` or `+`, and too short for a random token. They skip the folding.
_SHORTEST_TOKEN: Final = 15  # of letters alone, with what stands before it
_PLAIN = re.compile(r"[^0-9=+#]{0,31}")

_BATV = re.compile(r"(?:ms)?prvs\d?=([^=]*)=(.+)", re.DOTALL)
_BATV_TAG = re.compile(r"[0-9a-z]*[0-9][0-9a-z]*")
_BARRACUDA = re.compile(r"btv1==[^=]*==(.+)", re.DOTALL)
_SRS0 = re.compile(r"srs0[=+-][^=]*=[^=]*=(.*)", re.DOTALL)
_SRS1 = re.compile(r"srs1[=+-][^=]*=([^=]*)=[=+-][^=]*=[^=]*=(.*)", re.DOTALL)
_VERP = re.compile(r"(.*[-+])[^-+=]+=(?:[a-z0-9_-]+\.)+[a-z0-9-]{2,}", re.DOTALL)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_BOUNCE = re.compile(r"[=+#]|bounce|bnc|return|verp|owner|error|undeliver|mailer|no-?reply|notification")
_TOKEN = re.compile(r"[a-z0-9]+")
_HEXADECIMAL = re.compile(r"(?=[a-f]*[0-9])[0-9a-f]{8,}")
_DIGITS = re.compile(r"[0-9]+")
_LONG_DIGITS = re.compile(r"[0-9]{4,}")


def sender(address: str) -> str:
    """The envelope sender as part of a triplet; `<>` and the empty address give `<>`.

    One fold can uncover another (a BATV tag around an SRS address, a token beside a folded number), so it is
    repeated until nothing changes. Each round removes characters other than `#`; nearly always two do.

    >>> sender("<Bounces+4711-user=example.com@List.Example.ORG>")
    'bounces+#-#@list.example.org'
    """
    box = _read(address)
    # What is long, odd or uncertain is a digest, and nothing in that is to be folded.
    while not box.null and not box.key.startswith("@"):
        local = _folded(box.local, box.domain)
        if local == box.local:
            break
        box = envelope.read(f"{local}@{box.domain}" if box.domain else local)
    return box.key


def recipient(address: str) -> str:
    """The envelope recipient as part of a triplet: cleaned and in lower case, nothing else; "" for none.

    `user+detail` is kept: the recipient is ours, does not change by itself, and a detail may be a
    mailbox of its own.
    """
    box = _read(address)
    return "" if box.null else box.key


def client_network(client: str, ipv4_prefix: int, ipv6_prefix: int, reader: ClientReader = _READER) -> str:
    """The network of a client, as `192.0.2.0/24` or `2001:db8::/64`.

    An IPv6 address that carries an IPv4 one is of the IPv4 network, as `reader` has it; a zone id
    (`fe80::1%eth0`) is dropped, and a prefix out of range means the nearest that is possible. What is no
    address at all (a unix socket, a damaged macro) is kept as text, a long one
    with a digest for its end, and so is a network of its own.
    """
    packed = reader.read(client).asked
    if packed is None:
        text = client.strip().strip("[]").split("%", 1)[0].casefold()
        return envelope.shortened(text, MAX_UNPARSED, MAX_UNPARSED // 2)
    family, prefix = (socket.AF_INET, ipv4_prefix) if len(packed) == 4 else (socket.AF_INET6, ipv6_prefix)
    return _masked(family, packed, max(0, min(prefix, 8 * len(packed))))


def _masked(family: int, packed: bytes, prefix: int) -> str:
    """The network of `packed`, a network-order address, as CIDR."""
    host_bits = 8 * len(packed) - prefix
    number = int.from_bytes(packed, "big") >> host_bits << host_bits
    return f"{socket.inet_ntop(family, number.to_bytes(len(packed), 'big'))}/{prefix}"


def _read(text: str) -> Mailbox:
    """A text as `envelope` reads it; quotes inside a local part are dropped, as old stores have it.

    No client comes by here with one: a session gives the key, which is a digest for such an address.
    """
    box = envelope.read(text)
    if '"' in box.local or "\\" in box.local:
        return envelope.read(text.translate(_QUOTING))
    return box


def _folded(local: str, domain: str) -> str:
    """A case-folded local part with `#` in the place of what changes from message to message."""
    if _PLAIN.fullmatch(local) and (len(local) < _SHORTEST_TOKEN or not bounceforms.is_made(local, domain)):
        return local
    return _fold(local, domain)


def _fold(local: str, domain: str) -> str:
    local = _without_batv(local)
    local = bounceforms.known(bounceforms.whole(local, domain))
    if match := _SRS0.fullmatch(local):
        local = f"srs=#=#={match[1]}"
    elif match := _SRS1.fullmatch(local):
        local = f"srs=#={match[1]}==#=#={match[2]}"
    elif "srs=#" not in local and (match := _VERP.fullmatch(local)):
        local = f"{match[1]}#"
    # In a forwarder's address the sender is a person.
    made = "srs=#" not in local and bounceforms.is_made(local, domain)
    local = _TOKEN.sub(_fold_made if made else _fold_token, _UUID.sub("#", local))
    return (_DIGITS if _BOUNCE.search(local) else _LONG_DIGITS).sub("#", local)


def _without_batv(local: str) -> str:
    """The address inside a bounce address tag (draft-levine-smtp-batv); older senders put the tag last."""
    if match := _BARRACUDA.fullmatch(local):
        return match[1]
    if match := _BATV.fullmatch(local):
        first, second = match[1], match[2]
        tag_last = not _BATV_TAG.fullmatch(first) and _BATV_TAG.fullmatch(second)
        return first if tag_last and first else second
    return local


def _fold_made(match: re.Match[str]) -> str:
    """The same in an address that a program made: letters with digits in them, and noise, too."""
    return "#" if bounceforms.is_token(match[0]) else _fold_token(match)


def _fold_token(match: re.Match[str]) -> str:
    """`#` for a run of letters and digits that no person would choose, else the run itself.

    Names have one change between letters and digits: `christopher42`, `abcde1984`.  Random are: hexadecimal
    of eight and longer with two changes, or of sixteen with a digit; ten and longer with three changes;
    thirty-two and longer but for letters that make words, as in long compounds.
    """
    token = match[0]
    if len(token) < 8:
        return token
    if len(token) >= 32:
        return token if token.isalpha() and not bounceforms.is_noise(token) else "#"
    changes = sum(a.isdigit() != b.isdigit() for a, b in pairwise(token))
    if _HEXADECIMAL.fullmatch(token) and (changes >= 2 or len(token) >= 16):
        return "#"
    return "#" if len(token) >= 10 and changes >= 3 else token
