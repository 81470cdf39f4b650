"""``hybridgrey replay``: what would have become of recorded mail under these rules."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from hybridgrey.cleaning import clean
from hybridgrey.cli import DEFAULT_CONFIG, VARIABLE
from hybridgrey.cli.access import as_written
from hybridgrey.cli.logfiles import lines_of, progress
from hybridgrey.cli.output import as_json, fail, span, table, title, warn
from hybridgrey.replay import running, summary
from hybridgrey.replay.messages import Message
from hybridgrey.replay.reading import Reader
from hybridgrey.replay.running import End
from hybridgrey.replay.summary import Change, Counts, Differences, Example, Group
from hybridgrey.replay.trial import Trial

NAMES: Final = ("A", "B")


@click.command("replay")
@click.argument("files", metavar="MESSAGES|LOG...", nargs=-1, required=True)
@click.option(
    "-c",
    "--config",
    "configs",
    metavar="FILE",
    multiple=True,
    type=click.Path(readable=False, path_type=Path),
    help=f"The config file; twice, to compare two.  [default: ${VARIABLE}, or {DEFAULT_CONFIG}]",
)
@click.option("--json", "json_", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def replay(ctx: click.Context, files: tuple[str, ...], configs: tuple[Path, ...], json_: bool) -> None:
    """Say what would have become of recorded mail: accepted, delayed and for how long, rejected.

    Reads our own JSON log, or messages as JSON lines, also packed; "-" is standard input. With two
    configurations it shows both, and which messages they treat differently. No store and no DNS is asked:
    what lists said is in the record, and the greylist begins empty.

    A fact that is not in the record is unknown, and then no rule but one that greylists matches by it. A log
    has no retries of mail that was let in or rejected: where other rules put it off, it is "unknown" when it
    would have come in.

    \b
    Examples:
      hybridgrey replay /var/log/hybridgrey.log.1.gz /var/log/hybridgrey.log
      hybridgrey replay --config /etc/hybridgrey/hybridgrey.toml --config new.toml /var/log/hybridgrey.log
      journalctl -u hybridgrey -o cat | hybridgrey replay --json - | jq .configurations
    """
    if len(configs) > len(NAMES):
        raise click.UsageError("at most two configurations are compared")
    paths = configs or (ctx.find_object(Path) or Path(os.environ.get(VARIABLE) or DEFAULT_CONFIG),)
    loaded = [as_written(path) for path in paths]
    with _uncollected():
        reader = _read(files)
        messages = reader.messages()
        if not messages:
            fail("there is no message and no verdict in it: is it our log, or messages, as JSON lines?")
        trials = [Trial(config, frozenset(reader.named_lists)) for config in loaded]
        results = running.run(messages, trials)
    counts = [summary.counted(messages, one) for one in results]
    differences = summary.compared(messages, *results) if len(results) == len(NAMES) else None
    shown = [clean(os.fsdecode(path)) for path in paths]
    if json_:
        as_json(_document(reader, messages, shown, counts, differences))
    else:
        _print(reader, messages, shown, counts, differences)


@contextmanager
def _uncollected() -> Iterator[None]:
    """No collection of garbage: to look through millions of tuples for circles costs a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _read(files: tuple[str, ...]) -> Reader:
    reader = Reader()
    with progress(files) as told:
        for file in files:
            with lines_of(file, told) as lines:
                reader.read(file, lines)
    if reader.damaged:
        first = reader.damages[0]
        where = f"{first.file}:{first.line}: {first.why}"
        warn(f"{reader.damaged} damaged lines were passed over; the first is {where}")
    if reader.unknown_keys:
        warn(f"keys that mean nothing here: {', '.join(sorted(reader.unknown_keys))}")
    return reader


def _document(
    reader: Reader,
    messages: Sequence[Message],
    names: Sequence[str],
    counts: Sequence[dict[Group, Counts]],
    differences: Differences | None,
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "messages": len(messages),
        "attempts": sum(len(message.attempts) for message in messages),
        "lines": {
            "damaged": reader.damaged,
            "first_damaged": [one._asdict() for one in reader.damages],
            "verdicts": reader.verdicts,
            "other_events": reader.other_events,
        },
        "unknown_keys": sorted(reader.unknown_keys),
        "configurations": [
            {"file": name, "groups": [{**g._asdict(), **_numbers(c)} for g, c in groups.items()]}
            for name, groups in zip(names, counts, strict=True)
        ],
    }
    if differences is not None:
        document["differences"] = {
            "messages": differences.messages,
            "changes": [
                {**_change(change), "messages": number, "examples": _examples(differences, change)}
                for change, number in differences.heaviest()
            ],
        }
    return document


def _numbers(counts: Counts) -> dict[str, Any]:
    median, p95 = counts.percentiles(50, 95)
    return {
        "messages": counts.messages,
        "accepted": counts.accepted,
        "delayed": counts.put_off,
        "rejected": counts.ends[End.REJECTED],
        "never_accepted": counts.ends[End.GIVEN_UP],
        "until_unknown": counts.ends[End.UNTIL_UNKNOWN],
        "median_delay": median,
        "p95_delay": p95,
        "share_over_10_minutes": counts.long,
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        "a": {"result": change.end, "rule": change.rule},
        "b": {"result": change.other_end, "rule": change.other_rule},
    }


def _examples(differences: Differences, change: Change) -> list[dict[str, Any]]:
    return [
        {
            "at": one.message.attempts[0].at,
            "client": one.message.attempts[0].client,
            "sender": one.message.sender,
            "recipient": one.message.recipient,
            "label": one.message.label,
            "kind": one.message.kind,
            "delay_a": one.delay,
            "delay_b": one.other_delay,
        }
        for one in differences.examples[change]
    ]


def _print(
    reader: Reader,
    messages: Sequence[Message],
    names: Sequence[str],
    counts: Sequence[dict[Group, Counts]],
    differences: Differences | None,
) -> None:
    attempts = sum(len(message.attempts) for message in messages)
    of_log = f"; {reader.verdicts} verdicts of a log among them" if reader.verdicts else ""
    click.echo(f"{len(messages)} messages, {attempts} attempts{of_log}")
    if len(names) > 1:
        for letter, name in zip(NAMES, names, strict=True):
            click.echo(f"{letter}: {name}")
    title("What becomes of them (delays of accepted messages, 0s for those not delayed)")
    head = ["label", "kind", *(["config"] if len(names) > 1 else []), "messages", "accepted", "delayed"]
    head += ["rejected", "never in", "unknown", "median", "p95", "over 10 min"]
    table(head, _rows(counts))
    if differences is not None:
        _print_differences(differences)


def _rows(counts: Sequence[dict[Group, Counts]]) -> list[list[object]]:
    rows: list[list[object]] = []
    for group in counts[0]:
        names = ["(all)", "(all)"] if group == summary.ALL else [group.label or "", _kind(group)]
        for letter, groups in zip(NAMES, counts, strict=False):
            rows.append([*names, *([letter] if len(counts) > 1 else []), *_cells(groups[group])])
    return rows


def _kind(group: Group) -> str:
    return "(all)" if group.kind is None else group.kind


def _cells(counts: Counts) -> list[object]:
    median, p95 = counts.percentiles(50, 95)
    ends = counts.ends
    share = "" if counts.long is None else f"{100 * counts.long:.1f} %"
    numbers = [counts.messages, counts.accepted, counts.put_off, ends[End.REJECTED], ends[End.GIVEN_UP]]
    return [*numbers, ends[End.UNTIL_UNKNOWN], span(median), span(p95), share]


def _print_differences(differences: Differences) -> None:
    title(f"Treated differently: {differences.messages}")
    for change, number in differences.heaviest():
        mine, theirs = (
            f"{change.end} ({clean(change.rule)})",
            f"{change.other_end} ({clean(change.other_rule)})",
        )
        click.echo(f"{number}: A {mine}; B {theirs}")
        for example in differences.examples[change]:
            click.echo(f"    {_line(example)}")


def _line(example: Example) -> str:
    message = example.message
    first = message.attempts[0]
    when = datetime.fromtimestamp(int(first.at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    name = " ".join(word for word in (message.label, message.kind) if word)
    delays = f"A {span(example.delay) or '-'}, B {span(example.other_delay) or '-'}"
    line = f"{when} {first.client} from {message.sender or '<>'} to {message.recipient}: {delays}"
    return clean(f"{line} [{name}]" if name else line)
