"""``hybridgrey pools``: what the pools of senders are."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import click

from hybridgrey import address
from hybridgrey.address import endpoint_text
from hybridgrey.cleaning import clean
from hybridgrey.cli import config_option
from hybridgrey.cli.access import configured
from hybridgrey.cli.output import as_json, coloured, several, span, table, warn
from hybridgrey.lists.resolv import nameservers
from hybridgrey.process import pools
from hybridgrey.process.pooltrouble import none_resolves
from hybridgrey.spf.pools import Pool
from hybridgrey.spf.poolstate import States


@click.command("pools")
@click.argument("domains", metavar="[DOMAIN]...", nargs=-1)
@click.option("--networks", is_flag=True, help="Print the networks, one a line, and nothing else.")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@config_option
def pools_(config_path: Path, domains: tuple[str, ...], networks: bool, json_: bool) -> None:
    """Resolve the pools of senders now: the networks that SPF records authorise.

    Without DOMAIN those that rules name, and when a daemon has resolved each.  The daemon does it by itself,
    again when an answer's time is over; this changes nothing.  Networks that are too wide, and records that
    authorise too much, are left out (see "[spf]" in hybridgrey.toml(5)).  Exit status 1 when a record is
    missing or bad, or a nameserver does not answer.

    \b
    Examples:
      hybridgrey pools
      hybridgrey pools _spf.example.com
      hybridgrey pools --networks _spf.example.com
    """
    config = configured(config_path)
    wanted = tuple(dict.fromkeys(map(address.host, domains))) or pools.domains(config)
    found = list(pools.resolved(pools.carrier(config), wanted))
    last = pools.last(config)
    servers = nameservers(config.dns.nameservers)
    none = none_resolves(sum(bool(pool.problem) for _, pool in found), len(found))
    if json_:
        rows = [_fields(domain, pool, last) for domain, pool in found]
        shown = [endpoint_text(*server) for server in servers]
        as_json({"none_resolves": none, "nameservers": shown, "pools": rows})
    elif networks:
        for network in dict.fromkeys(network for _, pool in found for network in pool.networks):
            click.echo(network)
    elif not found:
        click.echo("no rule names a pool")
    else:
        _print(found, last, none=none)
    if none:
        through = ", ".join(endpoint_text(*server) for server in servers)
        warn(f"they were asked through {through}: check [dns] nameservers, or what stands between")
    raise SystemExit(any(pool.problem for _, pool in found))


def _print(found: Sequence[tuple[str, Pool]], last: States, *, none: bool) -> None:
    count = several(len(found), "pool")
    networks = several(sum(len(pool.networks) for _, pool in found), "network")
    click.echo(f"{coloured('warning')}: none of {count} can be resolved" if none else f"{count}, {networks}")
    table(("domain", "IPv4", "IPv6", "resolved", "problem"), _rows(found, last))


def _rows(found: Sequence[tuple[str, Pool]], last: States) -> Iterator[tuple[str, ...]]:
    for domain, pool in found:
        four = sum(isinstance(network, IPv4Network) for network in pool.networks)
        state = last.get(domain)
        # A bad answer to the first question is a state, too, but of nothing that was resolved.
        known = state if state and (state.networks or not pool.problem) else None
        since = f"{span(max(0.0, time.time() - known.at))} ago" if known else ""
        yield clean(domain), str(four), str(len(pool.networks) - four), since, clean(pool.problem)


def _fields(domain: str, pool: Pool, last: States) -> dict[str, Any]:
    state = last.get(domain)
    return {
        "domain": domain,
        "networks": [str(network) for network in pool.networks],
        "ttl": pool.ttl,
        "problem": pool.problem,
        "partial": pool.partial,
        "resolved": state.at if state else None,
    }
