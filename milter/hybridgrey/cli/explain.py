"""``hybridgrey explain``: what a client would get, and why."""

from __future__ import annotations

import ipaddress
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hybridgrey import address
from hybridgrey.cleaning import clean
from hybridgrey.cli import config_option
from hybridgrey.cli.access import configured, open_store, store_trouble
from hybridgrey.cli.output import as_json, coloured, milliseconds, span, table, title, warn
from hybridgrey.config.load import Config
from hybridgrey.filter.explain import Explanation, ListAnswer, explain
from hybridgrey.greylist.triplets import State
from hybridgrey.metrics.series import NO_LIST_WORKS
from hybridgrey.policy.trace import Question
from hybridgrey.process import assembly
from hybridgrey.store.connection import StoreError

_FINDINGS = {
    State.NEW: "never seen; a retry is let in after {delay}",
    State.EARLY: "waiting since {age}; a retry is let in after {left} more",
    State.PASSED: "first seen {age} ago; this retry is let in",
    State.KNOWN: "has passed, first seen {age} ago; let in",
    State.NETWORK: "its network is allowed, by hand or as it has passed often enough; let in",
    State.FULL: "too many of its address wait; not remembered until some have passed or expired",
}


@click.command("explain")
@click.argument("client", metavar="ADDRESS")
@click.option("--helo", metavar="NAME", help="What the client says in HELO or EHLO.")
@click.option("--from", "sender", metavar="ADDRESS", help='The envelope sender; "" for bounces.')
@click.option("--to", "recipient", metavar="ADDRESS", help="The envelope recipient.")
@click.option("--host", metavar="NAME", help="The client's host name, taken as verified.")
@click.option("--authenticated", is_flag=True, help="The client has logged in.")
@click.option("--exit-code", is_flag=True, help="Exit status 0 when mail is let in now, 1 when not.")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@config_option
def explain_(
    config_path: Path,
    client: str,
    helo: str | None,
    sender: str | None,
    recipient: str | None,
    host: str | None,
    authenticated: bool,
    exit_code: bool,
    json_: bool,
) -> None:
    """Say what a client would get, and why: rules, lists, greylist.

    Nothing is changed: the greylist is looked at only.  Lists are asked through the configured nameservers,
    and for their health first, as the daemon does; what a daemon has in its cache is not used.  Without
    --from or --to it is judged for a sender or recipient of whom no rule knows.  With the store or the
    nameservers down the rest is explained.

    \b
    Examples:
      hybridgrey explain 192.0.2.1
      hybridgrey explain 192.0.2.1 --from a@example.org --to b@example.net
      hybridgrey explain 2001:db8::1 --host mail.example.org --json
      hybridgrey explain --exit-code 192.0.2.1 >/dev/null && echo let in
    """
    try:
        ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        raise click.UsageError(f"{client!r} is no IP address") from None
    config = configured(config_path)
    verified = address.host(host) if host else None
    asked = Question(client, verified, helo, sender, recipient, authenticated)
    with closing(open_store(config)) as store:
        found = explain(config, assembly.open_greylist(config, store), asked)
    (_print_json if json_ else _print)(config, asked, found)
    raise SystemExit(1 if exit_code and not found.passes else 0)


def _print_json(config: Config, asked: Question, found: Explanation) -> None:
    parts: dict[str, Any] = {
        "question": asdict(asked),
        "passes": found.passes,
        "enforced": not config.observe,
    }
    parts |= asdict(found)
    del parts["touch"]
    names = ("state", "seconds_left", "age", "accepted")
    parts["greylist"] = found.touch and {name: getattr(found.touch, name) for name in names}
    as_json(parts)


def _print(config: Config, asked: Question, found: Explanation) -> None:
    if found.no_list_works:
        click.echo(f"{coloured('warning')}: {NO_LIST_WORKS}")
    by = f'rule "{found.rule}"' if found.rule else "no rule matches"
    click.echo(f"{clean(asked.client)}: {coloured(found.action)}, {by}")
    client = config.dns.clients.read(asked.client)
    if client.carried:
        believed = "is" if client.carried.proven else "carries"
        click.echo(f"{believed} {client.listed}: lists and greylist are asked about that")
    click.echo(f"client gets: {found.reply or 'let in'}")
    if config.observe and not found.passes:
        click.echo('let in all the same, for mode is "observe"')
    missing = [
        f"--{name}" for name, value in (("from", asked.sender), ("to", asked.recipient)) if value is None
    ]
    if missing:
        click.echo(f"{' and '.join(missing)} not given: judged for an unknown one")
    title("Rules")
    table(("rule", "action", "outcome", "why"), ([s.rule, s.action, s.outcome, s.why] for s in found.steps))
    if found.lists:
        title("Lists")
        table(
            ("list", "answer", "time", "text"), ([a.label, _answer(a), _time(a), a.text] for a in found.lists)
        )
    _print_greylist(found)
    if found.nameserver_error:
        warn(found.nameserver_error)
    if found.store_error:
        warn(store_trouble(config, StoreError(found.store_error)))


def _print_greylist(found: Explanation) -> None:
    touch = found.touch
    if touch is not None:
        title("Greylist")
        finding = _FINDINGS[touch.state].format(
            delay=span(found.delay), age=span(touch.age), left=span(touch.seconds_left)
        )
        click.echo(f"{coloured(touch.state)}: {finding}")
    elif found.store_error:
        title("Greylist")
        click.echo("not known: the store is down, and store.on_failure decides")


def _answer(answer: ListAnswer) -> str:
    return answer.error or " ".join(answer.codes) or "not listed"


def _time(answer: ListAnswer) -> str:
    return milliseconds(answer.seconds) if answer.seconds else "-"
