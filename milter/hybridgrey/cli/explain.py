"""``hybridgrey explain``: what a client would get, and why."""

from __future__ import annotations

import ipaddress
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import click

from hybridgrey import address
from hybridgrey.cleaning import clean
from hybridgrey.cli import config_option
from hybridgrey.cli.access import configured, open_store, store_trouble
from hybridgrey.cli.hand import by_hand
from hybridgrey.cli.hand_rows import HEAD, row
from hybridgrey.cli.output import as_json, coloured, milliseconds, span, table, title, warn
from hybridgrey.config.load import Config
from hybridgrey.content.scanner import Scanned
from hybridgrey.filter.explain import Explanation, ListAnswer, explain
from hybridgrey.greylist.triplets import State
from hybridgrey.hand.entries import About
from hybridgrey.hand.table import EMPTY, Table
from hybridgrey.lists import names
from hybridgrey.lists.names import HostName
from hybridgrey.lists.resolv import nameservers
from hybridgrey.metrics.series import NO_LIST_WORKS
from hybridgrey.policy.conditions import Unknown
from hybridgrey.policy.judge import REFUSING
from hybridgrey.policy.trace import Question
from hybridgrey.process import pools, stores
from hybridgrey.store.connection import StoreError

_NO_HELP = '"hybridgrey greylist pass" does not help'
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
@click.option(
    "--host", metavar="NAME", help="The client's host name, taken as verified; it is not looked up then."
)
@click.option("--authenticated", is_flag=True, help="The client has logged in.")
@click.option(
    "--message",
    type=click.File("rb"),
    metavar="FILE",
    help="The message, to be scanned where a rule wants its score; - is standard input.",
)
@click.option(
    "--exit-code",
    is_flag=True,
    help="Exit status 0 when mail is let in now, as all is in observe mode; 1 when not.",
)
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
    message: BinaryIO | None,
    exit_code: bool,
    json_: bool,
) -> None:
    """Say what a client would get, and why: rules, lists, greylist.

    This changes nothing, not even in the greylist.  Lists are asked through the configured nameservers, for
    their health first, as the daemon does it.  The cache of a running daemon is not used.  When a rule has a
    name in `clients`, the client's name is looked up, too: the one in its PTR record, if that leads back to
    the address.  Without --from or --to the verdict is for a sender or recipient that no rule names.  When
    the store, the nameservers or the content scanner are down, the rest is explained.

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
        raise click.BadParameter(f"{clean(client)!r} is no IP address", param_hint="ADDRESS") from None
    config = configured(config_path)
    # One byte more than is scanned: such a message is too large.
    text = message.read(config.content.max_size + 1) if message is not None else None
    with closing(open_store(config)) as store:
        entries = by_hand(config, store)[0] or EMPTY
        named = _host_name(config, client, host, entries)
        asked = Question(client, named.name or None, helo, sender, recipient, authenticated)
        greylist = stores.open_greylist(config, store)
        found = explain(config, greylist, store, asked, entries, pools=pools.present(config), message=text)
    (_print_json if json_ else _print)(config, asked, named, found)
    raise SystemExit(1 if exit_code and not (found.passes or config.observe) else 0)


def _host_name(config: Config, client: str, given: str | None, by_hand: Table) -> HostName:
    """The client's verified name: the one that is given, or that is found where a rule or entry wants one."""
    if given:
        return HostName(address.host(given), "as given")
    keys: list[object] = [entry.key for rule in config.rules for entry in rule.clients or ()]
    keys += [e.subject.key for e in by_hand.entries if e.subject.about is About.CLIENT]
    wanted = any(isinstance(key, str) for key in keys)
    if not wanted and all(rule.rdns is None for rule in config.rules):
        return HostName("", "not looked up: no rule wants one")
    packed = config.dns.clients.read(client.partition("%")[0]).packed
    if packed is None:
        return HostName("", "it has none")
    return names.confirmed(packed, nameservers(config.dns.nameservers))


def _print_json(config: Config, asked: Question, named: HostName, found: Explanation) -> None:
    parts: dict[str, Any] = {
        "question": asdict(asked),
        "host_name": named._asdict(),
        "passes": found.passes,
        "enforced": not config.observe,
    }
    parts |= asdict(found)
    del parts["touch"], parts["scanned"]
    parts |= {"score": None, "scan_error": "", "scan_seconds": None}
    if (scanned := found.scanned) is not None:
        score = None if isinstance(scanned.score, Unknown) else scanned.score
        parts |= {"score": score, "scan_error": scanned.error, "scan_seconds": scanned.seconds}
    parts["entries"] = [entry.fields() for entry in found.entries]
    names = ("state", "seconds_left", "age", "accepted")
    parts["greylist"] = found.touch and {name: getattr(found.touch, name) for name in names}
    as_json(parts)


def _print(config: Config, asked: Question, named: HostName, found: Explanation) -> None:
    if found.no_list_works:
        click.echo(f"{coloured('warning')}: {NO_LIST_WORKS}")
    by = f'rule "{found.rule}"' if found.rule else "no rule matches"
    click.echo(f"{clean(asked.client)}: {coloured(found.action)}, {by}")
    client = config.dns.clients.read(asked.client)
    if client.carried:
        believed = "is" if client.carried.proven else "carries"
        click.echo(f"{believed} {client.listed}: lists and greylist are asked about that")
    let_in = f'let in, for mode is "observe"; would get: {found.reply}' if config.observe else found.reply
    click.echo(f"client gets: {'let in' if found.passes else let_in}")
    click.echo(f"host name: {clean(', '.join(part for part in named if part))}")
    _print_learnt(found)
    missing = [
        f"--{name}" for name, value in (("from", asked.sender), ("to", asked.recipient)) if value is None
    ]
    if missing:
        click.echo(f"{' and '.join(missing)} not given: judged for an unknown one")
    title("Rules")
    table(("rule", "action", "outcome", "why"), ([s.rule, s.action, s.outcome, s.why] for s in found.steps))
    if found.entries:
        title("By hand")
        table(HEAD, map(row, found.entries))
    if found.lists:
        title("Lists")
        table(
            ("list", "answer", "time", "text"), ([a.label, _answer(a), _time(a), a.text] for a in found.lists)
        )
    _print_greylist(found)
    if found.action in REFUSING:
        _print_helpless(found)
    if found.nameserver_error:
        warn(found.nameserver_error)
    if found.store_error:
        warn(store_trouble(config, StoreError(found.store_error)))


def _print_learnt(found: Explanation) -> None:
    """What was asked about the sender and the message."""
    if found.spf:
        proof = f"proves {clean(found.proved)}" if found.proved else "proves nobody"
        click.echo(f"SPF: {found.spf}, {proof}")
    if found.pending:
        click.echo(f"score: {_score(found.scanned)}")


def _print_helpless(found: Explanation) -> None:
    """Say what does not help a client that is refused before the greylist is asked."""
    below = "".join(f', nor does rule "{name}", which stands below' for name in found.too_late)
    click.echo(
        f'\nnote: rule "{found.rule}" refuses it before the greylist is asked: {_NO_HELP}{below}.', nl=False
    )
    click.echo(" A rule that accepts it must stand above.")


def _print_greylist(found: Explanation) -> None:
    touch = found.touch
    if touch is not None:
        title("Greylist")
        finding = _FINDINGS[touch.state].format(
            delay=span(found.delay), age=span(touch.age), left=span(touch.seconds_left)
        )
        if found.domain and touch.state is State.NETWORK:
            finding = "the sender's domain has passed often enough, and SPF proves the client; let in"
        elif found.domain:
            finding += f", for SPF proves {clean(found.domain)}"
        click.echo(f"{coloured(touch.state)}: {finding}")
        if found.expected:
            click.echo("mail for the recipient is expected (hybridgrey expect): let in all the same")
    elif found.store_error:
        title("Greylist")
        click.echo("not known: the store is down, and store.on_failure decides")


def _score(scanned: Scanned | None) -> str:
    if scanned is None:
        return "decides at the end of the message; unknown here, for want of --message"
    if isinstance(scanned.score, Unknown):
        return f"unknown: {clean(scanned.error)}"
    return f"{scanned.score:g}, in {milliseconds(scanned.seconds)}"


def _answer(answer: ListAnswer) -> str:
    return answer.error or " ".join(answer.codes) or "not listed"


def _time(answer: ListAnswer) -> str:
    return milliseconds(answer.seconds) if answer.seconds else "-"
