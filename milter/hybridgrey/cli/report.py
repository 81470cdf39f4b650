"""``hybridgrey report``: what the log says of the mail that came."""

from __future__ import annotations

import gzip
import re
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

import click

from hybridgrey import durations, observed, zones
from hybridgrey.cli import config_option
from hybridgrey.cli.access import configured
from hybridgrey.cli.output import as_json, fail, table, title
from hybridgrey.config import Config
from hybridgrey.observed import Summary
from hybridgrey.pattern import Pattern
from hybridgrey.policy import Action

STDIN = "-"
TOP = 10
GZIP = b"\x1f\x8b"
MAX_LINE = 2**20  # bytes; a log line of ours has less than 20 KiB

OUTCOMES = ("reject", "delay", "tempfail", "pass")
NO_LOG = (
    'no log to read: name the file that the daemon\'s standard error goes to (with [log] format = "json"),'
    " or pipe it in, as in: journalctl -u hybridgrey -o cat | hybridgrey report observed -"
)


@click.group()
def report() -> None:
    """Sum up what the log says.

    \b
    Examples:
      hybridgrey report observed /var/log/hybridgrey.log
    """


def _since(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> float:
    """A duration before now (``2d``) or an ISO 8601 time, as Unix seconds."""
    if not value:
        return 0.0
    try:
        if not re.match(r"[0-9]{4}-", value):
            return max(0.0, time.time() - durations.parse(value))
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            'write a duration such as "2d", or a time such as 2026-01-31T10:00'
        ) from None


@report.command("observed")
@click.argument("files", metavar="[LOGFILE]...", nargs=-1)
@click.option(
    "--since", callback=_since, metavar="TIME", help='From then on: "2d" ago, or 2026-01-31T10:00 (UTC).'
)
@click.option("--json", "json_", is_flag=True, help="Print the report as JSON.")
@config_option
def report_observed(files: tuple[str, ...], since: float, json_: bool, config_path: Path) -> None:
    """Say what would have been rejected, delayed and passed, by rule and list.

    Reads JSON log lines from files, also gzipped ones; "-" and a pipe are standard input. In observe mode
    nothing of it was done; else it is what was done. Names the heaviest clients and senders, and mail whose
    client is on a blocklist and on an allowlist of the configuration, as far as both had answered in time.

    \b
    Examples:
      hybridgrey report observed /var/log/hybridgrey.log.1.gz /var/log/hybridgrey.log
      journalctl -u hybridgrey -o cat | hybridgrey report observed --since 2d -
      hybridgrey report observed --json /var/log/hybridgrey.log | jq .outcomes
    """
    config = configured(config_path)
    if not files:
        if sys.stdin.isatty():
            fail(NO_LOG)
        files = (STDIN,)
    reader = observed.Reader(_patterns(config, reject=True), _patterns(config, reject=False), since)
    for file in files:
        try:
            with _opened(file) as stream:
                reader.read(_lines(stream))
        except (OSError, EOFError, zlib.error) as error:
            fail(f"{file}: {getattr(error, 'strerror', None) or error}")
    summary = reader.summary
    if json_:
        as_json(_document(summary))
    elif summary.verdicts:
        _print(summary)
    if not summary.verdicts:
        fail(_nothing(summary))


def _patterns(config: Config, *, reject: bool) -> observed.Patterns:
    """The lists that rules reject, or accept, by: their labels, and the codes that count."""
    refusing = {Action.REJECT, Action.TEMPFAIL, Action.NONE}
    wanted = [r for r in config.rules if (r.action in refusing if reject else r.action is Action.ACCEPT)]
    labels = {zone.name: zone.label for zone in zones.build(config.rules, config.zones)}
    found: dict[str, list[Pattern | None]] = {}
    for entry in (entry for rule in wanted for entry in rule.lists if entry.weight > 0):
        found.setdefault(labels[entry.zone], []).append(entry.pattern)
    return found


@contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    """A log, unpacked when it is gzipped; standard input too."""
    if file == STDIN:
        yield _unpacked(sys.stdin.buffer)
        return
    with Path(file).open("rb") as stream:
        yield _unpacked(stream)


def _unpacked(stream: Any) -> IO[bytes]:  # noqa: ANN401 (a buffered reader, which typeshed has no one name for)
    packed = stream.peek(2)[:2] == GZIP
    return cast("IO[bytes]", gzip.GzipFile(fileobj=stream) if packed else stream)


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Lines of bounded length: what is longer comes in pieces, which are no JSON and so are counted."""
    while line := stream.readline(MAX_LINE):
        yield line


def _nothing(summary: Summary) -> str:
    """Why there is no report."""
    if summary.earlier:
        return f"all {summary.earlier} verdicts in it are from before --since"
    lines = summary.other + summary.garbage
    if not lines:
        return "the log is empty; " + NO_LOG.partition(": ")[2]
    return f'none of its {lines} lines is a verdict in JSON: is [log] format = "json", level = "info"?'


def _document(summary: Summary) -> dict[str, Any]:
    return {
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


def _print(summary: Summary) -> None:
    observing = summary.verdicts - summary.enforced
    click.echo(f"{summary.verdicts} recipients from {summary.first} to {summary.last}")
    click.echo(f"{observing} of them in observe mode: for those it is what would have happened")
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
        title("By list")
        table(["list", "listed", "errors"], [(n, summary.lists[n], summary.trouble[n]) for n in names])
    for word, heaviest in (("clients", summary.clients), ("senders", summary.senders)):
        _print_heaviest(word, heaviest)
    _print_claims(summary)
    if summary.garbage:
        click.echo(f"\n{summary.garbage} lines were no JSON and were passed over")


def _share(summary: Summary, name: str) -> str:
    return f"{100 * summary.outcomes[name] / summary.verdicts:.1f} %"


def _print_heaviest(word: str, heaviest: dict[str, observed.Heaviest]) -> None:
    for name in ("reject", "delay"):
        if name in heaviest:
            exact = "" if heaviest[name].exact else " (at least so many each)"
            title(f"Top {word}: {name}{exact}")
            table([word[:-1], "recipients"], heaviest[name].top(TOP))


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
