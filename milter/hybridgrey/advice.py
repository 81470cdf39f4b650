"""Warnings: what a valid configuration may still get wrong.

Each warning is one line that names the key and what follows from it.  None of them stops the daemon.

Used by `config`.
"""

from __future__ import annotations

import grp
import ipaddress
from collections.abc import Callable, Iterator, Sequence

from hybridgrey.match import Entry, Network
from hybridgrey.policy import Action, Rule
from hybridgrey.problems import key_like
from hybridgrey.settings import Settings

# Lists refuse queries that come through these, for some with an answer that looks like a listing.
PUBLIC_RESOLVERS = frozenset(
    str(ipaddress.ip_address(a))
    for a in (
        *("8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"),
        *("1.1.1.1", "1.0.0.1", "2606:4700:4700::1111", "2606:4700:4700::1001"),
        *("9.9.9.9", "9.9.9.10", "149.112.112.112", "2620:fe::fe", "2620:fe::9"),
        *("208.67.222.222", "208.67.220.220", "2620:119:35::35", "2620:119:53::53"),
        *("4.2.2.1", "4.2.2.2", "94.140.14.14", "94.140.15.15"),
    )
)

# Files of clients may be long, and each pair is compared.
MOST_COMPARED = 100

# Lists whose codes say how good or how bad a client is, by the end of the name: without codes both count.
GRADED = {
    "dnswl.org": "it lists clients without a reputation too; name codes, as =127.0.[0..255].[2..3]",
    "rep.mailspike.net": "it lists clients of bad reputation too; name codes, as =127.0.0.[18..20]",
    "hostkarma.junkemailfilter.com": "it lists good and bad clients; name codes, as =127.0.0.2",
}


def warnings(settings: Settings, rules: Sequence[Rule]) -> Iterator[str]:
    """All warnings, those of the rules last."""
    yield from _accounts(settings)
    yield from _nameservers(settings)
    yield from _networks(settings)
    yield from _zones(settings, rules)
    yield from _rules(rules)


def _accounts(settings: Settings) -> Iterator[str]:
    if settings.socket_group and not _exists(settings.socket_group, grp.getgrnam):
        yield "socket_group: no such group on this host; hybridgrey will not start"


def _exists(name: str, look_up: Callable[[str], object]) -> bool:
    try:
        look_up(name)
    except KeyError:
        return False
    return True


def _nameservers(settings: Settings) -> Iterator[str]:
    for i, (host, _) in enumerate(settings.dns.nameservers, 1):
        if host in PUBLIC_RESOLVERS:
            yield (
                f"dns.nameservers[{i}]: {host} is a public resolver, which most lists refuse to answer; "
                "use a resolver of your own"
            )


def _networks(settings: Settings) -> Iterator[str]:
    greylist = settings.greylist
    for key, prefix, least in (
        ("ipv4_prefix", greylist.ipv4_prefix, 16),
        ("ipv6_prefix", greylist.ipv6_prefix, 32),
    ):
        if prefix < least:
            yield f"greylist.{key}: one passed client lets in all of its /{prefix}"
    if greylist.lifetime < greylist.retry_window:
        yield "greylist.lifetime: a passed triplet is forgotten sooner than one that never came back"
    if greylist.auto_allow_after and not greylist.auto_allow_interval:
        yield "greylist.auto_allow_interval: all passes count, so one burst and one retry can allow a network"
    if not greylist.max_waiting:
        yield "greylist.max_waiting: one client can fill the store with triplets that wait"


def _zones(settings: Settings, rules: Sequence[Rule]) -> Iterator[str]:
    asked = {entry.zone: None for rule in rules for entry in rule.lists}
    for zone in settings.zones:
        if zone not in asked:
            yield f'zones."{zone}": no rule asks this list'
    for zone in asked:
        if key_like(zone) and not (zone in settings.zones and settings.zones[zone].label):
            yield f'zones."{zone}": the name seems to hold a key; give it a label that is shown instead'


def _rules(rules: Sequence[Rule]) -> Iterator[str]:
    allowing: Rule | None = None
    for rule in rules:
        if rule.lists and rule.action is Action.ACCEPT and allowing is None:
            allowing = rule
        elif rule.lists and rule.action is Action.REJECT and allowing is not None:
            yield (
                f'rule "{rule.name}": a client on the lists of rule "{allowing.name}" before it is accepted '
                "even when it is on these; blocklists react faster, so they should come first"
            )
            allowing = None
    yield from _graded(rules)
    yield from _covered(rules)
    if not any(_decides_all(rule) for rule in rules):
        yield "rule: no rule decides on everybody else at the end; a client that none matches is accepted"


def _graded(rules: Sequence[Rule]) -> Iterator[str]:
    """Lists that need return codes and have none."""
    for rule in rules:
        for entry in rule.lists:
            advice = next((a for name, a in GRADED.items() if f".{entry.zone}".endswith(f".{name}")), "")
            if entry.pattern is None and advice:
                yield f'rule "{rule.name}": dns: {entry.zone} has no return codes: {advice}'


def _covered(rules: Sequence[Rule]) -> Iterator[str]:
    """Rules that are never reached, because one before decides on each of their clients."""
    deciding: list[tuple[Rule, Sequence[Network]]] = []
    for rule in rules:
        own = _networks_of(rule)
        for before, networks in deciding:
            if own and all(any(_holds(n, one) for n in networks) for one in own):
                yield f'rule "{rule.name}": is never reached: rule "{before.name}" has all of its clients'
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
    conditions = (rule.helo, rule.senders, rule.recipients, rule.authenticated)
    return all(c is None for c in conditions) and not rule.lists


def _decides_all(rule: Rule) -> bool:
    """Whether a rule has the last word on every recipient."""
    return _clients_alone(rule) and _everybody(rule.clients) and rule.action is not Action.NONE


def _everybody(clients: tuple[Entry, ...] | None) -> bool:
    """Whether a condition on clients holds for all of them: there is none, or it lists all addresses."""
    if clients is None:
        return True
    keys = {str(e.key) for e in clients}
    return keys >= {"0.0.0.0/0", "::/0"} and not any(e.excluded for e in clients)
