"""Messages as JSON lines: one mail to one recipient, its attempts, and what was known at each.

    {"label": "ham", "kind": "login code", "sender": "a@example.org", "recipient": "b@example.net",
     "attempts": [{"at": 1767225600, "client": "192.0.2.1", "host": null, "helo": "mx.example.org",
                   "lists": {"zen.spamhaus.org": ["127.0.0.4"]}, "spf": "pass", "proved": true,
                   "pools": ["_spf.example.com"], "correspondent": false, "expected": false,
                   "authenticated": false, "score": 1.2}]}

`sender`, `recipient` and, of each attempt, `at` (Unix seconds) and `client` must be there. A fact that is
absent is unknown, which is not the same as none: ``"host": null`` is a client without a verified name,
``"helo": null`` one that has sent no HELO. So it is with each list: codes, ``[]`` for a client that it does
not have, a text for an error, and absent for not known.

`spf` is a result of RFC 7208. `proved` says whether it proves the client, ``spf == "pass"`` where it is
absent. `pools` are all pools that the client is in. `correspondent`: whether we have written to this sender.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from hybridgrey import address
from hybridgrey.cleaning import clean
from hybridgrey.policy.conditions import PASS, SPF_RESULTS, UNKNOWN, Unknown

MOST_ATTEMPTS: Final = 10_000
MAX_TEXT: Final = 2000  # characters of an address or name; RFC 5321 allows far less
LATEST: Final = 253_402_300_800  # the year 10000


Heard = tuple[tuple[str, tuple[bytes, ...] | str], ...]
"""What lists have said, by name or label: the codes, none for "not listed", or the text of an error."""


class DamageError(ValueError):
    """A line that is no message; the text says why."""


class Attempt(NamedTuple):
    """One attempt and what was known then; `at` in Unix seconds. `heard` has the lists in the order of names.

    `others_none`: lists that are not in `heard` did not have the client, if they were asked at all.
    `pools` are all that the client is in, by their domains.
    """

    at: float
    client: str
    host: str | Unknown | None = UNKNOWN
    helo: str | Unknown | None = UNKNOWN
    authenticated: bool | Unknown = UNKNOWN
    heard: Heard = ()
    others_none: bool = False
    spf: str | Unknown = UNKNOWN
    proved: bool | Unknown = UNKNOWN
    pools: tuple[str, ...] | Unknown = UNKNOWN
    correspondent: bool | Unknown = UNKNOWN
    expected: bool | Unknown = UNKNOWN
    score: float | Unknown = UNKNOWN


class Message(NamedTuple):
    """One mail to one recipient. Attempts are in order of time.

    `ended`: whether the last attempt was let in, or rejected for good, when it was recorded: then no retry
    is known, whatever a client would have done that is put off.
    """

    label: str
    kind: str
    sender: str
    recipient: str
    attempts: tuple[Attempt, ...]
    ended: bool = False


_OF_ATTEMPT: Final = frozenset(
    {
        "at",
        "client",
        "host",
        "helo",
        "lists",
        "spf",
        "proved",
        "pools",
        "correspondent",
        "expected",
        "authenticated",
        "score",
    }
)
_OF_MESSAGE: Final = frozenset({"label", "kind", "sender", "recipient", "attempts"})


def message(raw: Mapping[str, Any], seen: Callable[[str], None]) -> Message:
    """A message as it stands in a line; `seen` hears the keys that mean nothing here. Raises DamageError."""
    for key in raw.keys() - _OF_MESSAGE:
        seen(key)
    attempts = raw.get("attempts")
    if not isinstance(attempts, list) or not 0 < len(attempts) <= MOST_ATTEMPTS:
        raise DamageError(f"attempts must be a list of 1 to {MOST_ATTEMPTS}")
    made = sorted((_attempt(one, seen) for one in attempts), key=lambda one: one.at)
    return Message(
        _name(raw, "label"),
        _name(raw, "kind"),
        _text(raw.get("sender"), "sender"),
        _text(raw.get("recipient"), "recipient"),
        tuple(made),
    )


def _attempt(raw: object, seen: Callable[[str], None]) -> Attempt:
    if not isinstance(raw, dict):
        raise DamageError("an attempt must be an object")
    for key in raw.keys() - _OF_ATTEMPT:
        seen(key)
    return Attempt(
        moment(raw.get("at")),
        client(raw.get("client")),
        name(raw, "host"),
        name(raw, "helo"),
        flag(raw, "authenticated"),
        heard(raw["lists"]) if "lists" in raw else (),
        False,
        *spf(raw),
        pools(raw),
        flag(raw, "correspondent"),
        flag(raw, "expected"),
        score(raw),
    )


def flag(raw: Mapping[str, Any], key: str) -> bool | Unknown:
    """True or false; raises DamageError."""
    value = raw.get(key, UNKNOWN)
    if value is UNKNOWN or isinstance(value, bool):
        return value
    raise DamageError(f"{key} must be true or false")


def spf(raw: Mapping[str, Any]) -> tuple[str | Unknown, bool | Unknown]:
    """The result, and whether it proves the client; raises DamageError."""
    result, proved = raw.get("spf", UNKNOWN), flag(raw, "proved")
    if result is not UNKNOWN and not (isinstance(result, str) and result in SPF_RESULTS):
        raise DamageError(f"spf must be one of {', '.join(SPF_RESULTS)}")
    if proved is True and result != PASS:
        raise DamageError("proved is true, and spf is not pass")
    return result, result == PASS if proved is UNKNOWN and result is not UNKNOWN else proved


def pools(raw: Mapping[str, Any]) -> tuple[str, ...] | Unknown:
    """All pools that the client is in; raises DamageError."""
    if "pools" not in raw:
        return UNKNOWN
    if not isinstance(raw["pools"], list):
        raise DamageError("pools must be a list of domains")
    return tuple(_zone(_text(one, "a pool")) for one in raw["pools"])


def score(raw: Mapping[str, Any]) -> float | Unknown:
    """The content scanner's; raises DamageError."""
    if "score" not in raw:
        return UNKNOWN
    value = raw["score"]
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise DamageError("score must be a number")


def moment(value: object) -> float:
    """Unix seconds from 1 on, for the greylist knows no triplet of 0. Raises DamageError."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 1 <= value < LATEST:
        raise DamageError("at must be a time in Unix seconds")
    return value


def client(value: object) -> str:
    """A client's address; what is none (a Unix socket's) is kept as it is. Raises DamageError."""
    return sys.intern(_text(value, "client"))


def name(raw: Mapping[str, Any], key: str) -> str | Unknown | None:
    """A host or HELO name, None for none. Raises DamageError."""
    if key not in raw:
        return UNKNOWN
    return None if raw[key] is None else sys.intern(_text(raw[key], key))


def heard(value: object) -> Heard:
    """What lists have said; raises DamageError."""
    if not isinstance(value, dict):
        raise DamageError("lists must be an object")
    if not value:
        return ()
    said = {_zone(zone): _said(zone, codes) for zone, codes in value.items()}
    return tuple(sorted(said.items(), key=lambda item: item[0]))


def _zone(text: str) -> str:
    return sys.intern(text.strip().lower().removesuffix("."))


def _said(zone: str, said: object) -> tuple[bytes, ...] | str:
    if isinstance(said, str):
        return said or "error"
    if not isinstance(said, list):
        raise DamageError(f"{clean(zone)}: codes must be a list, or the text of an error")
    return tuple(_code(zone, code) for code in said)


def _code(zone: str, code: object) -> bytes:
    packed = address.packed(code) if isinstance(code, str) else None
    if packed is None or len(packed) != 4:
        raise DamageError(f"{clean(zone)}: a return code must be an IPv4 address")
    return packed


def _text(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise DamageError(f"{key} must be a text")
    if len(value) > MAX_TEXT:
        raise DamageError(f"{key} is longer than {MAX_TEXT} characters")
    return value


def _name(raw: Mapping[str, Any], key: str) -> str:
    value = raw.get(key)
    return "" if value is None else sys.intern(_text(value, key))
