"""CPU, memory and descriptors of processes, and what the rest of the machine did meanwhile; from /proc.

CPU times are those of whole process trees: what each living process has used and what its ended children had
used, so that MTA processes which come and go are counted. Linux keeps them in nanoseconds and shows them in
ticks of 10 ms, so an interval of some seconds is needed, not a special kernel.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third, the state, on; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def children(pid: int) -> list[int]:
    """The children of all threads of a process."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, task.read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread has just ended, and its children with it or adopted
    return found


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    return [pid, *(one for child in children(pid) for one in tree(child))]


def name(pid: int) -> str:
    """What a process calls itself."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def workers(master: int) -> list[int]:
    """The worker processes of a daemon."""
    return [pid for pid in children(master) if name(pid).startswith("hg-worker")]


def cpu(pid: int) -> float:
    """CPU seconds of one process, its ended children included."""
    fields = stat(pid)
    return sum(map(int, fields[11:15])) * TICK if fields else 0.0


def cpu_of(pids: Iterable[int]) -> float:
    """CPU seconds of some processes together."""
    return sum(map(cpu, pids))


def machine() -> float:
    """CPU seconds that the whole machine has worked since its start."""
    times = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle, iowait = times[3], times[4]
    return (sum(times) - idle - iowait) * TICK


def datagrams() -> int:
    """UDP datagrams sent in this network namespace; questions and answers both, if all servers are in it."""
    lines = Path("/proc/net/snmp").read_text().splitlines()
    names, values = [line.split() for line in lines if line.startswith("Udp:")]
    return int(values[names.index("OutDatagrams")])


@dataclass(frozen=True, slots=True)
class Usage:
    """What happened in `seconds`: CPU seconds by part, CPUs that all `others` kept busy (mean), datagrams."""

    seconds: float
    cpu: Mapping[str, float]
    others: float
    datagrams: int


class Meter:
    """Reads the CPU of named parts; each is a function that gives its processes at that moment."""

    def __init__(self, parts: Mapping[str, Callable[[], Iterable[int]]]) -> None:
        self._parts = parts
        self._datagrams = datagrams()
        self._at, self._machine, self._cpu = self._read()

    def _read(self) -> tuple[float, float, dict[str, float]]:
        used = {part: cpu_of(pids()) for part, pids in self._parts.items()}
        return time.monotonic(), machine(), used

    def usage(self, ours: float = 0.0) -> Usage:
        """What was used since the meter was made; `ours` are CPU seconds of helpers that have ended."""
        at, busy, used = self._read()
        spent = {part: used[part] - self._cpu[part] for part in used}
        seconds = at - self._at
        rest = busy - self._machine - sum(spent.values()) - ours
        return Usage(seconds, spent, max(0.0, rest / seconds), datagrams() - self._datagrams)


def memory(pid: int) -> dict[str, int]:
    """Memory in KiB: resident `rss`, proportional `pss`, and private to this process `uss`."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    table = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return {
        "rss": table["Rss"],
        "pss": table["Pss"],
        "uss": table["Private_Clean"] + table["Private_Dirty"],
    }


def descriptors(pid: int) -> int:
    """Open files of a process."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def cores() -> list[int]:
    """The CPUs this process may use."""
    return sorted(os.sched_getaffinity(0))
