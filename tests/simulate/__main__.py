"""``make simulate``: what each way of filtering does to a month of mail of a small host and of a busy one."""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Iterator, Sequence
from typing import Final

import orjson

from hybridgrey.policy.conditions import UNKNOWN
from hybridgrey.replay.messages import Attempt, Heard, Message
from simulate import measure, tables
from simulate.assumptions import Known, World, known
from simulate.measure import BUSY, SMALL, SWEPT, Host, Row
from simulate.tables import Swept, Targets
from simulate.variants import COMPARED, OURS, PLAIN, PLAIN_LISTED, RULES, SWITCHED_OFF, TERMS, Variant

ONE_MONTH: Final = Host("a small host", 2, 300)


def main() -> None:
    """Read the arguments and print the tables."""
    chosen = _arguments()
    shown = tables.markdown if chosen.markdown else tables.text
    world = _world(chosen.set)
    if chosen.messages:
        sys.stdout.buffer.writelines(lines(measure.month(world, ONE_MONTH, f"{chosen.seed} 0")))
    elif chosen.numbers:
        print(shown(tables.NUMBERS_HEAD, tables.numbers(list(known()))))
    elif chosen.sweep:
        print(shown(tables.SWEEP_HEAD, tables.swept(sweep(world, chosen.seed))))
    else:
        for host in [ONE_MONTH] if chosen.quick else [SMALL, BUSY]:
            rows = table(world, host, chosen.seed, _variants(chosen))
            for part in (_title(host, rows[0]), shown(tables.HEAD, tables.compared(rows)), verdict(rows)):
                print(part, end="\n\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="another seed is other mail of the same world")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a number of the world"
    )
    parser.add_argument("--markdown", action="store_true", help="tables in Markdown")
    parser.add_argument("--quick", action="store_true", help="one month of a small host only")
    parser.add_argument("--others", action="store_true", help="other terms of the greylist, other rules")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--sweep", action="store_true", help="each number of the world low and high")
    what.add_argument("--numbers", action="store_true", help="the numbers of the world and their sources")
    what.add_argument("--messages", action="store_true", help="a month of mail as JSON lines, for replay")
    return parser.parse_args()


def _variants(chosen: argparse.Namespace) -> list[Variant]:
    return [*COMPARED, *([] if chosen.quick else SWITCHED_OFF), *([*TERMS, *RULES] if chosen.others else [])]


def _world(changes: Sequence[str]) -> World:
    """The world with some numbers changed; ends the program for what is no number of it."""
    world, names = World(), {one.name for one in known()}
    for change in changes:
        name, _, value = change.partition("=")
        if name not in names:
            sys.exit(f"--set {change}: no such number; --numbers has their names")
        try:
            world = world.other(name, float(value))
        except ValueError:
            sys.exit(f"--set {change}: the value is no number")
    return world


def table(world: World, host: Host, seed: int, variants: Sequence[Variant]) -> list[Row]:
    """The rows of a host."""
    return measure.rows(measure.added(measure.measured(measure.months(world, host, seed, variants))))


def _title(host: Host, one: Row) -> str:
    months = f"{host.months} months" if host.months > 1 else "a month"
    begins = "each from an empty store" if host.months > 1 else "from an empty store"
    mail = f"{one.legitimate} legitimate messages, {one.codes} login codes among them, and {one.spam} of spam"
    return f"{months} of {host.name}, {begins}: {mail}"


def verdict(rows: Sequence[Row]) -> str:
    """How the defaults stand."""
    return tables.judged(_targets(rows))


def _targets(rows: Sequence[Row]) -> Targets:
    found = {row.variant: row for row in rows}
    return tables.targets(found[OURS.name], found[PLAIN.name], found[PLAIN_LISTED.name])


def sweep(world: World, seed: int) -> list[Swept]:
    """Our defaults with each number of the world at its low and at its high; what hangs on it most first."""
    numbers = list(known())
    points: list[tuple[Known, float]] = [(one, end) for one in numbers for end in (one.low, one.high)]
    variants = (PLAIN, PLAIN_LISTED, OURS)
    worlds = [world, *(world.other(one.name, value) for one, value in points)]
    tasks = [task for world in worlds for task in measure.months(world, SWEPT, seed, variants)]
    results = measure.measured(tasks)
    found = [
        _targets(measure.rows(measure.added(results[at : at + SWEPT.months])))
        for at in range(0, len(results), SWEPT.months)
    ]
    base = Swept(Known("", "(as assumed)", 1, 1, 1, ""), 1, found[0])
    swept = [Swept(one, value, targets) for (one, value), targets in zip(points, found[1:], strict=True)]
    return [base, *sorted(swept, key=lambda one: _weight(one.targets, base.targets), reverse=True)]


def _weight(some: Targets, base: Targets) -> float:
    """How far the targets are from where they were, each in units of its limit."""
    return max(abs(a - b) / limit for a, b, limit in zip(some, base, tables.LIMITS, strict=True))


def lines(messages: Sequence[Message]) -> Iterator[bytes]:
    """Messages as JSON lines, as `hybridgrey replay` reads them."""
    for one in messages:
        attempts = [_attempt(attempt) for attempt in one.attempts]
        raw = {"label": one.label, "kind": one.kind, "sender": one.sender, "recipient": one.recipient}
        yield orjson.dumps(raw | {"attempts": attempts}) + b"\n"


def _attempt(one: Attempt) -> dict[str, object]:
    facts = {name: value for name, value in one._asdict().items() if value is not UNKNOWN}
    del facts["others_none"]
    return facts | {"lists": _lists(facts.pop("heard"))}


def _lists(heard: Heard) -> dict[str, object]:
    return {
        zone: codes if isinstance(codes, str) else [socket.inet_ntoa(c) for c in codes]
        for zone, codes in heard
    }


if __name__ == "__main__":
    main()
