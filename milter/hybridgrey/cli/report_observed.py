"""``hybridgrey report observed``: what was, or in observe mode would have been, done with mail."""

from __future__ import annotations

import os
import stat
import sys
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click

from hybridgrey.cli import config_option
from hybridgrey.cli.access import UNAVAILABLE, configured, store_trouble, url_of
from hybridgrey.cli.logfiles import STDIN, lines_of
from hybridgrey.cli.moments import moment
from hybridgrey.cli.output import as_json, fail, several, table, title
from hybridgrey.config.load import Config
from hybridgrey.history import past
from hybridgrey.history.reader import Reader
from hybridgrey.lists import zones
from hybridgrey.outcome import Outcome
from hybridgrey.policy.judge import Action
from hybridgrey.policy.pattern import Pattern
from hybridgrey.report import observed
from hybridgrey.report.observed import Summary
from hybridgrey.store.connection import StoreError

TOP: Final = 10
OUTCOMES: Final = (Outcome.REJECTED, Outcome.GREYLISTED, Outcome.DEFERRED, Outcome.ACCEPTED)
NO_LOG: Final = (
    "no verdict is in the store's history; name the file that the daemon's standard error goes to (with [log]"
    ' format = "json"), or pipe it in, as in: journalctl -u hybridgrey -o cat | hybridgrey report observed -'
)


@click.command("observed")
@click.argument("files", metavar="[LOGFILE]...", nargs=-1)
@click.option(
    "--since", callback=moment, metavar="TIME", help='From then on: "2d" ago, or 2026-01-31T10:00 (UTC).'
)
@click.option("--json", "json_", is_flag=True, help="Print the report as JSON.")
@config_option
def report_observed(files: tuple[str, ...], since: float | None, json_: bool, config_path: Path) -> None:
    """Say what would have been rejected, delayed and passed, by rule and list.

    In observe mode nothing of it was done; else it is what was done.  Reads the counts of all MX hosts from
    the history in the store, or JSON log lines from files, also packed; "-" and a pipe are standard input.

    From a log it names the clients and senders with the most recipients, and mail whose client is on a
    blocklist and on an allowlist of the configuration, if both had answered in time.  From the store it names
    client networks and sender domains (none with store.key_secret), and only counts such mail.

    \b
    Examples:
      hybridgrey report observed --since 2d
      hybridgrey report observed /var/log/hybridgrey.log.1.gz /var/log/hybridgrey.log
      journalctl -u hybridgrey -o cat | hybridgrey report observed --since 2d -
      hybridgrey report observed --json /var/log/hybridgrey.log | jq .outcomes
    """
    config = configured(config_path)
    summary = _logged(config, files or ((STDIN,) if _piped() else ()), since or 0.0)
    counted = not files and not summary.lines
    if counted:
        summary = _counted(config, since)
    if json_:
        as_json(_document(summary, counted=counted))
    elif summary.verdicts:
        print_text(summary, counted=counted)
    if not summary.verdicts:
        fail(NO_LOG if counted else _nothing(summary))


def _piped() -> bool:
    """Whether something may come from standard input that is not a terminal or /dev/null."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):  # it is closed
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _logged(config: Config, files: tuple[str, ...], since: float) -> Summary:
    """What logs say."""
    reader = observed.VerdictReader(_patterns(config, reject=True), _patterns(config, reject=False), since)
    for file in files:
        with lines_of(file) as lines:
            reader.read(lines)
    return reader.summary


def _counted(config: Config, since: float | None) -> Summary:
    """What the store's counters say."""
    now = time.time()
    try:
        with closing(Reader.open(url_of(config), config.store.timeout)) as reader:
            step = past.least_step(since or 0.0, now)
            counts, tops = reader.counts(since or 0.0, now, step), reader.tops(since or 0.0, now)
            return observed.summed(counts, tops, step, now)
    except StoreError as error:
        fail(store_trouble(config, error), UNAVAILABLE)


def _patterns(config: Config, *, reject: bool) -> observed.Patterns:
    """The lists that rules reject, or accept, by: their labels, and the codes that count."""
    refusing = {Action.REJECT, Action.TEMPFAIL, Action.NONE}
    wanted = [r for r in config.rules if (r.action in refusing if reject else r.action is Action.ACCEPT)]
    labels = {zone.name: zone.label for zone in zones.build(config.rules, config.zones)}
    found: dict[str, list[Pattern | None]] = {}
    for entry in (entry for rule in wanted for entry in rule.lists if entry.weight > 0):
        found.setdefault(labels[entry.zone], []).append(entry.pattern)
    return found


def _nothing(summary: Summary) -> str:
    """Why there is no report."""
    if summary.earlier:
        return f"all {summary.earlier} verdicts in it are from before --since"
    if not summary.lines:
        return "the log is empty; " + NO_LOG.partition("; ")[2]
    return (
        f'none of its {summary.lines} lines is a verdict in JSON: is [log] format = "json", level = "info"?'
    )


def _document(summary: Summary, *, counted: bool) -> dict[str, Any]:
    return {
        "source": "history" if counted else "log",
        "verdicts": summary.verdicts,
        "enforced": summary.enforced,
        "first": summary.first or None,
        "last": summary.last or None,
        "outcomes": {name: summary.outcomes[name] for name in OUTCOMES},
        "rules": {name: dict(counts) for name, counts in summary.rules.items()},
        "noted": dict(summary.noted),
        "lists": {name: _list(summary, name) for name in sorted({*summary.lists, *summary.trouble})},
        "clients": {name: dict(heaviest.top(TOP)) for name, heaviest in summary.clients.items()},
        "senders": {name: dict(heaviest.top(TOP)) for name, heaviest in summary.senders.items()},
        "claimed_by_both": {"count": summary.claims, "samples": [asdict(c) for c in summary.samples]},
        "lines": {"garbage": summary.garbage, "other": summary.other, "earlier": summary.earlier},
    }


def _list(summary: Summary, name: str) -> dict[str, int]:
    return {"listed": summary.lists[name], "errors": summary.trouble[name]}


def print_text(summary: Summary, *, counted: bool) -> None:
    """Print the report for people; `counted` when it is of the history."""
    observing = summary.verdicts - summary.enforced
    source = ", as the store's history has it" if counted else ""
    click.echo(f"{several(summary.verdicts, 'recipient')} from {summary.first} to {summary.last}{source}")
    click.echo(f"{observing:,} of them in observe mode: for those it is what would have happened")
    title("Outcome")
    rows = [(name, summary.outcomes[name], _share(summary, name)) for name in OUTCOMES]
    table(["outcome", "recipients", "share"], rows)
    title("By rule")
    table(["rule", *OUTCOMES], [(name, *(c[o] for o in OUTCOMES)) for name, c in summary.rules.items()])
    if summary.noted:
        title("Rules on trial (action none) that matched")
        table(["rule", "recipients"], summary.noted.most_common())
    names = sorted({*summary.lists, *summary.trouble}, key=lambda name: (-summary.lists[name], name))
    if names:
        title("By list (clients)" if counted else "By list")
        table(["list", "listed", "errors"], [(n, summary.lists[n], summary.trouble[n]) for n in names])
    words = ("client networks", "sender domains") if counted else ("clients", "senders")
    for word, heaviest in zip(words, (summary.clients, summary.senders), strict=True):
        _print_heaviest(word, heaviest)
    _print_claims(summary)
    if summary.garbage:
        click.echo(f"\n{several(summary.garbage, 'line')} passed over: no JSON")


def _share(summary: Summary, name: str) -> str:
    return f"{100 * summary.outcomes[name] / summary.verdicts:.1f} %"


def _print_heaviest(word: str, heaviest: dict[str, observed.Heaviest]) -> None:
    for name in (Outcome.REJECTED, Outcome.GREYLISTED):
        if name in heaviest:
            exact = "" if heaviest[name].exact else " (at least so many each)"
            title(f"Top {word}: {name}{exact}")
            # In the history bounces are of the domain "".
            table(
                [word[:-1], "recipients"], [(key or "<>", number) for key, number in heaviest[name].top(TOP)]
            )


def _print_claims(summary: Summary) -> None:
    title(f"On a blocklist and on an allowlist: {summary.claims}")
    if summary.samples:
        head = ["time", "client", "sender", "recipient", "outcome", "blocklists", "allowlists"]
        rows = [
            (
                c.time,
                c.client,
                c.sender,
                c.recipient,
                c.outcome,
                " ".join(c.blocklists),
                " ".join(c.allowlists),
            )
            for c in summary.samples[:TOP]
        ]
        table(head, rows)
