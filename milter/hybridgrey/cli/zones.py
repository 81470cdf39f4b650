"""``hybridgrey zones``: how the lists are."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import click

from hybridgrey.address import endpoint_text
from hybridgrey.cli import config_option
from hybridgrey.cli.access import configured
from hybridgrey.cli.output import as_json, coloured, is_terminal, milliseconds, several, table, warn
from hybridgrey.config.known_lists import PUBLIC_RESOLVERS, TEST_LISTED, TEST_UNLISTED
from hybridgrey.config.load import Config
from hybridgrey.lists import zones as lists
from hybridgrey.lists.health import Condition, Health, Prober
from hybridgrey.lists.resolv import nameservers
from hybridgrey.metrics.series import NO_LIST_WORKS, none_works

THREADS = 8
_ORDER = ("healthy", "warning", "silent", "suspended", "unchecked")


@click.command()
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@config_option
def zones(config_path: Path, json_: bool) -> None:
    """Ask each list for its test points (RFC 5782) and say how well it is.

    A list that lists the world, refuses us, or answers outside 127.0.0.0/8 is "suspended": it has no vote
    until it is well again.  Exit status 1 when a list is suspended, or when no list works at all.

    \b
    States: healthy    answers as a list should
            warning    does not list its test address, or answers it with an error code
            silent     does not answer
            suspended  has no vote
            unchecked  health = "off", so not asked

    \b
    Examples:
      hybridgrey zones
      hybridgrey zones --json | jq '.lists[] | select(.state != "healthy")'
    """
    config = configured(config_path)
    built = lists.build(config.rules, config.zones)
    servers = nameservers(config.dns.nameservers)
    healths = _ask(built, servers)
    none = none_works(str(health.state) for health in healths)
    public = [host for host, _port in servers if host in PUBLIC_RESOLVERS]
    if json_:
        rows = [_fields(config, zone, health) for zone, health in zip(built, healths, strict=True)]
        shown = [endpoint_text(*server) for server in servers]
        as_json({"no_list_works": none, "nameservers": shown, "public_nameservers": public, "lists": rows})
    elif not built:
        click.echo("no rule asks a list")
    else:
        click.echo(coloured("warning") + f": {NO_LIST_WORKS}" if none else _summary(healths))
        head = ("list", "state", "time", "reason", "known")
        table(head, (_row(zone, health) for zone, health in zip(built, healths, strict=True)))
    for host in public:
        warn(f"nameserver {host} is a public resolver, which most lists refuse; use a resolver of your own")
    if none:
        through = ", ".join(endpoint_text(*server) for server in servers)
        warn(f"they were asked through {through}: check [dns] nameservers, or what stands between")
    raise SystemExit(none or any(health.state is Condition.SUSPENDED for health in healths))


def _summary(healths: Sequence[Health]) -> str:
    """How the lists are, in one line."""
    states = Counter(str(health.state) for health in healths)
    parts = [f"{states[state]} {state}" for state in _ORDER if states[state]]
    return f"{several(len(healths), 'list')}: {', '.join(parts)}"


def _ask(built: Sequence[lists.Zone], servers: Sequence[tuple[str, int]]) -> list[Health]:
    """The health of each list; asked side by side, with progress for who watches."""
    prober = Prober(built, servers)
    healths: dict[int, Health] = {}
    with ThreadPoolExecutor(THREADS) as threads, _progress(len(built)) as advance:
        asked = {threads.submit(prober.probe_once, [zone]): zone.index for zone in built}
        for answer in as_completed(asked):
            (healths[asked[answer]],) = answer.result()
            advance()
    return [healths[zone.index] for zone in built]


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr while lists are asked, if that is a terminal; yields what moves it on."""
    if not is_terminal(sys.stderr):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("asking the lists", total=total)
        yield lambda: progress.advance(task)


def _row(zone: lists.Zone, health: Health) -> tuple[str, ...]:
    time = milliseconds(health.seconds) if health.seconds else ""
    return zone.label, health.state, time, health.reason, _known(zone)


def _known(zone: lists.Zone) -> str:
    """What is known to be particular to a list."""
    words = [f"error codes {' '.join(map(str, zone.errors))}"] if zone.errors else []
    if zone.listed is None and zone.unlisted is None:
        words.append("no test points")
    else:
        own = (("listed", zone.listed, TEST_LISTED), ("unlisted", zone.unlisted, TEST_UNLISTED))
        words += [f"{kind} test point {point or 'none'}" for kind, point, usual in own if point != usual]
    return ", ".join(words)


def _fields(config: Config, zone: lists.Zone, health: Health) -> dict[str, Any]:
    rules = [rule.name for rule in config.rules if any(e.zone == zone.name for e in rule.lists)]
    return {
        "list": zone.label,
        "state": str(health.state),
        "reason": health.reason,
        "seconds": round(health.seconds, 6),
        "error_codes": [str(pattern) for pattern in zone.errors],
        "test_points": {"listed": zone.listed, "unlisted": zone.unlisted},
        "rules": rules,
    }
