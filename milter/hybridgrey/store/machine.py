"""How much memory the embedded store may take on this machine.

`allowance` is the rule, a function of plain numbers; `memory` reads them: what is installed, and the limit of
the control group (a container, a systemd unit with MemoryMax) where that is less.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20
LEAST: Final = 32 * MIB
MOST: Final = 4096 * MIB
SHARE: Final = 4
_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_CGROUPS: Final = Path("/proc/self/cgroup")


def allowance(memory: int) -> int:
    """Bytes of data that the store may keep, of so many bytes of memory.

    A quarter, at least 32 MiB (some 100,000 triplets) and at most 4 GiB: while the server rewrites its file
    a copy of what changes meanwhile comes on top, and the MTA and its filters want memory, too.
    """
    return max(LEAST, min(MOST, memory // SHARE))


def memory() -> int:
    """Bytes that this process and those beside it may use: the machine's, or fewer by its control group.

    Where the system does not tell its size, so little that `allowance` gives the least.
    """
    try:
        installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # the name is not in POSIX
        installed = 0
    return min([max(0, installed), *_limits()])


def _limits() -> Iterator[int]:
    """The limits of our control groups that can be read; none where there are none."""
    try:
        own = _OWN_CGROUPS.read_text()
    except OSError:  # no Linux
        return
    for path in limit_files(own.splitlines(), _CGROUPS):
        try:
            yield limit(path.read_text())
        except (OSError, ValueError):  # another layout, or "max"
            continue


def limit_files(lines: Iterable[str], root: Path) -> Iterator[Path]:
    """Where the limits are, for lines of /proc/self/cgroup (cgroups(7)): each group's own and its parents'.

    In a container the path may be the host's, and what is mounted at the root is then our own group.
    """
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            folder, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            yield folder.joinpath(*parts[:depth], name)


def limit(text: str) -> int:
    """A limit as the kernel writes it, in bytes; raises ValueError for "max", which is none."""
    return int(text)
