"""The numbers behind the graphs: bins, sources put together, means before and after."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from hybridgrey.history import past
from hybridgrey.report import comparison
from hybridgrey.report.bins import DAY, HOUR, MINUTE, STEPS, Bins
from hybridgrey.report.comparison import ListRejects, Means, Proof
from hybridgrey.report.maillog import ACCEPTED, GREYLISTED, REJECTED, SPAM, Tally

T = 20_000 * DAY


def tally(*spans, **counts):
    """What a log said: spans, and per series the count at each moment."""
    made = Tally(spans=list(spans))
    for series, moments in counts.items():
        for moment, number in moments.items():
            made.bins.add(series, moment, number)
    return made


def test_bins_grow_wider():
    """When there are too many bins they are put together, and nothing is lost."""
    chance = random.Random(6)
    bins, wanted = Bins(most=500), Counter()
    for _ in range(20_000):
        moment, series = T + chance.randrange(30 * DAY), chance.choice("ab")
        bins.add(series, moment)
        wanted[series, moment // DAY] += 1
    assert bins.step in STEPS
    assert bins.step > MINUTE
    assert len(bins.counts("a")) + len(bins.counts("b")) <= 500
    found = Counter()
    for series in "ab":
        for start, number in bins.counts(series).items():
            assert start % bins.step == 0
            found[series, start // DAY] += number
    assert found == wanted


def test_bins_merge():
    """Counts of two widths are added in the wider one."""
    fine, coarse = Bins(), Bins(HOUR)
    fine.add("a", T + 61, 2)
    coarse.add("a", T, 3)
    fine.merge(coarse)
    assert (fine.step, fine.counts("a")) == (HOUR, {T: 5})


@pytest.mark.parametrize(
    ("seconds", "least", "step"),
    [
        (60, 60, 60),
        (400 * 60, 60, 60),
        (400 * 60 + 1, 60, 300),
        (30 * DAY, 60, 3 * HOUR),
        (365 * DAY, 60, DAY),
        (3000 * DAY, 60, DAY),
        (600, HOUR, HOUR),
    ],
)
def test_step(seconds, least, step):
    """A graph has at most 400 bins, unless these are days."""
    assert comparison.step_for(T, T + seconds, least) == step


def test_observe_mode_accepts():
    """What would have been refused was accepted, and is kept apart; what was refused is refused."""
    history = {
        "outcome:accept:observed": {T: 1},
        "outcome:reject:observed": {T: 2},
        "outcome:delay:observed": {T: 4},
        "outcome:tempfail:observed": {T: 8},
        "outcome:accept:enforced": {T: 16, T + 60: 1},
        "outcome:reject:enforced": {T: 32},
        "outcome:delay:enforced": {T: 64},
        "rule:x:reject": {T: 99},
    }
    found = comparison.outcomes(history)
    assert found[ACCEPTED] == {T: 31, T + 60: 1}
    assert (found[REJECTED], found[GREYLISTED]) == ({T: 32}, {T: 64})
    assert (found[comparison.WOULD_REJECT], found[comparison.WOULD_GREYLIST]) == ({T: 2}, {T: 4})
    assert (past.known_since(history), past.enforced_since(history)) == (T, T)
    assert past.enforced_since({"outcome:accept:observed": {T: 1}, "outcome:accept:enforced": {T: 0}}) is None


def test_log_before_history():
    """A log counts where it covers the time, the history elsewhere, and where there is neither is a gap."""
    log = tally((T, T + 2 * HOUR), accepted={T: 360, T + HOUR: 720}, rejected={T + HOUR: 36})
    history = {ACCEPTED: Counter({T + HOUR: 5, T + 4 * HOUR: 1800}), REJECTED: Counter({T + 4 * HOUR: 18})}
    bins = comparison.bins(T, T + 5 * HOUR, HOUR, log, history, (T + 4 * HOUR, T + 5 * HOUR))
    assert [one.rate(ACCEPTED) for one in bins] == [0.1, 0.2, None, None, 0.5]
    assert [one.rate(REJECTED) for one in bins] == [0, 0.01, None, None, 0.005]
    assert [one.rate(SPAM) for one in bins] == [0, 0, None, None, None], "only logs know of spam"
    assert [one.rate(comparison.WOULD_REJECT) for one in bins] == [None, None, None, None, 0]


def test_a_bin_that_is_partly_known():
    """The rate of the first and the last bin is over the time that is known of it; of a little, none."""
    log = tally((T + 1800, T + HOUR + 600), accepted={T + 1800: 180, T + HOUR: 1})
    bins = comparison.bins(T, T + 2 * HOUR, HOUR, log, {}, None)
    assert [one.rate(ACCEPTED) for one in bins] == [0.1, None]
    bins = comparison.bins(T + 1800, T + HOUR + 600, HOUR, log, {}, None)
    assert [one.rate(ACCEPTED) for one in bins] == [0.1, 1 / 600]


def test_spans():
    """Rotated logs of a quiet host are one span, logs of January and March are two."""
    spans = [(T + 3 * DAY, T + 4 * DAY), (T, T + DAY), (T + DAY + 8 * HOUR, T + 2 * DAY), (T, T + 60)]
    assert comparison.merged(spans) == [(T, T + 4 * DAY)]
    assert comparison.merged([(T, T + 1), (T + 40 * DAY, T + 41 * DAY)]) == [
        (T, T + 1),
        (T + 40 * DAY, T + 41 * DAY),
    ]


def test_means():
    """Means are over whole bins on either side of the moment, by the time that is known."""
    log = tally((T, T + 4 * HOUR), accepted={T: 3600, T + HOUR: 1, T + 2 * HOUR: 360, T + 3 * HOUR: 360})
    bins = comparison.bins(T, T + 4 * HOUR, HOUR, log, {}, None)
    made = Proof(T, T + 4 * HOUR, HOUR, T + HOUR + 600, bins, [], ["mail logs"])
    assert made.means(ACCEPTED) == Means(1.0, 0.1)
    assert made.means(ACCEPTED).change == pytest.approx(-0.9)
    assert made.means(REJECTED) == Means(0.0, 0.0)
    assert made.means(REJECTED).change is None
    assert made.shown == (ACCEPTED, REJECTED, GREYLISTED)
    assert made.total(ACCEPTED) == 4321
    before = Proof(T, T + 4 * HOUR, HOUR, T - 5, bins, [], [])
    assert before.means(ACCEPTED).before is None


def test_lists():
    """The lists come heaviest first, with their names as they are; damage is passed over."""
    history = {
        "list_reject:zen.spamhaus.org:sole": {T: 3, T + 60: 1},
        "list_reject:zen.spamhaus.org:shared": {T: 2},
        "list_reject:odd%3Aname:shared": {T: 9},
        "list_reject:none:sole": {T: 0},
        "list_reject:x": {T: 7},
        "list_reject::sole": {T: 7},
        "list_reject:x:often": {T: 7},
    }
    wanted = [ListRejects("odd:name", 0, 9), ListRejects("zen.spamhaus.org", 4, 2)]
    assert comparison.lists(history) == wanted
    assert (
        len(comparison.lists({f"list_reject:l{n}:sole": {T: 1} for n in range(50)})) == comparison.MOST_LISTS
    )
