"""The report as one HTML file that needs nothing else: the graphs as inline SVG, and their numbers as tables.

It loads nothing and runs nothing, and its Content-Security-Policy says so: only the style sheet in it, by its
digest.  What comes from a log or from the store is escaped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from hybridgrey import __version__
from hybridgrey.report.comparison import WOULD_GREYLIST, WOULD_REJECT, Proof
from hybridgrey.report.graphs import (
    BEFORE,
    COLOURS,
    INK,
    LINE,
    PAPER,
    QUIET,
    SHARED,
    TITLES,
    UNKNOWN,
    change,
    moment,
    rate,
    width_of,
)
from hybridgrey.report.maillog import ACCEPTED, DEFERRED, GREYLISTED, REJECTED, SPAM

_DAY: Final = 86400
_DARK: Final = {
    INK: "#e6eaef",
    QUIET: "#a3afbd",
    LINE: "#3b444f",
    BEFORE: "#252c35",
    PAPER: "#1a1f26",
    SHARED: "#8a4a47",
    COLOURS[ACCEPTED]: "#5aa9e6",
    COLOURS[SPAM]: "#b594ff",
    COLOURS[REJECTED]: "#f0776f",
    COLOURS[GREYLISTED]: "#e0a03a",
}

NAMES: Final = {
    ACCEPTED: "Accepted",
    SPAM: "Spam identified later",
    REJECTED: "Rejected",
    GREYLISTED: "Greylisted",
    DEFERRED: "Put off for other reasons",
    WOULD_REJECT: "Would have been rejected (observe mode)",
    WOULD_GREYLIST: "Would have been greylisted (observe mode)",
}

HEAD: Final = ("", "in all", "per second before", "after", "per day before", "after", "change")

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1f2933; --quiet: #5f6c7b; --line: #d9dee4; --paper: #ffffff; }
body { margin: 0 auto; padding: 1.5rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; max-width: 46rem; }
.quiet { color: var(--quiet); }
svg { display: block; width: 100%; min-width: 40rem; height: auto; margin: 1rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--quiet); padding-bottom: .25rem; }
th, td { padding: .3rem .9rem .3rem 0; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 8rem; }
summary { cursor: pointer; margin: 2rem 0 .5rem; font-weight: 600; }
""".strip()


def page(proof: Proof, graphs: str, notes: Sequence[str]) -> str:
    """The file: `graphs` is an SVG element, `notes` are sentences about what it shows."""
    style = _STYLE + _dark()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    body = [
        "<main>",
        "<h1>Mail before and after hybridgrey was switched on</h1>",
        f'<p class="quiet">{escape(span(proof))}</p>',
        *(f"<p>{escape(note)}</p>" for note in notes),
        *_wide("Graphs", [graphs]),
        *_summary(proof),
        *_lists(proof),
        *_numbers(proof),
        f'<p class="quiet">Made by hybridgrey {escape(__version__)}.</p>',
        "</main>",
    ]
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="referrer" content="no-referrer">',
        "<title>hybridgrey: mail before and after</title>",
        f"<style>{style}</style>",
    ]
    lines = ["<!DOCTYPE html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", *body, "</body>"]
    return "\n".join([*lines, "</html>", ""])


def span(proof: Proof) -> str:
    """The time that is covered and where the numbers come from."""
    source = f"from {' and '.join(proof.sources)}, in means of {width_of(proof.step)}"
    return f"{moment(proof.start)} to {moment(proof.end)}, {source}"


def description(proof: Proof) -> str:
    """What the graphs show, for those who do not see them."""
    sentences = [f"Graphs from {moment(proof.start)} to {moment(proof.end)}."]
    if proof.switched_on is not None:
        sentences.append(f"hybridgrey was switched on at {moment(proof.switched_on)}.")
    for series in proof.shown:
        means = proof.means(series)
        if means.before is not None and means.after is not None:
            text = f"{TITLES[series]}: {rate(means.before)} before, {rate(means.after)} after"
            sentences.append(f"{text}{', ' + change(means) if change(means) else ''}.")
        else:
            sentences.append(f"{TITLES[series]}: {proof.total(series)} in all.")
    return " ".join(sentences)


def rows(proof: Proof) -> list[list[str]]:
    """The summary: series, total, means before and after by second and by day, change."""
    made = []
    for series, name in NAMES.items():
        if series in proof.shown or proof.has(series):
            means = proof.means(series)
            row = [name, f"{proof.total(series):,}", rate(means.before), rate(means.after)]
            made.append([*row, _daily(means.before), _daily(means.after), change(means) or UNKNOWN])
    return made


def _daily(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value * _DAY:,.0f}"


def _dark() -> str:
    """The colours of page and graphs where the reader prefers a dark page."""
    words = {"--ink": INK, "--quiet": QUIET, "--line": LINE, "--paper": PAPER}
    root = " ".join(f"{word}: {_DARK[colour]};" for word, colour in words.items())
    graphs = "".join(
        f'\nsvg [{attribute}="{colour}"] {{ {attribute}: {dark}; }}'
        for colour, dark in _DARK.items()
        for attribute in ("fill", "stroke")
    )
    return f"\n@media (prefers-color-scheme: dark) {{\n:root {{ {root} }}{graphs}\n}}"


def _summary(proof: Proof) -> list[str]:
    caption = "Means over the time before and after it was switched on"
    if proof.switched_on is not None:
        caption += f", {moment(proof.switched_on)}"
    return ["<h2>Before and after</h2>", *_table(caption, HEAD, rows(proof))]


def _lists(proof: Proof) -> list[str]:
    if not proof.lists:
        return []
    made = [
        [
            row.label,
            f"{row.sole + row.shared:,}",
            f"{row.sole:,}",
            f"{row.sole / (row.sole + row.shared):.0%}",
        ]
        for row in proof.lists
    ]
    head = ["list", "rejected", "only this list had it", "share"]
    return ["<h2>Rejected by list</h2>", *_table("Recipients whose client the list had", head, made)]


def _numbers(proof: Proof) -> list[str]:
    """All that was drawn; a screen reader, too, shall find each number."""
    series = [name for name in NAMES if name in proof.shown or proof.has(name)]
    made = [
        [
            moment(bin_.start),
            *(f"{bin_.counts.get(name, 0):,}" if bin_.knows(name) else UNKNOWN for name in series),
        ]
        for bin_ in proof.bins
    ]
    head = ["from", *(NAMES[name] for name in series)]
    table = _table(f"Counts of {width_of(proof.step)} each; {UNKNOWN}: not known", head, made)
    return ["<details>", "<summary>All numbers of the graphs</summary>", *table, "</details>"]


def _table(caption: str, head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    cells = "".join(f'<th scope="col">{escape(word)}</th>' if word else "<td></td>" for word in head)
    lines = [f"<caption>{escape(caption)}</caption>", f"<thead><tr>{cells}</tr></thead>", "<tbody>"]
    for first, *rest in body:
        line = "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{line}</tr>')
    return _wide(caption, ["<table>", *lines, "</tbody>", "</table>"])


def _wide(name: str, lines: Sequence[str]) -> list[str]:
    """What may be wider than the window, by itself and not the page; the keyboard reaches it, too."""
    return [f'<div class="wide" tabindex="0" role="region" aria-label="{escape(name)}">', *lines, "</div>"]
