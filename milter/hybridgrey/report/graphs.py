"""The graphs of `comparison`, drawn by matplotlib: one figure, as SVG or PNG.

The first two are the proof that the filter works: mail accepted per second, and spam identified later, each
with the moment that it was switched on.  Below them rejected and greylisted, and the share of each list.

Imported late, for matplotlib is large and the daemon does not need it.  Figures are made without pyplot, so
nothing is kept between them and no display is needed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hybridgrey.report.bins import DAY, HOUR, MINUTE
from hybridgrey.report.comparison import WOULD_GREYLIST, WOULD_REJECT, ListRejects, Means, Proof
from hybridgrey.report.maillog import ACCEPTED, GREYLISTED, REJECTED, SPAM

INK: Final = "#1f2933"
QUIET: Final = "#5f6c7b"
LINE: Final = "#d9dee4"
BEFORE: Final = "#f3f5f7"
PAPER: Final = "#ffffff"
UNKNOWN: Final = "\N{EN DASH}"
MINUS: Final = "\N{MINUS SIGN}"
COLOURS: Final = {ACCEPTED: "#1f6fb2", SPAM: "#8a3ffc", REJECTED: "#c8332b", GREYLISTED: "#b26a00"}
SHARED: Final = "#eab0ab"
TITLES: Final = {
    ACCEPTED: "Mail accepted per second",
    SPAM: "Spam identified later, per second",
    REJECTED: "Rejected per second",
    GREYLISTED: "Greylisted per second",
}
_OBSERVED: Final = {REJECTED: WOULD_REJECT, GREYLISTED: WOULD_GREYLIST}

WIDTH: Final = 10.0  # inches, as the other lengths here
TOP: Final = 1.05
TITLE: Final = 0.35
PANEL: Final = 1.95
GAP: Final = 0.62
BOTTOM: Final = 0.4
ROW: Final = 0.27
_LEFT: Final = 0.085
_RIGHT: Final = 0.93
DPI: Final = 160

# By year, month, day, hour, minute, second; and for the first of each, where the larger unit is told.
_TICKS: Final = ("%Y", "%b %Y", "%b %d", "%H:%M", "%H:%M", "%H:%M:%S")
_TICKS_AT_ZERO: Final = ("%Y", "%b %Y", "%b %d", "%b %d", "%H:%M", "%H:%M")

_STYLE: Final = {
    "font.family": "DejaVu Sans",  # matplotlib brings it along: the same letters everywhere
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": QUIET,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "svg.fonttype": "path",
    "svg.hashsalt": "hybridgrey",  # the same numbers give the same file
}


def figure(proof: Proof, *, heading: bool = True) -> Figure:
    """Draw it all; without `heading` for a page that has one."""
    with mpl.rc_context(_STYLE):
        panels = len(proof.shown)
        rows = len(proof.lists)
        lists_height = ROW * rows + 0.1 if rows else 0.0
        above = TOP if heading else TITLE
        height = above + panels * (PANEL + GAP) + (lists_height + GAP if rows else 0.0) + BOTTOM - GAP
        drawn = Figure(figsize=(WIDTH, height), facecolor=PAPER)
        if heading:
            _heading(drawn, proof, height)
        top = height - above
        for series in proof.shown:
            axes = drawn.add_axes((_LEFT, (top - PANEL) / height, _RIGHT - _LEFT, PANEL / height))
            _panel(axes, proof, series)
            top -= PANEL + GAP
        if rows:
            area = (0.24, (top - lists_height) / height, _RIGHT - 0.24, lists_height / height)
            _lists(drawn.add_axes(area), proof.lists)
        return drawn


def svg(drawn: Figure) -> str:
    """The figure as a document of its own."""
    buffer = io.StringIO()
    with mpl.rc_context(_STYLE):
        drawn.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "hybridgrey"})
    return buffer.getvalue()


def png(drawn: Figure) -> bytes:
    """The figure as pixels."""
    buffer = io.BytesIO()
    with mpl.rc_context(_STYLE):
        drawn.savefig(buffer, format="png", dpi=DPI, metadata={"Software": "hybridgrey"})
    return buffer.getvalue()


def moment(seconds: float) -> str:
    """A moment as it is written everywhere in the report."""
    return f"{_time(seconds):%Y-%m-%d %H:%M} UTC"


def width_of(step: int) -> str:
    """The width of a bin in words."""
    for unit, word in ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute")):
        if step >= unit:
            return f"{step // unit} {word}{'s' if step > unit else ''}"
    return f"{step} seconds"


def rate(value: float | None) -> str:
    """Mail per second, with as many digits as say something."""
    return UNKNOWN if value is None else f"{value:.3g}" if not 0 < value < 1e-4 else f"{value:.1e}"


def change(means: Means) -> str:
    """The change from before to after in words; "" where there is none to tell."""
    share = means.change
    if share is None:
        return ""
    if share > 1:
        return f"{share + 1:.3g} times as much"
    return f"{'+' if share > 0 else MINUS}{abs(share):.0%}" if abs(share) >= 0.005 else "unchanged"


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _heading(drawn: Figure, proof: Proof, height: float) -> None:
    title = "Mail before and after hybridgrey was switched on"
    drawn.text(_LEFT, 1 - 0.38 / height, title, fontsize=15, fontweight="bold", va="baseline")
    words = [f"{moment(proof.start)} to {moment(proof.end)}", f"means of {width_of(proof.step)}"]
    text = " · ".join([*words, *proof.sources])
    drawn.text(_LEFT, 1 - 0.62 / height, text, fontsize=8.5, color=QUIET, va="baseline")


def _panel(axes: Axes, proof: Proof, series: str) -> None:
    colour = COLOURS[series]
    edges, values = _steps(proof, series)
    axes.fill_between(edges, values, step="post", color=colour, alpha=0.22, linewidth=0)
    axes.step(edges, values, where="post", color=colour, linewidth=1.1)
    observed = _would_be(axes, proof, series)
    axes.set_xlim(_days(proof.start), _days(proof.end))
    axes.set_ylim(0, _ceiling([*values, *observed]))
    _frame(axes, proof, series)
    on = proof.switched_on
    if on is not None and proof.start <= on <= proof.end:
        _switched_on(axes, proof, on, colour, proof.means(series))


def _would_be(axes: Axes, proof: Proof, series: str) -> Sequence[float]:
    """Draw what observe mode would have refused, dotted; its rates."""
    observed = _OBSERVED.get(series)
    if observed is None or not proof.has(observed):
        return ()
    edges, values = _steps(proof, observed)
    values = [value or math.nan for value in values]  # where nothing was observed there is no line
    axes.step(edges, values, where="post", color=COLOURS[series], linewidth=1.1, linestyle=":")
    axes.plot([], [], color=COLOURS[series], linestyle=":", label="would have been (observe mode)")
    axes.legend(loc="upper left", frameon=False, fontsize=8, labelcolor=QUIET, borderaxespad=0.2)
    return values


def _days(seconds: float) -> float:
    """A moment as matplotlib has it: days since 1970."""
    return seconds / DAY


def _steps(proof: Proof, series: str) -> tuple[list[float], list[float]]:
    """The edges of the bins, and the rate from each to the next; NaN where it is not known."""
    rates = [one.rate(series) for one in proof.bins]
    values = [math.nan if value is None else value for value in rates]
    edges = [_days(max(one.start, proof.start)) for one in proof.bins]
    return [*edges, _days(proof.end)], [*values, values[-1] if values else 0.0]


def _ceiling(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return max(known, default=0.0) * 1.18 or 1.0


def _frame(axes: Axes, proof: Proof, series: str) -> None:
    axes.set_title(TITLES[series], loc="left", fontsize=11, fontweight="bold", pad=7)
    means = proof.means(series)
    if means.before is not None and means.after is not None:
        text = f"{rate(means.before)} → {rate(means.after)} per second"
        text += f"   {change(means)}" if change(means) else ""
        axes.set_title(text, loc="right", fontsize=10, color=COLOURS[series], fontweight="bold", pad=7)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color=LINE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8)
    axes.tick_params(axis="x", length=3, color=LINE)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, min_n_ticks=3, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:.4g}"))
    locator = AutoDateLocator(tz=UTC, minticks=4, maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(
        ConciseDateFormatter(locator, UTC, _TICKS, zero_formats=_TICKS_AT_ZERO, show_offset=False)
    )


def _switched_on(axes: Axes, proof: Proof, on: float, colour: str, means: Means) -> None:
    """The line at the moment it was switched on, and the means before and after it."""
    start, at, end = _days(proof.start), _days(on), _days(proof.end)
    axes.axvspan(start, at, facecolor=BEFORE, edgecolor="none", zorder=0)
    axes.axvline(at, color=INK, linewidth=1.4)
    for value, begin, stop in ((means.before, start, at), (means.after, at, end)):
        if value is not None:
            axes.hlines(value, begin, stop, color=colour, linewidth=1.4, linestyle=(0, (5, 3)))
    late = on - proof.start > 0.75 * (proof.end - proof.start)
    axes.annotate(
        f"switched on {_time(on):%Y-%m-%d %H:%M}",
        xy=(at, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(-5 if late else 5, -3),
        textcoords="offset points",
        ha="right" if late else "left",
        va="top",
        fontsize=8.5,
        color=INK,
        bbox={"boxstyle": "square,pad=0.2", "facecolor": PAPER, "edgecolor": "none", "alpha": 0.8},
    )


def _lists(axes: Axes, rows: Sequence[ListRejects]) -> None:
    """Bars: what only this list has rejected, and what another one would have too."""
    places = range(len(rows))
    sole, shared = [row.sole for row in rows], [row.shared for row in rows]
    most = max(row.sole + row.shared for row in rows)
    axes.barh(places, sole, height=0.62, color=COLOURS[REJECTED], label="only this list had it")
    axes.barh(places, shared, left=sole, height=0.62, color=SHARED, label="another list had it too")
    for place, row in zip(places, rows, strict=True):
        both = row.sole + row.shared
        text = f" {both:,} ({row.sole / both:.0%} only here)"
        axes.text(both, place, text, va="center", fontsize=8, color=QUIET)
    axes.set_yticks(list(places), [_short(row.label) for row in rows])
    for named in axes.get_yticklabels():
        named.set_parse_math(False)  # a "$" is no formula
    axes.invert_yaxis()
    axes.set_xlim(0, most * 1.28)
    axes.set_title("Rejected by list", loc="left", fontsize=11, fontweight="bold", pad=7, x=-0.2246)
    axes.legend(loc="lower right", frameon=False, fontsize=8, ncols=2, bbox_to_anchor=(1.0, 1.0))
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=INK)
    axes.set_xticks([])


def _short(label: str, limit: int = 30) -> str:
    return label if len(label) <= limit else label[: limit - 1] + "…"
