"""Worlds through variants: what becomes of the mail of a host, added up over some months of the same kind."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from hybridgrey.replay import running, summary
from hybridgrey.replay.messages import Message
from hybridgrey.replay.running import End
from hybridgrey.replay.summary import Counts, Group
from hybridgrey.replay.trial import Trial
from simulate import ham, spam
from simulate.assumptions import World
from simulate.catalogue import Catalogue
from simulate.variants import Variant, written

BEGIN: Final = 1_767_225_600
"""The first of January 2026; nothing depends on it."""
SIDE_BY_SIDE: Final = 5
"""Variants of one task: fewer would give more cores work, and make the same mail more often."""


class Host(NamedTuple):
    """A host: its size, and how many months of it are added up; each begins with an empty store."""

    name: str
    mailboxes: int
    spam_daily: int
    months: int = 1
    days: int = 30


SMALL: Final = Host("a small host", 2, 300, months=6)
BUSY: Final = Host("a busy host", 50, 2000)
SWEPT: Final = Host("a small host", 2, 60, months=3)


class Row(NamedTuple):
    """What a variant does to the mail of a host. Shares are of all mail of that kind; delays in seconds.

    `median`, `p95` and `long` (over ten minutes) are of the accepted mail, that which was not delayed as 0.
    """

    variant: str
    legitimate: int
    delayed: float
    median: float
    p95: float
    long: float
    lost: float
    codes: int
    codes_long: float
    spam: int
    let_in: int


class Task(NamedTuple):
    """A month of a host in a world, to be put through variants."""

    world: World
    host: Host
    seed: str
    variants: tuple[Variant, ...]


Result = dict[str, dict[Group, Counts]]


def month(world: World, host: Host, seed: str) -> list[Message]:
    """The mail of a month; the same for the same seed."""
    # Each part has a stream of its own: a number that concerns spam changes no legitimate message.
    catalogue = Catalogue(world, Random(f"{seed} catalogue"))
    legitimate = ham.Ham(world, catalogue, Random(f"{seed} ham"), host.mailboxes)
    recipients = [box.address for box in legitimate.mailboxes]
    unwanted = spam.Spam(world, catalogue, Random(f"{seed} spam"), recipients)
    return [
        *legitimate.messages(BEGIN, host.days),
        *unwanted.messages(BEGIN, host.days, host.spam_daily),
    ]


def done(task: Task) -> Result:
    """What becomes of a month's mail."""
    messages = month(task.world, task.host, task.seed)
    with tempfile.TemporaryDirectory() as folder:
        configs = written(task.variants, Path(folder))
    results = running.run(messages, [Trial(config) for config in configs.values()])
    return {name: summary.counted(messages, one) for name, one in zip(configs, results, strict=True)}


def measured(tasks: Sequence[Task]) -> list[Result]:
    """The results of tasks, in their order, worked out side by side."""
    with ProcessPoolExecutor(min(len(tasks), os.cpu_count() or 1)) as pool:
        return list(pool.map(done, tasks))


def months(world: World, host: Host, seed: int, variants: Sequence[Variant]) -> list[Task]:
    """The tasks for a host."""
    some = [tuple(variants[at : at + SIDE_BY_SIDE]) for at in range(0, len(variants), SIDE_BY_SIDE)]
    return [Task(world, host, f"{seed} {number}", part) for number in range(host.months) for part in some]


def added(results: Sequence[Result]) -> Result:
    """Months together."""
    total: Result = {}
    for result in results:
        for name, groups in result.items():
            for group, counts in groups.items():
                total.setdefault(name, {}).setdefault(group, Counts()).include(counts)
    return total


def row(variant: str, groups: dict[Group, Counts]) -> Row:
    """The row of a variant."""
    legitimate, codes = groups[Group(ham.LABEL)], groups.get(Group(ham.LABEL, ham.CODE), Counts())
    unwanted = groups[Group(spam.LABEL)]
    median, p95 = legitimate.percentiles(50, 95)
    lost = legitimate.ends[End.REJECTED] + legitimate.ends[End.GIVEN_UP]
    return Row(
        variant,
        legitimate.messages,
        legitimate.put_off / legitimate.messages,
        median or 0.0,
        p95 or 0.0,
        legitimate.long or 0.0,
        lost / legitimate.messages,
        codes.messages,
        codes.long or 0.0,
        unwanted.messages,
        unwanted.accepted,
    )


def rows(result: Result) -> list[Row]:
    """The rows of all variants, in order."""
    return [row(name, groups) for name, groups in result.items()]
