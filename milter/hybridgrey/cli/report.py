"""``hybridgrey report``: graphs of the mail before and after, and what was or would have been done."""

from __future__ import annotations

import logging
import math
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from os import fchmod, umask
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import click

from hybridgrey.cli import Group, config_option
from hybridgrey.cli.access import UNAVAILABLE, configured
from hybridgrey.cli.moments import moment
from hybridgrey.cli.output import as_json, fail, table
from hybridgrey.cli.report_observed import report_observed
from hybridgrey.cli.report_sources import History, Span, opened, read_history, read_logs, why_nothing
from hybridgrey.history import past
from hybridgrey.report import comparison, maillog
from hybridgrey.report.bins import HOUR
from hybridgrey.report.comparison import Proof

KINDS: Final = (".html", ".svg", ".png")
TITLE: Final = "Mail before and after hybridgrey was switched on"
NO_LIBRARY: Final = "graphs need matplotlib: install it, or hybridgrey with its extra, hybridgrey[report]"
NOTHING: Final = (
    "nothing to draw: the store has no history of this time ([metrics] history writes it), and {}"
)
NO_LOGS: Final = "no mail log was given; --mail-log FILE reads one"


def _expressions(
    _ctx: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]
) -> list[re.Pattern[bytes]]:
    """Regular expressions as typed."""
    try:
        return [re.compile(text.encode(), re.IGNORECASE) for text in texts]
    except re.error as error:
        raise click.BadParameter(f"is no regular expression: {error}") from None


@click.group(cls=Group, invoke_without_command=True)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="An .html, .svg or .png file."
)
@click.option(
    "--mail-log",
    "logs",
    multiple=True,
    metavar="FILE",
    help='A mail log of Postfix or Sendmail, also .gz, .bz2, .xz; "-" is standard input. Several add up.',
)
@click.option(
    "--greylist-text",
    "greylist_texts",
    multiple=True,
    callback=_expressions,
    metavar="RE",
    help="A regular expression for replies in the logs that are greylisting too. Several add up.",
)
@click.option(
    "--since", callback=moment, metavar="TIME", help='From then on: "90d" ago, or 2026-01-31T10:00 (UTC).'
)
@click.option("--until", callback=moment, metavar="TIME", help="Until then.")
@click.option(
    "--switched-on",
    callback=moment,
    metavar="TIME",
    help="When the filter was switched on, if that is not found.",
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Only the history of this MX host. May be given several times.",
)
@click.option("--json", "json_", is_flag=True, help="Print the summary as JSON.")
@config_option
@click.pass_context
def report(
    ctx: click.Context,
    output: Path | None,
    logs: tuple[str, ...],
    greylist_texts: list[re.Pattern[bytes]],
    since: float | None,
    until: float | None,
    switched_on: float | None,
    hosts: tuple[str, ...],
    json_: bool,
    config_path: Path,
) -> None:
    """Draw the mail before and after the filter was switched on.

    Accepted, rejected and greylisted mail per second comes from the history in the store.  Where mail logs
    cover the time, it comes from these; so logs of the time before show what there was before.  Spam that
    SpamAssassin or amavis identified later comes from mail logs.  The filter was switched on with the first
    verdict that was carried out, or with our first greylisting in a log.  Times are UTC; times in a log
    without a zone are in this machine's zone.

    The HTML file needs no other file; it has the numbers as tables too.

    \b
    Examples:
      hybridgrey report -o report.html
      hybridgrey report --since 90d --mail-log /var/log/mail.log.1 --mail-log /var/log/mail.log -o report.png
      hybridgrey report observed --since 2d
    """
    if ctx.invoked_subcommand is not None:
        return
    if output is None or output.suffix.lower() not in KINDS:
        raise click.UsageError("name the file to write, as in: -o report.html (or .svg, .png)", ctx)
    span = Span(since, until)
    if (since or 0.0) >= (until or math.inf):
        raise click.UsageError("--since must be before --until", ctx)
    drawing = _library()
    config = configured(config_path)
    log = read_logs(logs, config, span, greylist_texts)
    why = why_nothing(log, span) if logs else NO_LOGS
    with closing(opened(config)) as reader:
        history = read_history(config, reader, hosts, forgiving=bool(logs))
        made = _made(history, log, span, switched_on)
    if made is None:
        fail(NOTHING.format(why or "the mail logs have too little"))
    notes = _notes(made, log, logs)
    if logs and why:
        notes.append(f"{why[0].upper()}{why[1:]}.")
    _write(output, _drawn(drawing, made, output.suffix.lower(), notes))
    _tell(made, output, notes, json_=json_)


report.add_command(report_observed)


def _library() -> ModuleType:
    """Our graphs, and with them matplotlib, which is large and only needed here."""
    # That it has nowhere to keep its list of fonts is no news for an admin.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        from hybridgrey.report import graphs
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("matplotlib", "numpy"):
            raise
        fail(NO_LIBRARY, UNAVAILABLE)
    return graphs


def _made(history: History | None, log: maillog.Tally, span: Span, switched_on: float | None) -> Proof | None:
    """Both sources put together; None when there is nothing."""
    logged = comparison.merged(log.spans)
    known = (history.past.first, history.now) if history else None
    begins = [start for start, _end in [*logged, *([known] if known else [])]]
    ends = [end for _start, end in [*logged, *([known] if known else [])]]
    start = max(span.since or 0.0, min(begins, default=math.inf))
    end = min(span.until or math.inf, max(ends, default=0.0))
    if not end - start >= 1:
        return None
    least = log.bins.step
    if history:
        least = max(least, past.least_step(max(start, history.past.first), history.now))
    step = comparison.step_for(start, end, least)
    counts: past.Counts = history.counts(start, end, step) if history else {}
    if switched_on is None:
        switched_on = _switched_on(history, log)
    sources = [*(["the store's history"] if counts else []), *(["mail logs"] if logged else [])]
    bins = comparison.bins(start, end, step, log, comparison.outcomes(counts), known)
    made = Proof(start, end, step, switched_on, bins, comparison.lists(counts), sources)
    return made if any(one.counts for one in bins) else None


def _switched_on(history: History | None, log: maillog.Tally) -> float | None:
    """The moment as history and logs have it; None if it was on before any of them."""
    enforced = history.past.switched_on if history else None
    if enforced is not None and not (log.own and log.own[0] < enforced - HOUR):
        return enforced
    return log.began  # the history was begun later than the filter


def _notes(made: Proof, log: maillog.Tally, logs: tuple[str, ...]) -> list[str]:
    """What a reader of the graphs should know about them."""
    notes = []
    if made.switched_on is None:
        notes.append("It is not known when it was switched on. Give the moment with --switched-on.")
    elif made.switched_on <= made.start:
        notes.append("It was on in all of this time; an earlier --since or mail logs (--mail-log) show more.")
    elif made.switched_on >= made.end:
        notes.append("The moment it was switched on lies after this time.")
    if not made.has(maillog.SPAM):
        what = "the mail logs have none" if logs else "that takes mail logs, given with --mail-log"
        notes.append(f"Spam identified later is not shown: {what}.")
    if len(made.sources) > 1:
        notes.append("Accepted mail is counted by message in mail logs, and by recipient in the history.")
    if made.has(comparison.WOULD_REJECT) or made.has(comparison.WOULD_GREYLIST):
        notes.append("In observe mode all mail was accepted; dotted is what would have been refused.")
    if log.undated:
        notes.append(f"{log.undated} lines of the mail logs have no time that can be, and were passed over.")
    return notes


def _drawn(graphs: Any, made: Proof, kind: str, notes: Sequence[str]) -> bytes:  # noqa: ANN401 (a module)
    """The content of the file."""
    from hybridgrey.report import document, svg

    figure = graphs.figure(made, heading=kind != ".html")
    if kind == ".png":
        return bytes(graphs.png(figure))
    element = svg.accessible(graphs.svg(figure), TITLE, document.description(made))
    text = document.page(made, element, notes) if kind == ".html" else svg.document(element)
    return text.encode()


def _write(path: Path, content: bytes) -> None:
    """Write all of the file or nothing: a web server may be reading the one before."""
    mask = umask(0)
    umask(mask)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            # Not by its name: in a folder of somebody else's that may be another file by now
            fchmod(file.fileno(), 0o666 & ~mask)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        fail(f"{path}: {error.strerror or error}")


def _tell(made: Proof, output: Path, notes: Sequence[str], *, json_: bool) -> None:
    from hybridgrey.report import document

    if json_:
        as_json(_document(made, output, notes))
        return
    click.echo(f"{output}: {document.span(made)}")
    table(["", *document.HEAD[1:]], document.rows(made))
    for note in notes:
        click.echo(note)


def _document(made: Proof, output: Path, notes: Sequence[str]) -> dict[str, Any]:
    totals: Counter[str] = Counter()
    for one in made.bins:
        totals.update(one.counts)
    series = {}
    for name in (*comparison.SHOWN, maillog.DEFERRED, comparison.WOULD_REJECT, comparison.WOULD_GREYLIST):
        means = made.means(name)
        series[name.replace(" ", "_")] = {"total": totals[name], "before": means.before, "after": means.after}
    return {
        "output": str(output),
        "start": made.start,
        "end": made.end,
        "step": made.step,
        "switched_on": made.switched_on,
        "sources": list(made.sources),
        "per_second": series,
        "lists": {row.label: {"sole": row.sole, "shared": row.shared} for row in made.lists},
        "notes": list(notes),
    }
