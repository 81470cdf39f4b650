"""The recorded verdicts as the page shows them: made safe, given a name, searched, and their way gone again.

A record is what a worker wrote of one recipient (see `ring`), perhaps on another host, and it has been in a
store that others may write to: nothing in it is taken for granted.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from hybridgrey.address import packed
from hybridgrey.cleaning import clean
from hybridgrey.clientaddress import ClientAddress, ClientReader
from hybridgrey.history.records import sender_domain
from hybridgrey.lists.zones import Zone
from hybridgrey.logline import LATEST
from hybridgrey.metrics.series import NO_RULE, STATES
from hybridgrey.outcome import LABELS, Outcome, outcome_of, why
from hybridgrey.policy import trace
from hybridgrey.policy.conditions import SPF_RESULTS
from hybridgrey.policy.judge import Answer, Policy

MOST_LISTS: Final = 64
MOST_CODES: Final = 16

_TEXTS: Final = ("mx", "queue_id", "client", "host", "helo", "sender", "recipient", "rule", "action", "reply")

Verdict = dict[str, Any]


def shown(record: Mapping[str, object]) -> Verdict | None:
    """A record, made safe and given a name; None for what is none."""
    made = safe(record)
    return None if made is None else named(made)


def named(made: Verdict) -> Verdict:
    """A verdict with a name of its own, `id`: by what it says, for there is no number all hosts count on."""
    made["id"] = hashlib.sha256(orjson.dumps(made, option=orjson.OPT_SORT_KEYS)).hexdigest()[:20]
    return made


def safe(record: Mapping[str, object]) -> Verdict | None:
    """A record, made safe; None for what is none."""
    moment, client = record.get("t"), record.get("client")
    if not isinstance(moment, (int, float)) or not 0 < moment < LATEST or not isinstance(client, str):
        return None
    made: Verdict = {name: _text(record.get(name)) for name in _TEXTS}
    outcome, state = record.get("outcome"), record.get("state")
    reason, age = _text(record.get("reason")), _number(record.get("age"))
    lists = record.get("lists")
    made |= {
        "t": float(moment),
        "outcome": LABELS[outcome_of(outcome) or Outcome.ACCEPTED],
        "reason": reason,
        "why": why(reason, age) if reason else None,
        "state": state if state in STATES else None,
        "age": age,
        "wait_ms": _number(record.get("wait_ms")) or 0,
        "enforced": record.get("enforced") is not False,
        "lists": dict(map(_listing, list(lists.items())[:MOST_LISTS])) if isinstance(lists, Mapping) else {},
    }
    if "scan_ms" in record:
        made |= {name: _number(record.get(name)) for name in ("score", "scan_ms")}
        made["scan_error"] = _text(record.get("scan_error"))
        made |= {"spam": spam} if isinstance(spam := record.get("spam"), bool) else {}
    return made | dict(_facts(record))


def _facts(record: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """What was found out besides, where it was: by it a verdict can be replayed."""
    if record.get("spf") in SPF_RESULTS:
        yield "spf", record["spf"]
    for name in ("proved", "correspondent"):
        if isinstance(flag := record.get(name), bool):
            yield name, flag
    for name in ("pools", "noted"):
        if isinstance(several := record.get(name), list):
            yield name, [clean(one) for one in several[:MOST_LISTS] if isinstance(one, str)]
    if isinstance(error := record.get("store_error"), str):
        yield "store_error", clean(error)


def _text(value: object) -> str | None:
    return clean(value) if isinstance(value, str) else None


def _number(value: object) -> int | float | None:
    # The comparison is false for what is not a number, too.
    return value if isinstance(value, (int, float)) and abs(value) < LATEST else None


def _listing(item: tuple[object, object]) -> tuple[str, str | list[str]]:
    label, said = item
    if isinstance(said, (list, tuple)):
        return clean(str(label)), [clean(code) for code in said[:MOST_CODES] if isinstance(code, str)]
    # Nothing else is made a text: what is nested a thousand deep has none.
    return clean(str(label)), clean(said) if isinstance(said, str) else "?"


class Word(NamedTuple):
    """A word of a search; `field`: the one thing that it is about, "" for all of a verdict."""

    field: str
    text: str


def words(wanted: str) -> list[Word]:
    r"""The words of a search, in lower case: plain ones, and ``field:word`` for the fields of FIELDS.

    A word may be in quotes, with ``\`` before a quote or backslash in it.  A field without a word, as while
    it is typed, is left out.
    """
    found = []
    for match in _WORD.finditer(wanted.lower()):
        field, quoted, plain = match["field"] or "", match["quoted"], match["plain"] or ""
        if quoted is not None:
            found.append(Word(field, re.sub(r"\\(.)", r"\1", quoted)))
        elif plain:
            found.append(Word(field, plain))
    return found


class Search:
    """Finds the verdicts that have every word that is wanted, in any case.

    A plain word may stand anywhere in them; a network, as ``192.0.2.0/24``, means the clients in it, or that
    carry an address of it.  ``field:word`` must be all of that field, so that it finds this one and no other.
    """

    def __init__(self, wanted: Iterable[Word], clients: ClientReader) -> None:
        """`wanted`: as `words` gives them."""
        asked = [(word, _network(word)) for word in wanted]
        self._clients = clients
        self._networks = [found for _, found in asked if found is not None]
        self._exact = [word for word, found in asked if found is None and word.field]
        self._plain = [word.text for word, found in asked if found is None and not word.field]

    def finds(self, one: Verdict) -> bool:
        """Whether a verdict is one of them."""
        if not all(FIELDS[field](one, text) for field, text in self._exact):
            return False
        if self._networks:
            client = self._clients.read(one["client"])
            if not all(_inside(client, found) for found in self._networks):
                return False
        if self._plain:
            text = _haystack(one, self._clients)
            return all(word in text for word in self._plain)
        return True


_ADDRESS_LIKE: Final = re.compile(r"[a-z0-9._+-]*@[a-z0-9@._+-]+|[a-z][a-z0-9-]*\.[a-z][a-z0-9.-]+")


def needles(wanted: Iterable[Word]) -> list[list[bytes]]:
    """What a record must have in it to have these words (`history.chunks`): addresses and names of hosts.

    Of other words it may have what is not in the record: what we say of it.
    """
    literal = ("", "from", "to", "domain", "list")
    asked = [
        one.text.rstrip(".") if one.field == "domain" else one.text for one in wanted if one.field in literal
    ]
    # A domain in A-labels may stand in the record in its own letters.
    return [[text.encode()] for text in asked if _ADDRESS_LIKE.fullmatch(text) and "xn--" not in text]


def search(verdicts: Iterable[Verdict], wanted: str, clients: ClientReader) -> list[Verdict]:
    """The verdicts that have every word of `wanted`."""
    return list(filter(Search(words(wanted), clients).finds, verdicts))


def _haystack(one: Verdict, clients: ClientReader) -> str:
    said = [one[name] or "" for name in _TEXTS]
    said += [
        clients.read(one["client"]).listed,
        one["outcome"],
        outcome_of(one["outcome"]) or "",
        one["state"] or "",
    ]
    said += [one["why"] or "", "" if one["enforced"] else "observed"]
    for label, answer in one["lists"].items():
        said += [label, answer if isinstance(answer, str) else " ".join(answer)]
    return "\n".join(said).lower()


def _is(name: str) -> Callable[[Verdict, str], bool]:
    return lambda one, text: (one[name] or "").lower() == text


def _is_client(one: Verdict, text: str) -> bool:
    host = (one["host"] or "").lower().rstrip(".")
    return one["client"].lower() == text or host == text or (bool(text) and host.endswith(f".{text}"))


def _is_of_domain(one: Verdict, text: str) -> bool:
    return sender_domain(one["sender"] or "") == text.strip("<>").rstrip(".")


FIELDS: Final[Mapping[str, Callable[[Verdict, str], bool]]] = {
    "rule": lambda one, text: (one["rule"] or NO_RULE).lower() == text,
    "list": lambda one, text: any(label.lower() == text for label in one["lists"]),
    "host": _is("mx"),
    "client": _is_client,
    "domain": _is_of_domain,
    "from": _is("sender"),
    "to": _is("recipient"),
    "helo": _is("helo"),
    "reason": _is("reason"),
    "outcome": lambda one, text: outcome_of(text) == outcome_of(one["outcome"]),
}
"""What a word of a search may be about.

list: one that had the client, or failed.  host: the MX host that judged.  client: its address, its name, or
its end.  domain: the sender's.  outcome: what the client got, as the page or as the record says it.
"""

_WORD: Final = re.compile(
    rf'(?:(?P<field>{"|".join(FIELDS)}):)?(?:"(?P<quoted>(?:[^"\\]|\\.)*)(?:"(?!\S)|$)|(?P<plain>\S*))'
)


def _network(word: Word) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """The network that a word means; with ``client:`` an address is one of its own."""
    if word.field not in ("", "client") or ("/" not in word.text and not word.field):
        return None
    try:
        return ipaddress.ip_network(word.text, strict=False)
    except ValueError:
        return None


def _inside(client: ClientAddress, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    """Whether a client is in a network, or carries an address of it."""
    meant = {client.packed, client.asked} - {None}
    return any(ipaddress.ip_address(address) in network for address in meant if address)


def retrace(policy: Policy, zones: Sequence[Zone], one: Verdict) -> trace.Retraced:
    """The way of a verdict from what is recorded of it."""
    asked = trace.Question(one["client"], one["host"], one["helo"], one["sender"], one["recipient"])
    answers = {
        zone.name: _answer(zone, one["lists"][zone.label]) for zone in zones if zone.label in one["lists"]
    }
    labels = {zone.name: zone.label for zone in zones}
    return trace.retrace(policy, asked, answers, labels, one["rule"])


def _answer(zone: Zone, said: str | list[str]) -> Answer:
    if isinstance(said, str):
        return Answer(error=said)
    codes = [packed(code) for code in said]
    return zone.answer(tuple(code for code in codes if code is not None and len(code) == 4))
