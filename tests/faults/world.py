"""A world that can be broken: lists, nameservers, a store, the daemon and a steady load, and what came of it.

`measure` runs one fault: the world is whole, then broken, then whole again, under the same load all the time.
Each session's answer is held against what a whole world answers. The terms of a `Row`:

    wrong      5xx to a client that is in no blocklist
    lost       a triplet that had passed and was greylisted again
    unserved   connections refused
    cut        sessions reset, closed or left without an answer
    p99        of the wait at RCPT, of the sessions that began while the world was broken
    recovery   from the end of the fault to the last session that was still unlike a whole world's

`FAULTS_LONG=1` makes the faults as long as an admin's bad day; without it they are cut short for CI.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from faults import load, table
from faults.relay import Relay
from hybridgrey.greylist.triplets import Greylist
from hybridgrey.store.connection import Store
from parts.base import LOOPBACK, wait_until
from parts.daemon import Daemon, Settings, merged
from parts.greyterms import GreyTerms
from parts.rbldnsd import Rbldnsd

LONG = bool(os.environ.get("FAULTS_LONG"))
RATE = float(os.environ.get("FAULTS_RATE", "100"))
BEFORE = 5.0  # s under load before the fault
QUIET = 3.0  # s without an unusual answer: recovered
PATIENCE = 20.0  # s after the fault at most
WANTED_RECOVERY = 10.0
MARGIN = 0.1  # s on top of the configured wait

Spawn = Callable[[Sequence[str]], "subprocess.Popen[bytes]"]
DNS_WAIT, STORE_WAIT = 1.0, 0.5
LISTS = {
    "bl.test": ("ip4set", ":127.0.0.2:Listed, see http://bl.test/$\n11.0.0.0/8\n"),
    "zen.test": ("ip4set", ":127.0.0.4:Listed, see http://zen.test/$\n11.0.0.0/8\n"),
    "rep.test": ("ip4set", ":127.0.0.18:\n22.0.0.0/8\n"),
    "wl.test": ("ip4set", ":127.0.5.2:\n22.0.0.0/8\n"),
}
SETTINGS: Settings = {
    "store": {"timeout": f"{STORE_WAIT * 1000:.0f}ms"},
    "dns": {"timeout": f"{DNS_WAIT * 1000:.0f}ms"},
    "greylist": {"delay": "1s", "auto_allow_after": 0},
    "log": {"level": "info", "format": "json"},
    "rule": [
        {"name": "local", "clients": ["127.0.0.0/8", "::1"], "action": "accept"},
        {"name": "blocklists", "dns": ["bl.test", "zen.test=127.0.0.[2..11]"], "action": "reject"},
        {"name": "allowlists", "dns": ["rep.test=127.0.0.[18..20]", "wl.test"], "action": "accept"},
        {"name": "the rest", "action": "greylist"},
    ],
}


@dataclass(frozen=True, slots=True)
class Session:
    """One line of the load's output."""

    begun: float
    wait: float
    kind: str
    number: int
    answer: str

    @property
    def usual(self) -> bool:
        """Whether a whole world would have answered so."""
        return self.answer in load.WANTED[self.kind]


@dataclass(frozen=True, slots=True)
class Row:
    """What came of a fault; times in s unless named otherwise."""

    fault: str
    seconds: float
    load: float
    accepted: int
    deferred: int
    refused: int
    wrong: int
    lost: int
    unserved: int
    cut: int
    p99_ms: float
    allowed_ms: float
    recovery: float
    before_p99_ms: float = 0.0
    detail: str = ""

    def check(self, *, wrong: int = 0, cut: int = 0, unserved: int = 0) -> None:
        """Fail unless this is what is wanted; the arguments: so many can be explained."""
        assert self.wrong <= wrong, self
        assert self.unserved <= unserved, self
        assert self.lost == 0, self
        assert self.cut <= cut, self
        assert self.p99_ms <= self.allowed_ms, self
        assert self.recovery <= WANTED_RECOVERY, self


class Traffic:
    """The load as a process; `spawn` starts it where the daemons are."""

    def __init__(
        self, addresses: Sequence[tuple[str, int]], directory: Path, spawn: Spawn = subprocess.Popen
    ) -> None:
        self.path = directory / "sessions"
        # New clients are new to the store of an earlier run, too.
        first = int(time.monotonic() * 1000) % 10_000_000
        ports = ",".join(str(port) for _, port in addresses)
        words = [f"{LOOPBACK}:{ports}", str(self.path), "--rate", str(RATE), "--first", str(first)]
        self._command = [sys.executable, load.__file__, *words]
        self._spawn = spawn
        self._at = 0
        self._part = ""
        self.sessions: list[Session] = []

    def __enter__(self) -> Traffic:
        self._process = self._spawn(self._command)
        wait_until(self.path.exists, "the load has begun")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(load.PATIENCE + 10)
        self.read()

    def read(self) -> list[Session]:
        """The sessions that have ended by now."""
        with self.path.open() as file:
            file.seek(self._at)
            text = self._part + file.read()
            self._at = file.tell()
        *lines, self._part = text.split("\n")
        for line in lines:
            begun, wait, kind, number, answer = line.split(" ", 4)
            self.sessions.append(Session(float(begun), float(wait), kind, int(number), answer))
        return self.sessions


def seed(url: str) -> None:
    """Let the triplets of the known clients have passed."""
    with contextlib.closing(Store.open(url, 5.0)) as store:
        greylist = Greylist(store, GreyTerms(retry_window=3600, lifetime=86400, auto_allow_after=0))
        for number in range(load.POOLS["known"] or 0):
            where, sender = load.address("known", number), load.sender("known", number)
            for _ in range(2):
                touch = greylist.touch(where, sender, load.RECIPIENT, 0)
            assert touch.accepted


@contextlib.contextmanager
def lists() -> Iterator[tuple[Relay, Relay]]:
    """Two nameservers that know the lists."""
    with (
        Rbldnsd(LISTS) as server,
        Relay((server.host, server.port)) as one,
        Relay((server.host, server.port)) as two,
    ):
        yield one, two


def daemon(
    store_url: str, nameservers: Sequence[Relay | Rbldnsd], settings: Settings | None = None
) -> Daemon:
    """A daemon of this world, not yet started."""
    here: Settings = {
        "store": {"url": store_url},
        "dns": {"nameservers": [relay.address for relay in nameservers]},
    }
    return Daemon(merged(merged(SETTINGS, here), settings or {}), crashes=True)


def measure(
    name: str,
    daemons: Sequence[Daemon],
    fault: Callable[[], object],
    mend: Callable[[], object],
    *,
    seconds: float,
    allowed: float,
    directory: Path,
    detail: str = "",
    spawn: Spawn = subprocess.Popen,
) -> Row:
    """Break the world for `seconds` under load and say what came of it; `allowed`: the configured wait, s.

    What `fault` and `mend` take themselves counts as broken; `mend` returns when the world is whole.
    """
    addresses = [one.address for one in daemons if isinstance(one.address, tuple)]
    with Traffic(addresses, directory, spawn) as traffic:
        time.sleep(BEFORE)
        broken = time.monotonic()
        fault()
        time.sleep(max(0.0, broken + seconds - time.monotonic()))
        mend()
        mended = time.monotonic()
        _settle(traffic, mended, allowed)
    row = _row(name, traffic.sessions, broken, mended, allowed, detail)
    engine = daemons[0].events("ready")[-1]["engine"]
    table.add({"engine": engine, **asdict(row)}, dict(unusual(traffic.sessions)))
    return row


def _settle(traffic: Traffic, mended: float, allowed: float) -> None:
    """Return when answers have been usual for a while."""
    while (now := time.monotonic()) < mended + PATIENCE:
        time.sleep(0.25)
        last = _last_unusual(traffic.read(), mended, allowed)
        if now - max(mended, last) > QUIET:
            return


def _last_unusual(sessions: Sequence[Session], mended: float, allowed: float) -> float:
    """When the last session after the fault had its unusual answer, or one too late; `mended` if none had."""
    late = allowed + MARGIN
    return max(
        (s.begun for s in sessions if s.begun > mended and (not s.usual or s.wait > late)), default=mended
    )


def unusual(sessions: Sequence[Session]) -> Counter[str]:
    """How often which kind got what a whole world would not have answered."""
    return Counter(f"{s.kind} {s.answer}" for s in sessions if not s.usual)


def p99(sessions: Sequence[Session]) -> float:
    """The wait that one session in a hundred exceeds, ms."""
    waits = sorted(s.wait for s in sessions if not s.answer.startswith("!")) or [0.0]
    return round(waits[min(len(waits) - 1, len(waits) * 99 // 100)] * 1000, 1)


def _row(
    name: str, sessions: Sequence[Session], broken: float, mended: float, allowed: float, detail: str
) -> Row:
    during = [s for s in sessions if broken <= s.begun <= mended]
    before = [s for s in sessions if s.begun < broken]
    passed = {s.number for s in before if s.kind == "returning" and s.answer == "c"}
    first_code = Counter(s.answer[:1] for s in during)
    lost = [
        s
        for s in sessions
        if s.answer[:1] == "4"
        and (s.kind == "known" or (s.kind == "returning" and s.begun > broken and s.number in passed))
    ]
    return Row(
        fault=name,
        seconds=round(mended - broken, 1),
        load=round(len(during) / max(0.1, mended - broken), 1),
        accepted=first_code["c"],
        deferred=first_code["4"],
        refused=first_code["5"],
        wrong=sum(s.answer[:1] == "5" and s.kind != "listed" for s in sessions),
        lost=len(lost),
        unserved=sum(s.answer == "!refused" for s in sessions),
        cut=sum(s.answer[:1] == "!" and s.answer != "!refused" for s in sessions),
        p99_ms=p99(during),
        allowed_ms=(allowed + MARGIN) * 1000,
        recovery=round(_last_unusual(sessions, mended, allowed) - mended, 1),
        before_p99_ms=p99(before),
        detail=detail,
    )
