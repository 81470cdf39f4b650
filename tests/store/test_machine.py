"""How much memory the embedded store may take."""

from pathlib import Path

import pytest

from hybridgrey.store import machine
from hybridgrey.store.machine import MIB, allowance, limit, limit_files

ALLOWANCES = [
    # MiB of memory, MiB of data
    (0, 32),
    (64, 32),
    (128, 32),
    (512, 128),
    (2048, 512),
    (16 * 1024, 4096),
    (512 * 1024, 4096),
]


@pytest.mark.parametrize(("memory", "data"), ALLOWANCES)
def test_allowance(memory, data):
    """A quarter, within bounds."""
    assert allowance(memory * MIB) == data * MIB


FILES = [
    ("0::/", ["memory.max"]),
    ("0::/a/b", ["memory.max", "a/memory.max", "a/b/memory.max"]),
    ("0::/../../a", ["memory.max", "a/memory.max"]),
    ("4:memory:/a", ["memory/memory.limit_in_bytes", "memory/a/memory.limit_in_bytes"]),
    ("4:cpu,memory:/", ["memory/memory.limit_in_bytes"]),
    ("2:cpuacct:/a", []),
    ("9:name=systemd:/a", []),
    ("", ["memory.max"]),
]


@pytest.mark.parametrize(("line", "files"), FILES)
def test_where_limits_are(line, files):
    """Both versions of control groups, with their parents, never above the root."""
    assert list(limit_files([line], Path("/c"))) == [Path("/c") / file for file in files]


def test_limit():
    """A number counts, no limit does not."""
    assert limit("536870912\n") == 536870912
    with pytest.raises(ValueError, match="max"):
        limit("max\n")


def test_the_smallest_limit_counts(tmp_path, monkeypatch):
    """The machine's memory, or that of the group or a parent; what cannot be read is no limit."""
    whole = machine.memory()
    assert whole > 64 * MIB
    own = tmp_path / "cgroup"
    own.write_text("0::/a/b\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.setattr(machine, "_OWN_CGROUPS", own)
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    (tmp_path / "a" / "b" / "memory.max").write_text("max\n")
    unlimited = machine.memory()
    assert unlimited >= whole
    (tmp_path / "a" / "memory.max").write_text(f"{64 * MIB}\n")
    assert machine.memory() == 64 * MIB
    own.unlink()
    assert machine.memory() == unlimited
