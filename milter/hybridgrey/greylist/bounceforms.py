"""Bounce addresses of bulk senders: what changes in them from message to message.

Each large system has a form of its own for the envelope sender: numbers, hashes and the recipient in it.  A
form that is known folds to one text.  For the others `is_token` judges a run of letters and digits; it is
only asked of addresses that a program made (`is_made`), for there nobody is mistaken for another.

Texts are case-folded.  Pure; no function raises.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

# What a local part of the form has in it (a cheap look first), the form, and what it folds to.
# A folded form has no such form any more, or `#` where it is looked for.
_FORMS: Final = tuple(
    (sign, re.compile(form, re.DOTALL), folded)
    for sign, form, folded in (
        # Mailgun: bounce+0a1b2c.4d5e6f-user=example.com
        ("bounce+", r"bounce\+[0-9a-f]{6}\.[0-9a-z]+-.+=.+", "bounce+#"),
        # SendGrid, and who sends through it: bounces+123456-0a1b-user=example.com
        ("bounces+", r"bounces\+[0-9]+-[0-9a-f]{4}-.+=.+", "bounces+#-#-#"),
        # Mailchimp and Mandrill
        ("bounce-mc.", r"bounce-mc\.us[0-9]+_[0-9]+\.[0-9a-f.-]+-.+=.+", "bounce-mc.us#_#.#-#"),
        ("bounce-md_", r"bounce-md_[0-9]+\.[0-9a-f]+\.v1-[0-9a-f]+", "bounce-md_#.#.v#-#"),
        # Salesforce: user=example.com__0-1abcdef2ghi3jk
        ("__", r"[^=]+=[^=]+__[0-9]+-[0-9a-z]+", "#__#-#"),
        # HubSpot, Twitter: one token, then the recipient
        ("=", r"(?=[a-z-]*[0-9])[0-9a-z]{10,}-.+=.+", "#-#"),
        # Constant Contact: three tokens in base64
        ("_", r"[0-9a-z+/]{16,}={0,2}_[0-9]{10,}_[0-9a-z+/]{16,}={0,2}", "#_#_#"),
        # Facebook
        ("+", r"(notification|update|security|invite|reply)\+[0-9a-z_=-]{8,}", r"\1+#"),
        # Google Groups: list+bncBCABCDEF123
        ("+bnc", r"(.+)\+bnc[0-9a-z_-]{8,}", r"\1+bnc#"),
        # ezmlm's confirmations: list-sc.1234567890.abcdefghijklmnopabcd-user=example.com
        ("c.", r"(.+-[stu]c\.)[0-9]+\.[a-p]{20}-.+=.+", r"\1#.#-#"),
        # Microsoft 365: user+SRS=hash=tt=domain=user, bounces+SRS=hash=tt
        ("+srs=", r"(.*)\+srs=(?!#=#)[^=]*=[^=]*=(.*)", r"\1+srs=#=#=\2"),
        ("+srs=", r"(.*)\+srs=(?!#=#)[^=]*=[^=]*", r"\1+srs=#=#"),
    )
)
# Where a whole domain is for bounces: what is long there and no words is a token, and the domain says enough.
_DOMAIN: Final = re.compile(
    r"(?:^|\.)(?:bounces?|bnc|returns?|verp|errors|rp)[0-9]*\.|(?:^|\.)[a-z]*-?bounces?\."
)
_SHORTEST_WHOLE: Final = 16
_LONG: Final = re.compile(r"[0-9a-z_~+/.-]+={0,2}")
_MADE: Final = re.compile(r"=|bounce|bnc|verp|undeliver")
_ALNUM: Final = re.compile(r"[0-9a-z]+")
_SHORT_MIXED: Final = 4
_WORD_NUMBER: Final = re.compile(
    r"(?:bounces?|html|text|list|news|newsletter|mail|mailer|msg|us|eu|ap|v|s|m|user|owner|return|order)[0-9]+"
)
_SHORTEST_NOISE: Final = 8
_SAME: Final = re.compile(r"(.)\1\1\1")
_CONSONANTS: Final = re.compile(r"[b-df-hj-np-tv-xz]{5}")

# Letters that follow a letter in names and words of languages in Latin script, pinyin and Vietnamese too.
_FOLLOW: Final = {
    "a": "abcdefghijklmnopqrstuvwxyz", "b": "abdehijlorstuy", "c": "acehiklorstuyz",
    "d": "adeghijlmnorstuvwyz", "e": "abcdefghijklmnopqrstuvwxyz", "f": "aefilorstuy",
    "g": "adeghilmnorstuwy", "h": "aeilmnortuwy", "i": "abcdefghijklmnopqrstuvxyz", "j": "adeikouy",
    "k": "aehiklmnorstuvwyz", "l": "abcdefghiklmnopstuvyz", "m": "abceilmnopsuy",
    "n": "abcdefghijklmnopqrstuvwxyz", "o": "abcdefghijklmnopqrstuvwxyz", "p": "aefhiloprstuyz",
    "q": "aiu", "r": "abcdefghijklmnopqrstuvwxyz", "s": "acehijklmnopqrstuvwyz",
    "t": "acehilmnorstuvwyz", "u": "abcdefghijklmnopqrstvxyz", "v": "aeiklnorsuy",
    "w": "aehiklnorsuyz", "x": "aceioptuy", "y": "abcdefglmnoprstuvwxz", "z": "abdehiklmnouwyz",
}  # fmt: skip


def known(local: str) -> str:
    """A local part of a known form as it folds; any other as it is."""
    for sign, form, folded in _FORMS:
        if sign in local and (match := form.fullmatch(local)):
            return match.expand(folded)
    return local


def is_made(local: str, domain: str) -> bool:
    """Whether a program made the local part: it says so, or its domain does."""
    return _MADE.search(local) is not None or _DOMAIN.search(domain) is not None


def whole(local: str, domain: str) -> str:
    """The local part at a domain that is for bounces, where it is one long token; any other as it is."""
    if len(local) < _SHORTEST_WHOLE or not _LONG.fullmatch(local) or not _DOMAIN.search(domain):
        return local
    return "#" if is_noise(local) or any(map(is_token, _ALNUM.findall(local))) else local


def is_token(run: str) -> bool:
    """Whether a run in an address that a program made is one of its tokens.

    Such are letters with digits in them, but for a word with a number, and letters that are noise.
    """
    if run.isalpha():
        return is_noise(run) or (len(run) >= _SHORTEST_NOISE and _CONSONANTS.search(run) is not None)
    return len(run) >= _SHORT_MIXED and not run.isdigit() and not _WORD_NUMBER.fullmatch(run)


def is_noise(run: str) -> bool:
    """Whether letters make no word: an eighth of all pairs of neighbours, and two, hardly occur in any.

    Nor does one letter four times; three there are, in German compounds.
    """
    letters = re.sub(r"[^a-z]", "", run)
    if len(letters) < _SHORTEST_NOISE:
        return False
    if _SAME.search(letters):
        return True
    odd = sum(b not in _FOLLOW[a] for a, b in pairwise(letters))
    return odd >= 2 and odd * 8 >= len(letters) - 1
