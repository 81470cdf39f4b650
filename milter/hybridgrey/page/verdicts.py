"""The recorded verdicts as the page shows them: made safe, given a name, searched, and their way gone again.

A record is what a worker wrote of one recipient (see `ring`), perhaps on another host, and it has been in a
store that others may write to: nothing in it is taken for granted.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from hybridgrey.address import packed
from hybridgrey.cleaning import clean
from hybridgrey.clientaddress import ClientAddress, ClientReader
from hybridgrey.lists.zones import Zone
from hybridgrey.metrics.series import STATES
from hybridgrey.outcome import LABELS, Outcome, outcome_of
from hybridgrey.policy import trace
from hybridgrey.policy.judge import Answer, Policy

MOST_LISTS: Final = 64
MOST_CODES: Final = 16
LATEST: Final = 4e9  # s; what is beyond is no time of ours

_TEXTS: Final = ("mx", "queue_id", "client", "host", "helo", "sender", "recipient", "rule", "action", "reply")

Verdict = dict[str, Any]


def shown(record: Mapping[str, object]) -> Verdict | None:
    """A record, made safe; None for what is none."""
    moment, client = record.get("t"), record.get("client")
    if not isinstance(moment, (int, float)) or not 0 < moment < LATEST or not isinstance(client, str):
        return None
    made: Verdict = {name: _text(record.get(name)) for name in _TEXTS}
    outcome, state = record.get("outcome"), record.get("state")
    lists = record.get("lists")
    made |= {
        "t": float(moment),
        "outcome": LABELS[outcome_of(outcome) or Outcome.ACCEPTED],
        "reason": _text(record.get("reason")),
        "state": state if state in STATES else None,
        "age": _number(record.get("age")),
        "wait_ms": _number(record.get("wait_ms")) or 0,
        "enforced": record.get("enforced") is not False,
        "lists": dict(map(_listing, list(lists.items())[:MOST_LISTS])) if isinstance(lists, Mapping) else {},
    }
    # Named by what it says: there is no number that all hosts count on.
    made["id"] = hashlib.sha256(orjson.dumps(made, option=orjson.OPT_SORT_KEYS)).hexdigest()[:20]
    return made


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


def search(verdicts: Iterable[Verdict], wanted: str, clients: ClientReader) -> list[Verdict]:
    """The verdicts that have every word of `wanted` somewhere in them, in any case.

    A word that is a network, as ``192.0.2.0/24``, means the clients in it, or that carry an address of it.
    """
    words = wanted.lower().split()
    networks = [network for word in words if (network := _network(word)) is not None]
    words = [word for word in words if _network(word) is None]
    return [
        one
        for one in verdicts
        if all(_inside(clients.read(one["client"]), network) for network in networks)
        and (not words or all(word in text for text in (_haystack(one, clients),) for word in words))
    ]


def _haystack(one: Verdict, clients: ClientReader) -> str:
    names = "accepted" if one["outcome"] == "accept" else _NAMES.get(one["outcome"], "")
    said = [one[name] or "" for name in _TEXTS]
    said += [clients.read(one["client"]).listed, one["outcome"], names, one["state"] or ""]
    said.append("" if one["enforced"] else "observed")
    for label, answer in one["lists"].items():
        said += [label, answer if isinstance(answer, str) else " ".join(answer)]
    return "\n".join(said).lower()


_NAMES: Final[Mapping[str, str]] = {"delay": "greylisted", "reject": "rejected", "tempfail": "deferred"}


def _network(word: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    if "/" not in word:
        return None
    try:
        return ipaddress.ip_network(word, strict=False)
    except ValueError:
        return None


def _inside(client: ClientAddress, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
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
