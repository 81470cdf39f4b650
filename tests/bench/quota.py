"""A fixed share of a CPU for a process, so that workers can be compared while others need the CPUs too.

Two workers on two CPUs have no CPU of their own left for lists, store and load generator. Given a small share
each (CFS bandwidth control), they leave the rest free, and what two such shares do against one is what whole
CPUs would do but for the caches that CPUs have in common.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

PERIOD_US = 100_000


def hierarchy(mounts: str) -> Path | None:
    """Where a `/proc/mounts` has a control group hierarchy that limits CPU; None when nowhere.

    Version 1 has a mount for the controller, version 2 one mount whose root names it for its children.
    """
    for line in mounts.splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup" and "cpu" in options.split(","):
            return Path(place)
        enabled = Path(place, "cgroup.subtree_control")
        if kind == "cgroup2" and enabled.exists() and "cpu" in enabled.read_text().split():
            return Path(place)
    return None


@contextlib.contextmanager
def shares(pids: Iterable[int], share: float) -> Iterator[bool]:
    """Limit each process to `share` of a CPU; False when this machine does not let us."""
    root = hierarchy(Path("/proc/mounts").read_text())
    if root is None or not os.access(root, os.W_OK):
        yield False
        return
    groups: list[Path] = []
    try:
        for pid in pids:
            group = root / f"hybridgrey-bench-{pid}"
            group.mkdir()
            groups.append(group)
            _limit(group, int(share * PERIOD_US))
            (group / "cgroup.procs").write_text(str(pid))
        yield True
    finally:
        for group in groups:
            for member in (group / "cgroup.procs").read_text().split():
                (root / "cgroup.procs").write_text(member)
            group.rmdir()


def _limit(group: Path, quota_us: int) -> None:
    if (group / "cpu.max").exists():
        (group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
    else:
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(quota_us))
