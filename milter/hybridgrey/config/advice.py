"""Warnings: what a valid configuration may still get wrong.

Each warning names the key and what follows from it.  None of them stops the daemon.
"""

from __future__ import annotations

import grp
import ipaddress
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv6Network
from pathlib import Path

from hybridgrey.config import sockets
from hybridgrey.config.known_lists import PUBLIC_RESOLVERS, graded, public_label
from hybridgrey.config.masking import key_like
from hybridgrey.config.rules import Problem
from hybridgrey.config.settings import Settings
from hybridgrey.policy.judge import REFUSING, Action, Policy, Rule, Verdict, judge
from hybridgrey.policy.match import Entry, Network

LOOPBACK = bytes((127, 0, 0, 1))
_ANY = ("", "0.0.0.0", "::")

# Conditions on what has to be asked for; entries by hand are in memory.
_ASKED = ("spf", "correspondent", "score")

# Files of clients may be long, and each pair is compared.
MOST_COMPARED = 100

LONG_KEPT = 31 * 86400  # s


def warnings(settings: Settings, rules: Sequence[Rule]) -> Iterator[Problem]:
    """All warnings, those of the rules last."""
    yield from _accounts(settings)
    yield from _listen(settings)
    yield from _nameservers(settings)
    yield from _metrics(settings)
    yield from _verdicts(settings)
    yield from _networks(settings)
    yield from _zones(settings, rules)
    yield from _rules(settings, rules)


def _accounts(settings: Settings) -> Iterator[Problem]:
    if settings.socket_group and not _exists(settings.socket_group, grp.getgrnam):
        yield ("socket_group",), "no such group on this host; hybridgrey will not start"


def _exists(name: str, look_up: Callable[[str], object]) -> bool:
    try:
        look_up(name)
    except KeyError:
        return False
    return True


def _listen(settings: Settings) -> Iterator[Problem]:
    """A socket that is everybody's: a stranger on it says who has logged in, and from which address."""
    address = sockets.parse_address(settings.listen, Path("/"))
    if address.family != "unix" and address.host in _ANY:
        text = (
            "listens on all interfaces, and whoever connects is believed as the MTA is; name one address, "
            "or let nobody but the MTA reach the port"
        )
        yield ("listen",), text


def _nameservers(settings: Settings) -> Iterator[Problem]:
    for i, (host, _) in enumerate(settings.dns.nameservers):
        if host in PUBLIC_RESOLVERS:
            text = f"{host} is a public resolver, which most lists refuse to answer; use one of your own"
            yield ("dns", "nameservers", i), text


def _metrics(settings: Settings) -> Iterator[Problem]:
    metrics = settings.metrics
    open_to_others = metrics.listen is not None and not _is_loopback(metrics.listen[0])
    if open_to_others and not metrics.password.get_secret_value():
        text = "whoever reaches this address reads the counts, though not the page; set [metrics] password"
        yield ("metrics", "listen"), text


def _verdicts(settings: Settings) -> Iterator[Problem]:
    """What becomes of keep_verdicts where the file asks for it."""
    metrics, at = settings.metrics, ("metrics", "keep_verdicts")
    if "keep_verdicts" not in metrics.model_fields_set or not metrics.keep_verdicts:
        return
    if not metrics.history:
        yield at, "without [metrics] history no verdict is kept"
    elif settings.store.key_secret.get_secret_value():
        yield at, "with [store] key_secret no verdict is kept in the store"
    elif metrics.keep_verdicts > LONG_KEPT:
        bounds = "1,000,000 of each host, and an eighth of the memory of an embedded store"
        yield at, f"the bounds on number and size come first on a busy host: {bounds}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _networks(settings: Settings) -> Iterator[Problem]:
    greylist = settings.greylist
    for key, prefix, least in (
        ("ipv4_prefix", greylist.ipv4_prefix, 16),
        ("ipv6_prefix", greylist.ipv6_prefix, 32),
    ):
        if prefix < least:
            yield ("greylist", key), f"one passed client lets in all of its /{prefix}"
    if greylist.lifetime < greylist.retry_window:
        yield ("greylist", "lifetime"), "a passed triplet is forgotten sooner than one that never came back"
    if greylist.auto_allow_after and not greylist.auto_allow_interval:
        cheap = "all passes count, so one burst and one retry can allow a network"
        yield ("greylist", "auto_allow_interval"), cheap
    if not greylist.max_waiting:
        yield ("greylist", "max_waiting"), "one client can fill the store with triplets that wait"


def _zones(settings: Settings, rules: Sequence[Rule]) -> Iterator[Problem]:
    asked = {entry.zone: None for rule in rules for entry in rule.lists}
    for zone in settings.zones:
        if zone not in asked:
            yield ("zones", zone), "no rule asks this list"
    for zone in asked:
        labelled = (zone in settings.zones and settings.zones[zone].label) or public_label(zone) != zone
        if key_like(zone) and not labelled:
            yield ("zones", zone), "the name seems to hold a key; give it a label that is shown instead"


def _rules(settings: Settings, rules: Sequence[Rule]) -> Iterator[Problem]:
    allowing: Rule | None = None
    for number, rule in enumerate(rules):
        if rule.lists and rule.action is Action.ACCEPT and allowing is None:
            allowing = rule
        elif rule.lists and rule.action is Action.REJECT and allowing is not None:
            text = (
                f'a client on the lists of rule "{allowing.name}" before it is accepted even when it is on '
                "these; blocklists react faster, so they should come first"
            )
            yield ("rule", number), text
            allowing = None
    yield from _too_much(rules)
    yield from _noting(rules)
    yield from _translated(settings, rules)
    yield from _graded(rules)
    yield from _covered(rules)
    if not any(_decides_all(rule) for rule in rules):
        text = "no rule decides on everybody else at the end; a client that none matches is accepted"
        yield ("rule",), text
    if not _accepted(LOOPBACK, rules):
        text = (
            "mail of this host itself, from 127.0.0.1, is accepted by no rule: what its programs send "
            "would be held up too"
        )
        yield ("rule",), text


def _too_much(rules: Sequence[Rule]) -> Iterator[Problem]:
    """Rules that make more of a name or a record than it says."""
    for number, rule in enumerate(rules):
        bare = Rule(rule.name, rule.action, text=rule.text, learn=rule.learn)
        if rule.rdns is not None and rule.action in REFUSING and rule == replace(bare, rdns=rule.rdns):
            yield (
                ("rule", number, "rdns"),
                "some mail servers are such hosts, so this loses mail; greylist them instead",
            )
        if rule.spf is not None and rule.action is Action.ACCEPT and rule == replace(bare, spf=rule.spf):
            yield ("rule", number, "spf"), "spammers have such results too; add senders, or leave it to pools"


def _noting(rules: Sequence[Rule]) -> Iterator[Problem]:
    """Rules that take note of what nobody asks for on their account."""
    for number, rule in enumerate(rules):
        for fact in _ASKED if rule.action is Action.NONE else ():
            if getattr(rule, fact) is None:
                continue
            asked = any(one.action is not Action.NONE and getattr(one, fact) is not None for one in rules)
            seen = "it notes only mail of which another rule asks it" if asked else "it never notes any mail"
            yield ("rule", number, fact), f'is not asked for the sake of a rule with action "none": {seen}'


def _accepted(client: bytes, rules: Sequence[Rule]) -> bool:
    """Whether a client is let in, whatever else it says and lists answer."""
    policy = Policy(rules)
    outcome = judge(policy, policy.connect(client, None))
    return isinstance(outcome, Verdict) and outcome.action is Action.ACCEPT


def _translated(settings: Settings, rules: Sequence[Rule]) -> Iterator[Problem]:
    """Rules that let in all that come through a translator: the IPv4 clients of the world."""
    for number, rule in enumerate(rules):
        for key in _networks_of(rule) if rule.action is Action.ACCEPT else ():
            if not isinstance(key, IPv6Network) or not key.prefixlen:
                continue
            if any(key.supernet_of(prefix) for prefix in settings.dns.nat64):
                yield ("rule", number, "clients"), f"{key} has every IPv4 client that comes through NAT64"


def _graded(rules: Sequence[Rule]) -> Iterator[Problem]:
    """Lists that need return codes and have none."""
    for number, rule in enumerate(rules):
        for index, entry in enumerate(rule.lists):
            advice = graded(entry.zone)
            if entry.pattern is None and advice:
                yield ("rule", number, "dns", index), f"{entry.zone} has no return codes: {advice}"


def _covered(rules: Sequence[Rule]) -> Iterator[Problem]:
    """Rules that are never reached, because one before decides on each of their clients."""
    deciding: list[tuple[Rule, Sequence[Network]]] = []
    for number, rule in enumerate(rules):
        own = _networks_of(rule)
        for before, networks in deciding:
            if own and all(any(_holds(n, one) for n in networks) for one in own):
                yield ("rule", number), f'is never reached: rule "{before.name}" has all of its clients'
                break
        if own and _clients_alone(rule) and rule.action is not Action.NONE:
            deciding.append((rule, own))


def _networks_of(rule: Rule) -> Sequence[Network]:
    """The networks that a rule's clients are in; none when it has names, exclusions or too many."""
    entries = rule.clients or ()
    networks = [e.key for e in entries if not isinstance(e.key, str) and not e.excluded]
    return networks if len(networks) == len(entries) <= MOST_COMPARED else ()


def _holds(network: Network, other: Network) -> bool:
    first, last = int(network.network_address), int(network.broadcast_address)
    return (
        network.version == other.version
        and first <= int(other.network_address)
        and int(other.broadcast_address) <= last
    )


def _clients_alone(rule: Rule) -> bool:
    """Whether a rule has no other condition than on clients."""
    conditions = (rule.helo, rule.senders, rule.recipients, rule.authenticated, rule.rdns, rule.pools)
    return all(c is None for c in conditions) and not rule.lists and not rule.asks


def _decides_all(rule: Rule) -> bool:
    """Whether a rule has the last word on every recipient."""
    return _clients_alone(rule) and _everybody(rule.clients) and rule.action is not Action.NONE


def _everybody(clients: tuple[Entry, ...] | None) -> bool:
    """Whether a condition on clients holds for all of them: there is none, or it lists all addresses."""
    if clients is None:
        return True
    keys = {str(e.key) for e in clients}
    return keys >= {"0.0.0.0/0", "::/0"} and not any(e.excluded for e in clients)
